"""Whether the required slopes of two candidates differ by more than the choice of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ase_sensitivity.dataset.basis.candidates import Key
from ase_sensitivity.types import Floats

FALLS = 0.1
"""A slope is lower than another one if it is so by this fraction; less is of no use to a fit."""

N_DRAWS = 500
"""Number of resampled sets of frames."""

AT_ONCE = 1_000_000
"""Numbers that are drawn at a time, to limit memory."""

CONFIDENCE = 95
"""Of intervals, in percent."""

_ENDS = (50 - CONFIDENCE / 2, 50 + CONFIDENCE / 2)

N_LEAST = 8
"""Fewer frames do not tell how much slopes vary."""


class Evidence:
    """Medians of required slopes over sets of frames that are drawn with replacement.

    All candidates have the same draws, so that what is common to them in a frame, such as the size
    of its forces, is no noise.

    Parameters
    ----------
    slopes
        For each candidate the slope of each frame in eV/Å, nan where there is none.

    Attributes
    ----------
    n_frames
        The number of frames in which every candidate has a slope.

    Notes
    -----
    This is a paired bootstrap [1]_. Frames count as independent: the steps of a trajectory that
    are close to each other are fewer than they seem.

    References
    ----------
    .. [1] B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993).
    """

    def __init__(self, slopes: Mapping[Key, Sequence[float]]) -> None:
        self._medians: dict[Key, Floats] = {}
        known = np.array([*slopes.values()], dtype=float).reshape(len(slopes) or 1, -1)
        known = known[:, np.isfinite(known).all(axis=0)]
        self.n_frames = known.shape[1]
        if self.n_frames < N_LEAST:
            return
        rng = np.random.default_rng(0)
        medians = [np.median(known, axis=1)[:, None]]
        at_once = max(1, AT_ONCE // known.size)
        for begin in range(0, N_DRAWS, at_once):
            shape = min(at_once, N_DRAWS - begin), self.n_frames
            draws = rng.integers(self.n_frames, size=shape)
            medians.append(np.median(known[:, draws], axis=2))
        self._medians = dict(zip(slopes, np.concatenate(medians, axis=1), strict=True))

    def interval(self, key: Key) -> tuple[float, float] | None:
        """The median slope of a candidate with :data:`CONFIDENCE`, in eV/Å; None if unknown."""
        if key not in self._medians:
            return None
        low, high = np.percentile(self._medians[key][1:], _ENDS)
        return float(low), float(high)

    def lower(self, key: Key, other: Key) -> bool:
        """Whether the first slope is lower than the second one by :data:`FALLS`, beyond noise.

        False if there are less than :data:`N_LEAST` frames.
        """
        if not self._medians:
            return False
        own, others = self._medians[key], self._medians[other]
        highest = np.percentile(own[1:] - others[1:], _ENDS[1])
        return bool(own[0] < (1 - FALLS) * others[0] and highest < 0)


def front(slopes: Mapping[Key, float], sizes: Mapping[Key, float]) -> list[Key]:
    """The Pareto front: candidates with a lower slope than all that are no larger, by size."""
    found: list[Key] = []
    for key in sorted(sizes, key=lambda one: (sizes[one], slopes[one])):
        if not found or slopes[key] < slopes[found[-1]]:
            found.append(key)
    return found
