"""The search for neighbors in feature space."""

from __future__ import annotations

import logging

import numpy as np
import scipy

from ase_sensitivity.dataset.pairs.labels import energy_difference, force_difference
from ase_sensitivity.dataset.pairs.overlay import APART, Overlay, misses, overlay
from ase_sensitivity.dataset.pairs.result import Pair
from ase_sensitivity.dataset.pairs.surroundings import Surroundings
from ase_sensitivity.dataset.pairs.whole_overlay import whole_overlay
from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

IDENTICAL = 1e-3
"""A copy of an environment with features within this fraction of epsilon has the same neighbors
in feature space as the first one: they are not looked for again."""

AT_ONCE = 2**12
"""Features that are compared at a time."""


class Search:
    """Goes through the environments; each finds its neighbors in feature space.

    Attributes
    ----------
    copy_of
        The first copy of each environment, of shape (n,).
    degenerate
        Pairs by the first copies of their two environments.
    stopped
        Whether there are more than ``max_pairs`` of them.
    duplicates, copies
        Every further copy with the first one, as pairs and as numbers of environments.
    """

    def __init__(self, around: Surroundings, epsilon: float, delta: float, max_pairs: int) -> None:
        self.around = around
        self.epsilon = epsilon
        self.delta = delta
        self.max_pairs = max_pairs
        self.copy_of = np.full(len(around), -1, dtype=np.intp)
        self.degenerate: dict[tuple[int, int], Pair] = {}
        self.duplicates: list[Pair] = []
        self.copies: list[tuple[int, int]] = []
        self.stopped = False
        self._same = scipy.cluster.hierarchy.DisjointSet(range(len(around)))
        cutoff = reach_of(around.descriptor)
        weightless = min(cutoff * np.sqrt(epsilon / delta), cutoff / 2)
        self.reach: tuple[float, float] = (np.inf, np.inf)
        if np.isfinite(cutoff):
            self.reach = (cutoff - weightless, cutoff)

    def run(self, group: Ints) -> None:
        """Compare the environments of a group with each other."""
        around = self.around
        tree = scipy.spatial.KDTree(around.projected[group])
        identical = np.zeros(len(around), dtype=bool)
        compared: set[tuple[int, int]] = set()
        laid: dict[tuple[int, int], Overlay] = {}
        for i in group.tolist():
            if identical[i]:
                continue
            radius = around.norm[i] * (self.epsilon / (1 - self.epsilon) + 1e-14)
            ball = tree.query_ball_point(around.projected[i], radius, return_sorted=True)
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
            if self.stopped:  # what has the same features is still wanted, but no match
                identical[others[distances <= IDENTICAL * self.epsilon]] = True
                continue
            for j, distance in zip(others.tolist(), distances.tolist(), strict=True):
                known = int(self.copy_of[j])
                key = (min(int(self.copy_of[i]), known), max(int(self.copy_of[i]), known))
                if known >= 0 and key in compared:
                    continue
                if known < 0 and self._misses(i, j):
                    continue
                miss, rotation = laid.pop((j, i)) if (j, i) in laid else self._overlay(i, j)
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
                else:  # until j finds i
                    laid[i, j] = miss, None if rotation is None else rotation.T
        rest = group[self.copy_of[group] < 0]
        self.copy_of[rest] = rest

    @property
    def seen_as(self) -> Ints:
        """Environments that are linked by the same features have the same number, shape (n,)."""
        found = np.empty(len(self.around), dtype=np.intp)
        for alike in self._same.subsets():
            found[list(alike)] = min(alike)
        return found

    def _near(self, i: int, others: Ints) -> tuple[Ints, Floats]:
        """Those whose full features are the same, in order, and how far they are."""
        around = self.around
        own = around.features(i)
        distances = np.empty(len(others))
        for start in range(0, len(others), AT_ONCE):
            some = others[start : start + AT_ONCE]
            features = [around.features(j) for j in some.tolist()]
            distance = np.linalg.norm(np.array([f.vector for f in features]) - own.vector, axis=1)
            larger = np.maximum(around.norm[some], around.norm[i])
            larger[larger == 0] = 1.0
            if own.several:  # where that is near the rows themselves are compared
                for k in np.flatnonzero(distance <= self.epsilon * larger).tolist():
                    distance[k] = own.distance(features[k])
            distances[start : start + AT_ONCE] = distance / larger
        same = distances <= self.epsilon
        return others[same], distances[same]

    def _misses(self, i: int, j: int) -> bool:
        around = self.around
        if around.number[i] != around.number[j] or around.center[j] * around.center[i] < 0:
            return True
        if around.center[i] < 0:
            return False
        a, b = (around.points(k, self.reach[1]) for k in (i, j))
        return misses(a, b, *self.reach, self.delta)

    def _overlay(self, i: int, j: int) -> Overlay:
        around = self.around
        if around.number[i] != around.number[j]:
            return APART
        if around.center[i] < 0 or around.center[j] < 0:
            return whole_overlay(around, int(around.structure[i]), int(around.structure[j]))[0]
        a, b = (around.points(k, self.reach[1]) for k in (i, j))
        return overlay(a, b, *self.reach)

    def _add(self, key: tuple[int, int], pair: Pair) -> None:
        if len(self.around.features(key[0]).vector) == 0:  # nothing is not the same as anything
            return
        if len(self.degenerate) == self.max_pairs:
            logger.info("more than %d degenerate pairs; the rest is not listed", self.max_pairs)
            self.stopped = True
            return
        self.degenerate[key] = pair

    def _pair(self, i: int, j: int, distance: float, miss: float, rotation: Floats | None) -> Pair:
        around = self.around
        if j < i:
            i, j = j, i
            rotation = None if rotation is None else rotation.T
        return Pair(
            around.place(i),
            around.place(j),
            feature_distance=distance,
            match=miss,
            force_difference=force_difference(around, i, j, rotation),
            energy_difference=None if around.center[i] >= 0 else energy_difference(around, i, j),
        )
