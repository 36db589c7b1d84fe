"""A fingerprint of the arrangement of points, beyond what pairs of them tell."""

from __future__ import annotations

import math

import numpy as np
from ase import Atoms

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.sparse import OPTIONS
from ase_sensitivity.environments.environment_set import whole_points
from ase_sensitivity.geometry.neighbors import Neighborhoods
from ase_sensitivity.types import Floats, Ints

LENGTH = 16
"""Number of entries of a fingerprint."""

_RNG = np.random.default_rng(20210611)
_FREQUENCIES = _RNG.normal(size=(LENGTH, 4)) * [0.8, 3.0, 3.0, 3.0]
_PHASES = _RNG.uniform(0.0, 2 * np.pi, LENGTH)


def shapes(atoms: Atoms, centers: Ints, near: Neighborhoods | None, radius: float) -> Floats:
    """Fingerprints of environments, of shape (n_centers, 16).

    Parameters
    ----------
    atoms, centers
        The structure, and the atoms at the centers.
    near
        The neighbors of all atoms; None if the center is the structure as a whole.
    radius
        Points have no weight beyond this (Å).

    Notes
    -----
    For every point, the sums over all points of w P_l(cosine), l = 1, 2, 3, tell how the others
    are arranged about it; w is a smooth weight times a number for the species. The fingerprint is
    the weighted sum over points of cosines of random combinations of these three and the distance.
    So it depends on the relations of any number of points, is smooth, and does not depend on
    orientation, handedness and order. That two sets have the same fingerprint proves nothing; that
    they have different ones proves that they are different.
    """
    if near is None:
        numbers, points = whole_points(atoms)
        return fingerprints(numbers, points, np.array([0]), np.array([len(points)]), radius)
    first, last = near.starts[centers], near.starts[centers + 1]
    return fingerprints(atoms.numbers[near.atom], near.vectors, first, last, radius)


def fingerprints(numbers: Ints, points: Floats, first: Ints, last: Ints, radius: float) -> Floats:
    """Those of points about an origin, from ``first`` to ``last`` for each environment."""
    distance = np.linalg.norm(points, axis=1)
    weight = 1.0 + 0.37 * np.sqrt(numbers)
    if np.isfinite(radius):
        weight *= np.cos(0.5 * np.pi * np.minimum(distance / radius, 1.0)) ** 2
    unit = points / np.maximum(distance, 1e-9)[:, None]
    about = np.zeros((len(points), 4))
    _arranged(weight, unit, first, last, about)
    about[:, 0] = distance
    waves = weight[:, None] * np.cos(about @ _FREQUENCIES.T + _PHASES)
    # The sums of all points so far, the last of each environment minus that before its first.
    sums = np.concatenate([np.zeros((1, LENGTH)), np.cumsum(waves, axis=0)])
    found: Floats = sums[last] - sums[first]
    return found


@njit(**OPTIONS)
def _arranged(weight, unit, first, last, about):
    """How the points of each environment are arranged about each of them, in columns 1 to 3."""
    for k in range(len(first)):
        scale = 0.0
        for i in range(first[k], last[k]):
            scale += weight[i] * weight[i]
        scale = 1.0 / max(math.sqrt(scale), 1e-9)
        for i in range(first[k], last[k]):
            x, y, z = unit[i, 0], unit[i, 1], unit[i, 2]
            one, two, three = 0.0, 0.0, 0.0
            for j in range(first[k], last[k]):
                cosine = x * unit[j, 0] + y * unit[j, 1] + z * unit[j, 2]
                square = cosine * cosine
                one += weight[j] * cosine
                two += weight[j] * (1.5 * square - 0.5)
                three += weight[j] * cosine * (2.5 * square - 1.5)
            about[i, 1], about[i, 2], about[i, 3] = scale * one, scale * two, scale * three
