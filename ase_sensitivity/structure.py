"""What has to hold of a structure before anything is computed, and who its neighbours are."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

CLOSEST = 0.01
"""Atoms nearer than this (Å) sit on top of each other; no potential is meant for that."""

SMALL = 60
"""Atoms of a molecule small enough to look at all of its pairs."""


@dataclass(frozen=True, eq=False)
class NeighborPairs:
    """Ordered pairs of a centre and a neighbour image within a cutoff, self-images included.

    Attributes
    ----------
    first, second
        Atom indices of shape (n_pairs,).
    shift
        Lattice vectors to add to the second atom, of shape (n_pairs, 3).
    """

    first: Ints
    second: Ints
    shift: Ints


def check_atoms(atoms: Atoms) -> None:
    """Raise if ``atoms`` is no structure with finite positions and a usable cell.

    Raises
    ------
    TypeError
        If ``atoms`` is not an :class:`ase.Atoms`.
    ValueError
        If it is empty, or positions, atomic numbers or the cell make no sense.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(f"`atoms` must be an ase.Atoms, not {type(atoms).__name__}")
    if len(atoms) == 0:
        raise ValueError("`atoms` has no atoms")
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise ValueError(f"the position of atom {bad} is {atoms.positions[bad]}, not finite")
    numbers = atoms.numbers
    if numbers.min() < 0 or numbers.max() > 118:
        bad = int(np.flatnonzero((numbers < 0) | (numbers > 118))[0])
        raise ValueError(f"atom {bad} has atomic number {numbers[bad]}, not one of 0 to 118")
    if atoms.pbc.any():
        cell = atoms.cell.array
        if not np.isfinite(cell).all():
            raise ValueError(f"the cell {cell.tolist()} is not finite")
        vectors = cell[atoms.pbc]
        lengths = np.linalg.norm(vectors, axis=1)
        scale = np.prod(lengths)
        if scale == 0 or np.sqrt(np.linalg.det(vectors @ vectors.T)) < 1e-6 * scale:
            raise ValueError(
                f"the periodic cell vectors {vectors.tolist()} are zero or linearly dependent; "
                "set `atoms.cell`, or `atoms.pbc = False` for an isolated structure"
            )


def boxed(atoms: Atoms) -> Atoms:
    """A bare copy with a regular cell: non-periodic directions get a vector that spans the atoms.

    Neighbour searches divide space along the cell vectors, so a missing, tiny or huge vector along
    a direction that is not periodic costs memory or fails although it has no meaning. Atoms are
    wrapped along periodic directions; the search could lose far ones otherwise.
    """
    cell, positions, _ = _box(atoms)
    return Atoms(atoms.numbers, positions, cell=cell, pbc=atoms.pbc)


def _box(atoms: Atoms) -> tuple[Floats, Floats, Ints]:
    """Cell and positions of :func:`boxed`, and by which lattice vectors the atoms were moved."""
    free = ~atoms.pbc
    cell: Floats = atoms.cell.array
    if free.any():
        cell = complete_cell(np.where(free[:, None], 0.0, cell))
        cell[free] /= np.linalg.norm(cell[free], axis=1)[:, None]
    fractional = atoms.positions @ np.linalg.inv(cell)
    if free.any():
        cell[free] *= np.clip(np.ptp(fractional, axis=0) + 1.0, 1.0, 1e3)[free, None]
        fractional[:, free] = 0.0
    moved = -np.floor(fractional)
    return cell, atoms.positions + moved @ cell, moved.astype(np.intp)


def _check_size(cell: Floats, pbc: NDArray[np.bool_], n_atoms: int, cutoff: float) -> None:
    """Raise ValueError if neighbours within ``cutoff`` are more than a machine can list."""
    volume = abs(np.linalg.det(cell))
    if volume / min(cutoff + 1.0, 50.0) ** 3 > 3e7:
        raise ValueError(
            f"the cell has a volume of {volume:.3g} Å^3, too large to search for neighbours within "
            f"{cutoff:g} Å; make the vacuum smaller, or set `pbc = False` along it"
        )
    # Images of the cell within the cutoff: its heights are 1 / the norms of the reciprocal vectors.
    per_height = np.linalg.norm(np.linalg.inv(cell), axis=0)
    per_atom = n_atoms * float(np.where(pbc, 2 * cutoff * per_height + 1, 1.0).prod())
    # The sphere of one cutoff may hold a few ten thousand atoms, not millions.
    if per_atom > 1e6 and per_atom > 50 * n_atoms:
        raise ValueError(
            f"a cutoff of {cutoff:g} Å in this cell gives every atom up to {per_atom:.1e} "
            "neighbours; reduce the cutoff, or check the cell"
        )


def check_memory(n_blocks: int, n_features: int, copies: int = 1) -> None:
    """Raise ValueError if a Jacobian of so many blocks does not fit into this machine's memory."""
    if not hasattr(os, "sysconf"):
        return
    needed = copies * n_blocks * 3 * n_features * 8
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.8 * present:
        raise ValueError(
            f"the Jacobian has {n_blocks} blocks of 3 x {n_features} numbers and needs "
            f"{needed / 1e9:.1f} GB, more than this machine has; reduce the cutoff or the basis"
        )


def neighbor_pairs(atoms: Atoms, cutoff: float) -> NeighborPairs:
    """All ordered pairs within ``cutoff`` (Å), sorted by the first atom.

    Raises
    ------
    ValueError
        If two atoms are closer than :data:`CLOSEST`, or the list would not fit into memory.
    """
    if len(atoms) <= SMALL and not atoms.pbc.any():
        # Searching in bins takes longer than all of the rest for a small molecule.
        squares = ((atoms.positions - atoms.positions[:, None]) ** 2).sum(axis=2)
        squares.flat[:: len(atoms) + 1] = np.inf
        if squares.min() > CLOSEST**2:
            first, second = np.nonzero(squares < cutoff**2)
            return NeighborPairs(first, second, np.zeros((len(first), 3), dtype=np.intp))
    # Here, as it loads much, and for ASE to list the package as a plugin where it is broken.
    from matscipy.neighbours import neighbour_list

    cell, positions, moved = _box(atoms)
    _check_size(cell, atoms.pbc, len(atoms), cutoff)
    first, second, distance, shift = neighbour_list(
        "ijdS", cutoff=float(cutoff), positions=positions, cell=cell, pbc=atoms.pbc
    )
    if len(distance) and distance.min() < CLOSEST:
        pair = int(distance.argmin())
        i, j = int(first[pair]), int(second[pair])
        raise ValueError(
            f"atoms {i} and {j} are {distance[pair]:.2g} Å apart, on top of each other"
        )
    # The box holds wrapped atoms; the shifts are those of the atoms as given.
    shift = shift.astype(np.intp)
    if moved.any():
        shift += moved[second] - moved[first]
    return NeighborPairs(first.astype(np.intp), second.astype(np.intp), shift)
