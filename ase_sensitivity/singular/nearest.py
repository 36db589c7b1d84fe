"""The nearest singular configuration, its distance and its cause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.causes.cause import EXPECTED
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.singular.classification import (
    BLIND_NEARBY,
    EXPLAINED_NEAR,
    as_far,
    harmless,
    label,
    projected_weight,
)
from ase_sensitivity.singular.point import Point, point_at
from ase_sensitivity.singular.system import System, system_of
from ase_sensitivity.singular.walk import ARRIVED, Walk, estimate, walk
from ase_sensitivity.types import Floats, Ints, Scope
from ase_sensitivity.validation import as_integer, as_number


@dataclass(frozen=True, eq=False)
class NearestSingular:
    """Where the walk to a singular configuration ended.

    Attributes
    ----------
    atoms
        The configuration. In environment scope the center and then its neighbors, as a cluster
        without a cell.
    points
        The atom of the given structure that each of these belongs to, of shape (n_points,).
    distance
        From the given configuration in Å: the square root of the sum of all squared displacements.
    estimate
        The distance to first order, before the walk, in Å.
    cause
        "symmetry", "near-symmetric" (the given geometry nearly is symmetric, and next to it there
        are singular configurations of every kind), "fragment", "incompleteness", "truncation",
        "species" (atoms move whose element is not among the species of the descriptor), "unknown"
        if the body order of the descriptor is not known; None if nothing was found.
    found
        Whether the configuration is singular.
    message
        Why the walk ended.
    mode
        The displacement that is invisible there, of shape (n_points, 3), normalised.
    ratio
        sigma_min / sigma_max of the configuration.
    n_steps, n_jacobians
        Numbers of steps, and of Jacobians that were computed in all.
    """

    atoms: Atoms
    points: Ints
    distance: float
    estimate: float
    cause: str | None
    found: bool
    message: str
    mode: Floats
    ratio: float
    n_steps: int
    n_jacobians: int

    def __repr__(self) -> str:
        return (
            f"NearestSingular(found={self.found}, distance={self.distance:.3g}, "
            f"cause={self.cause!r})"
        )


def nearest_singular(
    atoms: Atoms,
    descriptor: Given,
    *,
    scope: Scope = "structure",
    center: int | None = None,
    max_distance: float = 0.5,
    max_steps: int = 25,
    closest: float = 0.7,
    arrived: float = ARRIVED,
) -> NearestSingular:
    """Walk from a configuration to the nearest one that is singular, and tell its cause.

    Parameters
    ----------
    atoms, descriptor, scope, center
        As in :func:`~ase_sensitivity.analyze`.
    max_distance
        How far the walk may go, in Å.
    max_steps
        How many steps it may take.
    closest
        The walk ends when two atoms come closer than this, in Å, or than 0.9 times the shortest
        distance they start with.
    arrived
        The walk goes on until sigma_min / sigma_max is below this, or no step makes it any smaller.
        Where it grows as the square of the distance, the default is reached 0.01 Å and more before
        the singular configuration, and the cause may be taken for truncation: 1e-8 is safer there.

    Returns
    -------
    NearestSingular
        ``found`` is False, and ``message`` tells why, where the walk gave up.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of place.

    Notes
    -----
    Levenberg-Marquardt steps towards J v = 0 from the mode among the lowest three whose distance to
    first order is smallest (:doc:`/approach`). It finds the nearest configuration on that way;
    others may be nearer. A structure of fragments that no center sees together is singular as it
    is, and that is what is told unless the walk finds something that is neither symmetric nor a
    fragment.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import SOAP
    >>> atoms = molecule("NH3")
    >>> atoms.positions[0, 2] = atoms.positions[1, 2] + 0.1
    >>> found = nearest_singular(atoms, SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6))
    >>> found.cause, round(found.distance, 3)  # half the square root of 3 times the height
    ('symmetry', 0.087)
    """
    as_number("max_distance", max_distance, "positive")
    as_number("closest", closest, "positive")
    as_number("arrived", arrived, "positive")
    as_integer("max_steps", max_steps, 1)
    system = system_of(atoms, descriptor, scope, center)
    here = point_at(system, system.start)
    apart = _apart(system, here) if here.view.n_apart else None
    if len(here.found.singular_values) == 0:
        if apart is not None:
            return apart
        raise ValueError("there is nothing but rigid motions: nothing can become singular")
    nearby = estimate(system, here)
    went = Walk(here, 0, 0.0, True, "the configuration is singular already", 0, 0)
    if not nearby.singular:
        went = walk(
            system,
            here,
            nearby.nearest,
            max_distance=max_distance,
            max_steps=max_steps,
            closest=closest,
            arrived=arrived,
        )
    cause = cause_of(system, here, went) if went.arrived else None
    if apart is not None and cause in (None, *EXPECTED):
        return apart
    mode = system.shift(went.mode)
    return NearestSingular(
        atoms=went.end.atoms,
        points=system.points,
        distance=went.distance,
        estimate=float(nearby.distances[nearby.nearest]),
        cause=cause,
        found=went.arrived,
        message=went.message,
        mode=mode,
        ratio=went.end.ratio(went.number),
        n_steps=went.n_steps,
        n_jacobians=1 + nearby.n_jacobians + went.n_jacobians,
    )


def _apart(system: System, here: Point) -> NearestSingular:
    """A structure of fragments is singular as it is: nobody sees them move against each other."""
    trivial, whole = here.view.trivial, here.view.whole
    assert whole is not None
    space, along, _ = np.linalg.svd(trivial - whole @ (whole.T @ trivial), full_matrices=False)
    space = space[:, along > 0.5]
    # Any of these will do: away from the middle, or what moves one coordinate most.
    away = (here.atoms.positions - here.atoms.positions.mean(axis=0))[here.view.atoms].ravel()
    mode = space @ (away @ space)
    if np.linalg.norm(mode) < 1e-6 * np.linalg.norm(away):
        mode = space @ space[np.linalg.norm(space, axis=1).argmax()]
    return NearestSingular(
        atoms=system.start,
        points=system.points,
        distance=0.0,
        estimate=0.0,
        cause="fragment",
        found=True,
        message="the structure falls into fragments that no center sees together",
        mode=system.shift(mode / np.linalg.norm(mode)),
        ratio=0.0,
        n_steps=0,
        n_jacobians=1,
    )


def singularity_distance(
    atoms: Atoms, descriptor: Given, *, scope: Scope = "structure", center: int | None = None
) -> float:
    """Distance in Å to the nearest singular configuration, to first order.

    Parameters
    ----------
    atoms, descriptor, scope, center
        As in :func:`~ase_sensitivity.analyze`.

    Returns
    -------
    float
        The smallest ``sigma / |d sigma / d r|`` of the three lowest modes; 0 where one is singular,
        nan if there are none.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of place.
    """
    system = system_of(atoms, descriptor, scope, center)
    distances = estimate(system, point_at(system, system.start)).distances
    return float(distances.min()) if len(distances) else float("nan")


def cause_of(system: System, start: Point, went: Walk) -> str:
    """The cause of the configuration that a walk arrived at."""
    cause = label(system, went.end, vanishing(went))
    if cause in ("symmetry", "fragment") or went.end is start:
        return cause
    roughly = harmless(system, start, as_far(went.distance), BLIND_NEARBY)
    beginning = start.found.modes[:, [start.mode_like(went.mode)]]
    return "near-symmetric" if projected_weight(beginning, roughly) > EXPLAINED_NEAR else cause


def vanishing(went: Walk) -> Floats:
    """All modes that are invisible where a walk arrived, of shape (3 n_columns, m)."""
    found = went.end.found
    limit = max(ARRIVED * found.scale, 2 * found.singular_values[went.number])
    modes: Floats = found.modes[:, found.singular_values <= limit]
    return modes
