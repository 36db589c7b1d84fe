"""The search for neighbors in feature space."""

from __future__ import annotations

import logging

import numpy as np
import scipy

from ase_sensitivity.dataset.pairs.labels import energy_difference, force_difference
from ase_sensitivity.dataset.pairs.result import Pair
from ase_sensitivity.dataset.pairs.whole_overlay import whole_overlay
from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.environments.environment_set import EnvironmentSet
from ase_sensitivity.environments.overlay import NO_MATCH, Overlay, misses, overlay
from ase_sensitivity.environments.projection import SEARCHED
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

IDENTICAL = 1e-3
"""If a copy of an environment has features within this fraction of epsilon of the first one, it has
the same neighbors in feature space, and these are not searched again."""

AT_ONCE = 2**12
"""Number of feature vectors that are compared at a time."""


class Search:
    """Search the neighbors of each environment in feature space.

    Attributes
    ----------
    copy_of
        The first copy of each environment, of shape (n,).
    degenerate
        Degenerate pairs, by the first copies of their two environments.
    stopped
        Whether there are more than ``max_pairs`` degenerate pairs.
    duplicates, copies
        Every further copy with the first one: as pairs, and as numbers of environments.
    """

    def __init__(
        self, environments: EnvironmentSet, epsilon: float, delta: float, max_pairs: int
    ) -> None:
        self.environments = environments
        self.epsilon = epsilon
        self.delta = delta
        self.max_pairs = max_pairs
        self.copy_of = np.full(len(environments), -1, dtype=np.intp)
        self.degenerate: dict[tuple[int, int], Pair] = {}
        self.duplicates: list[Pair] = []
        self.copies: list[tuple[int, int]] = []
        self.stopped = False
        self._same = scipy.cluster.hierarchy.DisjointSet(range(len(environments)))
        cutoff = reach_of(environments.descriptor)
        weightless = min(cutoff * np.sqrt(epsilon / delta), cutoff / 2)
        self.reach: tuple[float, float] = (np.inf, np.inf)
        if np.isfinite(cutoff):
            self.reach = (cutoff - weightless, cutoff)

    def run(self, group: Ints) -> None:
        """Compare the environments of a group with each other."""
        environments = self.environments
        searched = environments.projected[:, :SEARCHED]
        tree = scipy.spatial.KDTree(searched[group])
        identical = np.zeros(len(environments), dtype=bool)
        compared: set[tuple[int, int]] = set()
        overlays: dict[tuple[int, int], Overlay] = {}
        for i in group.tolist():
            if identical[i]:
                continue
            radius = environments.norm[i] * (self.epsilon / (1 - self.epsilon) + 1e-14)
            ball = tree.query_ball_point(searched[i], radius, return_sorted=True)
            others = group[ball]
            first = self.copy_of[i] < 0
            if first:
                self.copy_of[i] = i
            others = others[self.copy_of[others] != self.copy_of[i]]
            if not first:
                others = others[self.copy_of[others] >= 0]
            others, distances = self._near(i, others)
            for j in others.tolist():
                self._same.merge(i, j)
            if self.stopped:  # equal features are still needed, but no matches
                identical[others[distances <= IDENTICAL * self.epsilon]] = True
                continue
            for j, distance in zip(others.tolist(), distances.tolist(), strict=True):
                known = int(self.copy_of[j])
                key = (min(int(self.copy_of[i]), known), max(int(self.copy_of[i]), known))
                if known >= 0 and key in compared:
                    continue
                if known < 0 and self._misses(i, j):
                    continue
                found = overlays.pop((j, i)) if (j, i) in overlays else self._overlay(i, j)
                miss, rotation = found
                if known >= 0:
                    compared.add(key)
                    if miss > self.delta:
                        self._add(key, self._pair(i, j, distance, miss, rotation))
                        if self.stopped:
                            break
                elif miss <= self.delta:
                    self.copy_of[j] = i
                    identical[j] = distance <= IDENTICAL * self.epsilon
                    self.copies.append((i, j))
                    self.duplicates.append(self._pair(i, j, distance, miss, rotation))
                else:  # kept until the search of j finds i
                    overlays[i, j] = miss, None if rotation is None else rotation.T
        rest = group[self.copy_of[group] < 0]
        self.copy_of[rest] = rest

    @property
    def feature_class(self) -> Ints:
        """A number for each environment, of shape (n,).

        It is the same for environments that are connected by equal features.
        """
        found = np.empty(len(self.environments), dtype=np.intp)
        for alike in self._same.subsets():
            found[list(alike)] = min(alike)
        return found

    def _near(self, i: int, others: Ints) -> tuple[Ints, Floats]:
        """The environments with equal full features, in order, and their relative distances."""
        environments = self.environments
        own = environments.features(i)
        distances = np.empty(len(others))
        for start in range(0, len(others), AT_ONCE):
            some = others[start : start + AT_ONCE]
            features = [environments.features(j) for j in some.tolist()]
            distance = np.linalg.norm(np.array([f.vector for f in features]) - own.vector, axis=1)
            larger = np.maximum(environments.norm[some], environments.norm[i])
            larger[larger == 0] = 1.0
            if own.several:  # if the vectors are near, the rows themselves are compared
                for k in np.flatnonzero(distance <= self.epsilon * larger).tolist():
                    distance[k] = own.distance(features[k])
            distances[start : start + AT_ONCE] = distance / larger
        same = distances <= self.epsilon
        return others[same], distances[same]

    def _misses(self, i: int, j: int) -> bool:
        environments = self.environments
        if (
            environments.number[i] != environments.number[j]
            or environments.center[j] * environments.center[i] < 0
        ):
            return True
        if environments.center[i] < 0:
            return False
        a, b = (environments.points(k, self.reach[1]) for k in (i, j))
        return misses(a, b, *self.reach, self.delta)

    def _overlay(self, i: int, j: int) -> Overlay:
        environments = self.environments
        if environments.number[i] != environments.number[j]:
            return NO_MATCH
        if environments.center[i] < 0 or environments.center[j] < 0:
            return whole_overlay(
                environments, int(environments.structure[i]), int(environments.structure[j])
            )[0]
        a, b = (environments.points(k, self.reach[1]) for k in (i, j))
        return overlay(a, b, *self.reach)

    def _add(self, key: tuple[int, int], pair: Pair) -> None:
        if (
            len(self.environments.features(key[0]).vector) == 0
        ):  # nothing is not the same as anything
            return
        if len(self.degenerate) == self.max_pairs:
            logger.info("more than %d degenerate pairs; the rest is not listed", self.max_pairs)
            self.stopped = True
            return
        self.degenerate[key] = pair

    def _pair(self, i: int, j: int, distance: float, miss: float, rotation: Floats | None) -> Pair:
        environments = self.environments
        if j < i:
            i, j = j, i
            rotation = None if rotation is None else rotation.T
        return Pair(
            environments.place(i),
            environments.place(j),
            feature_distance=distance,
            match=miss,
            force_difference=force_difference(environments, i, j, rotation),
            energy_difference=None
            if environments.center[i] >= 0
            else energy_difference(environments, i, j),
        )
