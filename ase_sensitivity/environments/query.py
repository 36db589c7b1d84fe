"""A structure that is compared with a reference set, and its most novel environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ase_sensitivity.environments.environment_set import Points
from ase_sensitivity.environments.nearest import Near
from ase_sensitivity.environments.projection import AXES
from ase_sensitivity.environments.row_sets import RowSet, row_sets
from ase_sensitivity.environments.scales import STEP, Group, centered_points
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
        As of :meth:`EnvironmentSet.project`; nan for a kind that the set does not have.
    numbers, kinds
        Atomic number and kind of each center, of shape (n_centers,).
    points
        The points about each center, nearest first.
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
    points: list[Points]
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
        kinds = np.array([environments.kind_of(one, atoms) for one in features])
        projected, beyond = np.full((len(kinds), AXES), np.nan), np.full(len(kinds), np.nan)
        known = np.flatnonzero(kinds >= 0)
        if len(known):
            some = [features[k] for k in known.tolist()]
            projected[known], beyond[known] = environments.project(some)
        return cls(
            atoms=atoms,
            centers=centers,
            features=features,
            numbers=np.where(centers >= 0, atoms.numbers[centers], 0),
            projected=projected,
            beyond=beyond,
            kinds=kinds,
            points=centered_points(atoms, centers, reference.radius),
            forces=forces,
            energy=energy,
        )

    @property
    def groups(self) -> list[Group]:
        """Atomic number and kind of each center."""
        return list(zip(self.numbers.tolist(), self.kinds.tolist(), strict=True))


NearByGroup = dict[Group, tuple[Ints, Near]]
"""For each group, the numbers of its centers in the query, and near references."""


def near_references(reference: ReferenceSet, query: Query, k: int) -> NearByGroup:
    """About ``k`` near references of each center; groups that the set lacks are left out."""
    members: dict[Group, list[int]] = {}
    for number, group in enumerate(query.groups):
        members.setdefault(group, []).append(number)
    found = {}
    for group, those in members.items():
        if group in reference.index:
            own = np.array(those)
            near = reference.index.near(group, query.projected[own], query.beyond[own], k)
            found[group] = own, near
    return found


def most_novel(reference: ReferenceSet, query: Query, near: NearByGroup) -> tuple[float, int, int]:
    """The largest novelty, the number of its center in the query, and the nearest reference.

    Only centers are evaluated whose upper bound exceeds the largest value found.
    """
    groups = query.groups
    for k, group in enumerate(groups):
        if group not in near:
            return np.inf, k, -1
    norm = np.array([one.norm for one in query.features])
    bound = np.zeros(len(query.centers))
    for group, (own, found) in near.items():
        bound[own] = _relative(reference, group, found.upper.min(axis=1), norm[own])
    # The bounds are those of the vectors of row sets, and of several rows these are not all.
    bound[[bool(one.several) for one in query.features]] = np.inf
    best, center, nearest = -1.0, 0, -1
    for k in np.argsort(-bound, kind="stable").tolist():
        if bound[k] <= best:
            break
        j, distance = reference.index.nearest(
            groups[k], query.features[k], query.projected[k], float(query.beyond[k])
        )
        value = float(_relative(reference, groups[k], np.array(distance), norm[k]))
        if value > best:
            best, center, nearest = value, k, j
    return best, center, nearest


def _relative(reference: ReferenceSet, group: Group, distance: Floats, norm: Floats) -> Floats:
    """Distances over the spread of the group; ``norm`` is that of the compared features."""
    scale = reference.scales.by_group[group]
    # What a group without spread is compared with: one environment, or copies of one.
    usual = scale.slope * STEP
    unit = scale.spread if scale.spread > NO_SPREAD * usual else usual
    # Features that no displacement changes are compared with their norm.
    over = unit if unit > 0 else np.maximum(np.maximum(norm, distance), 1e-300)
    return np.where(distance > SAME * norm, distance / over, 0.0)
