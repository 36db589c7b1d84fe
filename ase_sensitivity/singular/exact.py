"""Exact singular geometries near a given one, found from positions alone (:doc:`/approach`).

Two kinds of geometry hide a displacement v from every basis of a descriptor. In a symmetric one,
operations of the environments reverse the change along v. In a blind one, distances and angles are
equal that features of the body order cannot tell apart. Both are zeros of smooth functions of the
positions, which Newton steps of least displacement find to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from ase_sensitivity.causes.environments import Environment, receptive_fields
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.singular.blind import BlindGeometries
from ase_sensitivity.singular.neighborhood import Neighborhood, rotations, without
from ase_sensitivity.singular.operations import Operation, average, refitted, reversing
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
"""With more centers, a displacement that is hidden from all of them is symmetric or truncated."""


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
        unit = np.eye(n).reshape(-1, 3, n)

        def of(environments: Sequence[Environment]) -> list[Neighborhood]:
            return [
                Neighborhood(e.numbers, e.displacements, e.relative(unit))
                for e in environments
                if len(e.numbers)
            ]

        self._whole: list[Neighborhood] = []
        if n <= MOST_COORDINATES:  # the matrices of all environments of a large system are large
            self._whole = of([e for field in fields for e in field.environments])
        self._known = all(field.symmetry_known for field in fields)
        self._resolved: list[Neighborhood] = []
        self._nu = 0
        environments = [e for field in fields for e in field.resolved]
        order = fields[0].body_order if len({field.body_order for field in fields}) == 1 else None
        few = len(environments) <= MOST_CENTERS
        if few and all(len(e.numbers) <= MOST_NEIGHBORS for e in environments) and order in (2, 3):
            self._nu = order - 1
            self._resolved = of(environments)

    def symmetric(
        self, modes: Floats, number: int, tolerance: float, limit: float
    ) -> ExactGeometry | None:
        """A geometry near the origin whose symmetry hides a mode; None if there is none.

        Parameters
        ----------
        modes
            The lowest modes, of shape (n_coordinates, m).
        number
            Which of them is to be hidden.
        tolerance
            Operations are looked for that map points to within this, in Å.
        limit
            How far from the origin it may be, in Å.
        """
        self._limit = min(limit, self._reach)
        return self._symmetric(modes, number, tolerance) if self.searches_symmetry else None

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

    def _symmetric_part(self, u: Floats, v: Floats) -> float:
        """Squared part of a displacement v that the symmetry at u hides."""
        seen = whole = 0.0
        for around in self._whole:
            points = around.points + (around.moves @ u).reshape(-1, 3)
            change = without(rotations(points), around.moves @ v)
            whole += float(change @ change)
            group = point_group(points, around.numbers, STRICT)
            if group.order > 1:
                change = group.invariants().T @ change
            seen += float(change @ change)
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

    def _symmetric(self, modes: Floats, number: int, tolerance: float) -> ExactGeometry | None:
        mode = modes[:, number]
        chosen: list[list[Operation]] = []
        lost = total = 0.0
        for around in self._whole:
            change = without(around.rotations, around.moves @ mode)
            operations, left = reversing(around, change, tolerance)
            chosen.append(operations)
            total += float(change @ change)
            lost += left
        if total < 1e-8 or lost > 0.5 * total:
            return None
        u = self._symmetrised(chosen)
        if u is None:
            return None
        seen, whole = np.zeros((2, modes.shape[1], modes.shape[1]))
        for around, operations in zip(self._whole, chosen, strict=True):
            points = around.points + (around.moves @ u).reshape(-1, 3)
            change = without(rotations(points), around.moves @ modes)
            whole += change.T @ change
            if operations:
                change = average(points, operations, change)
            seen += change.T @ change
        floor = 1e-12 * np.trace(whole) * np.eye(len(whole))
        shares, vectors = scipy.linalg.eigh(seen, whole + floor)
        null = np.linalg.qr(modes @ vectors[:, shares < 1 - HIDDEN_PART])[0]
        hidden = 1 - float(seen[number, number] / whole[number, number])
        return ExactGeometry("symmetry", u, null, hidden)

    def _symmetrised(self, chosen: list[list[Operation]]) -> Floats | None:
        """The displacement that makes operations exact, by Newton steps; None if there is none."""
        n = self.n_coordinates
        u = np.zeros(n)
        for _ in range(8):
            gram, pull, worst = np.zeros((n, n)), np.zeros(n), 0.0
            for around, operations in zip(self._whole, chosen, strict=True):
                if not operations:
                    continue
                points = around.points + (around.moves @ u).reshape(-1, 3)
                q = rotations(points)
                moves = around.moves.reshape(len(points), 3, n)
                for matrix, order in operations:
                    matrix = refitted(matrix, points, order)
                    off = (points - points[order] @ matrix.T).ravel()
                    changes = moves - np.einsum("ab,nbm->nam", matrix, moves[order])
                    changes = without(q, changes.reshape(-1, n))
                    off = without(q, off)
                    worst = max(worst, float(np.abs(off).max()))
                    gram += changes.T @ changes / len(points)
                    pull += changes.T @ off / len(points)
            if worst < SYMMETRIC:
                return u
            gram = without(self._trivial, without(self._trivial, gram).T)
            values, vectors = np.linalg.eigh(gram)
            kept = values > FLAT * values[-1]
            steep, values = vectors[:, kept], values[kept]
            u = u - steep @ ((steep.T @ pull) / values) + without(steep, self._towards(u))
            if self._distance(u) > self._limit:
                return None
        return None
