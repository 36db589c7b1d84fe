"""How near a run is to something singular, and whether that matters: as little work as will do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import fixed_atoms
from ase_sensitivity.causes.cause import EXPECTED
from ase_sensitivity.descriptors.base import Descriptor, reach_of
from ase_sensitivity.linalg.threads import threads_for
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.budget import WALK, Budget
from ase_sensitivity.singular.classification import (
    BLIND_NEARBY,
    EXPLAINED,
    EXPLAINED_NEAR,
    NEARBY,
    as_far,
    harmless,
    label,
    near_fragment_modes,
    projected_weight,
)
from ase_sensitivity.singular.diagnosis import NOT_LOOKED_AT, Diagnosis
from ase_sensitivity.singular.nearest import cause_of, vanishing
from ase_sensitivity.singular.point import LOWEST, Point, point_at
from ase_sensitivity.singular.recall import REFRESH, Remembered
from ase_sensitivity.singular.system import System, system_of
from ase_sensitivity.singular.walk import (
    CLOSE_ENOUGH,
    EXACT,
    Estimate,
    Walk,
    estimate,
    quick_estimate,
    walk,
)
from ase_sensitivity.spectrum.solvers import Spectrum
from ase_sensitivity.types import Floats, Scope

logger = logging.getLogger(__name__)

WITHIN = 0.1
"""In Å: how near a singular configuration has to be for its cause to be looked for."""

SUSPICIOUS = 0.1
"""Ratio below which the distance is estimated. Incompleteness 0.1 Å away shows as ratios up to
0.07, and as 0.03 in most directions."""

STEEPER = 1.5
"""A singular value may fall this much more steeply than any did before in the run."""

NEAR = 1.25
"""What an estimate puts within this many times the distance that matters is looked at closely.
Estimates are too low rather than too high (:doc:`/approach`)."""


@dataclass(frozen=True, eq=False)
class _Asked:
    """Modes that were asked for their distance.

    Attributes
    ----------
    modes, sigma
        Of shape (m, 3 n_columns), and their singular values.
    nearby
        What they said.
    here
        The configuration with its complete spectrum, whose lowest modes they are; None if that was
        not needed.
    """

    modes: Floats
    sigma: Floats
    nearby: Estimate
    here: Point | None

    @property
    def distance(self) -> float:
        """The smallest distance in Å."""
        return float(self.nearby.distances.min(initial=np.inf))


class Monitor:
    """Diagnoses one configuration of a run after the other.

    Parameters
    ----------
    descriptor, scope, apply_constraints
        As in :func:`~ase_sensitivity.analyze`.
    within
        The distance in Å that matters.
    always
        Estimate the distance at every call, not only on suspicion.
    suspicious
        Ratio below which a call is suspicious.
    budget
        How long a call may look for what is near.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        *,
        scope: Scope,
        within: float,
        always: bool = False,
        apply_constraints: bool = False,
        suspicious: float = SUSPICIOUS,
        budget: Budget | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._scope = scope
        self._within = within
        self._always = always
        self._apply_constraints = apply_constraints
        self._suspicious = suspicious
        self._steepest = np.inf  # largest ratio per Å of distance of the run; nothing seen yet
        self._known: Remembered | None = None
        self.budget = Budget() if budget is None else budget
        self._n_skipped = 0
        self._numbers = np.empty(0, dtype=np.intp)

    def diagnose(self, atoms: Atoms, found: Sensitivity) -> Diagnosis:
        """Diagnose a configuration.

        Parameters
        ----------
        atoms
            The configuration.
        found
            Its sensitivity.
        """
        if not np.array_equal(atoms.numbers, self._numbers):  # of others nothing is learnt
            self._steepest, self._known, self._numbers = np.inf, None, atoms.numbers.copy()
        self.budget.begin()
        with threads_for(3 * len(atoms)):
            diagnosis = self._diagnose(atoms, found)
        if self.budget.exceeded:
            diagnosis = replace(diagnosis, how="skipped")
            self._n_skipped += 1
            if self._n_skipped % REFRESH == 0:  # something else may have kept the machine busy
                self.budget.cost = None
        if found.n_apart and diagnosis.cause in (None, *EXPECTED):
            # Nobody sees them move against each other: singular as it is.
            return replace(diagnosis, distance=0.0, cause="fragment", slope=None)
        return diagnosis

    def _diagnose(self, atoms: Atoms, found: Sensitivity) -> Diagnosis:
        if len(found.modes) == 0:
            return NOT_LOOKED_AT
        # Small cells have steep values, large ones flat ones: learn from the run what is small.
        limit = min(self._suspicious, STEEPER * self._steepest * NEAR * self._within)
        if not (found.ratio < limit or self._always):
            self._known = None
            return NOT_LOOKED_AT
        known = self._known
        n_suspects = self._suspects(found)
        recalled = None if known is None else known.recalled(atoms, found, n_suspects)
        if recalled is not None and not self._always:
            return recalled
        fixed = fixed_atoms(atoms) if self._apply_constraints else None
        # A descriptor may do to a copy what it likes.
        system = system_of(atoms.copy(), self._descriptor, self._scope, found.center, fixed)
        asked = self._asked_quickly(system, found) or self._asked(system, found)
        if asked is None:
            return recalled or NOT_LOOKED_AT
        if recalled is None and asked.distance <= NEAR * self._within and asked.here is None:
            asked = self._asked(system, found) or asked  # a closer look takes the complete spectrum
        if not asked.nearby.singular:
            steepest = float((asked.sigma / asked.nearby.distances).max()) / found.scale
            before = self._steepest if np.isfinite(self._steepest) else 0.0
            self._steepest = max(before, steepest)
        if recalled is not None:
            slope = _relative_slope(system, asked, asked.nearby.nearest)
            return Diagnosis(asked.distance, recalled.cause, slope, system.points, "known")
        number, cause, distance, how = asked.nearby.nearest, None, asked.distance, "estimate"
        if asked.here is not None and distance <= NEAR * self._within:
            number, cause, walked = self._cause(system, asked.here, asked.nearby)
            how = "filter" if walked is None else "walk"
            distance = float(asked.nearby.distances[number]) if walked is None else walked
        slope = _relative_slope(system, asked, number)
        diagnosis = Diagnosis(distance, cause, slope, system.points, how)
        logger.debug("%s: %s at %.3f Å", how, cause, distance)
        order = np.argsort(system.points, kind="stable")
        self._known = Remembered(
            diagnosis,
            number,
            modes=np.array([system.shift(mode)[order] for mode in asked.modes]),
            values=asked.sigma,
            n_null=found.n_null,
            center=found.center,
            cutoff=reach_of(self._descriptor),
            atoms=atoms.copy(),
            slack=max(distance - self._within, self._within / 4) if cause is None else 0.0,
        )
        return diagnosis

    def _asked(self, system: System, known: Sensitivity) -> _Asked | None:
        """Ask the lowest modes for their distance; None if there is no time."""
        lowest = LOWEST if self._always else self._suspects(known)
        if not self.budget.allows(1 if known.n_null else 1 + lowest):
            return None
        here = self.budget.measured(lambda: point_at(system, system.start))
        found = here.found
        lowest = LOWEST if self._always else self._suspects(found)
        if not found.n_null and not self.budget.allows(lowest):
            return None
        nearby = estimate(system, here, lowest)
        return _Asked(found.modes.T[:lowest], found.singular_values[:lowest], nearby, here)

    def _asked_quickly(self, system: System, found: Sensitivity) -> _Asked | None:
        """The same without any Jacobian, where the modes known already and the descriptor allow."""
        n_values = found.n_coordinates - found.n_trivial
        known = (
            found.n_null == 0
            and len(found.modes) >= min(LOWEST, n_values)
            and self._scope != "environment"  # where points may be in another order
        )
        if not known:
            return None
        lowest = LOWEST if self._always else self._suspects(found)
        modes, sigma = found.modes[:lowest, system.moving], found.singular_values[:lowest]
        modes = modes.reshape(len(modes), -1)
        nearby = quick_estimate(system, system.start, modes, sigma)
        return None if nearby is None else _Asked(modes, sigma, nearby, None)

    def _cause(
        self, system: System, here: Point, nearby: Estimate
    ) -> tuple[int, str | None, float | None]:
        """A mode, the cause, and the distance if a walk gave one.

        Something benign may be next to something that is not: all modes that are near are asked.
        """
        if nearby.singular:
            return 0, label(system, here, here.found.modes[:, : here.found.n_null]), 0.0
        order = np.argsort(nearby.distances, kind="stable").tolist()
        first: tuple[int, str | None, float | None] = order[0], None, None
        # The same for all modes, and needed for some only.
        space = cache(partial(harmless, system, here, blind=BLIND_NEARBY))
        near_fragments = cache(partial(near_fragment_modes, system, here))
        explained: list[tuple[float, Floats]] = []
        for number in order:
            if nearby.distances[number] > NEAR * self._within:
                break
            distance = float(nearby.distances[number])
            mode = here.found.modes[:, [number]]
            # Where it is low, an estimate is by a factor of two.
            if any(
                far <= 2 * distance and projected_weight(mode, ends) > EXPLAINED_NEAR
                for far, ends in explained
            ):
                continue
            cause, walked = self._harmless(mode, distance, space, near_fragments), None
            if cause is None:
                if not self.budget.allows(WALK):
                    continue
                went = self._walk(system, here, number, CLOSE_ENOUGH)
                if not went.arrived:
                    continue
                cause, walked = cause_of(system, here, went), went.distance
                if cause not in EXPECTED:  # of which kind only the exact geometry tells
                    exact = self._walk(system, here, number, EXACT)
                    apart = exact.end.atoms.positions - went.end.atoms.positions
                    if exact.arrived and np.linalg.norm(apart) < NEARBY[0]:
                        cause = cause_of(system, here, exact)
                if cause not in EXPECTED and walked <= self._within:
                    return number, cause, walked
                if cause in EXPECTED:
                    explained.append((walked, vanishing(went)))
            if first[1] is None:
                first = number, cause, walked
        return first

    def _walk(self, system: System, here: Point, number: int, arrived: float) -> Walk:
        reach = 2 * NEAR * self._within
        go_on = partial(self.budget.allows, 2)
        return walk(system, here, number, arrived=arrived, max_distance=reach, go_on=go_on)

    @staticmethod
    def _harmless(
        mode: Floats,
        distance: float,
        space: Callable[[float], Floats],
        near_fragments: Callable[[], Floats],
    ) -> str | None:
        """The cause of a mode if it is seen to be harmless without a walk."""
        if projected_weight(mode, near_fragments()) > EXPLAINED:
            return "fragment"
        score = projected_weight(mode, space(as_far(distance)))
        if score >= EXPLAINED_NEAR:
            return "symmetry" if score > EXPLAINED else "near-symmetric"
        return None

    def _suspects(self, found: Sensitivity | Spectrum) -> int:
        """How many modes are suspicious, as far as they are asked."""
        limit = self._suspicious * found.scale
        return int(np.clip((found.singular_values < limit).sum(), 1, LOWEST))


def _relative_slope(system: System, asked: _Asked, number: int) -> Floats | None:
    """Derivative of a singular value by the points, relative to it; None where it is zero."""
    if asked.nearby.singular:
        return None
    slope = np.zeros((len(system.start), 3))
    slope[system.moving] = asked.nearby.slopes[number] / asked.sigma[number]
    return slope
