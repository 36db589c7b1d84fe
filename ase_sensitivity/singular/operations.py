"""Operations that environments have roughly: which of them hide a displacement, and averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_sensitivity.geometry.symmetry import PointGroup
from ase_sensitivity.singular import averages
from ase_sensitivity.singular.neighborhood import Surroundings
from ase_sensitivity.types import Floats, Ints

Operation = tuple[Floats, Ints]
"""An orthogonal matrix, and the point that it takes to each point."""


MOST_ELEMENTS = 120
"""Elements of a point group, the largest of which is that of the icosahedron."""


LEAST_CHANGE = 1e-4
"""A smaller squared change of an environment along a mode needs no operation that hides it."""


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

    def are(self, others: Operations) -> bool:
        """Whether they are the same operations of the same environments."""
        orders = (
            np.array_equal(self.where, others.where),
            np.array_equal(self.orders, others.orders),
        )
        return all(orders) and np.allclose(self.matrices, others.matrices, atol=averages.CLOSED)

    def refitted(self, points: Floats) -> Operations:
        """With the matrices that map points (k, n, 3) best."""
        matrices = self.matrices.copy()
        averages.refit(points, self.orders, matrices)
        return Operations(self.where, matrices, self.orders)

    def taken(self, points: Floats) -> Floats:
        """Of points (k, n, ...), those that the operations take to each point."""
        taken: Floats = points[np.arange(len(points))[:, None], self.orders]
        return taken


def fewest(points: Floats, group: PointGroup, change: Floats) -> tuple[list[Operation], float]:
    """Operations of a group whose averages remove a change, and what remains of its square.

    Parameters
    ----------
    points
        The environment in Å, of shape (n, 3).
    group
        Its group.
    change
        Displacements of the points, of shape (n, 3).
    """
    matrices, orders = matrices_of(group), group.permutations.argsort(axis=1)
    if group.axis is not None:
        orders = np.concatenate([orders, np.arange(len(points))[None]])
    chosen, left = averages.choose(points, matrices, orders, change)
    return [(matrices[k], orders[k]) for k in chosen], left


def matrices_of(group: PointGroup) -> Floats:
    """Of shape (g, 3, 3). Half a turn stands for all rotations about an axis."""
    if group.axis is None:
        return group.matrices
    half_turn = 2 * np.outer(group.axis, group.axis) - np.eye(3)
    return np.concatenate([group.matrices, half_turn[None]])


def shared(
    around: Surroundings, matrices: Floats, changes: Floats, tolerance: float, lost: float
) -> Operations | None:
    """One operation that environments have in common and that removes their changes.

    Parameters
    ----------
    around
        The environments.
    matrices
        Those to choose from, of shape (g, 3, 3).
    changes
        The changes, of shape (e, 3 n).
    tolerance
        How far (Å) a point may be from where the operation puts it.
    lost
        What may remain of the squares of all changes. Of operations that leave less, the one of
        least mismatch is taken; None if there is none.
    """
    e, n = around.numbers.shape
    fitted, orders = np.empty((e, 3, 3)), np.tile(np.arange(n), (e, 1))
    removes = np.empty(e, dtype=bool)
    moved = changes.reshape(e, n, 3)
    given = around.points, around.numbers, around.sizes, matrices, moved, tolerance, lost
    if not averages.find_shared(*given, fitted, orders, removes):
        return None
    where = np.flatnonzero(removes & ((changes**2).sum(axis=1) > LEAST_CHANGE))
    return Operations(where, fitted[where], orders[where]) if len(where) else None


def averaged(operations: Operations, changes: Floats) -> Floats:
    """Averages of changes (e, 3 n, m) over the groups that exact operations generate."""
    e, rows, m = changes.shape
    found = changes.copy()
    alone = np.flatnonzero(np.bincount(operations.where, minlength=e)[operations.where] == 1)
    where = operations.where[alone]
    matrices, orders = operations.matrices[alone], operations.orders[alone]
    points = changes[where].reshape(len(alone), rows // 3, 3, m).transpose(0, 3, 1, 2)
    mean = np.empty(points.shape)
    closed = np.empty(len(alone), dtype=bool)
    averages.of_each(matrices, orders, np.ascontiguousarray(points), mean, closed)
    found[where] = mean.transpose(0, 2, 3, 1).reshape(len(alone), rows, m)
    for k in sorted(set(operations.where.tolist()).difference(where[closed].tolist())):
        own = operations.where == k
        found[k] = group_average(operations.matrices[own], operations.orders[own], changes[k])
    return found


def group_average(matrices: Floats, orders: Ints, changes: Floats) -> Floats:
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
