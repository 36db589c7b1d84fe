"""The cause of a singular configuration whose geometry is only roughly exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ase_sensitivity.causes.environments import Environment, receptive_fields, unseen_species
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.linalg.threads import threads_for
from ase_sensitivity.singular.neighborhood import Surroundings, rotations, without
from ase_sensitivity.singular.point import Point
from ase_sensitivity.singular.system import System
from ase_sensitivity.types import Floats

ROUGHLY = 0.02
"""In Å: a walk ends this close to a symmetric geometry, if to one."""

EXPLAINED = 0.9
"""The least squared length of the part of a mode that symmetry, or a fragment, has to hold."""

EXPLAINED_NEAR = 0.5
"""The same where a walk starts, which is only near to a symmetric geometry."""

NEARBY = (0.05, 0.1, 0.2, 0.3)
"""In Å: tolerances up to which geometries are near-symmetric. They are few, so that modes share
them."""

BLIND = 0.1
"""Changes of environments smaller than this, relative to what is typical, count as none."""

BLIND_NEARBY = 0.5
"""The same at a geometry that is only near to a symmetric one."""

AT_ONCE = 2**24
"""Bytes of the matrices of environments that are held at a time."""

AT_CUTOFF = 0.5
"""In Å: neighbors this close to the cutoff have hardly any weight, and do not hold a fragment."""


def projected_weight(modes: Floats, space: Floats) -> float:
    """The smallest squared length of what a space holds of a combination of modes."""
    if min(space.shape[1], modes.shape[1]) == 0 or space.shape[1] < modes.shape[1]:
        return 0.0
    return float(np.linalg.svd(space.T @ modes, compute_uv=False)[-1] ** 2)


def as_far(distance: float) -> float:
    """How far (Å) an atom may be from a symmetric geometry that explains a singular value.

    Parameters
    ----------
    distance
        To where the value vanishes, in Å: what is much farther away does not make it small.
    """
    return next((tolerance for tolerance in NEARBY if tolerance >= 4 * distance), NEARBY[-1])


def harmless(system: System, at: Point, tolerance: float, blind: float = BLIND) -> Floats:
    """Displacements that no descriptor could see, as the symmetry of environments forbids it.

    Parameters
    ----------
    system, at
        What is looked at, and where.
    tolerance
        Environments are symmetric up to this, in Å.
    blind
        Smaller changes of environments, relative to what is typical, count as none.

    Returns
    -------
    space
        Orthonormal, of shape (3 n_columns, any); it contains the trivial modes.
    """

    def invariant(environment: Environment, change: Floats) -> Floats:
        group = point_group(environment.displacements, environment.numbers, tolerance)
        return change if group.order == 1 else group.invariants().T @ change

    return _unchanged(system, at, tolerance, invariant, blind)


def near_fragment_modes(system: System, at: Point) -> Floats:
    """Displacements that only turn environments, but for neighbors at the cutoff."""
    return _unchanged(system, at, AT_CUTOFF)


def unlisted(system: System, at: Point) -> Floats:
    """Displacements that only move atoms whose elements the descriptor does not know."""
    unseen = unseen_species(at.atoms, system.descriptor, at.view.jacobian.ranges)
    if not unseen:
        return np.empty((3 * at.view.n_columns, 0))
    return _unchanged(system, at, ROUGHLY, only=lambda environment: environment.without(unseen))


def _unchanged(
    system: System,
    at: Point,
    margin: float,
    seen_of: Callable[[Environment, Floats], Floats] = lambda environment, change: change,
    blind: float = BLIND,
    only: Callable[[Environment], Environment] = lambda environment: environment,
) -> Floats:
    n = 3 * at.view.n_columns
    total, n_rows, everything = np.zeros((n, n)), 0, np.eye(n)
    fields = receptive_fields(at.view, at.atoms, system.descriptor, margin)
    environments = [only(e) for field in fields for e in field.environments]
    environments = [e for e in environments if len(e.numbers)]
    most = max((3 * len(e.numbers) for e in environments), default=1)
    with threads_for(most):
        at_once = max(1, AT_ONCE // (8 * most * n))
        for first in range(0, len(environments), at_once):
            some = environments[first : first + at_once]
            around = Surroundings.of(some, at.view.n_columns)
            off_line = ROUGHLY * np.sqrt(around.sizes)
            changes = without(rotations(around.points, off_line), around.changes(everything))
            n_rows += 3 * int(around.sizes.sum())
            parts = [
                seen_of(environment, change[: 3 * len(environment.numbers)])
                for environment, change in zip(some, changes, strict=True)
            ]
            seen = np.concatenate(parts)
            total += seen.T @ seen
    values, vectors = np.linalg.eigh(total)
    space: Floats = vectors[:, values <= blind**2 * n_rows / n]
    return space
