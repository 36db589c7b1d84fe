"""Fragments: groups of atoms that are connected by paths of neighbors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.geometry.neighbors import NeighborPairs, neighbor_pairs
from ase_sensitivity.geometry.paths import connect
from ase_sensitivity.geometry.ranges import Range
from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.geometry.structure import is_periodic
from ase_sensitivity.types import Floats, Ints

TRANSLATIONS = np.eye(3)[:, None]


@dataclass(frozen=True, eq=False)
class Fragment:
    """Atoms connected to each other by paths of neighbors, and to no other atom.

    Attributes
    ----------
    atoms
        Indices of shape (n,).
    positions
        In Å, of shape (n, 3). Images are chosen along the paths, so that a molecule is whole.
    axes
        Independent lattice vectors that connect the fragment to its own images, of shape (m, 3):
        none for a molecule, one for a wire, two for a slab, three for a crystal.
    rotates
        Whether rotations are rigid motions that no feature may see.
    """

    atoms: Ints
    positions: Floats
    axes: Floats
    rotates: bool = True

    def generators(self) -> Floats:
        """Rigid motions as displacements of the fragment's atoms, of shape (m, n, 3)."""
        n = len(self.atoms)
        if not self.rotates or len(self.axes) > 1 or n == 1:
            return np.repeat(TRANSLATIONS, n, axis=1)
        relative = self.positions - self.positions.sum(axis=0) / n
        relative /= math.sqrt(np.vdot(relative, relative) / n) or 1.0
        rotations = rotation_generators(relative)
        if len(self.axes) == 1:
            rotations = np.tensordot(self.axes / np.linalg.norm(self.axes), rotations, axes=1)
        motions = np.empty((3 + len(rotations), n, 3))
        motions[:3], motions[3:] = TRANSLATIONS, rotations
        return motions


def fragments(atoms: Atoms, ranges: Iterable[Range]) -> list[Fragment]:
    """Connected components of the graph of centers and their neighbors.

    Two atoms are neighbors if one is within the cutoff of the other and is a center, or passes
    messages on to a center. Species do not matter: an atom within the cutoff that the descriptor
    does not see because of its species is no fragment but a blind spot.

    Parameters
    ----------
    atoms
        The structure.
    ranges
        The centers and how far they see, for each part of a Jacobian.
    """
    parts = list(ranges)
    rotates = all(part.rotation_invariant for part in parts)
    pairs = _concatenated([_message_pairs(atoms, part) for part in parts])
    first, second, shift = pairs.first, pairs.second, pairs.shift
    root, offset = connect(first, second, shift, len(atoms))
    unfolded, cell, found = atoms.positions, np.zeros((3, 3)), []
    cycles, root_of_cycle = shift[:0], root[:0]
    if is_periodic(atoms):
        cycles = offset[first] + shift - offset[second]
        around = cycles.any(axis=1)
        cycles, root_of_cycle = cycles[around], root[first[around]]
        cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)  # others have no meaning
        unfolded = atoms.positions + offset @ cell
    if (root == root[0]).all():
        return [Fragment(np.arange(len(root)), unfolded, _independent(cycles, cell), rotates)]
    for label in np.unique(root):
        members = np.flatnonzero(root == label)
        own = cycles[root_of_cycle == label]
        found.append(Fragment(members, unfolded[members], _independent(own, cell), rotates))
    return found


def pairs_within_reach(atoms: Atoms, ranges: Iterable[Range]) -> NeighborPairs:
    """Each center with all atoms within its reach, which it sees directly or by messages."""
    return _concatenated([_pairs_within_reach(atoms, part) for part in ranges])


def _concatenated(edges: Sequence[NeighborPairs]) -> NeighborPairs:
    if len(edges) == 1:
        return edges[0]
    return NeighborPairs(
        np.concatenate([pairs.first for pairs in edges]),
        np.concatenate([pairs.second for pairs in edges]),
        np.concatenate([pairs.shift for pairs in edges]),
    )


def _pairs_within_reach(atoms: Atoms, part: Range) -> NeighborPairs:
    if not np.isfinite(part.reach):
        return _all_connected(atoms)
    return _of_centers(part.within_reach(atoms), part.centers, len(atoms))


def _message_pairs(atoms: Atoms, part: Range) -> NeighborPairs:
    """Pairs within the cutoff with a first atom that is a center or passes messages on to one."""
    if not math.isfinite(part.cutoff):
        return _all_connected(atoms)
    pairs = part.pairs or neighbor_pairs(atoms, part.cutoff)
    receivers = part.centers
    hops = part.n_hops if math.isfinite(part.reach) else len(atoms)
    for _ in range(hops - 1):
        found = np.union1d(receivers, _of_centers(pairs, receivers, len(atoms)).second)
        if len(found) == len(receivers):
            break
        receivers = found
    return _of_centers(pairs, receivers, len(atoms))


def _of_centers(pairs: NeighborPairs, centers: Ints, n_atoms: int) -> NeighborPairs:
    """The pairs that have a center as their first atom."""
    if len(centers) == n_atoms:
        return pairs
    chosen = np.isin(pairs.first, centers)
    return NeighborPairs(pairs.first[chosen], pairs.second[chosen], pairs.shift[chosen])


def _all_connected(atoms: Atoms) -> NeighborPairs:
    """For an unknown range: every atom is connected, across every periodic boundary."""
    others = np.arange(len(atoms))
    axes = np.eye(3, dtype=np.intp)[atoms.pbc]
    return NeighborPairs(
        np.zeros(len(atoms) + len(axes), dtype=np.intp),
        np.concatenate([others, np.zeros(len(axes), dtype=np.intp)]),
        np.concatenate([np.zeros((len(atoms), 3), dtype=np.intp), axes]),
    )


def _independent(cycles: Ints, cell: Floats) -> Floats:
    """Orthonormal basis of the span of the lattice vectors ``cycles @ cell``, (rank, 3)."""
    if len(cycles) == 0:
        return np.empty((0, 3))
    vectors = cycles @ cell
    squares, axes = np.linalg.eigh(vectors.T @ vectors)
    return axes.T[squares > 1e-12 * max(squares[-1], 1e-300)]
