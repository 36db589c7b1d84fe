"""The points about centers, and how the coordinates of a system move them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_sensitivity.causes.environments import Environment
from ase_sensitivity.singular import averages
from ase_sensitivity.types import Floats, Ints

LINE = 1e-12
"""Rotations whose squared length is below this fraction of the largest turn points on a line."""


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """Points about a center.

    ``moves`` is how the coordinates of a system move them, of shape (3 n, n_coordinates).
    """

    numbers: Ints
    points: Floats
    moves: Floats


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The points about e centers as stacked arrays, where zeros follow if a center has fewer.

    Attributes
    ----------
    sizes
        Number of points of each center, of shape (e,).
    numbers
        Their atomic numbers, of shape (e, n).
    points
        From the center to each point in Å, of shape (e, n, 3).
    weights
        By how much they move with each point of a system, of shape (e, n, n_columns).
    """

    sizes: Ints
    numbers: Ints
    points: Floats
    weights: Floats

    @classmethod
    def of(cls, environments: Sequence[Environment], n_columns: int) -> Surroundings:
        """Those of environments that are not empty."""
        around = [one for one in environments if len(one.numbers)]
        sizes = np.array([len(one.numbers) for one in around], dtype=np.intp)
        shape = len(around), int(sizes.max(initial=0))
        numbers = np.zeros(shape, dtype=np.intp)
        points, weights = np.zeros((*shape, 3)), np.zeros((*shape, n_columns))
        unit = np.eye(n_columns)[:, None]
        for k, one in enumerate(around):
            n = len(one.numbers)
            numbers[k, :n], points[k, :n] = one.numbers, one.displacements
            weights[k, :n] = one.relative(unit)
        return cls(sizes, numbers, points, weights)

    def displaced(self, u: Floats) -> Floats:
        """The points after a displacement of the coordinates."""
        return self.points + self.changes(u).reshape(self.points.shape)

    def changes(self, modes: Floats) -> Floats:
        """How modes (3 n_columns, ...) move the points, of shape (e, 3 n, ...)."""
        e, n, n_columns = self.weights.shape
        moved = self.weights.reshape(-1, n_columns) @ modes.reshape(n_columns, -1)
        return moved.reshape(e, 3 * n, *modes.shape[1:])


def without(basis: Floats, x: Floats) -> Floats:
    """The part of vectors that is orthogonal to an orthonormal basis, both in columns.

    Both may be stacks, of bases and of as many sets of vectors.
    """
    rest: Floats = x - basis @ (np.swapaxes(basis, -1, -2) @ x)
    return rest


def rotations(points: Floats, off_line: Floats | float = 0.0) -> Floats:
    """Orthonormal rotations of points (e, n, 3) about the origin, of shape (e, 3 n, 3).

    One is zero if the points are on a line: if the root of the sum of their squared distances from
    it is at most ``off_line`` (Å), a number or one for each of e.
    """
    e, n, _ = points.shape
    found = np.empty((e, n, 3, 3))
    averages.turn(points, LINE, np.square(off_line) * np.ones(e), found)
    return found.reshape(e, 3 * n, 3)
