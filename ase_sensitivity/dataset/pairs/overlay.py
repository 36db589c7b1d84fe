"""Two environments laid on each other as far as the descriptor sees."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import scipy

from ase_sensitivity.dataset.pairs.surroundings import Points
from ase_sensitivity.geometry.matching import best_match
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.types import Floats, Ints

CORE = 16
"""Points up to which orientations are looked for with all of them. Of larger environments the
nearest ones are laid on each other, and the rest follows."""

SAME = 1e-3
"""Points that miss each other by less than this (Å) are at the same place: no better match is
looked for, and labels have to agree. Bonds pull with some 10 eV/Å²."""

BEYOND = 0.3
"""Å beyond twice the cutoff up to which a gap between atoms is looked for, to compare those before
it."""

Overlay = tuple[float, Floats | None]
"""The largest distance between matched points in Å, infinite without a match, and the orthogonal
matrix that puts the first environment on the second."""

APART: Overlay = (np.inf, None)


def overlay(a: Points, b: Points, nearest: float, farthest: float) -> Overlay:
    """How well environment a can be put on b, by any element of O(3), permutation included.

    Parameters
    ----------
    a, b
        The points, sorted by their distance from the center.
    nearest, farthest
        Points beyond ``nearest`` (Å) may be left out, as they weigh nothing; where both
        environments have as many points of each species, and the gap between points in and out is
        widest.
    """
    common = _common(a, b, nearest, farthest)
    if common is None:
        return APART
    (numbers_a, points_a), (numbers_b, points_b) = common
    if len(points_a) == 0:
        return 0.0, np.eye(3)
    best = APART
    for rotation in (np.eye(3), -np.eye(3)):  # the atoms of a crystal are turned alike
        best = min(best, _laid(numbers_a, points_a, numbers_b, points_b, rotation), key=_size)
        if best[0] <= SAME:
            return best
    if len(points_a) <= CORE:
        found = best_match(numbers_a, points_a, numbers_b, points_b)
        return found.maximum, found.rotation
    core = _common(a, b, float(np.linalg.norm(points_a[CORE // 2])), nearest, CORE)
    if core is None:
        return best
    core_numbers, core_a = core[0]
    found = best_match(*core[0], *core[1])
    # What the core leaves open: the operations that put it on itself.
    turns = point_group(core_a, core_numbers, max(1e-3, min(2 * found.maximum, 0.1))).matrices
    for turn in turns:
        trial = _laid(numbers_a, points_a, numbers_b, points_b, found.rotation @ turn)
        best = min(best, trial, key=_size)
        if best[0] <= SAME:
            break
    return best


def nearest_of(
    a: Points, others: Iterable[Points], nearest: float, farthest: float
) -> tuple[int, Overlay]:
    """Which of several environments a is best put on, and how well; see :func:`overlay`."""
    best, index = APART, 0
    for number, b in enumerate(others):
        trial = overlay(a, b, nearest, farthest)
        if trial[0] < best[0]:
            best, index = trial, number
        if best[0] <= SAME:
            break
    return index, best


def misses(a: Points, b: Points, nearest: float, farthest: float, delta: float) -> bool:
    """Whether the distances from the center alone tell that no match is as good as ``delta``."""
    common = _common(a, b, nearest, farthest)
    if common is None:
        return True
    sides = []
    for numbers, points in common:
        distance = np.linalg.norm(points, axis=1)
        sides.append(distance[np.lexsort((distance, numbers))])
    return bool(np.abs(sides[0] - sides[1]).max(initial=0.0) > delta)


def _size(found: Overlay) -> float:
    return found[0]


def _common(
    a: Points, b: Points, nearest: float, farthest: float, most: int | None = None
) -> tuple[Points, Points] | None:
    """The points within a radius between the bounds that has equally many on both sides."""
    if not np.isfinite(nearest):
        return (a, b) if np.array_equal(np.sort(a[0]), np.sort(b[0])) else None
    r, s = (np.linalg.norm(points, axis=1) for _, points in (a, b))
    edges = np.concatenate([r, s])
    edges = np.sort(edges[(edges > nearest) & (edges < farthest)])
    edges = np.concatenate([[nearest], edges, [farthest]])
    gaps = np.diff(edges)
    for gap in np.argsort(-gaps, kind="stable"):
        radius = edges[gap] + gaps[gap] / 2
        n, m = np.searchsorted(r, radius), np.searchsorted(s, radius)
        if n != m or (most is not None and n > most):
            continue
        if np.array_equal(np.sort(a[0][:n]), np.sort(b[0][:n])):
            return (a[0][:n], a[1][:n]), (b[0][:n], b[1][:n])
    return None


def _laid(
    numbers_a: Ints, points_a: Floats, numbers_b: Ints, points_b: Floats, rotation: Floats
) -> Overlay:
    """The match for one orientation, each point on the nearest one."""
    # Species are told apart by a fourth coordinate.
    moved = np.column_stack([points_a @ rotation.T, 100.0 * numbers_a])
    target = np.column_stack([points_b, 100.0 * numbers_b])
    missed, image = scipy.spatial.KDTree(target).query(moved)
    if len(np.unique(image)) < len(image):
        cost = ((moved[:, None] - target) ** 2).sum(axis=2)
        image = scipy.optimize.linear_sum_assignment(cost)[1]
        missed = np.sqrt(cost[np.arange(len(image)), image])
    return float(missed.max()), rotation
