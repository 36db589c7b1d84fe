"""Operations of O(3) that map an environment onto itself, and invariant displacements."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy

from ase_sensitivity.geometry.clusters import clusters
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.types import Floats, Ints

TOLERANCE = 1e-5
"""A symmetry operation maps every point of an environment to within this distance (Å) of a point.
Geometries printed with six decimals are symmetric to a few 1e-6 Å."""

SMALL = 30
"""Number of points up to which it does not pay to treat each orbit of a group by itself."""

DENSE = 1_000_000
"""Number of distances up to which computing all of them costs less than a search tree."""

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
    candidates = _candidates(displacements, distance, shell, tolerance)
    return PointGroup(*_confirmed(displacements, shell, candidates, tolerance), None)


def _candidates(d: Floats, distance: Floats, shell: Ints, tolerance: float) -> Floats:
    """Orthogonal matrices that map two points onto two of the same shells at the same angle.

    The first point is from the smallest shell; the second is the one that leaves fewest choices.
    The normal of the plane of the points may keep or change its sign: so planar environments are
    complete too.
    """
    away = distance > tolerance  # the centroid of a structure may be an atom
    unit = d / np.where(away, distance, 1.0)[:, None]
    size = np.bincount(shell)
    first = int(np.where(away, size[shell], len(d) + 1).argmin())
    images = np.flatnonzero(shell == shell[first])
    cosine = unit[images] @ unit.T
    own = unit @ unit[first]
    sine = np.sqrt((1 - own**2).clip(0.0))
    usable = np.flatnonzero(away & (sine > min(0.3, 0.9 * sine[away].max())))
    slack = min(ROUGH * tolerance, max(0.1, 1.5 * tolerance)) / distance[away].min()
    same = np.abs(cosine[:, None, :] - own[usable, None]) < slack
    same &= shell[usable, None] == shell
    # Two directions that are nearly parallel do not define a frame.
    same &= (1 - cosine**2)[:, None, :] > (0.5 * sine[usable, None]) ** 2
    chosen = int(same.sum(axis=(0, 2)).argmin())
    second = int(usable[chosen])
    a, b = np.nonzero(same[:, chosen])
    frame = _frames(unit[[first]], unit[[second]])[0]
    rotated = _frames(unit[images[a]], unit[b])
    mirrored = rotated * np.array([1.0, 1.0, -1.0])
    matrices: Floats = np.concatenate([rotated, mirrored]) @ frame.T
    return matrices


def _frames(first: Floats, second: Floats) -> Floats:
    """Orthonormal right-handed frames as columns, the first vector along ``first``."""
    x = first
    y = second - np.einsum("ij,ij->i", first, second)[:, None] * first
    y /= np.linalg.norm(y, axis=1)[:, None]
    # written out, as numpy's cross product is slow
    z = x[:, [1, 2, 0]] * y[:, [2, 0, 1]] - x[:, [2, 0, 1]] * y[:, [1, 2, 0]]
    return np.stack([x, y, z], axis=2)


def _confirmed(d: Floats, shell: Ints, candidates: Floats, tolerance: float) -> tuple[Floats, Ints]:
    """The candidates that map all points, fitted to them, and their permutations."""
    g, n = len(candidates), len(d)
    moved = d @ candidates.transpose(0, 2, 1)
    reach = min(ROUGH * tolerance * 10, max(0.5, 2.5 * tolerance))
    if 0 < g * n * n < DENSE:
        # Squared distances by a matrix product.
        squares = (d**2).sum(axis=1)
        never = np.where(shell[:, None] == shell, squares[:, None] + squares, np.inf)
        apart_squared = never - 2 * (moved @ d.T)
        image = apart_squared.argmin(axis=2)
        near = apart_squared.min(axis=2) <= reach**2
    else:
        # A fourth coordinate separates the shells.
        tree = scipy.spatial.KDTree(np.column_stack([d, 10.0 * shell]))
        where = np.concatenate([moved, np.broadcast_to(10.0 * shell[:, None], (g, n, 1))], axis=2)
        missed, image = tree.query(where.reshape(-1, 4), distance_upper_bound=reach)
        image, near = image.reshape(g, n), np.isfinite(missed).reshape(g, n)
    complete = near.all(axis=1)
    complete &= (np.diff(np.sort(image, axis=1), axis=1) > 0).all(axis=1)
    image, rough = image[complete], candidates[complete]
    # The orthogonal matrix of the same determinant that fits all pairs of points best (Kabsch).
    u, _, vt = np.linalg.svd(d[image].transpose(0, 2, 1) @ d)
    last = np.linalg.det(rough) * np.linalg.det(u @ vt)
    u[:, :, 2] *= last[:, None]
    fitted = u @ vt
    missed = np.linalg.norm(d @ fitted.transpose(0, 2, 1) - d[image], axis=2)
    good = missed.max(axis=1, initial=0.0) < tolerance
    return fitted[good], image[good]


def _range(average: Floats) -> Floats:
    """Eigenvectors of an approximate projector with eigenvalues near one."""
    values, vectors = np.linalg.eigh((average + average.T) / 2)
    chosen: Floats = vectors[:, values > 0.5]
    return chosen
