"""The points about a center, and how the coordinates of a system move them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.geometry.symmetry import PointGroup, point_group
from ase_sensitivity.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """Points about a center.

    ``moves`` is how the coordinates of a system move them, of shape (3 n, n_coordinates).
    """

    numbers: Ints
    points: Floats
    moves: Floats

    @cached_property
    def rotations(self) -> Floats:
        """Orthonormal rotations of the points."""
        return rotations(self.points)

    @cached_property
    def groups(self) -> dict[float, PointGroup]:
        """Point groups by tolerance."""
        return {}

    def group(self, tolerance: float) -> PointGroup:
        """The point group up to a tolerance (Å)."""
        if tolerance not in self.groups:
            self.groups[tolerance] = point_group(self.points, self.numbers, tolerance)
        return self.groups[tolerance]


def without(basis: Floats, x: Floats) -> Floats:
    """The part of vectors that is orthogonal to an orthonormal basis, both in columns."""
    rest: Floats = x - basis @ (basis.T @ x)
    return rest


def rotations(points: Floats) -> Floats:
    """Orthonormal rotations about the origin, of shape (3 n, 3); (3 n, 2) on a line."""
    u, s, _ = np.linalg.svd(rotation_generators(points).reshape(3, -1).T, full_matrices=False)
    return u[:, s > 1e-6 * s[0]]
