"""Neighbors and pairs of neighbors that features of a body order cannot tell apart."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.geometry.clusters import clusters
from ase_sensitivity.singular.neighborhood import Neighborhood
from ase_sensitivity.types import Floats, Ints

STILL = 1e-7
"""A distance or cosine with a smaller derivative along a displacement does not change."""


class PairClasses:
    """Neighbors and pairs of neighbors that features take for equal.

    Parameters
    ----------
    around
        The neighborhood.
    shell
        The class of each neighbor, of shape (n,).
    i, j
        The pairs of neighbors, of shape (n_pairs,), the one of the smaller class first.
    pair
        The class of each pair.
    """

    def __init__(self, around: Neighborhood, shell: Ints, i: Ints, j: Ints, pair: Ints) -> None:
        self._around, self._shell, self._pair = around, shell, pair
        self._i, self._j, self._alike = i, j, (shell[i] == shell[j])[:, None]
        self._shells, self._pairs = _members(shell), _members(pair)
        self._derivatives = np.zeros((len(shell),) * 2 + (3,)), np.zeros((len(i), len(shell), 3))
        self.key = shell.tobytes() + pair.tobytes() + i.tobytes()

    @classmethod
    def within(cls, around: Neighborhood, width: float, angles: float, nu: int) -> PairClasses:
        """Classes of distances within a width (Å), and of cosines."""
        n = len(around.points)
        r = np.linalg.norm(around.points, axis=1)
        shell = clusters(r, width, around.numbers)
        i, j = np.triu_indices(n, 1) if nu > 1 else (np.empty(0, int), np.empty(0, int))
        i, j = np.where(shell[i] <= shell[j], i, j), np.where(shell[i] <= shell[j], j, i)
        cosine = np.einsum("pa,pa->p", around.points[i], around.points[j]) / r[i] / r[j]
        return cls(around, shell, i, j, clusters(cosine, angles, shell[i] * n + shell[j]))

    def finest(self, u: Floats, v: Floats) -> PairClasses:
        """Classes that hide v as well, without equalities that are not needed for it at u."""
        best = self
        for member in range(len(self._shell)):
            if (best._shell == best._shell[member]).sum() > 1:
                finer = best._split(u, v, member)
                best = finer if finer is not None else best
        return best

    def _split(self, u: Floats, v: Floats, member: int) -> PairClasses | None:
        """With a class of its own for one neighbor; None if v is not hidden then."""
        shell = self._shell.copy()
        shell[member] = shell.max() + 1
        i, j = self._i, self._j
        i, j = np.where(shell[i] <= shell[j], i, j), np.where(shell[i] <= shell[j], j, i)
        pair = self._pair
        if len(pair):
            distances, cosines = (array @ v for array in self._gradients(u)[2:])
            changes = np.abs([cosines, distances[i], distances[j]]).max(axis=0)
            alone = np.where(changes < STILL, pair.max() + 1 + np.arange(len(pair)), pair)
            keys = np.column_stack([shell[i], shell[j], alone])
            pair = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        finer = PairClasses(self._around, np.unique(shell, return_inverse=True)[1], i, j, pair)
        sums = np.concatenate(finer.conditions(u)[0])
        return finer if np.abs(sums @ v).max() < STILL else None

    def _gradients(self, u: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Distances and cosines at u, and their derivatives by the coordinates."""
        around, i, j = self._around, self._i, self._j
        points = around.points + (around.moves @ u).reshape(-1, 3)
        n, r = len(points), np.linalg.norm(points, axis=1)
        unit, every, pair = points / r[:, None], np.arange(n), np.arange(len(i))
        cosine = np.einsum("pa,pa->p", unit[i], unit[j])
        by_distance, by_cosine = (array.copy() for array in self._derivatives)
        by_distance[every, every] = unit
        by_cosine[pair, i] = (unit[j] - cosine[:, None] * unit[i]) / r[i, None]
        by_cosine[pair, j] = (unit[i] - cosine[:, None] * unit[j]) / r[j, None]
        distances = by_distance.reshape(n, 3 * n) @ around.moves
        return r, cosine, distances, by_cosine.reshape(len(i), 3 * n) @ around.moves

    def conditions(self, u: Floats) -> tuple[list[Floats], list[Floats], list[Floats]]:
        """Class sums of gradients, differences within classes and their derivatives, at u."""
        i, j = self._i, self._j
        r, cosine, distances, cosines = self._gradients(u)
        shells, pairs = self._shells, self._pairs
        sums = [shells @ distances]
        if len(i):
            sums += [
                pairs @ cosines,
                pairs @ (distances[i] + self._alike * distances[j]),
                pairs @ (distances[j] * ~self._alike),
            ]
        changes, off = [], []
        for value, derivative, members in ((r, distances, shells), (cosine, cosines, pairs)):
            if len(value):
                mean = members.T / members.sum(axis=1) @ members
                changes.append(derivative - mean @ derivative)
                off.append(value - mean @ value)
        return sums, changes, off


def conditions(classes: list[PairClasses], u: Floats) -> tuple[Floats, Floats, Floats]:
    """:meth:`PairClasses.conditions` of all neighborhoods together, as three arrays."""
    parts = [one.conditions(u) for one in classes]
    sums, changes, off = (
        np.concatenate([array for part in parts for array in part[k]]) for k in range(3)
    )
    return sums, changes, off


def _members(labels: Ints) -> Floats:
    """Which members each class has, as a matrix of zeros and ones."""
    return np.eye(int(labels.max(initial=-1)) + 1)[:, labels]
