"""Operations of O(3) that map an environment onto itself, and invariant displacements."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from ase_sensitivity.geometry.clusters import clusters
from ase_sensitivity.geometry.operations import fitted, is_mapped, matches
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.types import Floats, Ints

TOLERANCE = 1e-5
"""A symmetry operation maps every point of an environment to within this distance (Å) of a point.
Geometries printed with six decimals are symmetric to a few 1e-6 Å."""

SMALL = 30
"""Number of points up to which it does not pay to treat each orbit of a group by itself."""

ROUGH = 100.0
"""Candidate operations come from two points only. Before they are fitted to all points, they may
miss by this many tolerances."""


@dataclass(frozen=True)
class PointGroup:
    """The operations about a center that map its environment onto itself.

    Attributes
    ----------
    matrices
        Orthogonal matrices of shape (g, 3, 3), determinant 1 or -1. For a collinear environment
        only the identity and, if it is a symmetry, the inversion; ``axis`` stands for the others.
    permutations
        ``permutations[h, j]`` is the point that operation h takes point j to; shape (g, n).
    axis
        Unit vector along a collinear environment: every rotation about it and every mirror plane
        that contains it belong to the group. None for all other environments.
    """

    matrices: Floats
    permutations: Ints
    axis: Floats | None

    @property
    def order(self) -> float:
        """Number of operations; infinite for a collinear environment."""
        return math.inf if self.axis is not None else float(len(self.matrices))

    def invariants(self) -> Floats:
        """Orthonormal displacements of the points that are invariant under every operation.

        They span the range of the projector P, the average of the operations' action on
        displacements (:doc:`/causes`); of shape (3 n, m).

        Notes
        -----
        Operations found with a tolerance form a group only up to that tolerance, and so their
        average is only approximately a projector. Its eigenvectors with eigenvalues above one half
        span the invariant displacements.
        """
        g, n = self.permutations.shape
        if self.axis is not None:
            # The average over rotations about the axis leaves displacements along it.
            along = np.kron(np.eye(n), self.axis[:, None])
            average = np.zeros((n, n))
            signs = np.einsum("i,hij,j->h", self.axis, self.matrices, self.axis)
            for sign, permutation in zip(signs, self.permutations, strict=True):
                average[permutation, np.arange(n)] += sign / g
            return along @ _range(average)
        if n <= SMALL:
            average = np.zeros((n, n, 3, 3))
            np.add.at(average, (self.permutations, np.arange(n)), self.matrices[:, None] / g)
            return _range(average.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n))
        points = np.arange(n)
        graph = scipy.sparse.coo_array(
            (np.ones(g * n), (self.permutations.ravel(), np.tile(points, g))), shape=(n, n)
        )
        n_orbits, orbit = scipy.sparse.csgraph.connected_components(graph, directed=False)
        row = 3 * self.permutations[:, :, None, None] + np.arange(3)[:, None]
        column = np.broadcast_to(3 * points[:, None, None] + np.arange(3), (*row.shape[:2], 3, 3))
        row = np.broadcast_to(row, column.shape)
        data = np.broadcast_to(self.matrices[:, None] / g, column.shape)
        average = scipy.sparse.coo_array(
            (data.ravel(), (row.ravel(), column.ravel())), shape=(3 * n, 3 * n)
        ).toarray()
        found = []
        for label in range(n_orbits):
            index = coordinates_of(np.flatnonzero(orbit == label))
            basis = _range(average[np.ix_(index, index)])
            wide = np.zeros((3 * n, basis.shape[1]))
            wide[index] = basis
            found.append(wide)
        return np.concatenate(found, axis=1) if found else np.empty((0, 0))


def point_group(displacements: Floats, numbers: Ints, tolerance: float = TOLERANCE) -> PointGroup:
    """All operations of O(3) that map points about the origin onto points of the same species.

    Parameters
    ----------
    displacements
        The points in Å, of shape (n, 3).
    numbers
        Their species, of shape (n,).
    tolerance
        How far (Å) a point may be from where the operation puts it.

    Returns
    -------
    PointGroup
        The group; it has at least the identity.

    Examples
    --------
    >>> import numpy as np
    >>> octahedron = 1.56 * np.concatenate([np.eye(3), -np.eye(3)])
    >>> point_group(octahedron, np.full(6, 9)).order
    48.0
    """
    distance = np.linalg.norm(displacements, axis=1)
    shell = clusters(distance, tolerance, numbers)
    axis = np.array([0.0, 0.0, 1.0])  # any axis will do if no point is off the origin
    if distance.max(initial=0.0) > tolerance:
        axis = displacements[distance.argmax()] / distance.max()
    off_axis = displacements - np.outer(displacements @ axis, axis)
    if np.linalg.norm(off_axis, axis=1).max(initial=0.0) < tolerance:
        inversion = np.array([np.eye(3), -np.eye(3)])
        return PointGroup(*_confirmed(displacements, shell, inversion, tolerance), axis)
    return PointGroup(*_operations(displacements, distance, shell, tolerance), None)


def _operations(d: Floats, distance: Floats, shell: Ints, tolerance: float) -> tuple[Floats, Ints]:
    """Orthogonal matrices that map all points, fitted to them, and their permutations.

    Candidates map two points onto two of the same shells at the same angle. The first point is from
    the smallest shell.
    """
    away = distance > tolerance  # the centroid of a structure may be an atom
    unit = d / np.where(away, distance, 1.0)[:, None]
    first = int(np.where(away, np.bincount(shell)[shell], len(d) + 1).argmin())
    slack = min(ROUGH * tolerance, max(0.1, 1.5 * tolerance)) / distance[away].min()
    rough, image = matches(d, unit, shell, away, first, slack, _reach(tolerance))
    return _fitted(d, rough, image, tolerance)


def _reach(tolerance: float) -> float:
    """How far (Å) a point may be from where a candidate puts it."""
    return min(10 * ROUGH * tolerance, max(0.5, 2.5 * tolerance))


def _confirmed(d: Floats, shell: Ints, candidates: Floats, tolerance: float) -> tuple[Floats, Ints]:
    """The candidates that map all points, fitted to them, and their permutations."""
    image = np.empty((len(candidates), len(d)), dtype=np.intp)
    reach = _reach(tolerance)
    complete = [is_mapped(d, shell, *one, reach) for one in zip(candidates, image, strict=True)]
    return _fitted(d, candidates[complete], image[complete], tolerance)


def _fitted(d: Floats, rough: Floats, image: Ints, tolerance: float) -> tuple[Floats, Ints]:
    """The operations that map all points to within the tolerance; ``rough`` is changed."""
    good = fitted(d, rough, image, tolerance)
    return rough[good], image[good]


def _range(average: Floats) -> Floats:
    """Eigenvectors of an approximate projector with eigenvalues near one."""
    values, vectors = np.linalg.eigh((average + average.T) / 2)
    chosen: Floats = vectors[:, values > 0.5]
    return chosen
