"""Worker processes on this machine."""

from __future__ import annotations

import os
import re
import signal
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process

import numba
import scipy.linalg  # noqa: F401  (has a BLAS of its own, to be limited as well)
from threadpoolctl import threadpool_limits

from ase_sensitivity.compiled.njit import NOT_CACHED, warn_if_not_cached


def processes(n_workers: int) -> ProcessPoolExecutor:
    """An executor with processes of one thread each.

    They ignore Ctrl-C, which their parent handles, and end when the parent is killed.

    Parameters
    ----------
    n_workers
        The number of processes.

    Notes
    -----
    They are spawned and not forked, as libraries with threads require. A script that calls this
    must do so under ``if __name__ == "__main__":``.
    """
    if not isinstance(n_workers, int) or isinstance(n_workers, bool) or n_workers < 1:
        raise ValueError(f"`n_workers` is {n_workers!r} but must be a positive integer")
    warn_if_not_cached()
    return ProcessPoolExecutor(n_workers, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    warnings.filterwarnings("ignore", re.escape(NOT_CACHED))  # the parent process has warned
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Several processes use all cores already.
    numba.config.NUMBA_NUM_THREADS = 1
    threadpool_limits(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
