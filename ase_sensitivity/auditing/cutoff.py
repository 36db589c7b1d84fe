"""What happens when an atom crosses the cutoff."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms

from ase_sensitivity.auditing.check import FAILED, FINDING, OK, Check, skipped
from ase_sensitivity.auditing.structures import generic
from ase_sensitivity.descriptors.base import Descriptor, jacobian_of, restricted
from ase_sensitivity.testing import LOST
from ase_sensitivity.types import Floats

GROUP, NAME = "contract", "smooth at the cutoff"

NEAR, FAR = 1e-6, 1e-4
"""Distances in Å from the cutoff. What is linear in them is no jump."""

ALLOWED = (1e-8, 1e-6)
"""Jumps of features and of their derivatives, relative to the largest, that count as none."""


def smoothness(descriptor: Descriptor) -> list[Check]:
    """Differences of features and of their derivatives across the cutoff.

    An atom crosses the cutoff of one center, along a line on which nothing else happens.
    """
    if not math.isfinite(descriptor.cutoff):
        return [skipped(GROUP, NAME, "the cutoff is infinite")]
    start = generic(descriptor)["molecule"]
    seen = restricted(descriptor, start)
    at = {offset: _at(seen, start, offset) for d in (NEAR, FAR) for offset in (-d, d)}
    inside = jacobian_of(seen, start)
    rounding = LOST * inside.precision
    scales = [np.abs(inside.features).max(), np.sqrt(inside.gram().diagonal().max())]
    jumps = []
    for kind in (0, 1):
        near, far = (at[d][kind] - at[-d][kind] for d in (NEAR, FAR))
        left = (near * FAR - far * NEAR) / (FAR - NEAR)
        jumps.append(float(np.abs(left).max(initial=0.0)) / (scales[kind] or 1.0))
    limits = [max(limit, rounding) for limit in ALLOWED]
    values = {"features": jumps[0], "derivatives": jumps[1], "allowed": limits}
    verdict, note = OK, ""
    if jumps[0] > limits[0]:
        verdict = FAILED
        note = f"features jump by {jumps[0]:.1e} of the largest where an atom enters"
    elif jumps[1] > limits[1]:
        verdict = FINDING
        note = (
            f"derivatives jump by {jumps[1]:.1e} of the largest where an atom enters: forces are "
            "not continuous"
        )
    return [
        Check(
            GROUP,
            NAME,
            f"{jumps[0]:.1e} in features, {jumps[1]:.1e} in derivatives",
            "no jump",
            verdict,
            note,
            values,
        )
    ]


def _at(descriptor: Descriptor, start: Atoms, offset: float) -> tuple[Floats, Floats]:
    """Features, and derivatives by an atom that is so many Å beyond the cutoff of atom 0."""
    probed = start + Atoms([start.symbols[1]], [(0, 0, 0)])
    direction = np.array([0.48, 0.64, -0.6])
    probed.positions[-1] = start.positions[0] + (descriptor.cutoff + offset) * direction
    jacobian = jacobian_of(descriptor, probed)
    moves = np.zeros((3, len(probed), 3))
    moves[:, -1] = np.eye(3)
    features = np.asarray(descriptor.features(probed), dtype=float)
    return features, jacobian.apply(moves)
