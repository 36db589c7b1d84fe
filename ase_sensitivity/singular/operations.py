"""Operations that environments have roughly: which of them hide a displacement, and averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.geometry.operations import all_mapped
from ase_sensitivity.geometry.symmetry import PointGroup
from ase_sensitivity.singular.neighborhood import Surroundings
from ase_sensitivity.types import Floats, Ints

Operation = tuple[Floats, Ints]
"""An orthogonal matrix, and the point that it takes to each point."""


MOST_ELEMENTS = 120
"""Elements of a point group, the largest of which is that of the icosahedron."""


MOST_OPERATIONS = 3
"""Operations of one environment that are made exact. Two generate any point group."""


LEAST_CHANGE = 1e-4
"""A smaller squared change of an environment along a mode needs no operation that hides it."""


SIGNS = np.array(
    [
        [(1.0, 1.0, -1.0), (1.0, -1.0, 1.0), (-1.0, 1.0, 1.0), (-1.0, -1.0, -1.0)],
        [(1.0, 1.0, 1.0), (1.0, -1.0, -1.0), (-1.0, 1.0, -1.0), (-1.0, -1.0, 1.0)],
    ]
)
"""Signs with a negative and with a positive product."""


CLOSED = 1e-6
"""What a power of an operation that is exact may differ from the identity by."""


UNTOLD = 1e-10
"""Weight of a matrix itself in its fit to points."""


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

    def some(self, chosen: NDArray[np.bool_]) -> Operations:
        """Some of the operations."""
        return Operations(self.where[chosen], self.matrices[chosen], self.orders[chosen])

    def are(self, others: Operations) -> bool:
        """Whether they are the same operations of the same environments."""
        orders = (
            np.array_equal(self.where, others.where),
            np.array_equal(self.orders, others.orders),
        )
        return all(orders) and np.allclose(self.matrices, others.matrices, atol=CLOSED)

    def refitted(self, points: Floats) -> Operations:
        """With the matrices that map points (k, n, 3) best."""
        matrices = refitted(self.matrices, points, self.taken(points))
        return Operations(self.where, matrices, self.orders)

    def taken(self, points: Floats) -> Floats:
        """Of points (k, n, ...), those that the operations take to each point."""
        taken: Floats = points[np.arange(len(points))[:, None], self.orders]
        return taken


@dataclass(frozen=True, eq=False)
class Reversals:
    """What the operations of an environment leave of a change of its points.

    Attributes
    ----------
    matrices, orders
        Orthogonal matrices (g, 3, 3) and the point that each takes to each point, (g, n), by
        ascending mismatch.
    change
        The change, of shape (1, n, 3).
    size
        Its squared length.
    squares
        Squared length of its average over the powers of each operation, of shape (g,).
    """

    matrices: Floats
    orders: Ints
    change: Floats
    size: float
    squares: Floats
    _averages: Averages

    @classmethod
    def of(cls, points: Floats, group: PointGroup, change: Floats) -> Reversals:
        """For the operations of a group."""
        matrices, permutations = group.matrices, group.permutations
        if group.axis is not None:
            half_turn = 2 * np.outer(group.axis, group.axis) - np.eye(3)
            matrices = np.concatenate([matrices, half_turn[None]])
            permutations = np.concatenate([permutations, np.arange(len(points))[None]])
        mapped = points @ matrices.transpose(0, 2, 1)
        off = ((mapped - points[permutations]) ** 2).sum(axis=2)
        by_mismatch = off.max(axis=1).argsort(kind="stable")
        matrices, orders = matrices[by_mismatch], permutations[by_mismatch].argsort(axis=1)
        averages = Averages(matrices, orders)
        change = change.reshape(1, -1, 3)
        squares = (averages(change) ** 2).sum(axis=(1, 2, 3))
        return cls(matrices, orders, change, float((change**2).sum()), squares, averages)

    def fewest(self) -> tuple[list[Operation], float]:
        """Operations whose averages remove the change, and what remains of its square.

        Of those that remove enough, the one of least mismatch is taken.
        """
        change, squares = self.change, self.squares
        size = left = self.size
        found: list[Operation] = []
        while left > REMAINS * size and len(found) < MOST_OPERATIONS:
            if found:
                squares = (self._averages(change) ** 2).sum(axis=(1, 2, 3))
            enough = squares < REMAINS * size
            best = int(enough.argmax() if enough.any() else squares.argmin())
            if squares[best] > 0.8 * left:
                break
            found.append((self.matrices[best], self.orders[best]))
            change, left = self._averages(change, best)[0], float(squares[best])
        return found, left


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
    images = np.tile(np.arange(n), (e, len(matrices), 1))
    mapped = all_mapped(
        around.points, around.numbers, around.sizes, matrices, 2 * tolerance, images
    )
    where, which = np.nonzero(mapped)
    points = around.points[where]
    found = Operations(where, matrices[which], images[where, which].argsort(axis=1))
    found = found.refitted(points)
    off = ((points - found.taken(points) @ found.matrices.transpose(0, 2, 1)) ** 2).sum(axis=2)
    averages = Averages(found.matrices, found.orders)(changes[where].reshape(-1, 1, n, 3))
    squares, sizes = (averages**2).sum(axis=(1, 2, 3)), (changes**2).sum(axis=1)
    removes = (off.max(axis=1) < tolerance**2) & (squares < 0.8 * sizes[where])
    left, missed = np.tile(sizes[:, None], (1, len(matrices))), np.zeros(mapped.shape)
    left[where[removes], which[removes]] = squares[removes]
    missed[where[removes], which[removes]] = off[removes].sum(axis=1)
    enough = left.sum(axis=0) < lost
    if not enough.any():
        return None
    best = np.where(enough, missed.sum(axis=0), np.inf).argmin()
    chosen = removes & (which == best) & (sizes[where] > LEAST_CHANGE)
    return found.some(chosen) if chosen.any() else None


class Averages:
    """Averages over twelve powers of each of g operations.

    Rotations of order 1, 2, 3, 4, 6 and 12 close. Twelve powers are those of three, doubled twice.
    """

    def __init__(self, matrices: Floats, orders: Ints) -> None:
        third = _product(*_product(matrices, orders, matrices, orders), matrices, orders)
        sixth = _product(*third, *third)
        steps = (matrices, orders), third, sixth
        self._steps = [(m.transpose(0, 2, 1)[:, None], order) for m, order in steps]
        self._last = _product(*sixth, *sixth)

    @property
    def closed(self) -> NDArray[np.bool_]:
        """Whether the twelfth power of each is the identity, of shape (g,)."""
        matrices, orders = self._last
        turned = np.abs(matrices - np.eye(3)).max(axis=(1, 2)) > CLOSED
        closed: NDArray[np.bool_] = ~turned & (orders == np.arange(orders.shape[1])).all(axis=1)
        return closed

    def __call__(self, changes: Floats, number: int | None = None) -> Floats:
        """The averages of m changes of n points.

        Parameters
        ----------
        changes
            Of shape (m, n, 3), or (g, m, n, 3) for those of each operation.
        number
            The operation to average over; by default all of them.

        Returns
        -------
        averages
            Of shape (g, m, n, 3), with g = 1 for a single operation.
        """
        steps = self._steps
        if number is not None:
            steps = [(turned[[number]], order[[number]]) for turned, order in steps]
        every = np.arange(len(steps[0][0]))[:, None]

        def applied(points: Floats, turned: Floats, order: Ints) -> Floats:
            taken: Floats = points[every, :, order].swapaxes(1, 2) @ turned
            return taken

        total = np.broadcast_to(changes, (len(every), *changes.shape[-3:]))
        once = applied(total, *steps[0])
        total = total + once + applied(once, *steps[0])
        for step in steps[1:]:
            total = total + applied(total, *step)
        return total / 12


def _product(one: Floats, order: Ints, other: Floats, after: Ints) -> tuple[Floats, Ints]:
    """First one operation and then the other one, for stacks of both."""
    return other @ one, order[np.arange(len(order))[:, None], after]


def refitted(matrices: Floats, points: Floats, taken: Floats) -> Floats:
    """The orthogonal matrices of the same determinants that map ``taken`` to ``points`` best.

    By Kabsch's method; where points (..., n, 3) are on a line, what they do not tell stays as it
    is. A turn by more than 90° stays one: points in a plane do not tell half a turn from none.
    """
    pull = np.swapaxes(points, -1, -2) @ taken
    size = np.linalg.norm(pull, axis=(-1, -2), keepdims=True)
    x, _, y = np.linalg.svd(pull + UNTOLD * size * matrices)
    along = np.einsum("...ia,...ij,...aj->...a", x, matrices, y)
    signs = SIGNS[(np.linalg.det(matrices) * np.linalg.det(x @ y) > 0).astype(int)]
    best = (signs @ along[..., None])[..., 0].argmax(axis=-1)
    fitted: Floats = (x * np.take_along_axis(signs, best[..., None, None], axis=-2)) @ y
    return fitted


def averaged(operations: Operations, changes: Floats) -> Floats:
    """Averages of changes (e, 3 n, m) over the groups that exact operations generate."""
    e, rows, m = changes.shape
    found = changes.copy()
    alone = np.flatnonzero(np.bincount(operations.where, minlength=e)[operations.where] == 1)
    where = operations.where[alone]
    powers = Averages(operations.matrices[alone], operations.orders[alone])
    closed = powers.closed
    points = changes[where].reshape(len(alone), rows // 3, 3, m).transpose(0, 3, 1, 2)
    found[where] = powers(points).transpose(0, 2, 3, 1).reshape(len(alone), rows, m)
    for k in np.setdiff1d(operations.where, where[closed]):
        own = operations.where == k
        found[k] = average(operations.matrices[own], operations.orders[own], changes[k])
    return found


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
