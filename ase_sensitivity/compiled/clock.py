"""A clock for costs that will come again: compiling a kernel is paid once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from numba.core.event import TimingListener, install_listener


@contextmanager
def without_compiling() -> Iterator[Callable[[], float]]:
    """Give a clock, in seconds, that stands still while kernels are compiled or read from disk."""
    compiling = TimingListener()
    with install_listener("numba:compiler_lock", compiling):
        yield lambda: perf_counter() - (compiling.duration if compiling.done else 0.0)
