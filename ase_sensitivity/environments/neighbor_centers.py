"""The centers about a center, and whether those of two environments have similar features."""

from __future__ import annotations

import itertools

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.sparse import OPTIONS
from ase_sensitivity.types import Floats, Ints


def centers_about(atoms: Atoms, centers: Ints, center: int, radius: float) -> Ints:
    """Positions in ``centers`` of those within ``radius`` of an atom, without the atom itself."""
    apart = atoms.positions[centers] - atoms.positions[center]
    near = centers != center
    if np.isfinite(radius):
        square = np.einsum("ij,ij->i", apart, apart)
        if atoms.pbc.any():
            square = _nearest_images(apart, atoms, radius)
        near &= square < radius**2
    return np.flatnonzero(near)


def _nearest_images(apart: Floats, atoms: Atoms, radius: float) -> Floats:
    """Squares of the distances of the nearest images (Å²), exact for those within a radius."""
    pbc = atoms.pbc
    # Vectors along directions without period have no meaning.
    cell: Floats = complete_cell(np.where(pbc[:, None], atoms.cell.array, 0.0))
    inverse = np.linalg.inv(cell)
    apart = apart - (np.rint(apart @ inverse) * pbc) @ cell
    # Fractional coordinates of a vector within the radius are at most the radius over the height.
    heights = 1 / np.linalg.norm(inverse, axis=0)
    most = (np.floor(radius / heights + 0.5) * pbc).astype(int).tolist()
    square: Floats = np.einsum("ij,ij->i", apart, apart)
    if any(most):
        for shift in itertools.product(*(range(-n, n + 1) for n in most)):
            moved = apart + np.array(shift) @ cell
            square = np.minimum(square, np.einsum("ij,ij->i", moved, moved))
    return square


@njit(**OPTIONS)
def have_partners(mine, numbers, farthest, theirs, their_numbers):
    """Whether the centers about two others may be matched one to one.

    Parameters
    ----------
    mine, numbers
        Projected features of shape (n, n_axes), and atomic numbers.
    farthest
        Partners of each are at most so far in feature space.
    theirs, their_numbers
        The same of the others.

    Returns
    -------
    bool
        Whether of each element as many have a partner as both have. Several may have one partner.
    """
    n, with_one = len(mine), np.zeros(len(mine), dtype=np.bool_)
    for m in range(n):
        for other in range(len(theirs)):
            if their_numbers[other] != numbers[m]:
                continue
            square = 0.0
            for a in range(mine.shape[1]):
                step = mine[m, a] - theirs[other, a]
                square += step * step
            if square <= farthest[m] * farthest[m]:
                with_one[m] = True
                break
    for m in range(n):
        same, there, found = 0, 0, 0
        for other in range(n):
            if numbers[other] == numbers[m]:
                same += 1
                found += with_one[other]
        for other in range(len(theirs)):
            there += their_numbers[other] == numbers[m]
        if found < min(same, there):
            return False
    return True
