"""Frames that add nothing, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import analyze
from ase_sensitivity.causes.cause import HARMLESS, NULL_CAUSES
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.environments.place import Place
from ase_sensitivity.plain_text import many, reason
from ase_sensitivity.sensitivity import NEARLY
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

SAME = 1e-6
"""Average features are the same within this fraction of their root mean square over the frames."""

POOR = 0.1
"""A frame adds nothing if it would gain less than this fraction of the median frame."""

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
        What it would add to the chosen frames, relative to the median of those that were not
        chosen; None for copies.
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


def poor_places(gains: Floats) -> tuple[Ints, Floats]:
    """The places of small gains, the smallest first, and all gains over the median."""
    median = float(np.median(gains)) if len(gains) else 0.0
    if median <= 0.0:
        return np.empty(0, dtype=np.intp), gains
    relative = gains / median
    poor = np.flatnonzero(relative < POOR)
    return poor[np.argsort(relative[poor], kind="stable")], relative


def why_poor(atoms: Atoms, descriptor: Descriptor) -> str:
    """Why a frame would gain little."""
    try:
        found = analyze(atoms, descriptor, causes=True)
    except Exception as error:  # the choice does not depend on it
        logger.info("the causes were not found", exc_info=True)
        return f"not known: its analysis failed: {reason(error)}"
    counts = found.counts or {}
    for cause in NULL_CAUSES:
        if counts.get(cause):
            kind = "symmetric" if cause in HARMLESS else "near-singular"
            return f"{kind}: {many(counts[cause], 'direction')} invisible because of {cause}"
    if len(found.singular_values) and found.ratio < NEARLY:
        return f"near-singular: sigma_min / sigma_max = {found.ratio:.1e}"
    return "covered: other frames, chosen or given, teach the same"
