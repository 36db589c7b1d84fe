"""Differences of reference energies and forces, and conflicts of those of the same structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ase_sensitivity.dataset.pairs.result import Conflict, Pair
from ase_sensitivity.dataset.pairs.whole_overlay import whole_overlay, whole_radius
from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.environments.environment_set import EnvironmentSet, Points
from ase_sensitivity.environments.overlay import BEYOND, SAME, overlay
from ase_sensitivity.environments.place import Place
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.types import Floats


def energy_difference(environments: EnvironmentSet, i: int, j: int) -> float | None:
    """The energy difference of the structures of two environments, in eV per atom."""
    first, second = (environments.structures[int(environments.structure[k])] for k in (i, j))
    if first.energy is None or second.energy is None:
        return None
    return abs(first.energy / len(first.atoms) - second.energy / len(second.atoms))


def force_difference(
    environments: EnvironmentSet, i: int, j: int, rotation: Floats | None
) -> float | None:
    """The difference of the forces on two centers, the first one rotated, in eV/Å."""
    first, second = environments.force(i), environments.force(j)
    if first is None or second is None or rotation is None:
        return None
    return float(np.linalg.norm(rotation @ first - second))


def energy_conflicts(
    environments: EnvironmentSet, duplicates: Sequence[Pair], tolerance: float
) -> list[Conflict]:
    """Copies of whole structures with energies more than ``tolerance`` (eV per atom) apart.

    Each further copy is compared with the first one, and the lowest with the highest. The largest
    difference comes first.
    """
    energies = {
        Place(task.index, None, task.source): task.energy / len(task.atoms)
        for task in environments.structures.values()
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
    environments: EnvironmentSet,
    duplicates: Sequence[Pair],
    copies: Sequence[tuple[int, int]],
    tolerance: float,
) -> list[Conflict]:
    """Copies of environments with forces that differ by more than ``tolerance`` (eV/Å).

    A model's force on a center depends on the features of its neighbors as well. So environments
    must be the same up to twice the cutoff; otherwise a difference is no conflict.
    """
    found = []
    for pair, (i, j) in zip(duplicates, copies, strict=True):
        first, second = environments.force(i), environments.force(j)
        if first is None or second is None or (pair.force_difference or 0.0) <= tolerance:
            continue
        radius = 2 * reach_of(environments.descriptor)
        a, b = (environments.points(k, radius + BEYOND) for k in (i, j))
        difference = _least_difference(a, b, radius, first, second)
        if difference is not None and difference > tolerance:
            found.append(
                Conflict(environments.place(i), environments.place(j), "force", difference)
            )
    return found


def force_conflicts_of_structures(
    environments: EnvironmentSet, duplicates: Sequence[Pair], tolerance: float
) -> list[Conflict]:
    """The same for atoms of copies of whole structures that are not centers of the descriptor."""
    centers = set(zip(environments.structure.tolist(), environments.center.tolist(), strict=True))
    number = {(task.source, task.index): n for n, task in environments.structures.items()}
    found = []
    for pair in duplicates:
        if pair.first.center is not None:
            continue
        a, b = (number[place.source, place.frame] for place in (pair.first, pair.second))
        first, second = (environments.structures[n].forces for n in (a, b))
        others = [k for k in range(len(environments.structures[a].atoms)) if (a, k) not in centers]
        if first is None or second is None or not others:
            continue
        (miss, rotation), image = whole_overlay(environments, a, b)
        if miss > SAME or rotation is None:
            continue
        periodic = environments.structures[a].atoms.pbc.any()
        radius = whole_radius(environments) if periodic else np.inf
        for k in others:
            m = int(image[k])
            if np.linalg.norm(rotation @ first[k] - second[m]) <= tolerance:
                continue
            mine = environments.points_about(a, k, radius + BEYOND)
            theirs = environments.points_about(b, m, radius + BEYOND)
            difference = _least_difference(mine, theirs, radius, first[k], second[m])
            if difference is not None and difference > tolerance:
                ends = pair.first._replace(center=k), pair.second._replace(center=m)
                found.append(Conflict(*ends, "force", difference))
    return found


def _least_difference(
    a: Points, b: Points, radius: float, first: Floats, second: Floats
) -> float | None:
    """Smallest difference of forces on two centers over all superpositions; None without any."""
    miss, rotation = overlay(a, b, radius, radius + BEYOND)
    if miss > SAME or rotation is None:
        return None
    numbers, points = a
    group = point_group(points, numbers, SAME)
    rotated = group.matrices @ first
    if group.axis is not None:  # followed by any rotation about the axis
        other = rotation.T @ second
        along = np.abs((rotated - other) @ group.axis).min()
        across, rest = (np.linalg.norm(np.cross(group.axis, force)) for force in (first, other))
        return float(np.hypot(along, across - rest))
    return float(np.linalg.norm(rotated @ rotation.T - second, axis=1).min())
