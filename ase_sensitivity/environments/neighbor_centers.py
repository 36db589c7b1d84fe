"""The centers about a center, and whether those of two environments have similar features."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.sparse import OPTIONS
from ase_sensitivity.types import Floats, Ints


def centers_about(atoms: Atoms, centers: Ints, center: int, radius: float) -> Ints:
    """Positions in ``centers`` of those within ``radius`` of an atom, without the atom itself."""
    if not np.isfinite(radius):
        return np.flatnonzero(centers != center)
    return np.flatnonzero(
        _within(atoms.positions, centers, center, radius**2, *_lattice(atoms, radius))
    )


def _lattice(atoms: Atoms, radius: float) -> tuple[Floats, Floats, Ints]:
    """The cell, its inverse, and in how many cells along each vector images are searched.

    The columns of the inverse, and the numbers, are zero along vectors without a period.
    """
    pbc = atoms.pbc
    if not pbc.any():
        return np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3, dtype=np.intp)
    # Vectors along directions without period have no meaning.
    cell: Floats = atoms.cell.array
    if not pbc.all():
        cell = complete_cell(np.where(pbc[:, None], cell, 0.0))
    inverse = np.asarray(np.linalg.inv(cell), dtype=np.float64)
    # Fractional coordinates of a vector within the radius are at most the radius over the height.
    heights = 1 / np.sqrt(np.einsum("ij,ij->j", inverse, inverse))
    most = np.floor(radius / heights + 0.5)
    return cell, inverse * pbc, (most * pbc).astype(np.intp)


@njit(**OPTIONS)
def _within(positions, centers, center, square, cell, inverse, most):
    """Whether each of some atoms, but not the center itself, has an image near the center."""
    found = np.zeros(len(centers), dtype=np.bool_)
    apart, shift = np.empty(3), np.empty(3)
    for n in range(len(centers)):
        if centers[n] == center:
            continue
        for a in range(3):
            apart[a] = positions[centers[n], a] - positions[center, a]
        for v in range(3):
            fraction = 0.0
            for a in range(3):
                fraction += apart[a] * inverse[a, v]
            shift[v] = -np.rint(fraction)
        for i in range(-most[0], most[0] + 1):
            for j in range(-most[1], most[1] + 1):
                for k in range(-most[2], most[2] + 1):
                    total = 0.0
                    for a in range(3):
                        step = apart[a] + (shift[0] + i) * cell[0, a]
                        step += (shift[1] + j) * cell[1, a] + (shift[2] + k) * cell[2, a]
                        total += step * step
                    found[n] |= total < square
    return found


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
