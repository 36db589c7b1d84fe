"""From a configuration to the singular one that explains a small singular value (:doc:`/approach`).

A symmetric or blind geometry that explains the value and its slope is found from positions alone.
Only where there is none, a walk goes there by Jacobians. Truncation is what a larger basis sees.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase import Atoms

from ase_sensitivity.causes.attribution import attribute
from ase_sensitivity.causes.cause import CAUSES, EXPECTED, SPURIOUS
from ase_sensitivity.descriptors.base import HasEnlarged, jacobian_of, restricted
from ase_sensitivity.geometry.neighbors import shortest_distance
from ase_sensitivity.singular.classification import (
    BLIND_NEARBY,
    EXPLAINED,
    EXPLAINED_NEAR,
    as_far,
    harmless,
    near_fragment_modes,
    projected_weight,
    unlisted,
)
from ase_sensitivity.singular.exact import ExactGeometries, ExactGeometry
from ase_sensitivity.singular.point import LOWEST, Point
from ase_sensitivity.singular.system import System
from ase_sensitivity.singular.walk import Estimate, steps
from ase_sensitivity.spectrum.solvers import MARGIN
from ase_sensitivity.types import Floats

logger = logging.getLogger(__name__)

HIDDEN = 0.5
"""Least squared length of the part of a mode that an exact geometry hides, to explain the mode."""

HIDDEN_ON_THE_WAY = 0.7
"""The same where a walk has come near."""

TOLERANCES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""In Å: tolerances of the operations that are made exact. They are few, so that modes share them.
"""

FARTHER = 2.2
"""An exact geometry that explains a value is at most this many times as far as the estimate."""

SLACK = 0.003
"""In Å, added to that."""

AS_NEAR = 1.1
"""A symmetric geometry that is at most this many times as far as the estimate is not followed by
the search for a nearer one."""

FALL = (0.5, 1.7)
"""The slope predicts that the value falls to zero at the exact geometry: the fall along the way,
relative to the value. One half where the value grows as the square of the distance."""

NULL = 1e-7
"""Ratio below which a mode is null at a geometry that is exact to rounding."""

ARRIVED = 0.015
"""A walk that has fallen to this fraction of its start is near enough to look for what is exact."""

STILL_HIGH = 0.2
"""A walk whose end has a ratio above this fraction of its start has found nothing."""

CONVERGED = 1e-9
"""Ratio at which a walk ends: more digits are not worth another step."""

NEARER = 0.1
"""In Å: where an exact geometry is this near, no walk looks for another one."""

WIDER = 4.0
"""A symmetric geometry may be this many times farther than others, if a larger basis sees the mode
no better: values often fall steeply at first, and then slowly."""

MOST_WALKED = 15
"""With so few coordinates a walk is cheap, and ends nearer than such a geometry."""

NEARLY = 1e-5
"""A configuration with a larger ratio is nearly singular: a walk in a truncated basis may end where
the value is smallest, but not zero."""

UNKNOWN = 1e-3
"""The same for descriptors whose body order is not known, so that nothing confirms a cause."""

SMALL = 1e-5
"""Ratio of such a descriptor that passes for zero: differences of features have no more digits."""

STRICT = 1e-4
"""In Å: tolerance of the symmetry of an exact geometry."""

TINY = 2e-3
"""In Å: where symmetry nearly explains a mode, truncation at a smaller distance is called symmetry.
Next to a crystal in which symmetry cancels all derivatives, these grow with the displacement, so
that truncated directions are as near as the crystal. Forces are as small there."""

AS_FAR = 3.0
"""A harmless configuration explains another mode if it is at most this many times as far as the
mode's estimate."""

SEEN = 10.0
"""A larger basis sees a mode if its ratio is this many times larger, and"""

SEEN_OF_START = 0.1
"""at least this fraction of the ratio at the start, or"""

SEEN_HERE = 3.0
"""Of truncation it sees the mode at the start already this many times better."""

SEEN_WELL = 100.0
"""this many times larger."""

AT_ONCE = 16
"""Modes whose changes of all features are held at a time."""


