"""Of which kind a singular configuration is where its geometry is exact only roughly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ase_sensitivity.causes.environments import Environment, receptive_fields, unseen_species
from ase_sensitivity.causes.incompleteness import class_sums
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.linalg.canonical import canonical
from ase_sensitivity.linalg.threads import threads_for
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

CLASS_WIDTH = 0.01
"""Distances (Å) and cosines that differ by less are taken for equal."""

UNRESOLVED = 0.02
"""Sums over classes of tuples change by less than this, relative to what is typical, along a mode
that no basis of the body order resolves."""

BLIND = 0.1
"""Changes of environments smaller than this, relative to what is typical, count as none."""

BLIND_NEARBY = 0.5
"""The same at a geometry that is only near to a symmetric one."""

MARGIN = 0.5
"""In Å: neighbors this close to the cutoff have hardly any weight, and do not hold a fragment."""


def label(system: System, at: Point, modes: Floats) -> str:
    """Name the cause of vanishing singular values.

    Parameters
    ----------
    system
        What is looked at.
    at
        The singular configuration.
    modes
        Its null vectors, orthonormal, of shape (3 n_columns, m).

    Returns
    -------
    str
        "fragment", "symmetry", "species", "incompleteness", "truncation", or "unknown" if the body
        order is.
        Of several null vectors the least harmless one counts.

    Notes
    -----
    See :doc:`/approach`.
    """
    allowed = harmless(system, at, ROUGHLY)
    if projected_weight(modes, allowed) > EXPLAINED:
        # Neighbors at the cutoff hold nothing, and an environment without them may be symmetric.
        return (
            "fragment"
            if projected_weight(modes, near_fragment_modes(system, at)) > EXPLAINED
            else "symmetry"
        )
    modes = _least_explained(modes, allowed)
    if projected_weight(modes, near_fragment_modes(system, at)) > EXPLAINED:
        return "fragment"
    if projected_weight(modes, unlisted(system, at)) > EXPLAINED:
        return "species"
    change = _class_change(system, at, modes[:, -1])
    if change is None:
        return "unknown"
    return "incompleteness" if change < UNRESOLVED else "truncation"


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
    return _unchanged(system, at, MARGIN, lambda environment, change: change)


def unlisted(system: System, at: Point) -> Floats:
    """Displacements that only move atoms whose elements the descriptor does not know."""
    unseen = unseen_species(at.atoms, system.descriptor, at.view.jacobian.ranges)
    if not unseen:
        return np.empty((3 * at.view.n_columns, 0))
    return _unchanged(
        system, at, ROUGHLY, lambda environment, change: change, only=lambda e: e.without(unseen)
    )


def _unchanged(
    system: System,
    at: Point,
    margin: float,
    seen_of: Callable[[Environment, Floats], Floats],
    blind: float = BLIND,
    only: Callable[[Environment], Environment] = lambda environment: environment,
) -> Floats:
    n = 3 * at.view.n_columns
    everything = np.eye(n).reshape(-1, 3, n)
    total, n_rows = np.zeros((n, n)), 0
    seen = receptive_fields(at.view, at.atoms, system.descriptor, margin)
    with threads_for(3 * max((len(e.numbers) for s in seen for e in s.environments), default=0)):
        for environment in (only(e) for field in seen for e in field.environments):
            change = environment.internal(everything, ROUGHLY)
            n_rows += len(change)
            change = seen_of(environment, change)
            total += change.T @ change
    values, vectors = np.linalg.eigh(total)
    space: Floats = vectors[:, values <= blind**2 * n_rows / n]
    return space


def _least_explained(modes: Floats, space: Floats) -> Floats:
    """The modes, combined such that the last one is held least."""
    if modes.shape[1] == 1:
        return modes
    _, s, rotation = np.linalg.svd(space.T @ modes)
    shares = np.zeros(modes.shape[1])
    shares[: len(s)] = s
    # Modes with equal shares leave a choice.
    groups = np.concatenate([[0], np.cumsum(-np.diff(shares) > 1e-6)])
    return canonical(modes @ rotation.T, groups)


def _class_change(system: System, at: Point, mode: Floats) -> float | None:
    """|C v| relative to its root mean square; None if the body order is not known."""
    square = squares = 0.0
    n_coordinates = 0
    for field in receptive_fields(at.view, at.atoms, system.descriptor, ROUGHLY):
        if field.body_order is None or not field.symmetry_known:
            return None
        for environment in field.resolved:
            try:
                sums = class_sums(environment, field.body_order - 1, CLASS_WIDTH)
            except ValueError:  # too many tuples
                return None
            change = sums @ environment.relative(mode.reshape(-1, 3, 1))
            square += float((change**2).sum())
            squares += float((sums.data**2).sum())
            n_coordinates += sums.shape[1]
    return float(np.sqrt(square * n_coordinates / squares)) if squares > 0 else 0.0
