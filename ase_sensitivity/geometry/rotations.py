"""Rotation generators: displacements of points by infinitesimal rotations."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.types import Floats


def rotation_generators(points: Floats) -> Floats:
    """Cross products of the axes x, y and z with points (..., 3), of shape (3, ..., 3).

    Written out, as numpy's cross product takes several times as long.
    """
    generators = np.zeros((3, *points.shape))
    for axis, following, last in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        generators[axis, ..., following] = -points[..., last]
        generators[axis, ..., last] = points[..., following]
    return generators
