"""The best superposition of two environments, as far as the descriptor sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import scipy

from ase_sensitivity.environments.environment_set import Points
from ase_sensitivity.geometry.matching import best_match, kabsch
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.types import Floats, Ints

CORE = 16
"""Number of points up to which orientations are searched with all of them. In larger environments
the nearest points are superposed first, and the others follow."""

SAME = 1e-3
"""Points within this distance (Å) are at the same place: no better match is searched, and labels
have to agree. Force constants of bonds are some 10 eV/Å²."""

FEW = 64
"""Up to so many points, all distances are computed without a search."""

APART = 100.0
"""Distance in Å that points of different species have beside that in space."""

BEYOND = 0.3
"""Distance in Å beyond twice the cutoff within which a gap between atoms is searched; the points
before the gap are compared."""

Overlay = tuple[float, Floats | None]
"""The largest distance between matched points in Å, infinite without a match, and the orthogonal
matrix that puts the first environment on the second."""

NO_MATCH: Overlay = (np.inf, None)


def overlay(a: Points, b: Points, nearest: float, farthest: float, enough: float = SAME) -> Overlay:
    """The best superposition of environment a on b, over O(3) and permutations.

    Parameters
    ----------
    a, b
        The points, sorted by their distance from the center.
    nearest, farthest
        Points between ``nearest`` and ``farthest`` (Å) may be left out, as they have no weight. The
        points are cut at the widest gap for which the two environments have equal numbers of points
        of each species.
    enough
        No better superposition is searched if no distance is larger than this (Å).
    """
    common = _common(a, b, nearest, farthest)
    if common is None:
        return NO_MATCH
    (numbers_a, points_a), (numbers_b, points_b) = common
    if len(points_a) == 0:
        return 0.0, np.eye(3)
    best = NO_MATCH
    # Atoms of a crystal often have the same orientation. Turned molecules are often matched well
    # enough in the order of distances.
    trials = [np.eye(3), -np.eye(3)]
    if enough > SAME:
        trials.append(_by_distances(*common))
    for rotation in trials:
        best = min(
            best, _for_rotation(numbers_a, points_a, numbers_b, points_b, rotation), key=_size
        )
        if best[0] <= enough:
            return best
    if len(points_a) <= CORE:
        found = best_match(numbers_a, points_a, numbers_b, points_b)
        return found.maximum, found.rotation
    core = _common(a, b, float(np.linalg.norm(points_a[CORE // 2])), nearest, CORE)
    if core is None:
        return best
    core_numbers, core_a = core[0]
    found = best_match(*core[0], *core[1])
    # The core determines the rotation up to the operations of its own point group.
    tolerance = max(1e-3, min(2 * found.maximum, 0.1))
    for operation in point_group(core_a, core_numbers, tolerance).matrices:
        trial = _for_rotation(numbers_a, points_a, numbers_b, points_b, found.rotation @ operation)
        best = min(best, trial, key=_size)
        if best[0] <= enough:
            break
    return best


def matched_distances(
    a: Points, b: Points, nearest: float, farthest: float, rotation: Floats
) -> Floats:
    """Distances of the matched points that :func:`overlay` compares, in Å, for its rotation."""
    common = _common(a, b, nearest, farthest)
    assert common is not None
    (numbers_a, points_a), (numbers_b, points_b) = common
    cost = _costs(numbers_a, points_a @ rotation.T, numbers_b, points_b)
    return np.sqrt(cost[scipy.optimize.linear_sum_assignment(cost)])


def nearest_of(
    a: Points, others: Iterable[Points], nearest: float, farthest: float
) -> tuple[int, Overlay]:
    """The number of the environment that a fits best, and the match; see :func:`overlay`."""
    best, index = NO_MATCH, 0
    for number, b in enumerate(others):
        trial = overlay(a, b, nearest, farthest)
        if trial[0] < best[0]:
            best, index = trial, number
        if best[0] <= SAME:
            break
    return index, best


def misses(a: Points, b: Points, nearest: float, farthest: float, delta: float) -> bool:
    """Whether distances from the center alone exclude a match within ``delta``."""
    common = _common(a, b, nearest, farthest)
    if common is None:
        return True
    ordered = []
    for numbers, points in common:
        distance = np.linalg.norm(points, axis=1)
        ordered.append(distance[np.lexsort((distance, numbers))])
    return bool(np.abs(ordered[0] - ordered[1]).max(initial=0.0) > delta)


def _size(found: Overlay) -> float:
    return found[0]


def _common(
    a: Points, b: Points, nearest: float, farthest: float, most: int | None = None
) -> tuple[Points, Points] | None:
    """The points within a radius between the bounds for which species and numbers are equal."""
    pairs = cuts(a, b, nearest, farthest)
    return next((pair for pair in pairs if most is None or len(pair[0][0]) <= most), None)


def cuts(a: Points, b: Points, nearest: float, farthest: float) -> Iterator[tuple[Points, Points]]:
    """The points within each radius for which species and numbers are equal, widest gap first.

    All of them, once, if ``nearest`` is infinite.
    """
    if not np.isfinite(nearest):
        if np.array_equal(np.sort(a[0]), np.sort(b[0])):
            yield a, b
        return
    r, s = (np.linalg.norm(points, axis=1) for _, points in (a, b))
    edges = np.concatenate([r, s])
    edges = np.sort(edges[(edges > nearest) & (edges < farthest)])
    edges = np.concatenate([[nearest], edges, [farthest]])
    gaps = np.diff(edges)
    for gap in np.argsort(-gaps, kind="stable"):
        radius = edges[gap] + gaps[gap] / 2
        n, m = np.searchsorted(r, radius), np.searchsorted(s, radius)
        if n == m and np.array_equal(np.sort(a[0][:n]), np.sort(b[0][:n])):
            yield (a[0][:n], a[1][:n]), (b[0][:n], b[1][:n])


def _costs(numbers_a: Ints, points_a: Floats, numbers_b: Ints, points_b: Floats) -> Floats:
    """Squares of the distances of points a and b, larger for different species, of shape (n, m)."""
    squares: Floats = ((points_a[:, None] - points_b) ** 2).sum(axis=2)
    return squares + APART**2 * (numbers_a[:, None] != numbers_b)


def _by_distances(a: Points, b: Points) -> Floats:
    """The best rotation if the points of each species are matched in the order of distances."""
    (numbers_a, points_a), (numbers_b, points_b) = a, b
    order_a, order_b = np.argsort(numbers_a, kind="stable"), np.argsort(numbers_b, kind="stable")
    return kabsch(points_a[order_a], points_b[order_b])


def _for_rotation(
    numbers_a: Ints, points_a: Floats, numbers_b: Ints, points_b: Floats, rotation: Floats
) -> Overlay:
    """The match for one orientation: each point is matched with the nearest one."""
    turned = points_a @ rotation.T
    if len(turned) <= FEW:
        cost = _costs(numbers_a, turned, numbers_b, points_b)
        image = cost.argmin(axis=1)
        if len(set(image.tolist())) < len(image):
            image = scipy.optimize.linear_sum_assignment(cost)[1]
        return float(np.sqrt(cost[np.arange(len(image)), image].max())), rotation
    # A fourth coordinate separates the species.
    moved = np.column_stack([turned, APART * numbers_a])
    target = np.column_stack([points_b, APART * numbers_b])
    missed, image = scipy.spatial.KDTree(target).query(moved)
    if len(np.unique(image)) < len(image):
        cost = _costs(numbers_a, turned, numbers_b, points_b)
        image = scipy.optimize.linear_sum_assignment(cost)[1]
        missed = np.sqrt(cost[np.arange(len(image)), image])
    return float(missed.max()), rotation
