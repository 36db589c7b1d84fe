"""References that are near in features and far in structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from ase_sensitivity.environments.comparison import ReferenceTwin
from ase_sensitivity.environments.nearest import Near
from ase_sensitivity.environments.neighbor_centers import centers_about, have_partners
from ase_sensitivity.environments.overlay import matched_distances, overlay
from ase_sensitivity.environments.query import Query
from ase_sensitivity.environments.shape import shapes
from ase_sensitivity.types import Floats

if TYPE_CHECKING:
    from ase_sensitivity.environments.reference_set import ReferenceSet

RATIO = 0.2
"""Features whose distance is less than this fraction of the expected one are near."""

FAR = 0.15
"""Structures whose matched points are more than this far apart, in Å, are far."""

SCREENED = 4 * RATIO
"""A reference is looked at if its features are nearer than this fraction of what the fingerprints
of the two structures let one expect."""

LOOKS_FAR = FAR / 8
"""So far apart, in Å, structures have to look by their fingerprints, which see little of changes
beyond pairs of points."""

LOOKED_AT = 6
"""So many references are looked at in one call, those with the smallest fractions."""

MATCHED = 1
"""So many of these are matched: those whose neighbors have near features as well."""

SHELL = 1.0
"""Points within this distance (Å) of the radius may be left out of a match, if the radius is
finite: a point may have crossed it."""

LABELED = 8
"""From so many references the spread of labels is taken."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A center of a query and a reference that may be its twin.

    Attributes
    ----------
    center, reference
        Their numbers.
    ratio
        Distance of the features over the expected one, as far as projections tell.
    far
        Distance of the structures in Å, as far as fingerprints tell.
    """

    center: int
    reference: int
    ratio: float
    far: float


def candidates(reference: ReferenceSet, query: Query, near: Near) -> list[Candidate]:
    """References whose structures look farther away than their features, those first."""
    slope, shape_slope = reference.slopes[query.group], reference.shape_slopes[query.group]
    own = np.flatnonzero((query.group >= 0) & (slope > 0) & (shape_slope > 0))
    if len(own) == 0:
        return []
    index, lower = near.index[own], near.lower[own]
    shape = shapes(query.atoms, query.centers[own], query.near, reference.radius)
    apart = reference.environments.columns["shape"][index] - shape[:, None]
    far = np.sqrt(np.einsum("mns,mns->mn", apart, apart)) / shape_slope[own, None]
    ratio = lower / slope[own, None] / np.maximum(far, 1e-300)
    ratio[(far <= LOOKS_FAR) | (index < 0)] = np.inf
    found: list[Candidate] = []
    for flat in np.argsort(ratio, axis=None)[:LOOKED_AT].tolist():
        m, n = divmod(flat, ratio.shape[1])
        if ratio[m, n] < SCREENED:
            one = int(own[m]), int(index[m, n])
            found.append(Candidate(*one, float(ratio[m, n]), float(far[m, n])))
    return found


def best_twin(
    reference: ReferenceSet, query: Query, promising: list[Candidate]
) -> ReferenceTwin | None:
    """The twin with the smallest ratio among the most promising candidates."""
    best: tuple[float, Candidate, float, float, Floats] | None = None
    n_matched = 0
    for one in promising:
        if n_matched == MATCHED:
            break
        if not _plausible(reference, query, one):
            continue
        n_matched += 1
        found = _measured(reference, query, one)
        if found is not None and (best is None or found[0] < best[0]):
            best = (found[0], one, *found[1:])
    if best is None:
        return None
    ratio, one, distance, rmsd, rotation = best
    environments = reference.environments
    k, j = one.center, one.reference
    apart = query.features[k].distance(environments.features(j))
    number = int(environments.structure[j])
    forces, energies = _labels(reference, query, one, rmsd, rotation)
    return ReferenceTwin(
        place=environments.place(j),
        frame=number,
        center=None if query.centers[k] < 0 else int(query.centers[k]),
        features=apart / max(query.features[k].norm, float(environments.norm[j]), 1e-300),
        distance=distance,
        ratio=ratio,
        forces=forces,
        energies=energies,
        atoms=environments.structures[number].atoms,
    )


def _plausible(reference: ReferenceSet, query: Query, one: Candidate) -> bool:
    """Whether projections of the neighbors' features, and then the features, are near enough."""
    k, j = one.center, one.reference
    environments = reference.environments
    near = SCREENED * one.far
    if query.centers[k] >= 0 and environments.complete:
        number = int(environments.structure[j])
        atoms, rows = environments.structures[number].atoms, environments.rows_of(number)
        mine = query.centers_about(k)
        centers, center = environments.center[rows], int(environments.center[j])
        theirs = rows[centers_about(atoms, centers, center, reference.radius)]
        if not have_partners(
            query.projected[mine],
            query.numbers[mine],
            near * reference.slope_of(query.numbers[mine]),
            environments.projected[theirs],
            environments.number[theirs],
        ):
            return False
    slope = reference.slopes[query.group[k]]
    return query.features[k].distance(environments.features(j)) <= near * slope


