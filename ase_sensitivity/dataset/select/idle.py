"""Frames that add nothing, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import analyze
from ase_sensitivity.causes.cause import HARMLESS, NULL_CAUSES
from ase_sensitivity.dataset.pairs.result import Place
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.sensitivity import NEARLY
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

SAME = 1e-6
"""Average features are the same within this fraction of their root mean square over the frames."""

POOR = 0.1
"""A frame adds nothing if by itself it gains less than this fraction of the median frame."""

MOST_POOR = 30
"""Number of such frames that are looked at, the poorest first: each takes an analysis."""

NOT_LOOKED_AT = "not looked at"
"""The reason of the others."""


@dataclass(frozen=True)
class IdleFrame:
    """A frame that adds nothing.

    Attributes
    ----------
    place
        Where the frame is from.
    reason
        The frame of which it is a copy, symmetry, a nearly singular Jacobian, or another one.
    gain
        Its gain before any frame was chosen, relative to that of the median frame; None if it is
        not known, as for copies.
    """

    place: Place
    reason: str
    gain: float | None = None


def first_copies(averages: Floats) -> Ints:
    """For each frame the first one with the same average features, of shape (n,).

    Frames are sorted along a random axis. So only those that are near along it are compared, and
    only with the first of several copies.

    Parameters
    ----------
    averages
        Of shape (n, n_axes).
    """
    points = averages.astype(float)
    tolerance = SAME * float(np.sqrt((points**2).sum(axis=1).mean())) if len(points) else 0.0
    along = points @ np.random.default_rng(0).normal(size=points.shape[1]) / points.shape[1] ** 0.5
    first = np.arange(len(points))
    near: list[int] = []
    for number in np.argsort(along, kind="stable").tolist():
        near = [other for other in near if along[number] - along[other] <= 4 * tolerance]
        for other in near:
            if np.linalg.norm(points[number] - points[other]) <= tolerance:
                first[number] = other
                break
        else:
            near.append(number)
    # The first in the order of the frames stands for the others, whatever the order on the axis.
    lowest = np.arange(len(points))
    np.minimum.at(lowest, first, np.arange(len(points)))
    return lowest[first]


def poor_places(alone: Floats) -> tuple[Ints, Floats]:
    """The frames that gain little by themselves, poorest first, and all gains over the median."""
    median = float(np.median(alone)) if len(alone) else 0.0
    if median <= 0.0:
        return np.empty(0, dtype=np.intp), alone
    relative = alone / median
    poor = np.flatnonzero(relative < POOR)
    return poor[np.argsort(relative[poor], kind="stable")], relative


def why_poor(atoms: Atoms, descriptor: Descriptor, given: bool) -> str:
    """Why a frame gains little by itself."""
    try:
        found = analyze(atoms, descriptor, causes=True)
    except Exception as error:  # the choice does not depend on it
        logger.info("the causes were not found", exc_info=True)
        return f"not known; its analysis failed: {error}"
    counts = found.counts or {}
    named = [cause for cause in NULL_CAUSES if counts.get(cause)]
    faults = [cause for cause in named if cause not in HARMLESS]
    if faults:
        return f"near-singular: {counts[faults[0]]} directions invisible because of {faults[0]}"
    if counts.get("symmetry"):
        return f"symmetric: {counts['symmetry']} directions on which no force can act"
    if len(found.singular_values) and found.ratio < NEARLY:
        return f"near-singular: sigma_min / sigma_max = {found.ratio:.1e}"
    if given:
        return "covered by the frames that are given"
    return "weak: its features change little with the positions"
