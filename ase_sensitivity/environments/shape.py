"""A fingerprint of the arrangement of points, beyond what pairs of them tell."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.types import Floats, Ints

LENGTH = 16
"""Number of entries of a fingerprint."""

_RNG = np.random.default_rng(20210611)
_FREQUENCIES = _RNG.normal(size=(LENGTH, 4)) * [0.8, 3.0, 3.0, 3.0]
_PHASES = _RNG.uniform(0.0, 2 * np.pi, LENGTH)


def shapes(groups: list[tuple[Ints, Floats]], radius: float) -> Floats:
    """Fingerprints of sets of points about an origin, of shape (n_sets, 16).

    Parameters
    ----------
    groups
        Atomic numbers of shape (n,) and displacements in Å of shape (n, 3), for each set.
    radius
        Points have no weight beyond this (Å); infinite for sets as a whole.

    Notes
    -----
    For every point, the sums over all points of w P_l(cosine), l = 1, 2, 3, tell how the others
    are arranged about it; w is a smooth weight times a number for the species. The fingerprint is
    the weighted sum over points of cosines of random combinations of these three and the distance.
    So it depends on the relations of any number of points, is smooth, and does not depend on
    orientation, handedness and order. That two sets have the same fingerprint proves nothing; that
    they have different ones proves that they are different.
    """
    found = np.zeros((len(groups), LENGTH))
    most = max((len(numbers) for numbers, _ in groups), default=0)
    if most == 0:
        return found
    points = np.zeros((len(groups), most, 3))
    weight = np.zeros((len(groups), most))
    for k, (numbers, displacements) in enumerate(groups):
        points[k, : len(numbers)] = displacements
        weight[k, : len(numbers)] = 1.0 + 0.37 * np.sqrt(numbers)
    distance = np.linalg.norm(points, axis=2)
    if np.isfinite(radius):
        weight *= np.cos(0.5 * np.pi * np.minimum(distance / radius, 1.0)) ** 2
    unit = points / np.maximum(distance, 1e-9)[..., None]
    cosine = unit @ unit.transpose(0, 2, 1)
    about = [distance]
    scale = np.sqrt((weight**2).sum(axis=1))[:, None]
    for order in (cosine, 1.5 * cosine**2 - 0.5, 2.5 * cosine**3 - 1.5 * cosine):
        about.append((order @ weight[..., None])[..., 0] / np.maximum(scale, 1e-9))
    argument = np.stack(about, axis=2) @ _FREQUENCIES.T + _PHASES
    result: Floats = (weight[:, None] @ np.cos(argument))[:, 0]
    return result
