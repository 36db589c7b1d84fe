"""An order of the atoms of a cluster that does not depend on their indices.

QUIP lists the distances of a triplet in the order of its atoms; its kernel sums over permutations.
Features that are compared without a kernel need a unique order.
"""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np

from ase_sensitivity.types import Floats, Ints

DIGITS = 8
"""Distances in Å are equal if they agree to this number of decimals."""


def canonical_order(numbers: Ints, positions: Floats) -> tuple[Ints, Ints]:
    """A unique order of a few atoms, and of the distances between them.

    Atoms are ordered by atomic number, then by distances, and if these are equal by positions.

    Parameters
    ----------
    numbers
        Atomic numbers, or equal numbers if species are not distinguished.
    positions
        Positions in Å, of shape (n, 3).

    Returns
    -------
    tuple
        Indices of the atoms, and of their distances as ``itertools.combinations`` lists them.
    """
    size = len(numbers)
    orders = np.array(list(permutations(range(size))))
    first, second = np.array(list(combinations(range(size), 2))).T
    place = np.zeros((size, size), dtype=np.intp)
    place[first, second] = place[second, first] = np.arange(len(first))
    features = place[orders[:, first], orders[:, second]]
    distances = np.linalg.norm(positions[first] - positions[second], axis=1)
    offsets = positions - positions.mean(axis=0)
    keys = np.hstack(
        [
            numbers[orders],
            np.round(distances, DIGITS)[features],
            np.round(offsets, DIGITS)[orders].reshape(len(orders), -1),
        ]
    )
    best = np.lexsort(keys.T[::-1])[0]
    return orders[best], features[best]
