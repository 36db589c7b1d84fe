"""Rotation generators: displacements of points by infinitesimal rotations."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.types import Floats


def rotation_generators(points: Floats) -> Floats:
    """Cross products of the axes x, y and z with points (..., 3), of shape (3, ..., 3).

    Written out, as numpy's cross product takes several times as long.
    """
    x, y, z = np.moveaxis(points, -1, 0)
    zero = np.zeros_like(x)
    generators: Floats = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    return np.moveaxis(generators, 1, -1)
