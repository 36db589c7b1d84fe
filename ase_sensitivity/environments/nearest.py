"""The nearest environments of a set in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ase_sensitivity.environments.boxes import Boxes
from ase_sensitivity.environments.environment_set import EnvironmentSet
from ase_sensitivity.environments.projection import SEARCHED
from ase_sensitivity.environments.row_sets import RowSet
from ase_sensitivity.environments.scales import Group
from ase_sensitivity.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Near:
    """The environments that are nearest to others, as far as projections tell.

    Attributes
    ----------
    index
        Numbers of environments of the set, the nearest ones first, of shape (n, k); -1 where a
        group has fewer.
    lower, upper
        Bounds of their distances in feature space, of shape (n, k). Environments that are not
        listed are at least as far as the last lower bound.
    """

    index: Ints
    lower: Floats
    upper: Floats


class FeatureIndex:
    """Searches an :class:`EnvironmentSet` for neighbors in feature space.

    Attributes
    ----------
    groups
        The number of each group of environments, by atomic number of the centers and kind.
    """

    def __init__(self, environments: EnvironmentSet) -> None:
        self._environments = environments
        both = np.column_stack([environments.number, environments.kind])
        groups, which = np.unique(both, axis=0, return_inverse=True)
        self.groups: dict[Group, int] = {
            (number, kind): k for k, (number, kind) in enumerate(groups.tolist())
        }
        projected = np.asarray(environments.projected, dtype=np.float32)
        beyond = np.asarray(environments.beyond, dtype=np.float32)
        self._boxes = Boxes(projected, beyond, which.ravel(), SEARCHED)

    def near(self, group: Ints, projected: Floats, beyond: Floats, k: int) -> Near:
        """The ``k`` environments of a group with the least bounds of their distances.

        Parameters
        ----------
        group
            Numbers of the groups in which to search, of shape (n,); -1 for none.
        projected, beyond
            As of :meth:`EnvironmentSet.project`, of shape (n, 32) and (n,).
        k
            How many.
        """
        return Near(*self._boxes.nearest(group, projected, beyond, k))

    def nearest(
        self, group: Ints, features: RowSet, projected: Floats, beyond: Floats, near: Near
    ) -> tuple[int, float]:
        """The nearest environment of a group, and its distance, from full features in float64.

        Parameters
        ----------
        group, projected, beyond
            As in :meth:`near`, of one environment.
        features
            Its features.
        near
            Candidates. More and more are taken until the bounds exclude all others.
        """
        known: dict[int, float] = {}
        while True:
            best, least = -1, np.inf
            for j, lower in zip(near.index[0].tolist(), near.lower[0].tolist(), strict=True):
                if lower > least or j < 0:
                    break
                if j not in known:
                    known[j] = features.distance(self._environments.features(j))
                if known[j] < least:
                    best, least = j, known[j]
            if least <= near.lower[0, -1]:
                return best, least
            near = self.near(group, projected, beyond, 4 * near.index.shape[1])
