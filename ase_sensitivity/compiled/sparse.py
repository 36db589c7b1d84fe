"""Compiled loops for symmetric matrices in 3 x 3 blocks, most of which are zero.

A matrix is given by the first block of each row of blocks, the column of each block, ascending in
each row, and the blocks.
"""

from __future__ import annotations

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, mul, splat, store

OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

WIDTH = 8
"""Number of vectors that a product treats at a time. They cost three times as much as one."""


@njit(**OPTIONS | {"no_cpython_wrapper": True})
def place(starts, columns, row, column):
    """First row and column of the entries of the block (row, column) in a matrix."""
    if len(starts) == 0:
        return 3 * row, 3 * column
    low, high = starts[row], starts[row + 1]
    end = high
    while low < high:
        middle = (low + high) // 2
        if columns[middle] < column:
            low = middle + 1
        else:
            high = middle
    if low == end or columns[low] != column:
        low = len(columns)
    return 3 * low, 0


@njit(**OPTIONS)
def mirrored(starts, columns, blocks, first, others, whole):
    """Both triangles of a symmetric matrix, from the lower one.

    Parameters
    ----------
    starts, columns
        The pattern of the lower triangle.
    blocks
        Its blocks, flat.
    first, others, whole
        Output: the same of all blocks, of shapes (n_columns + 1,), (n_all,) and (9 n_all,).
    """
    n = len(starts) - 1
    first[:] = 0
    for i in range(n):
        for k in range(starts[i], starts[i + 1]):
            first[i + 1] += 1
            if columns[k] < i:
                first[columns[k] + 1] += 1
    for i in range(n):
        first[i + 1] += first[i]
    following = first[:-1].copy()
    for i in range(n):
        for k in range(starts[i], starts[i + 1]):
            j = columns[k]
            to = following[i]
            following[i] += 1
            others[to] = j
            for a in range(9):
                whole[9 * to + a] = blocks[9 * k + a]
            if j < i:
                to = following[j]
                following[j] += 1
                others[to] = i
                for a in range(9):
                    whole[9 * to + a] = blocks[9 * k + 3 * (a % 3) + a // 3]


@njit(**OPTIONS)
def combine(starts, columns, blocks, width, x, z, a, b, c, y):
    """Put a G x + b x + c z in y, for vectors side by side, a multiple of `WIDTH`; all flat."""
    a4, b4, c4 = splat(a), splat(b), splat(c)
    for i in range(len(starts) - 1):
        for part in range(0, width, 8):
            s00, s01, s10 = splat(0.0), splat(0.0), splat(0.0)
            s11, s20, s21 = splat(0.0), splat(0.0), splat(0.0)
            for k in range(starts[i], starts[i + 1]):
                at, g = 3 * width * columns[k] + part, 9 * k
                for j in range(3):
                    v, w = load(x, at), load(x, at + 4)
                    e = splat(blocks[g + j])
                    s00, s01 = fma(e, v, s00), fma(e, w, s01)
                    e = splat(blocks[g + 3 + j])
                    s10, s11 = fma(e, v, s10), fma(e, w, s11)
                    e = splat(blocks[g + 6 + j])
                    s20, s21 = fma(e, v, s20), fma(e, w, s21)
                    at += width
            p = 3 * width * i + part
            store(y, p, fma(a4, s00, fma(b4, load(x, p), mul(c4, load(z, p)))))
            store(y, p + 4, fma(a4, s01, fma(b4, load(x, p + 4), mul(c4, load(z, p + 4)))))
            p += width
            store(y, p, fma(a4, s10, fma(b4, load(x, p), mul(c4, load(z, p)))))
            store(y, p + 4, fma(a4, s11, fma(b4, load(x, p + 4), mul(c4, load(z, p + 4)))))
            p += width
            store(y, p, fma(a4, s20, fma(b4, load(x, p), mul(c4, load(z, p)))))
            store(y, p + 4, fma(a4, s21, fma(b4, load(x, p + 4), mul(c4, load(z, p + 4)))))


@njit(**OPTIONS)
def multiply(starts, columns, blocks, x, y):
    """Put G x in y, for one vector."""
    for i in range(len(starts) - 1):
        s0, s1, s2 = 0.0, 0.0, 0.0
        for k in range(starts[i], starts[i + 1]):
            at, g = 3 * columns[k], 9 * k
            x0, x1, x2 = x[at], x[at + 1], x[at + 2]
            s0 += blocks[g] * x0 + blocks[g + 1] * x1 + blocks[g + 2] * x2
            s1 += blocks[g + 3] * x0 + blocks[g + 4] * x1 + blocks[g + 5] * x2
            s2 += blocks[g + 6] * x0 + blocks[g + 7] * x1 + blocks[g + 8] * x2
        y[3 * i], y[3 * i + 1], y[3 * i + 2] = s0, s1, s2
