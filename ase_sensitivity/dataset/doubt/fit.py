"""A cross-validated fit of forces that few wrong labels do not pull."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.types import Floats, Ints

N_FOLDS = 5
RIDGES = 10.0 ** np.arange(-9, 0)
"""Ridges that are tried, relative to the mean eigenvalue of the normal equations."""

N_ROUNDS = 3
"""How often the weights of frames are computed again from their residuals."""

EXACT = 1e-3
"""Residuals below this, relative to the median, do not count in the choice of the ridge."""

NEGLIGIBLE = 1e-6
"""Mean squares below this fraction of their mean over all frames weigh a frame no more."""


@dataclass(frozen=True, eq=False)
class RobustFit:
    """Weights of a linear model for each fold, fitted to the frames of all other folds.

    Attributes
    ----------
    weights
        Of shape (N_FOLDS, n_columns).
    ridge
        The ridge that was chosen: that of the smallest mean logarithm of the residuals.
    """

    weights: Floats
    ridge: float

    @classmethod
    def of(cls, rows: Sequence[NDArray[Any]], forces: Sequence[Floats], fold: Ints) -> RobustFit:
        """Fit, and weigh frames by their held-out residuals (iterated).

        Parameters
        ----------
        rows
            For each frame, of shape (n_directions, n_columns).
        forces
            Components along these directions in eV/Å, of shape (n_directions,).
        fold
            That of each frame.
        """
        squares = np.array([float(own @ own) / len(own) for own in forces])
        for _ in range(N_ROUNDS):
            # Half of the frames may have no forces at all.
            usual = max(float(np.median(squares)), NEGLIGIBLE * float(squares.mean()))
            weight = 1.0 / (squares + max(usual, np.finfo(float).tiny))
            solutions = _solutions(rows, forces, weight, fold)
            missed = np.array(
                [
                    ((own @ solutions[k] - force[:, None]) ** 2).mean(axis=0)
                    for own, force, k in zip(rows, forces, fold, strict=True)
                ]
            )
            least = EXACT * float(np.median(missed.min(axis=1))) + np.finfo(float).tiny
            best = int(np.argmin(np.log(missed + least).mean(axis=0)))
            squares = missed[:, best]
        return cls(solutions[:, :, best], float(RIDGES[best]))


def _solutions(
    rows: Sequence[NDArray[Any]], forces: Sequence[Floats], weight: Floats, fold: Ints
) -> Floats:
    """The model of each fold for each ridge, of shape (N_FOLDS, n_columns, n_ridges)."""
    n = rows[0].shape[1]
    left, right = np.zeros((N_FOLDS, n, n)), np.zeros((N_FOLDS, n))
    for own, force, w, k in zip(rows, forces, weight, fold, strict=True):
        precise = own.astype(float)
        left[k] += w * precise.T @ precise
        right[k] += w * precise.T @ force
    total, sides = left.sum(axis=0), right.sum(axis=0)
    ridges = RIDGES * max(float(np.trace(total)) / n, np.finfo(float).tiny)
    found = []
    for k in range(N_FOLDS):
        values, vectors = np.linalg.eigh(total - left[k])
        along = vectors.T @ (sides - right[k])
        found.append(vectors @ (along[:, None] / (values.clip(0)[:, None] + ridges)))
    return np.array(found)
