"""Where the command line computes: here, in processes of its own, or on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from ase_sensitivity.dataset.workers import processes

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
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
        with _processes(workers) as found:
            yield found


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    # New processes read these when they load NumPy; each has a core for itself.
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ |= dict.fromkeys(ONE_THREAD, "1")
    pool = processes(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
    with client:
        if not client.scheduler_info()["workers"]:
            raise ValueError(f"the scheduler at {address} has no workers")
        yield client.get_executor()
