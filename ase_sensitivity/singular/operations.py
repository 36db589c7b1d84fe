"""Operations that environments have roughly: which of them hide a displacement, and averages."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.singular.neighborhood import Neighborhood
from ase_sensitivity.types import Floats, Ints

Operation = tuple[Floats, Ints]
"""An orthogonal matrix, and the point that it takes to each point."""


MOST_ELEMENTS = 120
"""Elements of a point group, the largest of which is that of the icosahedron."""


POWERS = 12
"""Powers of an operation that are averaged: rotations of order 1, 2, 3, 4, 6 and 12 close."""


MOST_OPERATIONS = 3
"""Operations of one environment that are made exact. Two generate any point group."""


REMAINS = 0.15
"""Part of a change that may remain when the operations of an environment are enough."""


def reversing(
    around: Neighborhood, change: Floats, tolerance: float
) -> tuple[list[Operation], float]:
    """Operations whose averages remove a change of the points, and what remains of its square.

    Each is a matrix and the point that it takes to each point. Of those that remove enough, the one
    of least mismatch is taken.
    """
    size = float(change @ change)
    if size <= 1e-4:
        return [], size
    group = around.group(tolerance)
    matrices, permutations = group.matrices, group.permutations
    if group.axis is not None:
        half_turn = 2 * np.outer(group.axis, group.axis) - np.eye(3)
        matrices = np.concatenate([matrices, half_turn[None]])
        permutations = np.concatenate([permutations, np.arange(len(around.points))[None]])
    mapped = around.points @ matrices.transpose(0, 2, 1)
    mismatch = np.linalg.norm(mapped - around.points[permutations], axis=2).max(axis=1)
    by_mismatch = mismatch.argsort(kind="stable")
    matrices, orders = matrices[by_mismatch], permutations[by_mismatch].argsort(axis=1)
    found: list[Operation] = []
    left = size
    while left > REMAINS * size and len(found) < MOST_OPERATIONS:
        means = averages(matrices, orders, change)
        squares = (means**2).sum(axis=1)
        enough = squares < REMAINS * size
        best = int(enough.argmax() if enough.any() else squares.argmin())
        if squares[best] > 0.8 * left:
            break
        found.append((matrices[best], orders[best]))
        change, left = means[best], float(squares[best])
    return found, left


def averages(matrices: Floats, orders: Ints, change: Floats) -> Floats:
    """The average of a change over the powers of each of g operations, of shape (g, 3 n)."""
    moved = np.broadcast_to(change.reshape(-1, 3), (len(matrices), len(change) // 3, 3))
    total, turned_back = moved.copy(), matrices.transpose(0, 2, 1)
    for _ in range(POWERS - 1):
        moved = np.take_along_axis(moved, orders[:, :, None], axis=1) @ turned_back
        total += moved
    return total.reshape(len(matrices), -1) / POWERS


def refitted(matrix: Floats, points: Floats, order: Ints) -> Floats:
    """The orthogonal matrix of the same determinant that maps the points best (Kabsch)."""
    x, s, y = np.linalg.svd(points.T @ points[order])
    if s[1] < 1e-6 * s[0]:
        return matrix  # on a line
    sign = np.linalg.det(matrix) * np.linalg.det(x @ y)
    fitted: Floats = (x * [1.0, 1.0, sign]) @ y
    return fitted


def average(points: Floats, operations: list[Operation], changes: Floats) -> Floats:
    """The average of changes (3 n, m) over the group that exact operations generate."""
    n = len(points)
    identity = np.arange(n)
    group = {_key(np.eye(3), identity): (np.eye(3), identity)}
    generators = [(refitted(matrix, points, order), order) for matrix, order in operations]
    waiting = list(group.values())
    while waiting and len(group) < MOST_ELEMENTS:
        matrix, order = waiting.pop()
        for other, after in generators:
            product = other @ matrix, order[after]
            if _key(*product) not in group:
                group[_key(*product)] = product
                waiting.append(product)
    matrices = np.array([matrix for matrix, _ in group.values()])
    orders = np.array([order for _, order in group.values()])
    moved = changes.reshape(n, 3, -1)[orders]
    average: Floats = np.einsum("gab,gnbm->nam", matrices, moved) / len(group)
    return average.reshape(3 * n, -1)


def _key(matrix: Floats, order: Ints) -> bytes:
    """What an operation is told by: its matrix matters where points are in a plane."""
    return order.tobytes() + (np.rint(100 * matrix) + 0.0).tobytes()
