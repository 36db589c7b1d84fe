"""Trivial modes: the rigid motions that no descriptor can see, one set for each fragment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.descriptors.base import Floats, Ints, Range
from ase_sensitivity.structure import NeighborPairs, neighbor_pairs

DEPENDENT = 1e-6
"""Generators whose independent part is smaller than this, relative to the largest, are dropped:
the rotation of a linear molecule about its axis."""


@dataclass(frozen=True, eq=False)
class Fragment:
    """Atoms connected by paths of neighbours, and by nothing to the rest.

    Attributes
    ----------
    atoms
        Indices of shape (n,).
    positions
        In Å, of shape (n, 3), with the images chosen along the paths: a molecule is not torn apart.
    axes
        Independent lattice vectors that connect the fragment to its own images, of shape (m, 3):
        none for a molecule, one for a wire, two for a slab, three for a crystal.
    """

    atoms: Ints
    positions: Floats
    axes: Floats

    def generators(self) -> Floats:
        """Rigid motions as displacements of the fragment's atoms, of shape (m, n, 3)."""
        motions = [np.tile(e, (len(self.atoms), 1)) for e in np.eye(3)]
        if len(self.axes) <= 1 and len(self.atoms) > 1:
            relative = self.positions - self.positions.mean(axis=0)
            size = np.sqrt((relative**2).sum() / len(relative)) or 1.0
            axes = np.eye(3) if len(self.axes) == 0 else self.axes / np.linalg.norm(self.axes)
            motions += list(np.tensordot(axes, turned(relative / size), axes=1))
        return np.array(motions)


def turned(points: Floats) -> Floats:
    """Points (..., 3) turned about x, y and z: the cross products with these axes, (3, ..., 3).

    numpy's cross product takes several times as long.
    """
    x, y, z = np.moveaxis(points, -1, 0)
    zero = np.zeros_like(x)
    turns: Floats = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    return np.moveaxis(turns, 1, -1)


def fragments(atoms: Atoms, ranges: Iterable[Range]) -> list[Fragment]:
    """Connected components of the graph of centres and their neighbours.

    Two atoms are neighbours if one is within the cutoff of the other and is a centre, or hands on
    messages to one, whether or not the descriptor tells their species apart: an atom that a centre
    should see and does not is not a fragment but a blind spot.

    Parameters
    ----------
    atoms
        The structure.
    ranges
        How far which centres see, for each part of a Jacobian.
    """
    from ase_sensitivity.spectrum.paths import connect  # loads numba

    pairs = _together([_heard(atoms, part) for part in ranges])
    first, second, shift = pairs.first, pairs.second, pairs.shift
    root, offset = connect(first, second, shift, len(atoms))
    cycles = offset[first] + shift - offset[second]
    around = cycles.any(axis=1)
    cycles, root_of_cycle = cycles[around], root[first[around]]
    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)  # what else it says has no meaning
    unfolded = atoms.positions + offset @ cell
    found = []
    for label in np.unique(root):
        members = np.flatnonzero(root == label)
        own = cycles[root_of_cycle == label]
        found.append(Fragment(members, unfolded[members], _independent(own @ cell)))
    return found


def trivial_modes(
    pieces: Sequence[Fragment], n_atoms: int, fixed: Ints | None = None, *, jointly: bool = False
) -> Floats:
    """Orthonormal rigid motions of all fragments, of shape (3 n_atoms, n_trivial).

    Parameters
    ----------
    pieces
        The fragments.
    n_atoms
        Number of atoms.
    fixed
        Atoms that may not move: only rigid motions that leave them in place are trivial then. Their
        rows are zero.
    jointly
        Fragments may move apart but turn only all alike, as rows of the whole structure see it.
    """
    if jointly and len(pieces) > 1:
        return _orthonormal(_joint_generators(pieces, n_atoms), np.arange(n_atoms), n_atoms, fixed)
    modes = [
        _orthonormal(
            piece.generators().reshape(-1, 3 * len(piece.atoms)).T, piece.atoms, n_atoms, fixed
        )
        for piece in pieces
    ]
    return np.concatenate(modes, axis=1)


