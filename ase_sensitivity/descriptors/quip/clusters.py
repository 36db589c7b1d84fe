"""An order of the atoms of a cluster that does not depend on their indices.

QUIP lists the distances of a triplet as its atoms come and leaves it to the kernel to sum over
permutations. Features that are compared as they are need one order.
"""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np

from ase_sensitivity.types import Floats, Ints

DIGITS = 8
"""Decimals, in Å, to which distances have to agree to be taken for equal."""


def canonical_order(numbers: Ints, positions: Floats) -> tuple[Ints, Ints]:
    """Which of a few atoms comes first, second, ..., and the order of their distances.

    By atomic number, then by the distances; positions decide where these are the same.

    Parameters
    ----------
    numbers
        Atomic numbers, or the same for all where species are not told apart.
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
