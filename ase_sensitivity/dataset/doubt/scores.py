"""How far a value is above those of like frames: robust z-scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from ase_sensitivity.types import Floats, Ints

FEWEST = 10
"""Number of frames whose median and spread mean something."""

FLOOR = 1e-3
"""Values below this, in eV/Å, are alike. It is added before logarithms are taken."""

LEAST_SPREAD = 0.2
"""Smallest spread of logarithms: twice the usual is not doubtful, whatever the others are."""

TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def groups_of(formulas: Sequence[str]) -> tuple[Ints, Ints]:
    """The group of each frame, and the number of frames in each group.

    Frames with the same species and numbers of atoms are a group. Those of all groups with fewer
    than :data:`FEWEST` frames are one group together.
    """
    _, group, sizes = np.unique(np.asarray(formulas), return_inverse=True, return_counts=True)
    small = sizes < FEWEST
    group = np.where(small[group], len(sizes), group)
    kept, group = np.unique(group, return_inverse=True)
    return group, np.bincount(group, minlength=len(kept))


def above_usual(values: Floats, group: Ints) -> Floats:
    """Robust z-scores of the logarithms of values within each group, of shape (n,).

    Parameters
    ----------
    values
        Not negative, in eV/Å or eV, of shape (n,); nan where there is none.
    group
        That of each frame, of shape (n,).

    Returns
    -------
    scores
        nan without a value, and in groups with fewer than :data:`FEWEST` values.
    """
    return z_scores(np.log(values + FLOOR), group)


def expected(values: Floats, forces: Floats, group: Ints) -> Floats:
    """What the size of the forces lets expect of values, of shape (n,).

    Large forces are harder to fit. The trend is a straight line through the logarithms of all
    frames, by least squares that outliers do not pull, with a slope from 0 to 2. Each group has an
    offset of its own, the median of its frames.

    Parameters
    ----------
    values, group
        As in :func:`above_usual`.
    forces
        Root mean square forces in eV/Å, of shape (n,).

    Returns
    -------
    expected
        In eV/Å; nan where too few values are known.
    """
    y, x = np.log(values + FLOOR), np.log(forces + FLOOR)
    known = np.isfinite(y) & np.isfinite(x)
    if known.sum() < FEWEST:
        return np.full(len(y), np.nan)
    start = [float(np.median(y[known])), 0.5]
    scale = _spread(y[known])
    slope = least_squares(
        lambda c: (y[known] - c[0] - c[1] * x[known]) / scale,
        start,
        bounds=([-np.inf, 0.0], [np.inf, 2.0]),
        loss="soft_l1",
    ).x[1]
    rest = y - slope * x
    return (np.exp(slope * x + medians(rest, group)) - FLOOR).clip(0.0)


def above_expected(values: Floats, usual: Floats, group: Ints) -> Floats:
    """The same for values relative to what is :func:`expected` of each frame."""
    return z_scores(np.log(values + FLOOR) - np.log(usual + FLOOR), group)


def medians(values: Floats, group: Ints) -> Floats:
    """The median of the known values of the group of each frame, of shape (n,)."""
    found = np.full(len(values), np.nan)
    for number in np.unique(group):
        own = (group == number) & np.isfinite(values)
        if own.any():
            found[group == number] = np.median(values[own])
    return found


def z_scores(values: Floats, group: Ints) -> Floats:
    """Distances above the median of the group over its spread (median absolute deviation)."""
    scores = np.full(len(values), np.nan)
    for number in np.unique(group):
        own = np.flatnonzero((group == number) & np.isfinite(values))
        if len(own) >= FEWEST:
            scores[own] = (values[own] - np.median(values[own])) / _spread(values[own])
    return scores


def _spread(values: Floats) -> float:
    deviation = float(np.median(np.abs(values - np.median(values))))
    return max(TO_DEVIATION * deviation, LEAST_SPREAD)
