"""A structure that is compared with a reference set, and its most novel environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ase_sensitivity.environments.environment_set import Points, near_centers, whole_points
from ase_sensitivity.environments.nearest import Near
from ase_sensitivity.environments.projection import AXES
from ase_sensitivity.environments.row_sets import RowSet, row_sets
from ase_sensitivity.environments.scales import STEP, Scale
from ase_sensitivity.geometry.neighbors import Neighborhoods
from ase_sensitivity.types import Floats, Ints

if TYPE_CHECKING:
    from ase_sensitivity.environments.reference_set import ReferenceSet

SAME = 1e-9
"""Features nearer than this fraction of their norm are the same up to rounding."""

NO_SPREAD = 1e-3
"""References that are apart, as root mean square, by less than this fraction of what a displacement
by :data:`~ase_sensitivity.environments.scales.STEP` changes are copies of one."""


@dataclass(frozen=True, eq=False)
class Query:
    """A structure that is compared.

    Attributes
    ----------
    atoms
        The structure.
    centers, features
        As of :func:`~ase_sensitivity.environments.row_sets.row_sets`.
    projected, beyond
        As of :meth:`EnvironmentSet.project`; nan for a group that the set does not have.
    numbers, kinds, group
        Atomic number and kind of each center, and the number of its group, -1 if the set has none;
        of shape (n_centers,).
    near
        The neighbors of all atoms within the radius of the set; None for the structure as a whole.
    forces, energy
        Reference values, if there are any, in eV/Å and eV.
    """

    atoms: Atoms
    centers: Ints
    features: list[RowSet]
    projected: Floats
    beyond: Floats
    numbers: Ints
    kinds: Ints
    group: Ints
    near: Neighborhoods | None
    forces: Floats | None
    energy: float | None

    @classmethod
    def of(
        cls,
        reference: ReferenceSet,
        atoms: Atoms,
        forces: Floats | None,
        energy: float | None,
        rows: tuple[Ints, list[RowSet]] | None = None,
    ) -> Query:
        """The structure as its descriptor sees it; ``rows`` if its features are known."""
        environments = reference.environments
        centers, features = rows or row_sets(reference.descriptor, atoms)
        unlike = {one.shape: one for one in features}
        kind = {shape: environments.kind_of(one, atoms) for shape, one in unlike.items()}
        kinds = np.array([kind[one.shape] for one in features])
        numbers = np.where(centers >= 0, atoms.numbers[centers], 0)
        groups = zip(numbers.tolist(), kinds.tolist(), strict=True)
        group = np.array([reference.index.groups.get(one, -1) for one in groups])
        projected, beyond = np.full((len(kinds), AXES), np.nan), np.full(len(kinds), np.nan)
        known = np.flatnonzero(group >= 0)
        if len(known):
            some = [features[k] for k in known.tolist()]
            projected[known], beyond[known] = environments.project(some, numbers[known])
        return cls(
            atoms=atoms,
            centers=centers,
            features=features,
            numbers=numbers,
            group=group,
            projected=projected,
            beyond=beyond,
            kinds=kinds,
            near=near_centers(atoms, centers, reference.radius),
            forces=forces,
            energy=energy,
        )

    def points(self, k: int) -> Points:
        """The points about a center, nearest first; of the structure as a whole, all."""
        if self.near is None:
            return whole_points(self.atoms)
        own = self.near.by_center(int(self.centers[k]))
        vectors = self.near.vectors[own]
        order = np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")
        return self.atoms.numbers[self.near.atom[own]][order], vectors[order]

    def centers_about(self, k: int) -> Ints:
        """The other centers within the radius of the set of one, by their numbers."""
        if self.near is None:
            return np.empty(0, dtype=np.intp)
        center = int(self.centers[k])
        about = np.zeros(len(self.atoms), dtype=bool)
        about[self.near.atom[self.near.by_center(center)]] = True
        about[center] = False
        return np.flatnonzero(about[self.centers])


def most_novel(reference: ReferenceSet, query: Query, near: Near) -> tuple[float, int, int]:
    """The largest novelty, the number of its center in the query, and the nearest reference.

    Only centers are evaluated whose upper bound exceeds the largest value found.
    """
    if query.group.min() < 0:
        return np.inf, int(query.group.argmin()), -1
    unit = reference.units[query.group]
    bound = np.where(unit > 0, near.upper[:, 0], np.inf) / np.where(unit > 0, unit, 1.0)
    # The bounds are those of the vectors of row sets, and of several rows these are not all.
    bound[[bool(one.several) for one in query.features]] = np.inf
    best, center, nearest = -1.0, 0, -1
    for k in np.argsort(-bound, kind="stable").tolist():
        if bound[k] <= best:
            break
        features, own = query.features[k], slice(k, k + 1)
        near_one = Near(near.index[own], near.lower[own], near.upper[own])
        j, distance = reference.index.nearest(
            query.group[own], features, query.projected[own], query.beyond[own], near_one
        )
        value = 0.0
        if distance > SAME * features.norm:
            # Features that no displacement changes are compared with their norm.
            value = distance / (float(unit[k]) or max(features.norm, distance))
        if value > best:
            best, center, nearest = value, k, j
    return best, center, nearest


def unit_of(scale: Scale) -> float:
    """The distance of features that novelty counts in; 0 if no displacement changes them."""
    # What a group without spread is compared with: one environment, or copies of one.
    usual = scale.slope * STEP
    spread = scale.spread
    return spread if spread > NO_SPREAD * usual else usual
