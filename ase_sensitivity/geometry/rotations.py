"""Rotation generators: displacements of points by infinitesimal rotations."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.types import Floats


def rotation_generators(points: Floats) -> Floats:
    """Points (..., 3) turned about x, y and z: the cross products with these axes, (3, ..., 3).

    numpy's cross product takes several times as long.
    """
    x, y, z = np.moveaxis(points, -1, 0)
    zero = np.zeros_like(x)
    turns: Floats = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    return np.moveaxis(turns, 1, -1)
