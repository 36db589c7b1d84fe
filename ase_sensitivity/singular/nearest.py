"""The nearest singular configuration, its distance and its cause."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.causes.cause import CAUSES, SPURIOUS
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.errors import EvaluationWarning, warn
from ase_sensitivity.linalg.threads import threads_for
from ase_sensitivity.plain_text import as_html
from ase_sensitivity.singular.arrival import NEARLY, NULL, Arrival, Arrivals, cause_here
from ase_sensitivity.singular.partner import OWN, Beyond, Partner
from ase_sensitivity.singular.point import Point, point_at
from ase_sensitivity.singular.price import Price, Pricing, check_price
from ase_sensitivity.singular.system import System, system_of
from ase_sensitivity.singular.walk import estimate
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
        "symmetry", "near-symmetric" (of large systems: the given geometry nearly is symmetric, and
        next to it there are singular configurations of every kind), "fragment", "incompleteness",
        "truncation", "species" (atoms move whose element is not among the species of the
        descriptor), "unknown" if the body order of the descriptor is not known, "unresolved" where
        no cause was confirmed; None if nothing was found.
    found
        Whether the configuration is singular. A truncated basis may be nearly so: see ``ratio``.
    message
        Why the walk ended.
    mode
        The displacement that is invisible there, of shape (n_points, 3), normalised.
    ratio
        sigma_min / sigma_max of the configuration.
    n_steps, n_jacobians
        Numbers of steps, and of Jacobians of the descriptor that were computed in all.
    harmful
        The nearest configuration with another cause than symmetry or fragments, if this one has
        one of these causes and another one was found; else None.
    price
        The difference of the energies and forces of the structure and its partner; None if it was
        not asked for, and where there is no partner or the calculator failed.
    no_price
        Why there is none although it was asked for.
    beyond
        What the partner is computed from.
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
    harmful: NearestSingular | None = None
    price: Price | None = None
    no_price: str | None = None
    beyond: Beyond | None = field(default=None, repr=False)

    @property
    def partner(self) -> Partner | None:
        """The structure on the other side of the fold, which features confuse with the given one.

        It is computed when it is first asked for, by a few Jacobians; None where there is none.
        """
        found = self._other_side()
        return found if isinstance(found, Partner) else None

    @property
    def no_partner(self) -> str | None:
        """Why there is no partner; None if there is one."""
        found = self._other_side()
        return None if isinstance(found, Partner) else found

    def _other_side(self) -> Partner | str:
        if not self.found:
            return f"no singular configuration was found: {self.message}"
        return OWN if self.beyond is None or self.distance == 0 else self.beyond.found

    def summary(self) -> str:
        """What was found, in words."""
        if not self.found:
            return f"No singular configuration was confirmed: {self.message}."
        singular = "singular"
        if self.cause == "truncation" and self.ratio > NEARLY:
            singular = f"nearly singular (ratio {self.ratio:.1e})"
        lines = [
            f"{self.distance:.3g} Å away (first estimate: {self.estimate:.3g} Å) the descriptor is "
            f"{singular}: {self.cause}, {CAUSES[self.cause].text}."
            if self.cause in CAUSES
            else f"{self.distance:.3g} Å away the descriptor is singular."
        ]
        if self.harmful is not None:
            lines.append(
                f"The nearest that is not harmless is {self.harmful.distance:.3g} Å away: "
                f"{self.harmful.cause}."
            )
        if self.price is not None and self.partner is not None:
            lines.append(
                f"Its partner is {self.partner.displacement:.3g} Å away, with features "
                f"{self.partner.feature_distance:.1e} apart: {self.price.energy:.3g} eV and "
                f"{self.price.forces:.3g} eV/Å is the price of confusing the two."
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """The same as notebooks show it."""
        return as_html(self.summary())

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
    price: Any = None,
    arrived: float | None = None,
) -> NearestSingular:
    """The nearest configuration that is singular, and its cause.

    Parameters
    ----------
    atoms, descriptor, scope, center
        As in :func:`~ase_sensitivity.analyze`.
    max_distance
        How far away it may be, in Å.
    max_steps
        How many steps a walk to it may take.
    closest
        A walk ends when two atoms come closer than this, in Å, or than 0.9 times the shortest
        distance they start with.
    price
        An ASE calculator. It computes energies and forces of the structure and of its
        :attr:`~NearestSingular.partner`, once each; without it no calculator is ever asked. The
        difference is the price of confusing the two.
    arrived
        Has no meaning any more: walks go on to a ratio of 1e-9.

    Returns
    -------
    NearestSingular
        ``found`` is False, and ``message`` tells why, where nothing singular was confirmed.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of place.

    Warns
    -----
    EvaluationWarning
        If there is a partner but no price: ``no_price`` tells why.

    Notes
    -----
    The three lowest modes are followed (:doc:`/approach`), but once something is found none whose
    distance is estimated beyond ``max_distance``. Symmetric geometries, and those in which
    features of the body order cannot tell neighbors apart, are found from positions alone; all
    others by Levenberg-Marquardt steps towards J v = 0. Others may be nearer. A structure of
    fragments that no center sees together is singular as it is, and that is the result unless a
    configuration with a harmful cause is found.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import SOAP
    >>> atoms = molecule("NH3")
    >>> atoms.positions[0, 2] = atoms.positions[1, 2] + 0.1
    >>> found = nearest_singular(atoms, SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6))
    >>> found.cause, round(found.distance, 3)  # half the square root of 3 times the height
    ('symmetry', 0.087)

    Its partner is its mirror image, as high on the other side of the plane. No price is paid:

    >>> found.partner.rmsd < 1e-6, round(found.partner.displacement, 3)
    (True, 0.173)
    >>> from ase.calculators.emt import EMT
    >>> priced = nearest_singular(atoms, SOAP(["N", "H"], 4.0, 8, 6), price=EMT())
    >>> priced.price.energy < 1e-6
    True
    """
    if price is not None:
        check_price(price)
    as_number("max_distance", max_distance, "positive")
    as_number("closest", closest, "positive")
    as_integer("max_steps", max_steps, 1)
    if arrived is not None:
        warn("`arrived` of nearest_singular has no meaning any more", DeprecationWarning)
    system = system_of(atoms, descriptor, scope, center)
    with threads_for(3 * len(system.start)):
        found = _nearest(system, max_distance, max_steps, closest)
    if price is None:
        return found
    found = priced(found, Pricing(atoms, price))
    if found.partner is not None and found.price is None:
        warn("there is no price of the partner: see `no_price` of the result", EvaluationWarning)
    return found


def priced(found: NearestSingular, pricing: Pricing) -> NearestSingular:
    """The result, and the harmful one beside it, with prices of their partners."""
    if found.harmful is not None:
        found = replace(found, harmful=priced(found.harmful, pricing))
    if found.partner is None:
        return replace(found, no_price=f"there is no partner: {found.no_partner}")
    known = pricing.of(found.partner, found.points)
    if isinstance(known, Price):
        found.partner.atoms.info.update(price_energy=known.energy, price_forces=known.forces)
        return replace(found, price=known)
    return replace(found, no_price=known)


def _nearest(
    system: System, max_distance: float, max_steps: int, closest: float
) -> NearestSingular:
    here = point_at(system, system.start, in_blocks=False)
    apart = _apart(system, here) if here.view.n_apart else None
    if len(here.found.singular_values) == 0:
        if apart is not None:
            return apart
        raise ValueError("there is nothing but rigid motions: nothing can become singular")
    nearby = estimate(system, here)
    if nearby.singular:
        found = [_here(system, here)]
    else:
        arrivals = Arrivals(system, here, nearby, max_distance, max_steps, closest)
        found = arrivals.of_all(math.inf)
    distance = float(nearby.distances[nearby.nearest])
    harmful = next((one for one in found if one.cause in SPURIOUS), None)
    other = None
    if harmful is not None and harmful is not found[0]:
        other = _result(system, harmful, distance)
    nearest = replace(_result(system, found[0], distance), harmful=other)
    if apart is not None and nearest.cause not in SPURIOUS:
        calls = system.calls["jacobian"]
        return replace(apart, harmful=nearest.harmful, n_jacobians=calls)
    return nearest


def _here(system: System, here: Point) -> Arrival:
    """The configuration itself, which is singular, with a null vector of its cause."""
    cause = cause_here(system, here)
    null = here.found.modes[:, : here.found.n_null]
    message = "the configuration is singular already"
    if cause == "unresolved":
        message = "null vectors of the configuration that a larger basis does not see either"
    return Arrival(cause, 0.0, here.atoms, null, message, point=here)


def _result(system: System, found: Arrival, estimate: float) -> NearestSingular:
    there = found.point or point_at(system, found.atoms)
    mode = found.null[:, 0]
    is_null = there.found.singular_values < NULL * there.found.scale
    if is_null.any():  # the mode is that of the start where the geometry was found by positions
        null = there.found.modes[:, is_null]
        weights = mode @ null
        size = float(np.linalg.norm(weights))
        mode = null @ weights / size if size > 0 else null[:, 0]
    distance = found.distance
    if np.isnan(distance):  # how far the walk went
        distance = float(np.linalg.norm(found.atoms.positions - system.start.positions))
    return NearestSingular(
        atoms=found.atoms,
        points=system.points,
        distance=distance,
        estimate=estimate,
        cause=found.cause,
        found=found.cause not in (None, "unresolved"),
        message=found.message,
        mode=system.shift(mode),
        ratio=there.ratio(there.mode_like(mode)),
        n_steps=found.n_steps,
        n_jacobians=system.calls["jacobian"],
        beyond=Beyond(system, found.atoms),
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
    distances = estimate(system, point_at(system, system.start, in_blocks=False)).distances
    return float(distances.min()) if len(distances) else float("nan")
