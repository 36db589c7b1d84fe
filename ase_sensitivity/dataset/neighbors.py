"""Who is next to whom in feature space: degenerate pairs, duplicates and label conflicts."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from ase_sensitivity.arguments import as_flag, as_integer, as_number
from ase_sensitivity.dataset.bounds import Bounds
from ase_sensitivity.dataset.labels import (
    energy_conflicts,
    energy_difference,
    force_conflicts,
    force_difference,
)
from ase_sensitivity.dataset.overlay import APART, Overlay, misses, overlay
from ase_sensitivity.dataset.pairs import Pair, PairResult, severity
from ase_sensitivity.dataset.reading import Frames, check_frames, read_frames
from ase_sensitivity.dataset.references import tasks_of, unit_factors
from ase_sensitivity.dataset.surroundings import Points, Surroundings
from ase_sensitivity.dataset.whole_structures import whole_structures
from ase_sensitivity.descriptors.base import Descriptor, Floats, Ints

logger = logging.getLogger(__name__)

IDENTICAL = 1e-3
"""A copy of an environment with features within this fraction of epsilon has the same neighbours
in feature space as the first one: they are not looked for again."""

AT_ONCE = 2**12
"""Features that are compared at a time."""


def find_pairs(
    frames: Frames,
    descriptor: Descriptor,
    *,
    epsilon: float = 1e-6,
    delta: float = 0.05,
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    energy_tolerance: float = 1e-3,
    force_tolerance: float = 0.05,
    across_species: bool = False,
    max_environments: int | None = None,
    max_pairs: int = 1000,
    bound: bool = True,
    progress: Callable[[int], object] | None = None,
) -> PairResult:
    """Find environments that a descriptor takes for the same.

    Parameters
    ----------
    frames
        A list or iterator of structures, or of file names with ASE's ``@`` slices. All structures
        are kept in memory, without their features.
    descriptor
        With one row of features per centre, or one per isolated structure.
    epsilon
        Features are the same if their distance is at most this fraction of the larger norm.
    delta
        Structures are different if in their best match over rotation, reflection and permutation
        a point misses its partner by more than this, in Å.
    forces_key, energy_key, units
        As in :func:`~ase_sensitivity.scan`.
    energy_tolerance, force_tolerance
        Labels differ by more than this in eV per atom and in eV/Å.
    across_species
        Compare centres of different species as well. Most models fit a function for each, and then
        nothing is lost if their features agree.
    max_environments
        So many are drawn at random if there are more. By default all are compared.
    max_pairs
        The search ends at so many degenerate pairs of environments: the features are poor then, or
        ``epsilon`` is large. Of more pairs of whole structures, those whose energies differ most
        are listed.
    bound
        Bound the force error of frames with forces: each by itself, as a scan does, and those with
        features in common jointly. Takes most of the time.
    progress
        Called with the number of structures read so far.

    Returns
    -------
    PairResult
        With ``degenerate``, ``duplicates``, ``conflicts`` and ``bound``.

    Raises
    ------
    ValueError
        If an argument is out of range, or no structure can be compared: because the descriptor has
        several rows of features per centre, for example.

    Notes
    -----
    Features are projected on a few orthonormal axes, which shortens distances: whoever is within
    reach is within reach there, and a k-d tree finds those few, whose full features are then
    compared. The first of several copies stands for all; environments near it in feature space are
    copies, or belong to a degenerate pair with it. So a million copies cost a million comparisons
    and not a million squared.

    An atom at the cutoff has no weight. Atoms within ``cutoff * sqrt(epsilon / delta)`` of it may
    be missing in one of two environments that are the same.

    Examples
    --------
    Three hydrogen atoms and a fourth one in either of two places: about carbon no feature of three
    bodies tells one from the other.

    >>> from ase import Atoms
    >>> from ase_sensitivity import SOAP
    >>> three = [(0, 0, 0), (1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7)]
    >>> plus = Atoms("CH4", [*three, (-0.72, 0.96, 0.3)])
    >>> minus = Atoms("CH4", [*three, (0.72, -0.96, 0.3)])
    >>> soap = SOAP(["H"], cutoff=3, n_max=8, l_max=6, centers=["C"])
    >>> found = find_pairs([plus, minus, plus], soap)
    >>> len(found.degenerate), len(found.duplicates)
    (2, 2)
    >>> found.degenerate[0].second
    Place(frame=1, center=0, source='frames')
    """
    as_flag("bound", bound)
    _check(epsilon, delta, energy_tolerance, force_tolerance, max_environments, max_pairs)
    check_frames(frames)
    tasks = tasks_of(read_frames(frames), forces_key, energy_key, unit_factors(units), strict=True)
    bounds = Bounds(descriptor, epsilon)
    if bound:
        tasks = bounds.passing(tasks)
    around = Surroundings(tasks, descriptor, max_environments, progress)
    search = _Search(around, epsilon, delta, max_pairs)
    numbers = np.zeros_like(around.number) if across_species else around.number
    for number in np.unique(numbers):
        search.run(np.flatnonzero(numbers == number))
    centers, duplicates = list(search.degenerate.values()), search.duplicates
    conflicts = force_conflicts(around, duplicates, search.copies, force_tolerance)
    whole: list[Pair] = []
    complete = around.complete and not search.stopped
    if around.complete and around.center[0] >= 0:
        same, whole, all_listed = whole_structures(
            around, search.copy_of, search.seen_as, search.degenerate, delta, max_pairs
        )
        duplicates = duplicates + same
        complete &= all_listed
    conflicts += energy_conflicts(around, duplicates, energy_tolerance)
    degenerate = [
        pair
        for pairs in (centers, whole)
        for pair in sorted(bounds.with_bounds(pairs), key=severity, reverse=True)
    ]
    found = bounds.of_set(degenerate, conflicts, duplicates)
    return PairResult(
        n_frames=around.n_frames,
        n_seen=around.n_seen,
        n_environments=len(around),
        n_distinct=len(np.unique(search.copy_of)),
        complete=complete,
        epsilon=epsilon,
        delta=delta,
        errors=around.errors,
        degenerate=degenerate,
        duplicates=duplicates,
        conflicts=conflicts,
        bound=found,
    )


def _check(
    epsilon: float,
    delta: float,
    energy_tolerance: float,
    force_tolerance: float,
    max_environments: int | None,
    max_pairs: int,
) -> None:
    if not 0 < as_number("epsilon", epsilon) <= 0.01:
        raise ValueError(f"`epsilon` is {epsilon} but must be positive and at most 0.01")
    for name, value in (
        ("delta", delta),
        ("energy_tolerance", energy_tolerance),
        ("force_tolerance", force_tolerance),
    ):
        as_number(name, value, "positive")
    for name, limit in (("max_environments", max_environments), ("max_pairs", max_pairs)):
        if limit is not None:
            as_integer(name, limit, 1)


class _Search:
    """Goes through the environments; each finds its neighbours in feature space.

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
        self._parent = list(range(len(around)))
        cutoff = around.descriptor.cutoff
        weightless = min(cutoff * np.sqrt(epsilon / delta), cutoff / 2)
        self.reach: tuple[float, float] = (np.inf, np.inf)
        if np.isfinite(cutoff):
            self.reach = (cutoff - weightless, cutoff)

    def run(self, group: Ints) -> None:
        """Compare the environments of a group with each other."""
        from scipy.spatial import KDTree  # loads much

        around = self.around
        tree = KDTree(around.projected[group])
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
            self._join(i, others)
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
        return np.array([self._root(i) for i in range(len(self.around))], dtype=np.intp)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def _join(self, i: int, others: Ints) -> None:
        for j in others.tolist():
            one, other = self._root(i), self._root(j)
            self._parent[max(one, other)] = min(one, other)

    def _near(self, i: int, others: Ints) -> tuple[Ints, Floats]:
        """Those whose full features are the same, in order, and how far they are."""
        around = self.around
        own = around.features(np.array([i]))[0]
        found = [np.empty(0)]
        for start in range(0, len(others), AT_ONCE):
            some = others[start : start + AT_ONCE]
            distance = np.linalg.norm(around.features(some) - own, axis=1)
            larger = np.maximum(around.norm[some], around.norm[i])
            found.append(distance / np.where(larger > 0, larger, 1.0))
        distances = np.concatenate(found)
        same = distances <= self.epsilon
        return others[same], distances[same]

    def _points(self, i: int, j: int) -> tuple[Points, Points]:
        return self.around.points(i, self.reach[1]), self.around.points(j, self.reach[1])

    def _misses(self, i: int, j: int) -> bool:
        if self.around.number[i] != self.around.number[j]:
            return True
        a, b = self._points(i, j)
        return misses(a, b, *self.reach, self.delta)

    def _overlay(self, i: int, j: int) -> Overlay:
        if self.around.number[i] != self.around.number[j]:
            return APART
        a, b = self._points(i, j)
        return overlay(a, b, *self.reach)

    def _add(self, key: tuple[int, int], pair: Pair) -> None:
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
