"""Reference energies and forces, and where those of the same structure differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ase_sensitivity.dataset.pairs.overlay import BEYOND, SAME, overlay
from ase_sensitivity.dataset.pairs.result import Conflict, Pair, Place
from ase_sensitivity.dataset.pairs.surroundings import Points, Surroundings
from ase_sensitivity.dataset.pairs.whole_overlay import whole_overlay, whole_radius
from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.types import Floats


def energy_difference(around: Surroundings, i: int, j: int) -> float | None:
    """Between the structures of two environments, in eV per atom."""
    first, second = (around.structures[int(around.structure[k])] for k in (i, j))
    if first.energy is None or second.energy is None:
        return None
    return abs(first.energy / len(first.atoms) - second.energy / len(second.atoms))


def force_difference(around: Surroundings, i: int, j: int, rotation: Floats | None) -> float | None:
    """Between the forces on two centers, the first one turned, in eV/Å."""
    first, second = around.force(i), around.force(j)
    if first is None or second is None or rotation is None:
        return None
    return float(np.linalg.norm(rotation @ first - second))


def energy_conflicts(
    around: Surroundings, duplicates: Sequence[Pair], tolerance: float
) -> list[Conflict]:
    """Copies of whole structures whose energies differ by more than ``tolerance`` (eV per atom).

    Every further copy with the first one, and the two that differ most; the largest first.
    """
    energies = {
        Place(task.index, None, task.source): task.energy / len(task.atoms)
        for task in around.structures.values()
        if task.energy is not None
    }
    copies: dict[Place, list[Place]] = {}
    for pair in duplicates:
        if pair.match <= SAME and {pair.first, pair.second} <= energies.keys():
            copies.setdefault(pair.first, [pair.first]).append(pair.second)
    found = []
    for first, *others in copies.values():
        ends = [(first, other) for other in others]
        low, *_, high = sorted([first, *others], key=energies.__getitem__)
        if first not in (low, high):
            ends.append((low, high))
        found += [(one, other, abs(energies[one] - energies[other])) for one, other in ends]
    found.sort(key=lambda entry: -entry[2])
    return [Conflict(one, other, "energy", d) for one, other, d in found if d > tolerance]


def force_conflicts(
    around: Surroundings,
    duplicates: Sequence[Pair],
    copies: Sequence[tuple[int, int]],
    tolerance: float,
) -> list[Conflict]:
    """Copies of environments whose forces differ by more than ``tolerance`` (eV/Å) without reason.

    A model's force on a center depends on the features of its neighbors as well. So environments
    have to be the same up to twice the cutoff.
    """
    found = []
    for pair, (i, j) in zip(duplicates, copies, strict=True):
        first, second = around.force(i), around.force(j)
        if first is None or second is None or (pair.force_difference or 0.0) <= tolerance:
            continue
        radius = 2 * reach_of(around.descriptor)
        a, b = (around.points(k, radius + BEYOND) for k in (i, j))
        difference = _least_difference(a, b, radius, first, second)
        if difference is not None and difference > tolerance:
            found.append(Conflict(around.place(i), around.place(j), "force", difference))
    return found


def force_conflicts_of_structures(
    around: Surroundings, duplicates: Sequence[Pair], tolerance: float
) -> list[Conflict]:
    """The same for the atoms of whole copies that are no centers, whatever a descriptor sees."""
    centers = set(zip(around.structure.tolist(), around.center.tolist(), strict=True))
    number = {(task.source, task.index): n for n, task in around.structures.items()}
    found = []
    for pair in duplicates:
        if pair.first.center is not None:
            continue
        a, b = (number[place.source, place.frame] for place in (pair.first, pair.second))
        first, second = (around.structures[n].forces for n in (a, b))
        others = [k for k in range(len(around.structures[a].atoms)) if (a, k) not in centers]
        if first is None or second is None or not others:
            continue
        (miss, rotation), image = whole_overlay(around, a, b)
        if miss > SAME or rotation is None:
            continue
        periodic = around.structures[a].atoms.pbc.any()
        radius = whole_radius(around) if periodic else np.inf
        for k in others:
            m = int(image[k])
            if np.linalg.norm(rotation @ first[k] - second[m]) <= tolerance:
                continue
            mine = around.points_about(a, k, radius + BEYOND)
            theirs = around.points_about(b, m, radius + BEYOND)
            difference = _least_difference(mine, theirs, radius, first[k], second[m])
            if difference is not None and difference > tolerance:
                ends = pair.first._replace(center=k), pair.second._replace(center=m)
                found.append(Conflict(*ends, "force", difference))
    return found


def _least_difference(
    a: Points, b: Points, radius: float, first: Floats, second: Floats
) -> float | None:
    """Of forces on two centers, over all ways to put one on the other; None if there is none."""
    miss, rotation = overlay(a, b, radius, radius + BEYOND)
    if miss > SAME or rotation is None:
        return None
    numbers, points = a
    group = point_group(points, numbers, SAME)
    rotation_generators = group.matrices @ first
    if group.axis is not None:  # any turn about the axis will do, after each of these
        other = rotation.T @ second
        along = np.abs((rotation_generators - other) @ group.axis).min()
        across, rest = (np.linalg.norm(np.cross(group.axis, force)) for force in (first, other))
        return float(np.hypot(along, across - rest))
    return float(np.linalg.norm(rotation_generators @ rotation.T - second, axis=1).min())
