"""Compiled loops for the Gram matrix: small products are added to blocks of a large matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, splat
from ase_sensitivity.compiled.simd import total as lanes
from ase_sensitivity.compiled.sparse import OPTIONS, place
from ase_sensitivity.types import Floats, Ints

INNER = OPTIONS | {"no_cpython_wrapper": True}

TILE = 4
"""Number of blocks, each with `PANEL` features at a time, that stay in the first-level cache."""

PANEL = 512

LARGE = 3e7
"""Number of multiplications for the product of one row above which BLAS is at least as fast."""


@njit(**OPTIONS)
def add_products(flat, length, bounds, rows, column, starts, columns, total):
    """Add J^T J of some rows to the lower triangle of ``total``, and return its trace.

    For rows of some ten thousand numbers, these loops are faster than BLAS. For rows of millions
    they are not (see :data:`LARGE`).

    Parameters
    ----------
    flat
        Blocks of shape (n_blocks, 3, length), flat.
    length
        Number of features.
    bounds
        First block of each row, of shape (n_rows + 1,).
    rows
        The rows to add, of shape (any,).
    column
        The column of each block, of shape (n_blocks,); negative to leave the block out. No row may
        have two blocks of one column.
    starts, columns, total
        The matrix: see :class:`Sparsity`.
    """
    trace = 0.0
    for row in rows:
        first, last = bounds[row], bounds[row + 1]
        for begin in range(0, length, PANEL):
            end = min(begin + PANEL, length)
            for tile in range(first, last, TILE):
                for i in range(tile, last):
                    for j in range(tile, min(tile + TILE, i + 1)):
                        if column[i] >= 0 and column[j] >= 0:
                            p, q = (i, j) if column[i] >= column[j] else (j, i)
                            to, at = place(starts, columns, column[p], column[q])
                            trace += _add_product(
                                flat,
                                3 * p * length,
                                3 * q * length,
                                length,
                                begin,
                                end,
                                total,
                                to,
                                at,
                            )
    return trace


@njit(**INNER)
def _add_product(flat, p, q, length, begin, end, total, row, column):
    """Add the product of the blocks at p and q over some features; return its trace if p is q."""
    s00, s01, s02 = splat(0.0), splat(0.0), splat(0.0)
    s10, s11, s12 = splat(0.0), splat(0.0), splat(0.0)
    s20, s21, s22 = splat(0.0), splat(0.0), splat(0.0)
    whole = end - (end - begin) % 4
    for k in range(begin, whole, 4):
        x0, x1, x2 = load(flat, p + k), load(flat, p + length + k), load(flat, p + 2 * length + k)
        y = load(flat, q + k)
        s00, s10, s20 = fma(x0, y, s00), fma(x1, y, s10), fma(x2, y, s20)
        y = load(flat, q + length + k)
        s01, s11, s21 = fma(x0, y, s01), fma(x1, y, s11), fma(x2, y, s21)
        y = load(flat, q + 2 * length + k)
        s02, s12, s22 = fma(x0, y, s02), fma(x1, y, s12), fma(x2, y, s22)
    total[row, column] += lanes(s00)
    total[row, column + 1] += lanes(s01)
    total[row, column + 2] += lanes(s02)
    total[row + 1, column] += lanes(s10)
    total[row + 1, column + 1] += lanes(s11)
    total[row + 1, column + 2] += lanes(s12)
    total[row + 2, column] += lanes(s20)
    total[row + 2, column + 1] += lanes(s21)
    total[row + 2, column + 2] += lanes(s22)
    trace = lanes(s00) + lanes(s11) + lanes(s22)
    for k in range(whole, end):
        for a in range(3):
            x = flat[p + a * length + k]
            for b in range(3):
                total[row + a, column + b] += x * flat[q + b * length + k]
            trace += x * flat[q + a * length + k]
    return trace if p == q else 0.0


@njit(**OPTIONS)
def stacked_products(flat, length, bounds, rows, grams):
    """Put J^T J of each of ``rows`` in the lower triangle of ``grams``; each block is a column."""
    square = np.empty(0, dtype=np.intp)
    for k in range(len(rows)):
        first = bounds[rows[k]]
        count = bounds[rows[k] + 1] - first
        own = flat[3 * length * first : 3 * length * (first + count)]
        add_products(
            own,
            length,
            np.array([0, count]),
            np.zeros(1, np.intp),
            np.arange(count),
            square,
            square,
            grams[k],
        )


@njit(**OPTIONS)
def add_at(total, points, product, starts, columns):
    """Add ``product`` (3 m, 3 m) to the entries of m points in the lower triangle of ``total``.

    The matrix is ``starts``, ``columns``, ``total``: see :class:`Sparsity`.
    """
    for i in range(len(points)):
        for j in range(len(points)):
            if points[j] <= points[i]:
                to, at = place(starts, columns, points[i], points[j])
                for a in range(3):
                    source = product[3 * i + a]
                    total[to + a, at] += source[3 * j]
                    total[to + a, at + 1] += source[3 * j + 1]
                    total[to + a, at + 2] += source[3 * j + 2]


@njit(**OPTIONS)
def mirror(total):
    """Copy the lower triangle of a square matrix to the upper one."""
    n = len(total)
    for tile in range(0, n, 16):
        for i in range(tile, n):
            for j in range(tile, min(tile + 16, i)):
                total[j, i] = total[i, j]


def rows_with_repeated(bounds: Ints, column: Ints, n_columns: int) -> NDArray[np.bool_]:
    """Whether each row has several blocks of one column, of shape (n_rows,)."""
    repeated = np.zeros(len(bounds) - 1, dtype=np.bool_)
    _mark_repeated(bounds, column, np.full(n_columns, -1), repeated)
    return repeated


@njit(**OPTIONS)
def _mark_repeated(bounds, column, seen, repeated):
    for row in range(len(repeated)):
        for k in range(bounds[row], bounds[row + 1]):
            if column[k] >= 0:
                repeated[row] |= seen[column[k]] == row
                seen[column[k]] = row


@njit(**OPTIONS)
def sum_blocks(blocks: Floats, where: Ints, summed: Floats) -> None:
    """Add block i (flat) to row ``where[i]`` of ``summed`` (m, any)."""
    for i in range(len(blocks)):
        row, block = summed[where[i]], blocks[i]
        for k in range(len(block)):
            row[k] += block[k]
