"""Where the command line computes: here, in processes of its own, or on a Dask cluster."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ase_sensitivity.cli.output import Interrupted
from ase_sensitivity.dataset.workers import processes

PATIENCE = 10
"""Seconds to wait for a scheduler."""


@contextmanager
def computing(
    workers: int, scheduler: str | None, kept: Callable[[], str]
) -> Iterator[Executor | None]:
    """The :func:`executor` of a command that may be interrupted.

    Parameters
    ----------
    workers, scheduler
        As in :func:`executor`.
    kept
        Says what is left of the command after an interrupt.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM.
    OSError
        If a worker died, or a file is in use.
    """
    try:
        with _terminated_like_interrupted(), executor(workers, scheduler) as pool:
            yield pool
    except KeyboardInterrupt:
        raise Interrupted(kept()) from None
    except RuntimeError as error:
        raise OSError(str(error)) from error


def kept_in(store: str | Path | None, what: str = "what was computed") -> str:
    """What is left of a command with the option ``--store`` after an interrupt."""
    if not store:
        return "nothing is kept without --store"
    if not Path(store).exists():
        return "nothing was computed yet"
    return f"{what} is in {store}; the same command goes on from there"


@contextmanager
def executor(workers: int, scheduler: str | None) -> Iterator[Executor | None]:
    """An executor of so many processes, or of a Dask scheduler; None for this process.

    Raises
    ------
    ValueError
        If both are asked for, or the scheduler has no workers.
    OSError
        If the scheduler cannot be reached.
    ImportError
        Without distributed.
    """
    if scheduler is not None:
        if workers != 1:
            raise ValueError("--workers has no meaning with --scheduler, which has its own")
        with _dask(scheduler) as found:
            yield found
    elif workers == 1:
        yield None
    else:
        pool = processes(workers)
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            '--scheduler needs dask.distributed: pip install "ase-sensitivity[distributed]"'
        ) from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(f"no scheduler answers at {address}: {error}") from error
    try:
        if not client.scheduler_info()["workers"]:
            raise ValueError(f"the scheduler at {address} has no workers")
        yield client.get_executor()
    finally:
        with suppress(Exception):  # there may be no scheduler any more to take leave of
            client.close(timeout=PATIENCE)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: nothing that was computed is lost."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