def _measured(
    reference: ReferenceSet, query: Query, one: Candidate
) -> tuple[float, float, float, Floats] | None:
    """Ratio, distance, rmsd and rotation of a twin; None for what is none."""
    k, j = one.center, one.reference
    environments = reference.environments
    slope = float(reference.slopes[query.group[k]])
    apart = query.features[k].distance(environments.features(j))
    matched = _matched(reference, query, k, j)
    if matched is None:
        return None
    distance, rmsd, rotation = matched
    if distance <= FAR or apart > RATIO * slope * rmsd:
        return None
    ratio = apart / max(slope * rmsd, 1e-300)
    for ratio_of_neighbor in _of_neighbors(reference, query, k, j):
        ratio = max(ratio, ratio_of_neighbor / rmsd)
        if ratio > RATIO:
            return None
    return ratio, distance, rmsd, rotation


def _matched(
    reference: ReferenceSet, query: Query, k: int, j: int
) -> tuple[float, float, Floats] | None:
    """Largest and root mean square distance of matched points, and the rotation of j onto k."""
    radius = reference.radius if query.centers[k] >= 0 else np.inf
    if not np.isfinite(radius) and query.atoms.pbc.any():
        return None
    nearest = max(radius - SHELL, radius / 2) if np.isfinite(radius) else np.inf
    a, b = reference.environments.points(j, radius), query.points(k)
    largest, rotation = overlay(a, b, nearest, radius)
    if rotation is None:
        return None
    distances = matched_distances(a, b, nearest, radius, rotation)
    return largest, float(np.sqrt((distances**2).mean())), rotation


def _of_neighbors(reference: ReferenceSet, query: Query, k: int, j: int) -> Iterator[float]:
    """Feature distances over slopes, in Å, of the centers about k and j in their best matching."""
    environments = reference.environments
    if query.centers[k] < 0:
        return
    number = int(environments.structure[j])
    atoms = environments.structures[number].atoms
    own = query.centers_about(k)
    centers, features, kinds = reference.centers_of(number)
    others = centers_about(atoms, centers, int(environments.center[j]), reference.radius)
    for element in np.unique(query.numbers[own]).tolist():
        mine = own[query.numbers[own] == element]
        theirs = others[atoms.numbers[centers[others]] == element]
        if not len(theirs):
            continue
        cost = np.full((len(mine), len(theirs)), 1e30)
        for m, a in enumerate(mine.tolist()):
            scale = reference.scales.by_group.get((element, int(query.kinds[a])))
            if scale is None:  # the set has no such center, and none here is its partner
                continue
            slope = max(scale.slope, 1e-300)
            for n, b in enumerate(theirs.tolist()):
                if kinds[b] == query.kinds[a]:
                    cost[m, n] = query.features[a].distance(features[b]) / slope
        yield float(cost[scipy.optimize.linear_sum_assignment(cost)].max())


def _labels(
    reference: ReferenceSet, query: Query, twin: Candidate, rmsd: float, rotation: Floats
) -> tuple[float | None, float | None]:
    """Spread of the forces and of the energies of references with the same features."""
    environments = reference.environments
    k = twin.center
    near = RATIO * reference.slopes[query.group[k]] * rmsd
    forces: list[Floats] = []
    energies: list[float] = []
    if query.forces is not None and query.centers[k] >= 0:
        forces.append(query.forces[query.centers[k]])
    if query.energy is not None:
        energies.append(query.energy)
    composition = np.sort(query.atoms.numbers)
    listed = reference.listed(query, k, LABELED)
    for j in dict.fromkeys([twin.reference, *listed]):
        if j != twin.reference:
            if query.features[k].distance(environments.features(j)) > near:
                continue
            matched = _matched(reference, query, k, j)
            if matched is None:
                continue
            rotation = matched[2]
        force = environments.force(j)
        if force is not None:
            forces.append(rotation @ force)
        task = environments.structures[int(environments.structure[j])]
        if task.energy is not None and np.array_equal(np.sort(task.atoms.numbers), composition):
            energies.append(task.energy)
    apart = [float(np.linalg.norm(a - b)) for a in forces for b in forces]
    return (
        max(apart) if len(forces) > 1 else None,
        max(energies) - min(energies) if len(energies) > 1 else None,
    )
