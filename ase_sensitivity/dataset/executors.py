"""What a scan has to know of executors: how many work there, and whether they still do."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

SOME_WORKERS = 16
"""Assumed of an executor that does not tell how many it has."""

PATIENCE = 30.0
"""How long a Dask cluster may be without workers or without an answer, in s."""

INTERVAL = 5.0
"""How often it is asked, and how long it may take to answer, in s."""

T = TypeVar("T")


class LostCluster(RuntimeError):  # noqa: N818 (a state, not a mistake)
    """A Dask scheduler or all of its workers are gone."""


class Watched:
    """An executor, with an eye on whether somebody works there.

    Parameters
    ----------
    executor
        Any; of one of Dask the scheduler is asked.

    Attributes
    ----------
    n_workers
        How many tasks it works at together.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._client: Any = getattr(executor, "_client", None)  # of Dask
        self._scheduler: str | None = None
        found: int | None = getattr(executor, "_max_workers", None)
        if self._client is not None:
            self._scheduler, found = self._asked()
        self.n_workers = found or SOME_WORKERS

    def result(self, future: Future[T]) -> T:
        """The result of one of its futures.

        Raises
        ------
        LostCluster
            If nobody is left to compute it: Dask itself may wait for ever.
        Exception
            Of the task.
        """
        if self._client is None:
            return future.result()
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
            scheduler, n_workers = self._asked()
            # Another scheduler that took its place knows nothing of what was sent to this one.
            works = n_workers > 0 and scheduler == self._scheduler
            since = None if works else since or now
            if since is not None and now - since >= PATIENCE:
                raise LostCluster(
                    f"the Dask scheduler did not answer, or had no workers, for {PATIENCE:g} s"
                )

    def _asked(self) -> tuple[str | None, int]:
        """The scheduler's id, and how many threads its workers have."""
        try:
            found = self._client.sync(self._client.scheduler.identity, callback_timeout=INTERVAL)
        except Exception:  # no connection, no answer, closed
            return None, 0
        return found["id"], sum(worker["nthreads"] for worker in found["workers"].values())
