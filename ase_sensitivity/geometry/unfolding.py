"""A periodic structure as an isolated cluster, in which every image is an atom of its own."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from scipy.spatial.distance import cdist

from ase_sensitivity.geometry.neighbors import neighbor_pairs
from ase_sensitivity.types import Ints


def unfolded(atoms: Atoms, radius: float) -> tuple[Atoms, Ints]:
    """The atoms of the cell, in their order, and then every image within a radius of one of them.

    Parameters
    ----------
    atoms
        The structure.
    radius
        In Å.

    Returns
    -------
    cluster
        Without periodic boundary conditions. What a center of the cell sees within the radius is
        what it sees in the structure.
    parent
        The atom that each atom of the cluster is an image of, of shape (n_cluster,).
    """
    if not atoms.pbc.any():
        return Atoms(atoms.numbers, atoms.positions), np.arange(len(atoms))
    pairs = neighbor_pairs(atoms, radius)
    images = np.column_stack([pairs.second, pairs.shift])
    images = np.unique(images[(images[:, 1:] != 0).any(axis=1)], axis=0)
    parent = np.concatenate([np.arange(len(atoms)), images[:, 0]])
    shift = images[:, 1:] @ np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    positions = np.concatenate([atoms.positions, atoms.positions[images[:, 0]] + shift])
    return Atoms(atoms.numbers[parent], positions), parent


def pairs_within(cluster: Atoms, n: int, radius: float) -> tuple[Ints, Ints]:
    """Centers among the first n atoms of a cluster, and the atoms nearer to them than a radius (Å).

    Two arrays of shape (n_pairs,), sorted by the center, which is its own neighbor.
    """
    center, atom = np.nonzero(cdist(cluster.positions[:n], cluster.positions) < radius)
    return center, atom


def one_image_each(atoms: Atoms, radius: float) -> bool:
    """Whether no atom has two images of one atom, or one of itself, within a radius (Å)."""
    if not atoms.pbc.any():
        return True
    if not np.isfinite(radius):
        return False
    pairs = neighbor_pairs(atoms, radius)
    keys = pairs.first * len(atoms) + pairs.second
    return len(np.unique(keys)) == len(keys) and not (pairs.first == pairs.second).any()
