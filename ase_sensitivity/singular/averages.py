"""Kernels that average changes of environments over operations, and rotations of environments."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.geometry.operations import (
    OPTIONS,
    add_pull,
    diagonalize,
    fit,
    is_mapped,
    missed_square,
)

POWERS = 12
"""Rotations of order 1, 2, 3, 4, 6 and 12 close after as many powers."""

CLOSED = 1e-6
"""What a power of an operation that is exact may differ from the identity by."""

MOST_OPERATIONS = 3
"""Operations of one environment that are made exact. Two generate any point group."""

REMAINS = 0.15
"""Part of a change that may remain when the operations of an environment are enough."""

REMOVES = 0.8
"""An operation that leaves more of a change is of no use."""


@njit(**OPTIONS)
def average(matrix, order, change, found):
    """Average a change over the powers of an operation.

    Parameters
    ----------
    matrix, order
        An orthogonal matrix, and the point that it takes to each point, of shape (n,).
    change
        Displacements of the points, of shape (n, 3).
    found
        The average is written here.

    Returns
    -------
    square
        Its squared length.
    """
    n, square = len(order), 0.0
    last = np.empty((n, 3))
    for j in range(n):
        for x in range(3):
            found[j, x] = change[j, x]
    for _ in range(1, POWERS):
        for j in range(n):
            for x in range(3):
                last[j, x] = found[j, x]
        for j in range(n):
            k = order[j]
            for x in range(3):
                found[j, x] = change[j, x] + (
                    matrix[x, 0] * last[k, 0]
                    + matrix[x, 1] * last[k, 1]
                    + matrix[x, 2] * last[k, 2]
                )
    for j in range(n):
        for x in range(3):
            found[j, x] /= POWERS
            square += found[j, x] ** 2
    return square


@njit(**OPTIONS)
def of_each(matrices, orders, changes, found, closed):
    """Averages of m changes (k, m, n, 3) over the powers of k operations, each of its own.

    Whether the next power of each is the identity is written to ``closed``.
    """
    power = np.empty((3, 3))
    for k in range(len(matrices)):
        for m in range(changes.shape[1]):
            average(matrices[k], orders[k], changes[k, m], found[k, m])
        closed[k] = True
        for j in range(orders.shape[1]):
            last = j
            for _ in range(POWERS):
                last = orders[k, last]
            closed[k] &= last == j
        for x in range(3):
            for y in range(3):
                power[x, y] = matrices[k, x, y]
        for _ in range(1, POWERS):
            for x in range(3):
                a, b, c = power[x, 0], power[x, 1], power[x, 2]
                for y in range(3):
                    power[x, y] = (
                        a * matrices[k, 0, y] + b * matrices[k, 1, y] + c * matrices[k, 2, y]
                    )
        for x in range(3):
            for y in range(3):
                closed[k] &= abs(power[x, y] - (1.0 if x == y else 0.0)) < CLOSED


@njit(**OPTIONS)
def refit(points, orders, matrices):
    """Change matrices (k, 3, 3) to those that map points (k, n, 3) best."""
    for k in range(len(matrices)):
        pull = np.zeros((3, 3))
        for j in range(points.shape[1]):
            add_pull(points[k, orders[k, j]], points[k, j], pull)
        fit(pull, matrices[k], matrices[k])


@njit(**OPTIONS)
def choose(points, matrices, orders, change):
    """Operations whose averages remove a change.

    Of those that remove enough, the one of least mismatch is taken.

    Parameters
    ----------
    points
        The environment in Å, of shape (n, 3).
    matrices, orders
        Its operations, of shape (g, 3, 3) and (g, n).
    change
        Displacements of shape (n, 3).

    Returns
    -------
    chosen
        Numbers of the operations, at most `MOST_OPERATIONS`.
    left
        What remains of the square of the change.
    """
    g, n = orders.shape
    off = np.zeros(g)
    for k in range(g):
        for j in range(n):
            off[k] = max(off[k], missed_square(points[orders[k, j]], matrices[k], points[j]))
    size = 0.0
    for j in range(n):
        for x in range(3):
            size += change[j, x] ** 2
    left, last, new = size, change.copy(), np.empty((n, 3))
    chosen, count = np.empty(MOST_OPERATIONS, dtype=np.intp), 0
    while left > REMAINS * size and count < MOST_OPERATIONS:
        best, mismatch, square = -1, np.inf, np.inf
        for k in range(g):
            remains = average(matrices[k], orders[k], last, new)
            enough = remains < REMAINS * size
            better = off[k] < mismatch if enough else mismatch == np.inf and remains < square
            if better:
                best, square = k, remains
                if enough:
                    mismatch = off[k]
        if square > REMOVES * left:
            break
        chosen[count] = best
        count += 1
        left = average(matrices[best], orders[best], last, new)
        last, new = new, last
    return chosen[:count], left


@njit(**OPTIONS)
def find_shared(
    points, numbers, sizes, matrices, changes, tolerance, lost, fitted, orders, removes
):
    """Find the operation that environments have in common and that removes their changes.

    Parameters
    ----------
    points, numbers, sizes
        The points in Å, of shape (e, n, 3), their species (e, n), and how many there are, (e,).
    matrices
        Those to choose from, of shape (g, 3, 3).
    changes
        Of shape (e, n, 3).
    tolerance
        How far (Å) a point may be from where the operation puts it.
    lost
        What may remain of the squares of all changes. Of operations that leave less, the one of
        least mismatch is taken.
    fitted, orders, removes
        The matrix of each environment (e, 3, 3), the point that it takes to each point (e, n), and
        whether it removes the change, (e,), are written here.

    Returns
    -------
    found
        Whether there is one.
    """
    new, best, least = np.empty(points.shape[1:]), -1, np.inf
    for g in range(len(matrices) + 1):  # at last the best one again
        if g == len(matrices) and best < 0:
            return False
        matrix = matrices[g if g < len(matrices) else best]
        left, mismatch = 0.0, 0.0
        for k in range(len(points)):
            n, size, square, total = sizes[k], 0.0, 0.0, 0.0
            for j in range(n):
                for x in range(3):
                    size += changes[k, j, x] ** 2
            for x in range(3):
                for y in range(3):
                    fitted[k, x, y] = matrix[x, y]
            near, total = _fitted_to(
                points[k, :n], numbers[k, :n], tolerance, fitted[k], orders[k, :n]
            )
            if near:
                square = average(fitted[k], orders[k, :n], changes[k], new)
            removes[k] = near and square < REMOVES * size
            left += square if removes[k] else size
            mismatch += total if removes[k] else 0.0
            if left >= lost or mismatch > least:  # too much already
                break
        if g < len(matrices) and left < lost and mismatch < least:
            best, least = g, mismatch
    return True


@njit(**OPTIONS)
def _fitted_to(points, numbers, tolerance, matrix, order):
    """Fit an operation to points: whether it maps all of them, and the sum of squares it misses."""
    n, total, farthest = len(points), 0.0, 0.0
    image, pull = np.empty(n, dtype=np.intp), np.zeros((3, 3))
    if not is_mapped(points, numbers, matrix, image, 2 * tolerance):
        return False, total
    for j in range(n):
        order[image[j]] = j
        add_pull(points[j], points[image[j]], pull)
    fit(pull, matrix, matrix)
    for j in range(n):
        square = missed_square(points[j], matrix, points[image[j]])
        total += square
        farthest = max(farthest, square)
    return farthest < tolerance**2, total


@njit(**OPTIONS)
def turn(points, line, least, found):
    """Orthonormal rotations of points (e, n, 3) about the origin, of shape (e, n, 3, 3).

    One is zero if its squared length is at most ``line`` times the largest, or ``least`` (e,).
    """
    moments, axes, lengths = np.zeros((4, 4)), np.empty((4, 4)), np.empty(3)
    for k in range(len(points)):
        for x in range(4):
            for y in range(4):
                moments[x, y] = 0.0
        for j in range(points.shape[1]):
            for x in range(3):
                for y in range(3):
                    square = points[k, j, x] * points[k, j, y]
                    moments[x, y] -= square
                    if x == y:
                        for z in range(3):
                            moments[z, z] += square
        diagonalize(moments, axes)
        largest = max(moments[0, 0], moments[1, 1], moments[2, 2])
        for a in range(3):
            square = moments[a, a]
            turns = square > line * largest and square > least[k]
            lengths[a] = np.sqrt(square) if turns else np.inf
        for j in range(points.shape[1]):
            for x in range(3):
                y, z = (x + 1) % 3, (x + 2) % 3
                for a in range(3):
                    cross = axes[y, a] * points[k, j, z] - axes[z, a] * points[k, j, y]
                    found[k, j, x, a] = cross / lengths[a]
