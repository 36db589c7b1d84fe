"""Exact singular geometries near a given one, found from positions alone (:doc:`/approach`).

Two kinds of geometry hide a displacement v from every basis of a descriptor. In a symmetric one,
operations of the environments reverse the change along v. In a blind one, distances and angles are
equal that features of the body order cannot tell apart. Both are zeros of smooth functions of the
positions, which Newton steps of least displacement find to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee

import numpy as np
import scipy

from ase_sensitivity.causes.environments import Environment, receptive_fields
from ase_sensitivity.geometry.symmetry import PointGroup, point_group
from ase_sensitivity.singular.blind import BlindGeometries
from ase_sensitivity.singular.neighborhood import Neighborhood, Surroundings, rotations, without
from ase_sensitivity.singular.operations import (
    LEAST_CHANGE,
    Operation,
    Operations,
    averaged,
    fewest,
    matrices_of,
    shared,
)
from ase_sensitivity.singular.point import Point
from ase_sensitivity.singular.system import System
from ase_sensitivity.types import Floats

EDGE = 0.02
"""In Å: neighbors nearer to the end of the reach have no weight."""

SYMMETRIC = 1e-9
"""In Å: a point that an operation puts this near to another one is put on it."""

HIDDEN_PART = 0.7
"""Of the change of the environments along a mode, the part that a symmetric geometry hides. As the
mode is that of another geometry, it is not hidden as a whole."""


HALF = 0.5
"""The same of what is worth a closer look."""

HIDDEN_BY_SYMMETRY = 0.5
"""Of the change of the environments along a hidden displacement, the part that has to vanish by
symmetry for that to be the cause."""

STRICT = 1e-4
"""In Å: tolerance of the symmetry of a blind geometry."""

FLAT = 2e-3
"""Combinations of conditions with eigenvalues below this fraction of the largest are left free."""

MOST_COORDINATES = 150
"""Larger systems have too many environments, each too far from any symmetry, to search."""

MOST_NEIGHBORS = 10
"""Neighbors of a center whose classes are searched."""

MOST_CENTERS = 2
"""With more centers whose points it moves, a displacement that is hidden from all of them is
symmetric or truncated."""

MOVED = 1e-2
"""A displacement moves the points of a center if their squared motion without rotations is at least
this fraction of the largest one about any center."""


@dataclass(frozen=True, eq=False)
class ExactGeometry:
    """A geometry that hides a displacement.

    Attributes
    ----------
    cause
        "symmetry" or "incompleteness".
    displacement
        From the geometry where the search began to this one, of shape (3 n_columns,), in Å.
    null
        Displacements that are hidden there, orthonormal, of shape (3 n_columns, m); rigid motions
        may be among them.
    hidden
        Squared length of the part of the displacement v that is hidden.
    """

    cause: str
    displacement: Floats
    null: Floats
    hidden: float


class ExactGeometries:
    """Searches for exact geometries near one configuration.

    Parameters
    ----------
    system
        The system.
    at
        The configuration to start from.
    origin
        Positions of the points that the result shall be near to, of shape (n_points, 3), in Å.
    reach
        How far from there the result may be, in Å.
    """

    def __init__(self, system: System, at: Point, origin: Floats, reach: float) -> None:
        n = 3 * at.view.n_columns
        self._trivial, self._reach, self._limit = at.view.trivial, reach, reach
        self._start = (origin - at.atoms.positions)[system.moving].ravel()
        self.n_coordinates = n
        fields = receptive_fields(at.view, at.atoms, system.descriptor, EDGE)
        seen: list[Environment] = []
        if n <= MOST_COORDINATES:  # the matrices of all environments of a large system are large
            seen = [e for field in fields for e in field.environments]
        self._whole = Surroundings.of(seen, at.view.n_columns)
        self._rotations = rotations(self._whole.points)
        self._groups: dict[tuple[int, float], PointGroup] = {}
        self._known_operations: dict[tuple[int, float], Iterator[Operations]] = {}
        self._known = all(field.symmetry_known for field in fields)
        self._resolved: list[Neighborhood] = []
        self._nu = 0
        self._all_resolved = environments = [e for field in fields for e in field.resolved]
        order = fields[0].body_order if len({field.body_order for field in fields}) == 1 else None
        few = len(environments) <= MOST_CENTERS
        self._always_incomplete = order is None or order < 3
        if few and all(len(e.numbers) <= MOST_NEIGHBORS for e in environments) and order in (2, 3):
            self._nu = order - 1
            unit = np.eye(n).reshape(-1, 3, n)
            self._resolved = [
                Neighborhood(e.numbers, e.displacements, e.relative(unit))
                for e in environments
                if len(e.numbers)
            ]

    def symmetric(
        self, modes: Floats, number: int, tolerance: float, limit: float, near: float = 0.0
    ) -> ExactGeometry | None:
        """A geometry near the origin whose symmetry hides a mode; None if there is none.

        Parameters
        ----------
        modes
            The lowest modes, of shape (n_coordinates, m), the same in all calls.
        number
            Which of them is to be hidden.
        tolerance
            Operations are looked for that map points to within this, in Å.
        limit
            How far from the origin it may be, in Å.
        near
            Within this distance (Å) the first one is taken, and no nearer one is looked for.
        """
        self._limit = min(limit, self._reach)
        return self._symmetric(modes, number, tolerance, near) if self.searches_symmetry else None

    def blind(self, limit: float) -> Iterator[ExactGeometry]:
        """Geometries in which neighbors cannot be told apart, the nearest to the origin first.

        ``limit`` is how far from there they may be, in Å. Some may be symmetric as well: their
        cause is "symmetry".
        """
        if not self._resolved:
            return
        search = BlindGeometries(self._resolved, self._nu, self._trivial, self._start)
        for one in search.within(min(limit, self._reach)):
            symmetric = self._symmetric_part(one.displacement, one.null) > HIDDEN_BY_SYMMETRY
            cause = "symmetry" if symmetric else "incompleteness"
            yield ExactGeometry(cause, one.displacement, one.null[:, None], 1.0)

    def may_be_incomplete(self, mode: Floats) -> bool:
        """Whether a mode (3 n_columns,) may be hidden though no symmetry hides it."""
        if self._always_incomplete:
            return True
        displacement = mode.reshape(-1, 3, 1)
        around = [one for one in self._all_resolved if len(one.numbers)]
        squares = [float((one.relative(displacement) ** 2).sum()) for one in around]
        least = MOVED * max(squares, default=0.0)
        moved = set()  # centers, as several descriptors may have the same ones
        for one, square in zip(around, squares, strict=True):
            if square >= least:
                motion = one.internal(displacement, SYMMETRIC)
                if (motion**2).sum() >= least:
                    moved.add(int(one.center_columns[0]))
            if len(moved) > MOST_CENTERS:
                return False
        return True

    def _symmetric_part(self, u: Floats, v: Floats) -> float:
        """Squared part of a displacement v that the symmetry at u hides."""
        around = self._whole
        points = around.displaced(u)
        changes = without(rotations(points), around.changes(v[:, None]))[:, :, 0]
        whole, seen = float((changes**2).sum()), 0.0
        for n, numbers, at, change in zip(
            around.sizes, around.numbers, points, changes, strict=True
        ):
            group = point_group(at[:n], numbers[:n], STRICT)
            inner = change[: 3 * n]
            if group.order > 1:
                inner = group.invariants().T @ inner
            seen += float(inner @ inner)
        return 1 - seen / whole if whole else 0.0

    @property
    def searches_symmetry(self) -> bool:
        """Whether symmetric geometries are searched; otherwise the system is too large."""
        return self._known and self.n_coordinates <= MOST_COORDINATES

    def _distance(self, u: Floats) -> float:
        return float(np.linalg.norm(u - self._start))

    def _towards(self, u: Floats) -> Floats:
        """From u to the origin, without rigid motions."""
        return without(self._trivial, self._start - u)

    # Symmetric geometries

    def _symmetric(
        self, modes: Floats, number: int, tolerance: float, near: float
    ) -> ExactGeometry | None:
        found = []
        known = self._known_operations.get((number, tolerance))
        every = known or self._reversing(modes[:, number], tolerance)
        self._known_operations[number, tolerance], every = tee(every)
        for operations in every:
            one = self._with(operations, modes, number)
            if one is not None and one.hidden > HALF:
                found.append(one)
                if self._distance(one.displacement) <= near:
                    break
        return min(found, key=lambda one: self._distance(one.displacement), default=None)

    def _with(self, operations: Operations, modes: Floats, number: int) -> ExactGeometry | None:
        """The geometry where operations of environments are exact, if it is near."""
        whole = self._whole
        u = self._symmetrised(operations)
        if u is None:
            return None
        points = whole.displaced(u)
        changes = without(rotations(points), whole.changes(modes))
        all_of_it = _square(changes)
        seen = _square(averaged(operations.refitted(points[operations.where]), changes))
        floor = 1e-12 * np.trace(all_of_it) * np.eye(len(all_of_it))
        shares, vectors = scipy.linalg.eigh(seen, all_of_it + floor)
        null = np.linalg.qr(modes @ vectors[:, shares < 1 - HIDDEN_PART])[0]
        hidden = 1 - float(seen[number, number] / all_of_it[number, number])
        return ExactGeometry("symmetry", u, null, hidden)

    def _reversing(self, mode: Floats, tolerance: float) -> Iterator[Operations]:
        """Operations of environments that hide half of all changes along a mode.

        First a single one that the environments share, as fewer conditions hold nearer; then those
        that are best for each.
        """
        changes = without(self._rotations, self._whole.changes(mode[:, None]))[:, :, 0]
        squares = (changes**2).sum(axis=1)
        total = float(squares.sum())
        if total < 1e-8:
            return
        by_change = (-squares).argsort(kind="stable").tolist()
        matrices = matrices_of(self._group(by_change[0], tolerance))
        common = shared(self._whole, matrices, changes, tolerance, (1 - HIDDEN_PART) * total)
        if common is not None:
            yield common
        best: list[list[Operation]] = [[] for _ in squares]
        lost = 0.0
        for k in by_change:
            left = float(squares[k])
            if left > LEAST_CHANGE:
                n = self._whole.sizes[k]
                change = changes[k, : 3 * n].reshape(-1, 3)
                group = self._group(k, tolerance)
                best[k], left = fewest(self._whole.points[k, :n], group, change)
            lost += left
            if lost > HALF * total:
                return
        operations = Operations.of(best, changes.shape[1] // 3)
        if common is None or not operations.are(common):
            yield operations

    def _group(self, k: int, tolerance: float) -> PointGroup:
        """The point group of an environment up to a tolerance (Å)."""
        if (k, tolerance) not in self._groups:
            n = self._whole.sizes[k]
            points, numbers = self._whole.points[k, :n], self._whole.numbers[k, :n]
            self._groups[k, tolerance] = point_group(points, numbers, tolerance)
        return self._groups[k, tolerance]

    def _symmetrised(self, operations: Operations) -> Floats | None:
        """The displacement that makes operations exact, by Newton steps; None if there is none."""
        whole, where = self._whole, operations.where
        k, size = operations.orders.shape
        u = np.zeros(self.n_coordinates)
        # What is off changes by (W x 1 - W' x M) du, with Kronecker products and W' = W taken.
        weights = whole.weights[where]
        taken = operations.taken(weights)
        share = 1 / whole.sizes[where][:, None, None]
        across = weights.transpose(0, 2, 1), taken.transpose(0, 2, 1)
        squares = np.kron((share * (across[0] @ weights + across[1] @ taken)).sum(0), np.eye(3))
        mixed = (share * (across[0] @ taken)).reshape(k, -1).T
        for _ in range(8):
            points = whole.displaced(u)
            q, points = rotations(points)[where], points[where]
            operations = operations.refitted(points)
            matrices = operations.matrices
            off = points - operations.taken(points) @ matrices.transpose(0, 2, 1)
            off = without(q, off.reshape(k, -1, 1)).reshape(k, size, 3)
            if np.abs(off).max() < SYMMETRIC:
                return u
            turned = (mixed @ matrices.reshape(k, -1)).reshape(-1, len(u) // 3, 3, 3)
            turned = turned.transpose(0, 2, 1, 3).reshape(len(u), -1)
            kept, lost = (one @ q.reshape(k, size, 9) for one in across)
            lost = matrices.transpose(0, 2, 1)[:, None] @ lost.reshape(k, -1, 3, 3)
            rotated = kept.reshape(k, -1, 3) - lost.reshape(k, -1, 3)
            rotated = (np.sqrt(share) * rotated).transpose(0, 2, 1).reshape(3 * k, -1)
            gram = squares - turned - turned.T - rotated.T @ rotated
            pull = (share * (across[0] @ off - (across[1] @ off) @ matrices)).sum(axis=0).ravel()
            gram = without(self._trivial, without(self._trivial, gram).T)
            values, vectors = np.linalg.eigh(gram)
            kept = values > FLAT * values[-1]
            steep, values = vectors[:, kept], values[kept]
            u = u - steep @ ((steep.T @ pull) / values) + without(steep, self._towards(u))
            if self._distance(u) > self._limit:
                return None
        return None


def _square(changes: Floats) -> Floats:
    """Products of changes (e, 3 n, m) of all environments, of shape (m, m)."""
    flat = changes.reshape(-1, changes.shape[2])
    square: Floats = flat.T @ flat
    return square