@dataclass(frozen=True, eq=False)
class Arrival:
    """A singular configuration that explains a mode.

    Attributes
    ----------
    cause
        As in :class:`~ase_sensitivity.NearestSingular`; "unresolved" where none was confirmed; None
        where nothing singular was found.
    distance
        From the start, in Å.
    atoms
        The configuration.
    null
        Displacements that are hidden there, orthonormal, of shape (3 n_columns, m). The first is
        that of the mode.
    message
        How it was found, or why not.
    n_steps
        Number of steps of a walk.
    number
        The mode, counted from the smallest singular value at the start.
    point
        The configuration with its Jacobian, if that was computed.
    """

    cause: str | None
    distance: float
    atoms: Atoms
    null: Floats
    message: str
    n_steps: int = 0
    number: int = 0
    point: Point | None = None


@dataclass(eq=False)
class Arrivals:
    """Explains the low modes of one configuration.

    Attributes
    ----------
    system
        The system.
    here
        The configuration.
    nearby
        Estimates of the distances of its lowest modes.
    reach
        How far a singular configuration may be, in Å.
    max_steps
        Steps of the first walk at most; each further one has a third less.
    closest
        A walk ends when two atoms come closer than this, in Å.
    may_walk, go_on
        Whether there is time for a walk, and for another step of one.
    before_walk
        Calls a function that computes the blocks of the Jacobian, which the start may have done
        without, and notes what they take.
    only_harmful
        Leave out walks that could only end at something harmless: there the cause is "unresolved".
        Leave out such modes where something harmless is nearer than they are estimated to be.
    """

    system: System
    here: Point
    nearby: Estimate
    reach: float
    max_steps: int = 6
    closest: float = 0.7
    may_walk: Callable[[], bool] = lambda: True
    go_on: Callable[[], bool] = lambda: True
    before_walk: Callable[[Callable[[], object]], object] = lambda evaluate: evaluate()
    only_harmful: bool = False

    def __post_init__(self) -> None:
        self._spaces: dict[float, Floats] = {}
        self._seen_modes: dict[int, float] = {}
        self._blind_ones: list[Arrival] | None = None

    @cached_property
    def _exact(self) -> ExactGeometries:
        return ExactGeometries(self.system, self.here, self._origin, self.reach)

    @property
    def _origin(self) -> Floats:
        origin: Floats = self.here.atoms.positions
        return origin

    @cached_property
    def _least(self) -> float:
        """Atoms that come closer than this (Å) are nothing that a structure has."""
        return min(self.closest, 0.9 * shortest_distance(self.here.atoms))

    @cached_property
    def _near_fragments(self) -> Floats:
        return near_fragment_modes(self.system, self.here)

    @cached_property
    def _unlisted(self) -> Floats:
        return unlisted(self.system, self.here)

    @cached_property
    def _larger(self) -> System | None:
        """The system with a larger basis, if the descriptor has one."""
        return _enlarged(self.system, self.here.atoms)

    def of_all(self, within: float) -> list[Arrival]:
        """The arrivals of all modes that are estimated to be within a distance (Å), nearest first.

        Modes that a harmless configuration has explained already are left out, and so are those
        behind one that matters. Once one is found, those estimated beyond ``reach`` are left out.
        """
        found: list[Arrival] = []
        steps = self.max_steps
        for number in np.argsort(self.nearby.distances, kind="stable").tolist():
            estimate = self.nearby.distances[number]
            known = any(one.cause not in (None, "unresolved") for one in found)
            if estimate > within or (known and estimate > self.reach):
                break
            mode = self.here.found.modes[:, number]
            if any(
                one.cause in EXPECTED
                and one.distance <= AS_FAR * estimate
                and ((one.null.T @ mode) ** 2).sum() > HIDDEN
                for one in found
            ):
                continue
            nearest = min((one.distance for one in found if one.cause in EXPECTED), default=np.inf)
            if self.only_harmful and nearest <= estimate and self._cannot_be_harmful(number):
                continue
            new = self._known_motion(number) or self.explain(number, steps, within)
            found += [replace(one, number=number) for one in new]
            steps = -(-2 * steps // 3)
            if any(one.cause in SPURIOUS and one.distance <= min(within, NEARER) for one in found):
                break
        return sorted(found, key=lambda one: (np.isnan(one.distance), one.distance))

    def _known_motion(self, number: int) -> list[Arrival]:
        """The mode itself, if it moves fragments, or atoms that the descriptor does not know."""
        mode = self.here.found.modes[:, number]
        estimate = float(self.nearby.distances[number])
        for cause, space in (("fragment", self._near_fragments), ("species", self._unlisted)):
            if projected_weight(mode[:, None], space) > EXPLAINED:
                message = "the mode is one of them here already"
                return [Arrival(cause, estimate, self.here.atoms, mode[:, None], message)]
        return []

    def explain(self, number: int, max_steps: int, within: float) -> list[Arrival]:
        """The configurations that explain a mode, counted from the smallest singular value.

        The nearest harmless and the nearest harmful one of the exact geometries, if there are any;
        otherwise where a walk ends.
        """
        mode = self.here.found.modes[:, number]
        estimate = float(self.nearby.distances[number])
        limit = FARTHER * estimate + SLACK
        blind = self._blind(within)
        found = [one for one in blind if one.cause in SPURIOUS]
        found += [one for one in blind if self._explains(one, number, limit)][:1]
        found += self._symmetric(number, 5 * estimate, limit)
        if not found and not self._exact.searches_symmetry:
            weight = projected_weight(mode[:, None], self._symmetric_nearby(as_far(estimate)))
            if weight >= EXPLAINED_NEAR:
                cause = "symmetry" if weight > EXPLAINED else "near-symmetric"
                message = "symmetric but for small displacements"
                return [Arrival(cause, estimate, self.here.atoms, mode[:, None], message)]
        explained = any(self._explains(one, number, limit) for one in found)
        nearest = min((one.distance for one in found), default=np.inf)
        near = nearest <= NEARER
        if explained or (near and (nearest < 2 * estimate or not self._seen_by_larger(number))):
            return found
        large = self._exact.n_coordinates > MOST_WALKED
        if large and self._exact.searches_symmetry and not self._seen_by_larger(number):
            farther = self._symmetric(number, WIDER * 5 * estimate, WIDER * limit)
            if farther:
                return found + farther
        if self.only_harmful and self._cannot_be_harmful(number):
            message = "a larger basis sees the mode no better"
            return [
                *found,
                Arrival("unresolved", estimate, self.here.atoms, mode[:, None], message),
            ]
        end = self._by_walk(number, estimate, max_steps)
        if end.cause == "truncation" and end.distance < TINY:
            weight = projected_weight(mode[:, None], self._symmetric_nearby(as_far(estimate)))
            if weight > EXPLAINED:
                message = "symmetric but for tiny displacements"
                end = Arrival("symmetry", estimate, self.here.atoms, mode[:, None], message)
        return [*found, end]

    def _cannot_be_harmful(self, number: int) -> bool:
        """Whether a mode that no exact geometry explains is neither truncated nor incomplete."""
        mode = self.here.found.modes[:, number]
        if self._larger is None or self._exact.may_be_incomplete(mode):
            return False
        return not self._seen_by_larger(number)

    def _symmetric(self, number: int, tolerance: float, limit: float) -> list[Arrival]:
        """The symmetric geometry that explains a mode, if there is one."""
        lowest = self.here.found.modes[:, : LOWEST + 1]
        tolerance = next((one for one in TOLERANCES if one >= tolerance), TOLERANCES[-1])
        near = AS_NEAR * float(self.nearby.distances[number])
        exact = self._exact.symmetric(lowest, number, tolerance, 1.5 * limit, near)
        if exact is None or exact.hidden < HIDDEN:
            return []
        one = self._arrival(exact, self.here.atoms, lowest[:, number])
        return [one] if one is not None and self._explains(one, number, limit) else []

    def _explains(self, one: Arrival, number: int, limit: float) -> bool:
        """Whether a geometry hides a mode and is where its slope says."""
        mode = self.here.found.modes[:, number]
        u = (one.atoms.positions - self._origin)[self.system.moving].ravel()
        fall = -float(self.nearby.slopes[number].ravel() @ u)
        fall /= self.here.found.singular_values[number]
        hidden = ((one.null.T @ mode) ** 2).sum()
        return one.distance <= limit and FALL[0] < fall < FALL[1] and hidden > HIDDEN

    def _seen_by_larger(self, number: int) -> bool:
        """Whether a larger basis sees a mode so much better that truncation may be the cause."""
        if self._larger is None:
            return False
        if number not in self._seen_modes:
            mode = self.here.found.modes[:, [number]]
            self._seen_modes[number] = _seen(self._larger, self.here, mode)
        return self._seen_modes[number] > SEEN_HERE * self.here.ratio(number)

    def _blind(self, within: float) -> list[Arrival]:
        """Blind geometries: symmetric ones, and the nearest incomplete one that is confirmed.

        All are such that the lowest modes together hold most of what they hide.
        """
        if self._blind_ones is None:
            lowest = self.here.found.modes[:, : LOWEST + 1]
            self._blind_ones = []
            for exact in self._exact.blind(within):
                mode = lowest @ (lowest.T @ exact.null[:, 0])
                if mode @ mode < HIDDEN:
                    continue
                one = self._arrival(exact, self.here.atoms, mode)
                if one is not None:
                    self._blind_ones.append(one)
                    if one.cause in SPURIOUS:
                        break
        return self._blind_ones

    def _symmetric_nearby(self, tolerance: float) -> Floats:
        """Displacements that the symmetry of environments hides, up to a tolerance (Å)."""
        if tolerance not in self._spaces:
            self._spaces[tolerance] = harmless(self.system, self.here, tolerance, BLIND_NEARBY)
        return self._spaces[tolerance]

    def _arrival(self, exact: ExactGeometry, start: Atoms, mode: Floats) -> Arrival | None:
        """At an exact geometry, if the descriptor is singular there for that reason."""
        moved = self.system.displaced(start, exact.displacement)
        if shortest_distance(moved) < self._least:
            return None
        distance = float(np.linalg.norm(moved.positions - self._origin))
        message = f"an exact geometry explains it by {exact.cause}"
        if exact.cause == "symmetry":  # of any descriptor, by construction
            null = _led_by(exact.null, mode)
            return Arrival("symmetry", distance, moved, null, message)
        null = exact.null[:, 0]
        jacobian = self.system.jacobian(moved)
        change = jacobian.apply(self.system.shift(null)[None])
        if np.linalg.norm(change) > NULL * self.here.found.scale:
            return None
        there = Point(moved, self.system.view(jacobian, moved))
        hidden = projected_weight(null[:, None], harmless(self.system, there, STRICT, STRICT))
        cause = "symmetry" if hidden > HIDDEN else exact.cause
        return Arrival(cause, distance, moved, exact.null, message, point=there)

    def _by_walk(self, number: int, estimate: float, max_steps: int) -> Arrival:
        first = self.here.ratio(number)
        if self.may_walk():
            self.before_walk(lambda: self.here.jacobian)
        if not self.may_walk():  # blocks may have taken longer than the start without them
            null = self.here.found.modes[:, [number]]
            return Arrival(None, np.nan, self.here.atoms, null, "there was no time for a walk")
        at, n_steps, asked = self.here, 0, False
        walk = steps(self.system, self.here, number, max_distance=self.reach, closest=self.closest)
        if self._larger is None:  # nothing but an exact zero tells
            max_steps *= 3
        message = f"not there after {max_steps} steps"
        for _ in range(max_steps):
            if not self.go_on():
                message = "there was no time for another step"
                break
            try:
                at, number = next(walk)
            except StopIteration as stopped:
                message = stopped.value
                break
            n_steps += 1
            if at.ratio(number) < ARRIVED * first and not asked:
                asked = True
                found = self._at_the_end(at, number, estimate, first, last=False)
                if found is not None:
                    return replace(found, n_steps=n_steps)
            if at.ratio(number) < CONVERGED:
                message = "a singular configuration"
                break
        if at.ratio(number) > STILL_HIGH * first:
            found = Arrival(None, np.nan, at.atoms, at.found.modes[:, [number]], message)
        else:
            end = self._at_the_end(at, number, estimate, first, last=True)
            distance = max(float(np.linalg.norm(at.atoms.positions - self._origin)), estimate)
            found = end or Arrival(
                "unresolved", distance, at.atoms, at.found.modes[:, [number]], message
            )
        return replace(found, n_steps=n_steps)

    def _at_the_end(
        self, at: Point, number: int, estimate: float, first: float, *, last: bool
    ) -> Arrival | None:
        """The cause where a walk has come: an exact geometry there, or what a larger basis sees."""
        mode = at.found.modes[:, number]
        far = float(np.linalg.norm(at.atoms.positions - self._origin))
        geometries = ExactGeometries(self.system, at, self._origin, self.reach)
        lowest = at.found.modes[:, : max(LOWEST, number) + 1]
        limit = 1.6 * far + 0.03
        tolerance = 0.3 if last else 0.12
        exact = geometries.symmetric(lowest, number, tolerance, limit)
        around = [exact] if exact is not None and exact.hidden > HIDDEN_ON_THE_WAY else []
        for exact in (*around, *geometries.blind(limit)):
            hidden = ((exact.null.T @ mode) ** 2).sum()
            near = np.linalg.norm(exact.displacement) < max(0.6 * far, 0.03)
            if near and hidden > HIDDEN_ON_THE_WAY:
                found = self._arrival(exact, at.atoms, mode)
                if found is not None:
                    return found
        cause = self._remaining_cause(at, number, first, last)
        if cause is None:
            return None
        null = at.found.modes[:, at.found.singular_values <= 2 * at.found.singular_values[number]]
        message = "a singular configuration"
        if at.ratio(number) > NEARLY:
            message = "the value is smallest on the way here, and a larger basis sees the mode"
        distance = max(far, estimate)
        return Arrival(cause, distance, at.atoms, _led_by(null, mode), message, point=at)

    def _remaining_cause(self, at: Point, number: int, first: float, last: bool) -> str | None:
        """Truncation, if a larger basis sees the mode; otherwise what exact tests say at a zero."""
        ratio, mode = at.ratio(number), at.found.modes[:, number]
        if self._larger is not None:
            seen = _seen(self._larger, at, mode[:, None])
            if seen > SEEN * ratio and seen > min(SEEN_OF_START * first, SEEN_WELL * ratio):
                return "truncation"
        if at.view.jacobian.precision > 1e-12 or self.system.descriptor.body_order is None:
            # No test tells more, and a value of few digits does not fall to zero.
            zero = max(SMALL, MARGIN * at.view.jacobian.precision)
            fallen = last and ratio < min(UNKNOWN * first, zero)
            return "unknown" if fallen and self.system.descriptor.body_order is None else None
        if ratio > NULL:
            return None
        try:
            why = attribute(at.view, at.found, at.atoms, self.system.descriptor, tolerance=1e-5)
        except ValueError:  # an environment is too large
            return None
        cause = why.causes[int(np.abs(mode @ why.modes).argmax())] or "truncation"
        return None if cause == "truncation" and self._larger is not None else cause


def _led_by(null: Floats, mode: Floats) -> Floats:
    """An orthonormal basis of a space whose first vector is the projection of a mode."""
    if null.shape[1] == 0:
        return mode[:, None]
    weights = null.T @ mode
    rotation = np.linalg.svd(weights[None])[2].T
    led: Floats = null @ (rotation * np.sign(weights @ rotation[:, 0] or 1.0))
    return led


def cause_here(system: System, here: Point) -> str:
    """The worst cause of the null vectors of a configuration; "unknown" if that cannot be told.

    Truncation is a cause only if a larger basis sees one of its null vectors, where there is one.
    """
    found = here.found
    try:
        why = attribute(here.view, found, here.atoms, system.descriptor)
    except ValueError:  # an environment is too large
        return "unknown"
    causes = np.array(why.causes[: found.n_null])
    truncated = causes == "truncation"
    larger = _enlarged(system, here.atoms) if truncated.any() else None
    if larger is not None:
        modes = why.modes[:, : found.n_null][:, truncated]
        zero = max(here.ratio(found.n_null - 1), MARGIN * here.view.jacobian.precision)
        if _seen(larger, here, modes, SEEN * zero) < SEEN * zero:
            causes = causes[~truncated]
    return next((name for name in CAUSES if name in causes), "unresolved")


def _seen(larger: System, here: Point, modes: Floats, enough: float = np.inf) -> float:
    """The most that a larger basis sees of modes (3 n_columns, m), relative to the stiffest mode.

    To all digits, as it takes products of the Jacobian. A few modes are taken at a time, until one
    is seen better than ``enough``.
    """
    structure = larger.scope == "structure"
    jacobian = (
        jacobian_of(larger.descriptor, here.atoms) if structure else larger.jacobian(here.atoms)
    )

    def change(some: Floats) -> float:
        moved = np.array([larger.shift(mode) for mode in some.T])
        return float(np.linalg.norm(jacobian.apply(moved), 2))

    stiffest, most = change(here.found.modes[:, -1:]), 0.0
    for first in range(0, modes.shape[1], AT_ONCE):
        most = max(most, change(modes[:, first : first + AT_ONCE]))
        if most > enough * stiffest:
            break
    return most / stiffest if stiffest > 0 else 0.0


def _enlarged(system: System, atoms: Atoms) -> System | None:
    """The system with a larger basis, if the descriptor has one."""
    descriptor = system.descriptor
    larger = descriptor.enlarged() if isinstance(descriptor, HasEnlarged) else None
    if larger is None:
        return None
    return replace(system, descriptor=restricted(larger, atoms), weights=None, calls=Counter())
