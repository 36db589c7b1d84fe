"""The nearest environments of a set in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from ase_sensitivity.environments.environment_set import EnvironmentSet
from ase_sensitivity.environments.projection import SEARCHED
from ase_sensitivity.environments.row_sets import RowSet
from ase_sensitivity.environments.scales import Group
from ase_sensitivity.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Near:
    """Some environments that are near others on the most important axes.

    Attributes
    ----------
    index
        Numbers of environments of the set, of shape (n, k).
    lower, upper
        Bounds of their distances in feature space, of shape (n, k).
    rest
        All environments that are not listed are at least so far, of shape (n,).
    """

    index: Ints
    lower: Floats
    upper: Floats
    rest: Floats


class FeatureIndex:
    """Searches an :class:`EnvironmentSet` for neighbors in feature space."""

    def __init__(self, environments: EnvironmentSet) -> None:
        self._environments = environments
        both = np.column_stack([environments.number, environments.kind])
        groups, which = np.unique(both, axis=0, return_inverse=True)
        self._trees: dict[Group, tuple[Ints, scipy.spatial.KDTree]] = {}
        for k, (number, kind) in enumerate(groups.tolist()):
            own = np.flatnonzero(which.ravel() == k)
            tree = scipy.spatial.KDTree(environments.projected[own, :SEARCHED])
            self._trees[number, kind] = own, tree

    def __contains__(self, group: object) -> bool:
        return group in self._trees

    def near(self, group: Group, projected: Floats, beyond: Floats, k: int) -> Near:
        """The ``k`` environments of a group that are nearest on the searched axes.

        Parameters
        ----------
        group
            Atomic number of the centers, and kind.
        projected, beyond
            As of :meth:`EnvironmentSet.project`, of shape (n, 32) and (n,).
        k
            How many; all, if there are fewer.
        """
        own, tree = self._trees[group]
        k = min(k, len(own))
        searched, found = tree.query(projected[:, :SEARCHED], np.arange(1, k + 1))
        index = own[found]
        environments = self._environments
        square = ((environments.projected[index] - projected[:, None]) ** 2).sum(axis=2)
        there = environments.beyond[index]
        lower = np.sqrt(square + (there - beyond[:, None]) ** 2)
        upper = np.sqrt(square + (there + beyond[:, None]) ** 2)
        rest = searched[:, -1] if k < len(own) else np.full(len(projected), np.inf)
        return Near(index, lower, upper, rest)

    def nearest(
        self, group: Group, features: RowSet, projected: Floats, beyond: float, k: int = 8
    ) -> tuple[int, float]:
        """The nearest environment of a group, and its distance, from full features in float64.

        More and more candidates are taken until the bounds exclude all others.
        """
        n = len(self._trees[group][0])
        known: dict[int, float] = {}
        while True:
            near = self.near(group, projected[None], np.array([beyond]), k)
            lower, index = near.lower[0], near.index[0]
            best, least = -1, np.inf
            for m in np.argsort(lower, kind="stable").tolist():
                if lower[m] > least:
                    break
                j = int(index[m])
                if j not in known:
                    known[j] = features.distance(self._environments.features(j))
                if known[j] < least:
                    best, least = j, known[j]
            if k >= n or least <= near.rest[0]:
                return best, least
            k *= 4
