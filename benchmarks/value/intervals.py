"""Means of measured numbers with their 95 % confidence intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ase_sensitivity.types import Floats

N_DRAWS = 10_000


class Measured(NamedTuple):
    """A number and its 95 % interval."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if abs(self.middle) >= 0.05 or self.high == 0.0 else 3
        return " ".join(
            [f"{self.middle:.{digits}f}", f"[{self.low:.{digits}f}, {self.high:.{digits}f}]"]
        )


def mean(values: Floats) -> Measured:
    """The mean of independent values of shape (n,), with a bootstrap interval."""
    values = np.asarray(values, dtype=float)
    draws = np.random.default_rng(0).integers(len(values), size=(N_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return Measured(float(values.mean()), float(low), float(high))


def ratio(one: Floats, other: Floats) -> Measured:
    """The geometric mean of the ratio of two errors.

    Their logarithms, of shape (n,), belong to the same splits (paired bootstrap).
    """
    return Measured(*np.exp(mean(one - other)))
