"""References that are near in features and far in structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

from ase_sensitivity.environments.comparison import ReferenceTwin
from ase_sensitivity.environments.nearest import Near
from ase_sensitivity.environments.neighbor_centers import centers_about, have_partners
from ase_sensitivity.environments.overlay import SAME
from ase_sensitivity.environments.query import Query
from ase_sensitivity.environments.row_sets import distances
from ase_sensitivity.environments.shape import shapes
from ase_sensitivity.environments.usual import matched
from ase_sensitivity.types import Floats, Ints

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

LABELED = 8
"""From so many references the spread of labels is taken."""


NO_PARTNER = 1e30
"""In place of an infinite distance."""


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
        expected = _expected(reference, query, one)
        if expected > SCREENED * one.far:
            continue
        n_matched += 1
        found = measured(reference, query, one, expected)
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


def measured(
    reference: ReferenceSet, query: Query, one: Candidate, expected: float | None = None
) -> tuple[float, float, float, Floats] | None:
    """Ratio, distance, rmsd and rotation of a twin; None for what is none by definition."""
    if expected is None:
        expected = _expected(reference, query, one)
    # No twin if all points are nearer than this: the root mean square distance is so, too.
    enough = max(FAR, expected / RATIO)
    found = _matched(reference, query, one.center, one.reference, enough)
    if found is None or found[0] <= enough:
        return None
    distance, rmsd, rotation = found
    ratio = expected / max(rmsd, 1e-300)
    if ratio > RATIO:
        return None
    # Where far points hardly count, features of any two structures are nearer than displaced ones.
    ratio /= max(reference.saturation(int(query.group[one.center]), FAR), 1e-300)
    return (ratio, distance, rmsd, rotation) if ratio <= RATIO else None


def _expected(reference: ReferenceSet, query: Query, one: Candidate) -> float:
    """How far apart the features let one expect the structures, in Å.

    It is the largest distance of the features of the two centers, and of the centers about them in
    their best matching, over slopes. Infinite if projections show that it is too large for a twin.
    """
    k, j = one.center, one.reference
    environments = reference.environments
    slope = max(float(reference.slopes[query.group[k]]), 1e-300)
    if query.centers[k] < 0:
        return query.features[k].distance(environments.features(j)) / slope
    number = int(environments.structure[j])
    atoms, mine = environments.structures[number].atoms, query.centers_about(k)
    if environments.complete:
        rows = environments.rows_of(number)
        centers, center = environments.center[rows], int(environments.center[j])
        theirs = rows[centers_about(atoms, centers, center, reference.radius)]
        if not have_partners(
            query.projected[mine],
            query.numbers[mine],
            SCREENED * one.far * reference.slope_of(query.numbers[mine]),
            environments.projected[theirs],
            environments.number[theirs],
        ):
            return np.inf
    expected = query.features[k].distance(environments.features(j)) / slope
    if expected > SCREENED * one.far:
        return np.inf
    return max(expected, _of_neighbors(reference, query, mine, j))


def _matched(
    reference: ReferenceSet, query: Query, k: int, j: int, enough: float = SAME
) -> tuple[float, float, Floats] | None:
    """Largest and root mean square distance of matched points, and the rotation of j onto k."""
    radius = reference.radius if query.centers[k] >= 0 else np.inf
    if not np.isfinite(radius) and query.atoms.pbc.any():
        return None
    return matched(reference.environments.points(j, radius), query.points(k), radius, enough)


def _of_neighbors(reference: ReferenceSet, query: Query, mine: Ints, j: int) -> float:
    """The largest feature distance over slope, in Å, of centers and those about j, best matched."""
    number = int(reference.environments.structure[j])
    centers, features = reference.environments.features_of(number)
    atoms = reference.environments.structures[number].atoms
    center = int(reference.environments.center[j])
    theirs = centers_about(atoms, centers, center, reference.radius)
    numbers = atoms.numbers[centers[theirs]]
    largest = 0.0
    for element in np.unique(query.numbers[mine]).tolist():
        own, others = mine[query.numbers[mine] == element], theirs[numbers == element]
        if not len(others):
            continue
        slope = [reference.slope_of_kind(element, kind) for kind in query.kinds[own].tolist()]
        cost = (
            distances(
                [query.features[a] for a in own.tolist()], [features[b] for b in others.tolist()]
            )
            / np.maximum(slope, 1e-300)[:, None]
        )
        chosen = scipy.optimize.linear_sum_assignment(np.minimum(cost, NO_PARTNER))
        largest = max(largest, float(cost[chosen].max()))
    return largest


def _labels(
    reference: ReferenceSet, query: Query, twin: Candidate, rmsd: float, rotation: Floats
) -> tuple[float | None, float | None]:
    """Spread of the forces and of the energies of references with the same features."""
    environments = reference.environments
    k = twin.center
    group = int(query.group[k])
    near = RATIO * reference.saturation(group, FAR) * reference.slopes[group] * rmsd
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
            found = _matched(reference, query, k, j)
            if found is None:
                continue
            rotation = found[2]
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
