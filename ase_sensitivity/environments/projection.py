"""Features on a few orthonormal axes, and what is left of them beyond the axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ase_sensitivity.types import Floats

AXES = 32
"""Number of axes in feature space on which every environment is projected. A projection shortens
distances, so near environments stay near."""

SEARCHED = 12
"""Number of axes, the most important ones, that are searched for neighbors."""

SAMPLE = 256
"""Number of feature vectors whose principal axes are taken."""


class Projection:
    """The principal axes of some feature vectors, and random ones where these do not suffice.

    Parameters
    ----------
    vectors
        Some vectors of features, all of the same length.
    """

    def __init__(self, vectors: Sequence[Floats]) -> None:
        rng = np.random.default_rng(0)
        chosen = range(len(vectors))
        if len(vectors) > SAMPLE:
            chosen = np.sort(rng.permutation(len(vectors))[:SAMPLE]).tolist()
        sample = np.array([vectors[k] for k in chosen])
        length = sample.shape[1]
        self.origin: Floats = sample.mean(axis=0)
        self.axes: Floats = np.zeros((length, AXES))
        if length == 0:
            return
        _, sizes, principal = np.linalg.svd(sample - self.origin, full_matrices=False)
        known = principal[sizes > 1e-6 * max(float(sizes[0]), 1e-300)][:AXES]
        random = rng.normal(size=(length, AXES))
        several = np.column_stack([known.T, random])[:, :AXES]
        self.axes[:, : min(length, AXES)] = np.linalg.qr(several)[0]

    @classmethod
    def restored(cls, origin: Floats, axes: Floats) -> Projection:
        """The projection with this origin and these axes."""
        found = cls.__new__(cls)
        found.origin, found.axes = origin, axes
        return found

    def __call__(self, vectors: Floats) -> tuple[Floats, Floats]:
        """Coordinates on the axes, of shape (n, 32), and the distance from them, (n,).

        With coordinates p, q and distances r, s of two vectors, their own distance is between
        ``hypot(|p - q|, r - s)`` and ``hypot(|p - q|, r + s)``. Of r and s, about 1e-8 times the
        norm is rounding error.
        """
        centered = vectors - self.origin
        coordinates: Floats = centered @ self.axes
        squares = np.einsum("ij,ij->i", centered, centered)
        squares -= np.einsum("ij,ij->i", coordinates, coordinates)
        return coordinates, np.sqrt(np.maximum(squares, 0.0))
