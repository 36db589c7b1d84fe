"""Operations that environments have roughly: which of them hide a displacement, and averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_sensitivity.geometry.symmetry import PointGroup
from ase_sensitivity.types import Floats, Ints

Operation = tuple[Floats, Ints]
"""An orthogonal matrix, and the point that it takes to each point."""


MOST_ELEMENTS = 120
"""Elements of a point group, the largest of which is that of the icosahedron."""


MOST_OPERATIONS = 3
"""Operations of one environment that are made exact. Two generate any point group."""


REMAINS = 0.15
"""Part of a change that may remain when the operations of an environment are enough."""


@dataclass(frozen=True, eq=False)
class Operations:
    """Operations of several environments.

    Attributes
    ----------
    where
        The environment of each, of shape (k,).
    matrices
        Orthogonal matrices, of shape (k, 3, 3).
    orders
        The point that each takes to each point, of shape (k, n); the point itself where an
        environment has fewer than n points.
    """

    where: Ints
    matrices: Floats
    orders: Ints

    @classmethod
    def of(cls, chosen: Sequence[Sequence[Operation]], n: int) -> Operations:
        """From those of each environment."""
        every = [(k, *one) for k, operations in enumerate(chosen) for one in operations]
        orders = np.tile(np.arange(n), (len(every), 1))
        for row, (_, _, order) in zip(orders, every, strict=True):
            row[: len(order)] = order
        matrices = np.array([matrix for _, matrix, _ in every]).reshape(-1, 3, 3)
        return cls(np.array([k for k, _, _ in every], dtype=np.intp), matrices, orders)

    def refitted(self, points: Floats) -> Operations:
        """With the matrices that map points (k, n, 3) best."""
        taken = np.take_along_axis(points, self.orders[:, :, None], axis=1)
        return Operations(self.where, refitted(self.matrices, points, taken), self.orders)


def reversing(points: Floats, group: PointGroup, change: Floats) -> tuple[list[Operation], float]:
    """Operations whose averages remove a change of the points, and what remains of its square.

    Each is a matrix and the point that it takes to each point. Of those that remove enough, the one
    of least mismatch is taken.
    """
    size = float(change @ change)
    matrices, permutations = group.matrices, group.permutations
    if group.axis is not None:
        half_turn = 2 * np.outer(group.axis, group.axis) - np.eye(3)
        matrices = np.concatenate([matrices, half_turn[None]])
        permutations = np.concatenate([permutations, np.arange(len(points))[None]])
    if len(matrices) == 1:
        return [], size
    mapped = points @ matrices.transpose(0, 2, 1)
    mismatch = ((mapped - points[permutations]) ** 2).sum(axis=2).max(axis=1)
    by_mismatch = mismatch.argsort(kind="stable")
    matrices, orders = matrices[by_mismatch], permutations[by_mismatch].argsort(axis=1)
    average = Averages(matrices, orders)
    found: list[Operation] = []
    left = size
    while left > REMAINS * size and len(found) < MOST_OPERATIONS:
        means = average(change)
        squares = (means**2).sum(axis=1)
        enough = squares < REMAINS * size
        best = int(enough.argmax() if enough.any() else squares.argmin())
        if squares[best] > 0.8 * left:
            break
        found.append((matrices[best], orders[best]))
        change, left = means[best], float(squares[best])
    return found, left


class Averages:
    """Averages over twelve powers of each of g operations.

    Rotations of order 1, 2, 3, 4, 6 and 12 close. Twelve powers are those of three, doubled twice.
    """

    def __init__(self, matrices: Floats, orders: Ints) -> None:
        third = _product(*_product(matrices, orders, matrices, orders), matrices, orders)
        self._steps = [(matrices, orders), third, _product(*third, *third)]
        self._steps = [(m.transpose(0, 2, 1), order[:, :, None]) for m, order in self._steps]

    def __call__(self, change: Floats) -> Floats:
        """The averages of a change (3 n,), of shape (g, 3 n)."""
        g = len(self._steps[0][0])
        total = np.broadcast_to(change.reshape(-1, 3), (g, len(change) // 3, 3))
        (first, order), *doubling = self._steps
        once = np.take_along_axis(total, order, axis=1) @ first
        total = total + once + np.take_along_axis(once, order, axis=1) @ first
        for turned, order in doubling:
            total = total + np.take_along_axis(total, order, axis=1) @ turned
        return total.reshape(g, -1) / 12


def _product(one: Floats, order: Ints, other: Floats, after: Ints) -> tuple[Floats, Ints]:
    """First one operation and then the other one, for stacks of both."""
    return other @ one, np.take_along_axis(order, after, axis=-1)


def refitted(matrices: Floats, points: Floats, taken: Floats) -> Floats:
    """The orthogonal matrices of the same determinants that map ``taken`` to ``points`` best.

    By Kabsch's method; points (..., n, 3) on a line leave the matrix as it is.
    """
    x, s, y = np.linalg.svd(np.swapaxes(points, -1, -2) @ taken)
    x = x.copy()
    x[..., 2] *= (np.linalg.det(matrices) * np.linalg.det(x @ y))[..., None]
    on_a_line = s[..., 1] < 1e-6 * s[..., 0]
    fitted: Floats = np.where(on_a_line[..., None, None], matrices, x @ y)
    return fitted


def average(matrices: Floats, orders: Ints, changes: Floats) -> Floats:
    """The average of changes (3 n, m) over the group that exact operations generate."""
    n = orders.shape[1]
    elements = [(np.eye(3), np.arange(n))]
    known = {_key(*elements[0])}
    waiting = elements.copy()
    while waiting and len(known) < MOST_ELEMENTS:
        products = [
            (other @ matrix, order[after])
            for matrix, order in waiting
            for other, after in zip(matrices, orders, strict=True)
        ]
        waiting = []
        for product in products:
            key = _key(*product)
            if key not in known:
                known.add(key)
                waiting.append(product)
        elements += waiting
    group = np.array([matrix for matrix, _ in elements])
    moved = changes.reshape(n, 3, -1)[np.array([order for _, order in elements])]
    average: Floats = (group[:, None] @ moved).mean(axis=0)
    return average.reshape(3 * n, -1)


def _key(matrix: Floats, order: Ints) -> bytes:
    """What an operation is told by: its matrix matters where points are in a plane."""
    return order.tobytes() + (np.rint(100 * matrix) + 0.0).tobytes()
