"""One BLAS thread for small matrices: several threads would mostly wait for each other."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import scipy.linalg  # noqa: F401  (has a BLAS of its own, to be limited as well)
from threadpoolctl import ThreadpoolController

SMALL = 2000
"""Number of rows up to which several threads do not pay. Eigenvectors of a matrix of 57 rows take
2 ms with one thread, and 5 to 50 ms with two on a busy machine; `analyze` of 512 atoms takes twice
as long with two. Their products have many rows but few columns."""


def threads_for(n_rows: int) -> AbstractContextManager[Any]:
    """A context in which BLAS uses one thread if matrices have few rows.

    The limit applies to the whole process. The previous number is restored at the end.
    """
    return nullcontext() if n_rows > SMALL else _pools().limit(limits=1, user_api="blas")


@cache
def _pools() -> Any:
    return ThreadpoolController()
