"""A Gaussian kernel of the average features of frames, by a few columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from ase_sensitivity.dataset.select.row_store import BLOCK
from ase_sensitivity.types import Floats

MOST_POINTS = 300
"""Number of frames that span the functions."""

N_COLUMNS = 64
"""Number of combinations of them that are kept: those that vary most."""

TINY = 1e-10
"""Eigenvalues below this fraction of the largest one are rounding errors."""


@dataclass(frozen=True, eq=False)
class AverageKernel:
    """Columns whose products are a Gaussian kernel (Nyström's approximation).

    Attributes
    ----------
    points
        Average features that span the functions, of shape (n_points, n_axes).
    length
        That of the kernel: the median distance of different points.
    combinations
        Of the kernels with the points, of shape (n_points, n_columns).
    """

    points: Floats
    length: float
    combinations: Floats

    @classmethod
    def fit(cls, averages: Floats) -> AverageKernel:
        """The columns for average features of frames, of shape (n, n_axes)."""
        some = np.linspace(0, len(averages), min(len(averages), MOST_POINTS), endpoint=False)
        points = averages[some.astype(int)].astype(float)
        distances = cdist(points, points)
        # In single precision copies are a little apart.
        apart = distances[distances > np.finfo(np.float32).eps * np.abs(points).max(initial=0.0)]
        length = float(np.median(apart)) if len(apart) else 1.0
        values, vectors = np.linalg.eigh(_gaussian(distances, length))
        kept = np.flatnonzero(values > TINY * values[-1])[-N_COLUMNS:]
        return cls(points, length, vectors[:, kept] / np.sqrt(values[kept]))

    def features(self, averages: Floats) -> Floats:
        """The columns of frames, of shape (n, n_columns)."""
        found = np.empty((len(averages), self.combinations.shape[1]))
        for start in range(0, len(averages), BLOCK):
            distances = cdist(averages[start : start + BLOCK], self.points)
            found[start : start + BLOCK] = _gaussian(distances, self.length) @ self.combinations
        return found


def _gaussian(distances: Floats, length: float) -> Floats:
    return np.exp(-((distances / length) ** 2) / 2)
