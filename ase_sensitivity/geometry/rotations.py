"""Rotation generators: displacements of points by infinitesimal rotations."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.types import Floats

AXES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
"""Each axis with the two that follow it."""


def cross(a: Floats, b: Floats) -> Floats:
    """Cross products of vectors (n, 3); numpy's takes ten times as long for a molecule."""
    found = np.empty_like(a)
    for axis, following, last in AXES:
        found[:, axis] = a[:, following] * b[:, last] - a[:, last] * b[:, following]
    return found


def rotation_generators(points: Floats) -> Floats:
    """Cross products of the axes x, y and z with points (..., 3), of shape (3, ..., 3).

    Written out, as numpy's cross product takes several times as long.
    """
    generators = np.zeros((3, *points.shape))
    for axis, following, last in AXES:
        generators[axis, ..., following] = -points[..., last]
        generators[axis, ..., last] = points[..., following]
    return generators
