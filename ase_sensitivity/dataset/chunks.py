"""Frames in chunks of about the same time, computed in order on any executor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from ase_sensitivity.dataset.executors import LostCluster, WatchedExecutor
from ase_sensitivity.io.references import Task
from ase_sensitivity.plain_text import reason

SECONDS = 0.5
"""Time in s that a chunk should take."""

MOST_FRAMES = 256
"""Limit of the frames of a chunk."""

MOST_ATOMS = 20_000
"""Limit of the atoms of a chunk, unless one frame has more."""

T = TypeVar("T")


def check_executor(executor: object) -> None:
    """Raise TypeError if ``executor`` is neither None nor an executor."""
    if not (executor is None or hasattr(executor, "submit")):
        raise TypeError(f"`executor` is {executor!r} but must be a concurrent.futures.Executor")


class Chunks:
    """Lists of tasks that take about the same time."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._size = 1.0

    def adapt(self, n_frames: int, elapsed: float) -> None:
        """Adapt the size of chunks to the time that one took, in s."""
        wanted = n_frames * SECONDS / max(elapsed, 1e-6)
        wanted = min(max(wanted, self._size / 2), 2 * self._size)
        self._size = min(max(wanted, 1.0), MOST_FRAMES)

    def __iter__(self) -> Iterator[list[Task]]:
        chunk: list[Task] = []
        n_atoms = 0
        for task in self._tasks:
            chunk.append(task)
            n_atoms += len(task.atoms)
            if len(chunk) >= int(self._size) or n_atoms >= MOST_ATOMS:
                yield chunk
                chunk, n_atoms = [], 0
        if chunk:
            yield chunk


def computed(
    compute: Callable[[list[Task]], T], chunks: Chunks, executor: Executor | None
) -> Iterator[T]:
    """Results of chunk after chunk, in order; only a few chunks are submitted at any time."""
    if executor is None:
        yield from map(compute, chunks)
        return
    watched = WatchedExecutor(executor)
    most = 2 * watched.n_workers
    sent: deque[tuple[list[Task], Future[T]]] = deque()
    try:
        for chunk in chunks:
            sent.append((chunk, _submitted(executor, compute, chunk)))
            if len(sent) >= most:
                yield _outcome(watched, *sent.popleft())
        while sent:
            yield _outcome(watched, *sent.popleft())
    except LostCluster:
        sent.clear()  # cancelling them would take as long as waiting for them
        raise
    finally:
        for _, future in sent:
            future.cancel()


def _submitted(
    executor: Executor, compute: Callable[[list[Task]], T], chunk: list[Task]
) -> Future[T]:
    try:
        return executor.submit(compute, chunk)
    except Exception as error:  # broken by an earlier chunk
        raise _lost(chunk, error) from error


def _outcome(watched: WatchedExecutor, chunk: list[Task], future: Future[T]) -> T:
    try:
        return watched.result(future)
    except Exception as error:
        raise _lost(chunk, error) from error


def _lost(chunk: list[Task], error: Exception) -> RuntimeError:
    first, last = chunk[0], chunk[-1]
    kind = LostCluster if isinstance(error, LostCluster) else RuntimeError
    return kind(
        f"the workers did not compute {first.source}@{first.index} to {last.source}@{last.index}: "
        f"{reason(error)}. With a `store` the frames before these are safe, and the same call "
        "goes on from there"
    )
