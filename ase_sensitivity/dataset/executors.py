"""The number of workers of an executor, and whether they still work."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

SOME_WORKERS = 16
"""Number of workers that is assumed if an executor does not give it."""

PATIENCE = 30.0
"""Time in s that a Dask cluster may be without workers or not answer."""

INTERVAL = 5.0
"""Time in s between two looks at the workers, and the longest time for an answer of a cluster."""

T = TypeVar("T")


class LostCluster(RuntimeError):  # noqa: N818 (a state, not a mistake)
    """A Dask scheduler or all of its workers are gone."""


class WatchedExecutor:
    """An executor that is watched: it is an error if no workers are left.

    Parameters
    ----------
    executor
        Any executor. For one of Dask, the scheduler is asked for its workers; processes of this
        machine are looked at.

    Attributes
    ----------
    n_workers
        Number of tasks that are computed at the same time.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._client: Any = getattr(executor, "_client", None)  # of Dask
        self._scheduler: str | None = None
        found: int | None = getattr(executor, "_max_workers", None)
        if self._client is not None:
            self._scheduler, found = self._workers()
        self.n_workers = found or SOME_WORKERS

    def result(self, future: Future[T]) -> T:
        """The result of one of its futures.

        Raises
        ------
        LostCluster
            If no worker is left to compute it: Dask itself may wait forever.
        Exception
            The error of the task.
        """
        if self._client is None:
            return self._of_processes(future)
        since: float | None = None
        while True:
            try:
                return future.result(timeout=INTERVAL)
            except CancelledError:
                raise LostCluster("the Dask scheduler is gone") from None
            except FutureTimeout:
                if future.done():  # the error is that of the task
                    raise
            now = time.monotonic()
            scheduler, n_workers = self._workers()
            # A new scheduler in its place does not have the tasks that were sent to the old one.
            works = n_workers > 0 and scheduler == self._scheduler
            since = None if works else since or now
            if since is not None and now - since >= PATIENCE:
                raise LostCluster(
                    f"the Dask scheduler did not answer, or had no workers, for {PATIENCE:g} s"
                )

    def _of_processes(self, future: Future[T]) -> T:
        while True:
            try:
                return future.result(timeout=INTERVAL)
            except FutureTimeout:
                if future.done():  # the error is that of the task
                    raise
            self._break_if_stuck()

    def _break_if_stuck(self) -> None:
        """End a pool that waits forever for the rest of a message.

        A process that is killed while it sends a result keeps the lock of the pipe. The pool finds
        out about other ends of processes by itself, at once.
        """
        processes = dict(getattr(self.executor, "_processes", None) or {}).values()
        if all(process.is_alive() for process in processes):
            return
        for process in processes:
            process.kill()
        queue = getattr(self.executor, "_result_queue", None)
        if queue is not None:
            queue._writer.close()  # the last end of the pipe: what reads it sees the end

    def _workers(self) -> tuple[str | None, int]:
        """The scheduler's id, and the number of threads of its workers."""
        try:
            found = self._client.sync(self._client.scheduler.identity, callback_timeout=INTERVAL)
        except Exception:  # no connection, no answer, closed
            return None, 0
        return found["id"], sum(worker["nthreads"] for worker in found["workers"].values())