def _orthonormal(generators: Floats, atoms: Ints, n_atoms: int, fixed: Ints | None) -> Floats:
    """Modes of shape (3 n_atoms, any) spanned by generators (3 m, any) of some atoms (m,)."""
    if fixed is not None:
        held = np.repeat(np.isin(atoms, fixed), 3)
        if held.any():
            generators = generators @ scipy.linalg.null_space(generators[held], rcond=DEPENDENT)
            generators[held] = 0.0
    u, s, _ = np.linalg.svd(generators, full_matrices=False)
    independent = u[:, s > DEPENDENT * np.sqrt(len(atoms))]
    wide = np.zeros((n_atoms, 3, independent.shape[1]))
    wide[atoms] = independent.reshape(len(atoms), 3, -1)
    return wide.reshape(3 * n_atoms, -1)


def _joint_generators(pieces: Sequence[Fragment], n_atoms: int) -> Floats:
    """Translations of every fragment, and rotations of all by the same angle, as columns."""
    motions = []
    turns = np.zeros((3, n_atoms, 3))
    for piece in pieces:
        for e in np.eye(3):
            shift = np.zeros((n_atoms, 3))
            shift[piece.atoms] = e
            motions.append(shift)
        relative = piece.positions - piece.positions.mean(axis=0)
        turns[:, piece.atoms] = turned(relative)
    # Every fragment has to allow the rotation: a wire that about its axis, a crystal none.
    forbidden = np.zeros((3, 3))
    for piece in pieces:
        if len(piece.axes) == 1:
            axis = piece.axes[0] / np.linalg.norm(piece.axes[0])
            forbidden += np.eye(3) - np.outer(axis, axis)
        elif len(piece.axes) > 1:
            forbidden += np.eye(3)
    weights, axes = np.linalg.eigh(forbidden)
    for axis in axes.T[weights < DEPENDENT]:
        turn = np.einsum("k,kij->ij", axis, turns)
        motions.append(turn / (np.linalg.norm(turn) / np.sqrt(n_atoms) or 1.0))
    return np.array(motions).reshape(len(motions), -1).T


def links(atoms: Atoms, ranges: Iterable[Range]) -> NeighborPairs:
    """Centres and what each of them could see, directly or not."""
    return _together([_seen(atoms, part) for part in ranges])


def _together(edges: Sequence[NeighborPairs]) -> NeighborPairs:
    if len(edges) == 1:
        return edges[0]
    return NeighborPairs(
        np.concatenate([pairs.first for pairs in edges]),
        np.concatenate([pairs.second for pairs in edges]),
        np.concatenate([pairs.shift for pairs in edges]),
    )


def _seen(atoms: Atoms, part: Range) -> NeighborPairs:
    """Centres and what is within reach of each of them."""
    if not np.isfinite(part.reach):
        return _everything(atoms)
    return _of(part.within_reach(atoms), part.centers, len(atoms))


def _heard(atoms: Atoms, part: Range) -> NeighborPairs:
    """Atoms and what they hear directly, if they are centres or pass it on to one."""
    if not np.isfinite(part.cutoff):
        return _everything(atoms)
    pairs = part.pairs or neighbor_pairs(atoms, part.cutoff)
    listening = part.centers
    hops = part.n_hops if np.isfinite(part.reach) else len(atoms)
    for _ in range(hops - 1):
        found = np.union1d(listening, _of(pairs, listening, len(atoms)).second)
        if len(found) == len(listening):
            break
        listening = found
    return _of(pairs, listening, len(atoms))


def _of(pairs: NeighborPairs, centers: Ints, n_atoms: int) -> NeighborPairs:
    """The pairs whose first atom is a centre."""
    if len(centers) == n_atoms:
        return pairs
    chosen = np.isin(pairs.first, centers)
    return NeighborPairs(pairs.first[chosen], pairs.second[chosen], pairs.shift[chosen])


def _everything(atoms: Atoms) -> NeighborPairs:
    """Nothing is known of the range: everything is connected, across every periodic boundary."""
    others = np.arange(len(atoms))
    axes = np.eye(3, dtype=np.intp)[atoms.pbc]
    return NeighborPairs(
        np.zeros(len(atoms) + len(axes), dtype=np.intp),
        np.concatenate([others, np.zeros(len(axes), dtype=np.intp)]),
        np.concatenate([np.zeros((len(atoms), 3), dtype=np.intp), axes]),
    )


def _independent(vectors: Floats) -> Floats:
    """Orthonormal basis of the span of the lattice vectors given, of shape (rank, 3)."""
    squares, axes = np.linalg.eigh(vectors.T @ vectors)
    return axes.T[squares > 1e-12 * max(squares[-1], 1e-300)]
