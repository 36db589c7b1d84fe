"""Small matrices on one thread: threads of BLAS would wait for each other most of the time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  (has a BLAS of its own, to be limited as well)
from threadpoolctl import ThreadpoolController

SMALL = 300
"""Number of rows up to which threads do not pay. Eigenvectors of matrices of 57 rows, one after the
other, take 2 ms each with one thread, 5 to 50 ms with two on a machine that is busy."""


def threads_for(n_rows: int) -> AbstractContextManager[Any]:
    """A context in which BLAS has as many threads as matrices of so many rows can use.

    It holds for the whole process, and what was there before comes back at its end.
    """
    return nullcontext() if n_rows > SMALL else _pools().limit(limits=1, user_api="blas")


@cache
def _pools() -> Any:
    return ThreadpoolController()
