"""The features of an environment: a set of rows, with a vector that does not depend on order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.descriptors.base import Descriptor, reach_of, rows_of
from ase_sensitivity.types import Floats, Ints

Shape = tuple[tuple[int, int], ...]
"""Number of rows and of features in each, for each part of the descriptor."""


@dataclass(frozen=True, eq=False)
class RowSet:
    """All rows of features of an environment.

    Attributes
    ----------
    shape
        Only row sets of the same shape are compared.
    vector
        A vector that does not depend on the order of rows. The distance of the vectors of two row
        sets is a lower bound of the distance of their best-matched rows. First come the features of
        parts with one row; then, for each part with several rows, the projections of its rows on
        one direction, in ascending order.
    n_single
        Number of entries from parts with one row, or with rows of one feature. For these, the
        vector is all that is compared.
    several
        The rows of the other parts, each of shape (n_rows, n_features).
    """

    shape: Shape
    vector: Floats
    n_single: int
    several: tuple[Floats, ...]

    @property
    def norm(self) -> float:
        """Norm of all features."""
        squares = [np.vdot(part, part) for part in (self.vector[: self.n_single], *self.several)]
        return float(np.sqrt(sum(squares)))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.vector.nbytes + sum(part.nbytes for part in self.several)

    def distance(self, other: RowSet) -> float:
        """Distance to another row set of the same shape, in the best match of their rows."""
        single = self.vector[: self.n_single] - other.vector[: self.n_single]
        square = float(single @ single)
        for mine, theirs in zip(self.several, other.several, strict=True):
            costs = scipy.spatial.distance.cdist(mine, theirs, "sqeuclidean")
            square += float(costs[scipy.optimize.linear_sum_assignment(costs)].sum())
        return float(np.sqrt(square))


def distances(some: Sequence[RowSet], others: Sequence[RowSet]) -> Floats:
    """Distances of row sets to others, of shape (n, m); infinite where shapes differ."""
    shapes = {one.shape for one in (*some, *others)}
    if len(shapes) == 1 and not some[0].several:
        found: Floats = scipy.spatial.distance.cdist(
            [one.vector for one in some], [one.vector for one in others]
        )
        return found
    return np.array(
        [[a.distance(b) if a.shape == b.shape else np.inf for b in others] for a in some]
    )


def row_sets(descriptor: Descriptor, atoms: Atoms) -> tuple[Ints, list[RowSet]]:
    """Centers, ascending, and the features of each.

    The only center is -1, the structure as a whole, in three cases: some rows belong to it, there
    are no rows, or the structure is periodic and the cutoff infinite.

    Raises
    ------
    ValueError
        If features are not finite.
    """
    rows = rows_of(descriptor, atoms)
    if not all(np.isfinite(features).all() for features, _ in rows):
        raise ValueError("the descriptor gave features that are not finite")
    owners = [own for _, own in rows]
    endless = bool(atoms.pbc.any()) and not np.isfinite(reach_of(descriptor))
    if len(rows) == 1 and not endless and _one_row_each(owners[0]):
        features = rows[0][0].copy()  # a descriptor may write to its own array again
        shape = ((1, features.shape[1]),)
        return owners[0], [RowSet(shape, row, len(row), ()) for row in features]
    centers = np.unique(np.concatenate(owners))
    if len(centers) == 0 or centers[0] < 0 or endless:
        centers = np.array([-1])
        owners = [np.full(len(own), -1) for own in owners]
    orders = [np.argsort(own, kind="stable") for own in owners]
    bounds = [
        np.searchsorted(own[order], [*centers, centers[-1] + 1]).tolist()
        for own, order in zip(owners, orders, strict=True)
    ]
    blocks = [features[order] for (features, _), order in zip(rows, orders, strict=True)]
    return centers, [
        _row_set([block[b[k] : b[k + 1]] for block, b in zip(blocks, bounds, strict=True)])
        for k in range(len(centers))
    ]


def _one_row_each(owners: Ints) -> bool:
    """Whether rows belong to ascending centers, one to each."""
    return len(owners) > 0 and owners[0] >= 0 and bool((owners[1:] > owners[:-1]).all())


def _row_set(parts: Sequence[Floats]) -> RowSet:
    single, projected, several = [], [], []
    for part in parts:
        if len(part) <= 1:
            single.append(part.ravel())
        elif part.shape[1] == 1:
            single.append(np.sort(part[:, 0]))
        else:
            projected.append(np.sort(part @ _direction(part.shape[1])))
            several.append(part)
    shape = tuple((len(part), part.shape[1]) for part in parts)
    n_single = sum(map(len, single))
    return RowSet(shape, np.concatenate([*single, *projected]), n_single, tuple(several))


@cache
def _direction(length: int) -> Floats:
    """A unit vector, always the same one for a number of features."""
    found = np.random.default_rng(length).normal(size=length)
    return found / np.linalg.norm(found)
