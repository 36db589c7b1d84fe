"""Checks of a structure before anything is computed."""

from __future__ import annotations

import os

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_sensitivity.types import Floats, Ints

CLOSEST = 0.01
"""Atoms closer than this (Å) are on top of each other; no potential is made for that."""

FARTHEST = 1e9
"""Rounding errors of coordinates beyond this (Å) are above 1e-7 Å: too large to find symmetries."""


MAX_POINTS = 1000
"""Limit of the points that move independently in environment scope: 10 s and 0.3 GB for every
center."""

SHARE = 0.8
"""The fraction of this machine's memory that one array may take."""


def check_atoms(atoms: Atoms) -> None:
    """Raise unless ``atoms`` is a structure with finite positions and a usable cell.

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
    positions, cell = atoms.positions, atoms.cell.array
    # A sum of squares is the fastest look at all coordinates; the comparison is false for nan.
    if not np.vdot(positions, positions) <= FARTHEST**2:
        _check_positions(positions)
    # All bits of the numbers: one look at them, and at each only where these are not all possible.
    if not 0 <= np.bitwise_or.reduce(atoms.numbers) <= 118:
        _check_numbers(atoms.numbers)
    if not np.vdot(cell, cell) < np.inf and not np.isfinite(cell).all():
        raise ValueError(
            f"the cell {cell.tolist()} is not finite; set `atoms.cell`, to zeros along directions "
            "without period"
        )
    if is_periodic(atoms):
        _check_periodic(cell[atoms.pbc])


def is_periodic(atoms: Atoms) -> bool:
    """Whether a structure is periodic along any direction; faster than ``atoms.pbc.any()``."""
    return True in atoms.pbc.tolist()


def _check_numbers(numbers: Ints) -> None:
    """Raise ValueError for atomic numbers of shape (n_atoms,) that no element has."""
    wrong = np.flatnonzero((numbers < 0) | (numbers > 118))
    if len(wrong):
        raise ValueError(
            f"atom {wrong[0]} has atomic number {numbers[wrong[0]]}, not one of 0 to 118"
        )


def _check_positions(positions: Floats) -> None:
    """Raise ValueError for positions of shape (n_atoms, 3) that are not finite, or too far away."""
    wrong = np.flatnonzero(~(np.abs(positions) <= FARTHEST).all(axis=1))
    if len(wrong):
        position = positions[wrong[0]]
        what = f"more than {FARTHEST:g} Å away" if np.isfinite(position).all() else "not finite"
        raise ValueError(
            f"the position of atom {wrong[0]} is {position}, {what}; correct or remove it"
        )


def _check_periodic(vectors: Floats) -> None:
    """Raise ValueError unless lattice vectors of shape (m, 3) span a lattice."""
    if np.abs(vectors).max() > FARTHEST:
        raise ValueError(
            f"a periodic cell vector of {vectors.tolist()} is longer than {FARTHEST:g} Å; set "
            "`atoms.cell`, or `atoms.pbc = False` along it"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if 0 < lengths.min() < CLOSEST:
        raise ValueError(
            f"a periodic cell vector of {vectors.tolist()} is {lengths.min():.2g} Å long: atoms "
            "and their images are on top of each other; set `atoms.cell`"
        )
    # Their volume over the product of their lengths. Rounding may change the sign of a determinant.
    if lengths.min() == 0 or np.linalg.svd(vectors / lengths[:, None])[1].prod() < 1e-6:
        raise ValueError(
            f"the periodic cell vectors {vectors.tolist()} are zero or linearly dependent; "
            "set `atoms.cell`, or `atoms.pbc = False` for an isolated structure"
        )


def check_fits(n_bytes: float, what: str, remedy: str) -> None:
    """Raise ValueError if an array does not fit into this machine's memory."""
    if not hasattr(os, "sysconf"):
        return
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n_bytes > SHARE * present:
        raise ValueError(
            f"{what} needs {n_bytes / 1e9:.1f} GB, more than this machine has; {remedy}"
        )


def check_memory(n_blocks: int, n_features: int, copies: int = 1) -> None:
    """Raise ValueError if a Jacobian of ``n_blocks`` does not fit into this machine's memory."""
    check_fits(
        copies * n_blocks * 3 * n_features * 8.0,
        f"the Jacobian has {n_blocks} blocks of 3 x {n_features} numbers and",
        "reduce the cutoff or the basis",
    )


def check_points(n_points: int) -> None:
    """Raise ValueError if an environment has too many points for its matrices."""
    if n_points > MAX_POINTS:
        raise ValueError(
            f"an environment has {n_points} points that move independently, more than the limit "
            f'of {MAX_POINTS}; reduce the cutoff, check the cell, or use scope="structure"'
        )


def symbols_in(atoms: Atoms) -> set[str]:
    """The elements of a structure; faster than from ``atoms.symbols``."""
    return {chemical_symbols[number] for number in set(atoms.numbers.tolist())}


def coordinates_of(atoms: Ints) -> Ints:
    """Indices of the coordinates x, y, z of atoms, of shape (3 n_atoms,)."""
    found: Ints = (3 * atoms[:, None] + np.arange(3)).ravel()
    return found
