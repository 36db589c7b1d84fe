"""Atoms that are connected by paths of neighbors, and the cell boundaries that paths cross."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.types import Ints

OPTIONS = {"nogil": True}


def connect(first: Ints, second: Ints, shift: Ints, n_atoms: int) -> tuple[Ints, Ints]:
    """Find connected atoms by following pairs of neighbors in either direction.

    Parameters
    ----------
    first, second
        Atoms of each pair, of shape (n_pairs,).
    shift
        Lattice vectors to add to the second atom, of shape (n_pairs, 3).
    n_atoms
        Number of atoms.

    Returns
    -------
    root
        For each atom, the one that represents its connected component, of shape (n_atoms,).
    offset
        Lattice vectors to add to each atom, of shape (n_atoms, 3). They give the image that a path
        of neighbors from the root reaches.
    """
    root: Ints = np.arange(n_atoms)
    offset: Ints = np.zeros((n_atoms, 3), dtype=np.intp)
    _connect(first, second, shift, root, offset)
    return root, offset


@njit(**OPTIONS)
def _connect(first, second, shift, parent, offset):
    """Union-find: offsets are relative to the parent, and at the end the parent is the root."""
    for pair in range(len(first)):
        i, j = first[pair], second[pair]
        a, b = _root(parent, offset, i), _root(parent, offset, j)
        if a != b:
            parent[b] = a
            for k in range(3):
                offset[b, k] = offset[i, k] + shift[pair, k] - offset[j, k]
    for i in range(len(parent)):
        _root(parent, offset, i)


@njit(**OPTIONS)
def _root(parent, offset, i):
    """The root of i. It becomes the parent of i and of all atoms on the way to it."""
    root, x, y, z = i, 0, 0, 0
    while parent[root] != root:
        x, y, z = x + offset[root, 0], y + offset[root, 1], z + offset[root, 2]
        root = parent[root]
    while parent[i] != root:
        step = offset[i, 0], offset[i, 1], offset[i, 2]
        offset[i, 0], offset[i, 1], offset[i, 2] = x, y, z
        x, y, z = x - step[0], y - step[1], z - step[2]
        parent[i], i = root, parent[i]
    return root
