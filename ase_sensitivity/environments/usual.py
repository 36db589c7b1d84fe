"""How far the features of unrelated references are apart, over what their structures suggest."""

from __future__ import annotations

from itertools import islice

import numpy as np

from ase_sensitivity.environments.environment_set import EnvironmentSet, Points
from ase_sensitivity.environments.overlay import SAME, cuts, matched_distances, overlay
from ase_sensitivity.types import Floats, Ints

SHELL = 1.0
"""Points within this distance (Å) of the radius may be left out of a match, if the radius is
finite: a point may have crossed it."""

CUTS = 4
"""So many radii are tried: with as many points inside, different points may have crossed one."""

PAIRS = 16
"""Number of pairs of references that are matched."""

TRIED = 64
"""So many pairs are tried: not all have equal numbers of points."""

RATTLED = 0.5
"""If features of unrelated references are less than this fraction of what their structures suggest
apart, displacements are no measure of how unlike two structures are."""


def matched(
    a: Points, b: Points, radius: float, enough: float = SAME
) -> tuple[float, float, Floats] | None:
    """Largest and root mean square distance of matched points, and the rotation of a onto b.

    Parameters
    ----------
    a, b
        The points of two environments within a radius, nearest first.
    radius
        In Å; infinite for structures as a whole.
    enough
        As of :func:`~ase_sensitivity.environments.overlay.overlay`.
    """
    nearest = max(radius - SHELL, radius / 2) if np.isfinite(radius) else np.inf
    best: tuple[float, float, Floats] | None = None
    for inner_a, inner_b in islice(cuts(a, b, nearest, radius), CUTS):
        largest, rotation = overlay(inner_a, inner_b, np.inf, np.inf, enough)
        if rotation is None or (best is not None and largest >= best[0]):
            continue
        distances = matched_distances(inner_a, inner_b, np.inf, np.inf, rotation)
        best = largest, float(np.sqrt((distances**2).sum() / max(len(distances), 1))), rotation
        if largest <= enough:
            break
    return best


def saturation(
    environments: EnvironmentSet, rows: Ints, slope: float, radius: float, far: float
) -> float:
    """The factor by which the features of unrelated references are nearer than displaced ones.

    Parameters
    ----------
    environments, rows
        The set, and environments of one group.
    slope
        Change of their features for each Å of displacement.
    radius
        Of the points that are matched, in Å.
    far
        Pairs are unrelated if matched points are more than this far apart (Å).

    Returns
    -------
    float
        Twice the median ratio of the feature distance of pairs over slope times root mean square
        distance, and at most 1. It is 1 as well if no unrelated pair has a match.
    """
    rng = np.random.default_rng(0)
    ratios: list[float] = []
    for _ in range(TRIED if len(rows) > 1 else 0):
        i, j = rng.choice(rows, 2, replace=False).tolist()
        if environments.center[i] < 0:
            break
        a, b = environments.points(i, radius), environments.points(j, radius)
        found = matched(a, b, radius, far)
        if found is None or found[0] <= far:
            continue
        apart = environments.features(i).distance(environments.features(j))
        ratios.append(apart / (slope * found[1]))
        if len(ratios) == PAIRS:
            break
    return min(float(np.median(ratios)) / RATTLED, 1.0) if ratios else 1.0
