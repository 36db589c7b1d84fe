"""Random Fourier features of the centers' feature vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from ase_sensitivity.types import Floats

N_FOURIER = 300
"""Number of random Fourier features of each center."""

N_AXES = 64
"""Number of axes in the space of the descriptor's features that they depend on."""

MOST_CENTERS = 2000
"""Number of centers that give these axes."""

MOST_DISTANCES = 300
"""Number of centers whose distances give the length scale."""

SAME = 1e-6
"""Feature vectors are the same if their distance is below this fraction of the largest norm."""


@dataclass(frozen=True, eq=False)
class Fourier:
    """Random Fourier features cos(w·f + b) of feature vectors f of one length.

    Each species of the center has phases b of its own, so that its energy is a function of its own.

    Attributes
    ----------
    axes
        Right singular vectors of the feature vectors of a sample, of shape (n_features, n_axes).
    frequencies
        The w on these axes, of shape (n_axes, n_fourier).
    phases
        The b by atomic number, of shape (119, n_fourier).
    """

    axes: Floats
    frequencies: Floats
    phases: Floats

    @classmethod
    def fit(
        cls,
        features: Floats,
        rng: np.random.Generator,
        n_fourier: int = N_FOURIER,
        n_axes: int = N_AXES,
    ) -> Fourier:
        """Features of a Gaussian kernel whose length is the median distance in a sample.

        Parameters
        ----------
        features
            Of shape (n, n_features).
        rng
            The random numbers.
        n_fourier, n_axes
            How many features, on how many axes.
        """
        some = rng.choice(features, min(len(features), MOST_CENTERS), replace=False)
        axes = np.linalg.svd(some, full_matrices=False)[2][:n_axes].T
        few = some[:MOST_DISTANCES] @ axes
        distances = np.linalg.norm(few[:, None] - few, axis=-1)
        # Copies of an environment say nothing about the scale.
        apart = distances[distances > SAME * np.linalg.norm(some, axis=1).max()]
        length = float(np.median(apart)) if len(apart) else 1.0
        return cls(
            axes=axes,
            frequencies=rng.normal(size=(axes.shape[1], n_fourier)) / length,
            phases=rng.uniform(0.0, 2.0 * np.pi, (len(chemical_symbols), n_fourier)),
        )

    def coordinates(self, features: Floats) -> Floats:
        """Feature vectors on the axes, of shape (n, n_axes)."""
        return features @ self.axes

    def slopes(self, changes: Floats) -> Floats:
        """Changes of w·f with changes of the features (..., n_features): (..., n_fourier)."""
        return (changes @ self.axes) @ self.frequencies
