"""Compiled loops of the Gram matrix: add small pieces at scattered places of a large one."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@njit(cache=True, nogil=True)
def add_at(total: Floats, columns: Ints, product: Floats) -> None:
    """Add ``product`` (3 m, 3 m) to the rows and columns of ``total`` that belong to m points."""
    for i in range(len(columns)):
        for a in range(3):
            row, source = total[3 * columns[i] + a], product[3 * i + a]
            for j in range(len(columns)):
                to = 3 * columns[j]
                row[to] += source[3 * j]
                row[to + 1] += source[3 * j + 1]
                row[to + 2] += source[3 * j + 2]


@njit(cache=True, nogil=True)
def sum_blocks(blocks: Floats, where: Ints, summed: Floats) -> None:
    """Add block i, flat, to row ``where[i]`` of ``summed`` (m, any)."""
    for i in range(len(blocks)):
        row, block = summed[where[i]], blocks[i]
        for k in range(len(block)):
            row[k] += block[k]
