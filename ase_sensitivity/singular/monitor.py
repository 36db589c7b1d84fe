"""The distance of a run to singular configurations and their causes, with little work."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import fixed_atoms
from ase_sensitivity.causes.cause import EXPECTED, SPURIOUS
from ase_sensitivity.descriptors.base import Descriptor, HasMemory, reach_of
from ase_sensitivity.linalg.threads import threads_for
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.arrival import Arrivals, cause_here
from ase_sensitivity.singular.budget import WALK, Budget
from ase_sensitivity.singular.diagnosis import NOT_LOOKED_AT, Diagnosis
from ase_sensitivity.singular.point import LOWEST, Point, point_at
from ase_sensitivity.singular.recall import REFRESH, Remembered
from ase_sensitivity.singular.system import System, system_of
from ase_sensitivity.singular.walk import Estimate, estimate, quick_estimate
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


SAME = 1e-10
"""Modes with squared overlaps that are nearer to one are the same."""


@dataclass(frozen=True, eq=False)
class _Lowest:
    """The lowest modes of a system, with estimates of their distances.

    Attributes
    ----------
    modes, sigma
        Of shape (m, 3 n_columns), and their singular values.
    nearby
        Their distances to first order.
    here
        The system with its complete spectrum; None if the estimate did without.
    """

    modes: Floats
    sigma: Floats
    nearby: Estimate
    here: Point | None

    @property
    def distance(self) -> float:
        """The smallest distance in Å."""
        return float(self.nearby.distances.min(initial=np.inf))

    def is_of(self, modes: Floats) -> bool:
        """Whether these modes (m, 3 n_columns) are the same, but for their signs."""
        if modes.shape != self.modes.shape:
            return False
        overlap = (modes * self.modes).sum(axis=1) ** 2
        return bool((overlap > 1 - SAME).all())

    def relative_slope(self, system: System, number: int) -> Floats | None:
        """Derivative of a singular value by the points, relative to it; None where it is zero."""
        if self.nearby.singular:
            return None
        slope = np.zeros((len(system.start), 3))
        slope[system.moving] = self.nearby.slopes[number] / self.sigma[number]
        return slope


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
        self._seconds = 0.0
        self._numbers = np.empty(0, dtype=np.intp)

    def diagnose(self, atoms: Atoms, found: Sensitivity, seconds: float = 0.0) -> Diagnosis:
        """Diagnose a configuration.

        Parameters
        ----------
        atoms
            The configuration.
        found
            Its sensitivity.
        seconds
            How long that took. A descriptor may remember its Jacobian, of which the budget then
            learns nothing.
        """
        self._seconds = seconds if isinstance(self._descriptor, HasMemory) else 0.0
        if not np.array_equal(atoms.numbers, self._numbers):  # another system
            self._steepest, self._known, self._numbers = np.inf, None, atoms.numbers.copy()
        if len(found.modes) == 0 or not self._is_suspicious(found):
            self._known, diagnosis, self.budget.exceeded = None, NOT_LOOKED_AT, False
        else:
            with self.budget.call(), threads_for(3 * len(atoms)):
                diagnosis = self._diagnose(atoms, found)
        if self.budget.exceeded:
            diagnosis = replace(diagnosis, how="skipped")
            self._n_skipped += 1
            if self._n_skipped % REFRESH == 0:  # something else may have kept the machine busy
                self.budget.cost = None
        if found.n_apart and diagnosis.cause in (None, *EXPECTED):
            # No center sees these fragments move against each other: singular as it is.
            return replace(diagnosis, distance=0.0, cause="fragment", slope=None)
        return diagnosis

    def _diagnose(self, atoms: Atoms, found: Sensitivity) -> Diagnosis:
        recalled = None
        if self._known is not None:
            recalled = self._known.recalled(atoms, found, self._n_suspicious(found))
        if recalled is not None and not self._always:
            return recalled
        fixed = fixed_atoms(atoms) if self._apply_constraints else None
        # A copy, which the descriptor may change.
        system = system_of(atoms.copy(), self._descriptor, self._scope, found.center, fixed)
        lowest = self._lowest(system, found, closely=recalled is None)
        if lowest is None:
            return recalled or NOT_LOOKED_AT
        self._learn(lowest, found.scale)
        if recalled is not None:
            slope = lowest.relative_slope(system, lowest.nearby.nearest)
            return replace(recalled, distance=lowest.distance, slope=slope, points=system.points)
        number, diagnosis = self._new_diagnosis(system, lowest)
        self._remember(atoms, found, system, lowest, number, diagnosis)
        return diagnosis

    def _is_suspicious(self, found: Sensitivity) -> bool:
        """Whether the ratio is small for this run.

        Singular values are steep in small cells and flat in large ones: the run tells.
        """
        limit = min(self._suspicious, STEEPER * self._steepest * NEAR * self._within)
        return found.ratio < limit or self._always

    def _n_suspicious(self, found: Sensitivity | Spectrum) -> int:
        """How many of the lowest modes are suspicious, from one to `LOWEST`."""
        limit = self._suspicious * found.scale
        return int(np.clip((found.singular_values < limit).sum(), 1, LOWEST))

    def _learn(self, lowest: _Lowest, scale: float) -> None:
        """Keep the largest ratio per Å of distance of the run."""
        if lowest.nearby.singular:
            return
        steepest = float((lowest.sigma / lowest.nearby.distances).max()) / scale
        before = self._steepest if np.isfinite(self._steepest) else 0.0
        self._steepest = max(before, steepest)

    def _lowest(self, system: System, found: Sensitivity, closely: bool) -> _Lowest | None:
        """The lowest modes; with their complete spectrum if they are near and that is asked for.

        None if there is no time.
        """
        quick = self._lowest_quickly(system, found)
        if quick is None:
            return self._lowest_by_jacobians(system, found)
        if closely and quick.distance <= NEAR * self._within:
            return self._lowest_by_jacobians(system, found, quick) or quick
        return quick

    def _lowest_by_jacobians(
        self, system: System, known: Sensitivity, quick: _Lowest | None = None
    ) -> _Lowest | None:
        n_modes = LOWEST if self._always else self._n_suspicious(known)
        if not self.budget.allows(1 if known.n_null else 1 + n_modes):
            return None
        evaluate = partial(point_at, system, system.start, in_blocks=False)
        here = self.budget.measured(evaluate, self._seconds)
        found = here.found
        n_modes = LOWEST if self._always else self._n_suspicious(found)
        if not found.n_null and not self.budget.allows(n_modes):
            return None
        modes, sigma = found.modes.T[:n_modes], found.singular_values[:n_modes]
        if quick is not None and quick.is_of(modes):
            return _Lowest(modes, sigma, quick.nearby, here)
        return _Lowest(modes, sigma, estimate(system, here, n_modes), here)

    def _lowest_quickly(self, system: System, found: Sensitivity) -> _Lowest | None:
        """Without any Jacobian, where the known modes and the descriptor allow it."""
        n_values = found.n_coordinates - found.n_trivial
        known = (
            found.n_null == 0
            and len(found.modes) >= min(LOWEST, n_values)
            and self._scope != "environment"  # where points may be in another order
        )
        if not known:
            return None
        n_modes = LOWEST if self._always else self._n_suspicious(found)
        modes, sigma = found.modes[:n_modes, system.moving], found.singular_values[:n_modes]
        modes = modes.reshape(len(modes), -1)
        nearby = quick_estimate(system, system.start, modes, sigma)
        return None if nearby is None else _Lowest(modes, sigma, nearby, None)

    def _new_diagnosis(self, system: System, lowest: _Lowest) -> tuple[int, Diagnosis]:
        """The number of the nearest mode, and the diagnosis."""
        number, near = lowest.nearby.nearest, NEAR * self._within
        slope = lowest.relative_slope(system, number)
        diagnosis = Diagnosis(lowest.distance, None, slope, system.points, "estimate")
        here = lowest.here
        if here is None or lowest.distance > near:
            return number, diagnosis
        if lowest.nearby.singular:
            cause = cause_here(system, here)
            return number, replace(diagnosis, distance=0.0, cause=cause, how="filter")
        found = Arrivals(
            system,
            here,
            lowest.nearby,
            reach=2 * near,
            may_walk=partial(self.budget.allows, WALK),
            before_walk=self.budget.measured_on_top,
            go_on=partial(self.budget.allows, 2),
            only_harmful=True,
        ).of_all(near)
        walked = any(one.n_steps for one in found)
        diagnosis = replace(diagnosis, how="walk" if walked else "filter")
        known = [one for one in found if one.cause is not None]
        if not known:
            return number, diagnosis
        nearest = known[0]
        diagnosis = replace(diagnosis, distance=nearest.distance, cause=nearest.cause)
        harmful = next((one for one in known if one.cause in SPURIOUS), None)
        if harmful is not None and harmful is not nearest:
            diagnosis = replace(
                diagnosis, harmful_distance=harmful.distance, harmful_cause=harmful.cause
            )
        logger.debug("%s: %s at %.3f Å", diagnosis.how, nearest.cause, nearest.distance)
        number = nearest.number
        return number, replace(diagnosis, slope=lowest.relative_slope(system, number))

    def _remember(
        self,
        atoms: Atoms,
        found: Sensitivity,
        system: System,
        lowest: _Lowest,
        number: int,
        diagnosis: Diagnosis,
    ) -> None:
        order = np.argsort(system.points, kind="stable")
        slack = max(diagnosis.distance - self._within, self._within / 4)
        self._known = Remembered(
            diagnosis,
            number,
            modes=np.array([system.shift(mode)[order] for mode in lowest.modes]),
            values=lowest.sigma,
            n_null=found.n_null,
            center=found.center,
            cutoff=reach_of(self._descriptor),
            atoms=atoms.copy(),
            slack=slack if diagnosis.cause is None else 0.0,
        )
