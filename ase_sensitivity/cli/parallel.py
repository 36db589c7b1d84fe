"""Where the command line computes: here, in processes of its own, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress

from ase_sensitivity.dataset.workers import processes

PATIENCE = 10
"""Seconds to wait for a scheduler."""


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
