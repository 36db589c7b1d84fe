"""The best superposition of two whole structures, whatever a descriptor sees of them."""

from __future__ import annotations

from math import gcd

import numpy as np

from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.environments.environment_set import EnvironmentSet
from ase_sensitivity.environments.overlay import BEYOND, NO_MATCH, Overlay, nearest_of, overlay
from ase_sensitivity.types import Floats, Ints

FAR = 10.0
"""Radius in Å within which periodic structures are compared if the cutoff is infinite."""


def whole_radius(environments: EnvironmentSet) -> float:
    """Radius in Å about an atom within which periodic structures are compared."""
    reach = reach_of(environments.descriptor)
    return 2 * reach if np.isfinite(reach) else FAR


def whole_overlay(environments: EnvironmentSet, a: int, b: int) -> tuple[Overlay, Ints]:
    """The best superposition of structure a on b, and the atom of b for each atom of a.

    Isolated structures are compared with all their atoms. Two periodic structures of the same
    composition are the same if all points about an atom of the rarest element agree up to twice the
    cutoff. So supercells are the same.
    """
    first, second = environments.structures[a].atoms, environments.structures[b].atoms
    nowhere = np.empty(0, dtype=np.intp)
    if composition(first.numbers) != composition(second.numbers):
        return NO_MATCH, nowhere
    if (first.pbc != second.pbc).any():
        return NO_MATCH, nowhere
    if not first.pbc.any():
        origins = first.positions.mean(axis=0), second.positions.mean(axis=0)
        mine = first.numbers, first.positions - origins[0]
        found = overlay(mine, (second.numbers, second.positions - origins[1]), np.inf, np.inf)
    else:
        elements, counts = np.unique(first.numbers, return_counts=True)
        rarest = elements[counts.argmin()]
        i = int(np.flatnonzero(first.numbers == rarest)[0])
        partners = np.flatnonzero(second.numbers == rarest).tolist()
        radius = whole_radius(environments)
        mine = environments.points_about(a, i, radius + BEYOND)
        theirs = (environments.points_about(b, j, radius + BEYOND) for j in partners)
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
    """The elements, and the number of atoms of each in the smallest formula unit."""
    elements, counts = np.unique(numbers, return_counts=True)
    unit = gcd(*counts.tolist())
    return tuple(zip(elements.tolist(), (counts // unit).tolist(), strict=True))
