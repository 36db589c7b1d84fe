"""Two structures laid on each other as a whole, whatever a descriptor sees of them."""

from __future__ import annotations

from math import gcd

import numpy as np

from ase_sensitivity.dataset.pairs.overlay import APART, BEYOND, Overlay, nearest_of, overlay
from ase_sensitivity.dataset.pairs.surroundings import Surroundings
from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.types import Floats, Ints

FAR = 10.0
"""Å up to which periodic structures are compared about an atom if the cutoff says nothing."""


def whole_radius(around: Surroundings) -> float:
    """Up to where, in Å, what is about an atom of periodic structures is compared."""
    reach = reach_of(around.descriptor)
    return 2 * reach if np.isfinite(reach) else FAR


def whole_overlay(around: Surroundings, a: int, b: int) -> tuple[Overlay, Ints]:
    """How well structure a can be put on b, and on which atom of b each atom of a comes.

    Isolated structures are compared with all their atoms. A periodic one is the same as another of
    the same composition if about an atom of its rarest element everything is the same up to twice
    the cutoff: supercells are.
    """
    first, second = around.structures[a].atoms, around.structures[b].atoms
    nowhere = np.empty(0, dtype=np.intp)
    if composition(first.numbers) != composition(second.numbers):
        return APART, nowhere
    if (first.pbc != second.pbc).any():
        return APART, nowhere
    if not first.pbc.any():
        origins = first.positions.mean(axis=0), second.positions.mean(axis=0)
        mine = first.numbers, first.positions - origins[0]
        found = overlay(mine, (second.numbers, second.positions - origins[1]), np.inf, np.inf)
    else:
        elements, counts = np.unique(first.numbers, return_counts=True)
        rarest = elements[counts.argmin()]
        i = int(np.flatnonzero(first.numbers == rarest)[0])
        partners = np.flatnonzero(second.numbers == rarest).tolist()
        radius = whole_radius(around)
        mine = around.points_about(a, i, radius + BEYOND)
        theirs = (around.points_about(b, j, radius + BEYOND) for j in partners)
        index, found = nearest_of(mine, theirs, radius, radius + BEYOND)
        origins = first.positions[i], second.positions[partners[index]]
    if found[1] is None:
        return found, nowhere
    moved = (first.positions - origins[0]) @ found[1].T + origins[1]
    apart = moved[:, None] - second.positions
    if second.pbc.any():
        cell = second.cell.complete().array
        inside = apart @ np.linalg.inv(cell)
        apart = (inside - np.rint(inside) * second.pbc) @ cell
    square: Floats = (apart**2).sum(axis=2)
    square[first.numbers[:, None] != second.numbers] = np.inf
    return found, square.argmin(axis=1)


def composition(numbers: Ints) -> tuple[tuple[int, int], ...]:
    """How many atoms of which element the smallest unit has."""
    elements, counts = np.unique(numbers, return_counts=True)
    unit = gcd(*counts.tolist())
    return tuple(zip(elements.tolist(), (counts // unit).tolist(), strict=True))
