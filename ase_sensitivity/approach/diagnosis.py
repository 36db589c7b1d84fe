"""How near a run is to something singular, and whether that matters: as little work as will do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from ase import Atoms, units

from ase_sensitivity.analysis import Scope, fixed_atoms
from ase_sensitivity.approach.label import (
    BLIND_NEARBY,
    HARMLESS,
    HELD,
    NEARBY,
    NEARLY,
    as_far,
    harmless,
    held,
    hinged,
    label,
)
from ase_sensitivity.approach.nearest import cause_of, vanishing
from ase_sensitivity.approach.subject import Subject, subject
from ase_sensitivity.approach.walk import (
    CLOSE_ENOUGH,
    LOWEST,
    Estimate,
    Place,
    Walk,
    estimate,
    place,
    quick_estimate,
    walk,
)
from ase_sensitivity.descriptors.base import Descriptor, Floats, Ints
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.spectrum.solvers import Spectrum
from ase_sensitivity.structure import neighbor_pairs

logger = logging.getLogger(__name__)

SUSPICIOUS = 0.1
"""Ratio below which the distance is estimated. Incompleteness 0.1 Å away shows as ratios up to
0.07, and as 0.03 in most directions."""

STEEPER = 1.5
"""A singular value may fall this much more steeply than any did before in the run."""

NEAR = 1.25
"""What an estimate puts within this many times the distance that matters is looked at closely.
Estimates are too low rather than too high (docs/approach)."""

ALIKE = 0.9
"""Squared overlap of a mode with those of an earlier call that makes it the same mode."""

FALLEN = 1 / 3
"""A singular value that has fallen to this fraction of what it was may do so for a new reason."""

EXACT = 1e-8
"""Ratio to which a walk goes on where the kind of what is spurious has to be told."""

MEETING = 0.1
"""Singular values that differ by less than this fraction may have exchanged parts of their modes:
others belong to modes that only overlap a little."""

REFRESH = 50
"""Calls after which a diagnosis is made anew in any case."""


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What is known of the nearest singular configuration.

    Attributes
    ----------
    distance
        In Å, nan if the call gave no reason to look: from the walk, or to first order.
    cause
        As in :class:`~ase_sensitivity.NearestSingular`; None if nothing is near.
    slope
        Derivative of the singular value that vanishes there by the positions of the points,
        divided by that value, of shape (n_points, 3), per Å; None if it is zero or unknown.
    points
        The atom of each point, of shape (n_points,).
    how
        "ratio" (not looked at), "estimate", "filter", "walk", or "known" from an earlier call.
    """

    distance: float
    cause: str | None
    slope: Floats | None
    points: Ints | None
    how: str

    def arrival(self, velocities: Floats) -> float:
        """Time in fs until the singular value vanishes at these velocities (ASE's unit).

        nan if it grows, or was not looked at.
        """
        if self.slope is None:
            return float("nan")
        rate = float((self.slope * velocities[self.points]).sum())  # d log(sigma) / dt
        return -1 / rate / units.fs if rate < 0 else float("nan")


NOT_LOOKED_AT = Diagnosis(float("nan"), None, None, None, "ratio")


@dataclass(eq=False)
class _Known:
    """A diagnosis, and by what to recognise the state it was made for.

    Attributes
    ----------
    diagnosis
        The diagnosis.
    number
        Which mode it is about.
    modes, values
        All modes that were asked, of shape (m, n_points, 3) in the order of the atoms, and their
        singular values.
    n_null, center
        Number of null vectors, and centre.
    atoms, slack
        Unless harmless, the diagnosis holds until the positions have changed by this, in Å.
    age
        Number of calls since then.
    neighbors
        All pairs of neighbours, listed when somebody asks.
    """

    diagnosis: Diagnosis
    number: int
    modes: Floats
    values: Floats
    n_null: int
    center: int | None
    atoms: Atoms
    slack: float
    age: int = 0
    neighbors: bytes | None = None


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
    here: Place | None

    @property
    def distance(self) -> float:
        """The smallest distance in Å."""
        return float(self.nearby.distances.min(initial=np.inf))


class Watch:
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
    ) -> None:
        self._descriptor = descriptor
        self._scope = scope
        self._within = within
        self._always = always
        self._apply_constraints = apply_constraints
        self._suspicious = suspicious
        self._steepest = np.inf  # largest ratio per Å of distance of the run; nothing seen yet
        self._known: _Known | None = None

    def look(self, atoms: Atoms, found: Sensitivity) -> Diagnosis:
        """Diagnose a configuration.

        Parameters
        ----------
        atoms
            The configuration.
        found
            Its sensitivity.
        """
        if len(found.modes) == 0:
            return NOT_LOOKED_AT
        # Small cells have steep values, large ones flat ones: learn from the run what is small.
        limit = min(self._suspicious, STEEPER * self._steepest * NEAR * self._within)
        if not (found.ratio < limit or self._always):
            self._known = None
            return NOT_LOOKED_AT
        recalled = self._recalled(atoms, found)
        if recalled is not None and not self._always:
            return recalled
        fixed = fixed_atoms(atoms) if self._apply_constraints else None
        # A descriptor may do to a copy what it likes.
        this = subject(atoms.copy(), self._descriptor, self._scope, found.center, fixed)
        asked = self._asked_quickly(this, found) or self._asked(this)
        if recalled is None and asked.distance <= NEAR * self._within and asked.here is None:
            asked = self._asked(this)  # a closer look takes the complete spectrum
        if not asked.nearby.singular:
            steepest = float((asked.sigma / asked.nearby.distances).max()) / found.sigma_max
            before = self._steepest if np.isfinite(self._steepest) else 0.0
            self._steepest = max(before, steepest)
        if recalled is not None:
            slope = _relative_slope(this, asked, asked.nearby.nearest)
            return Diagnosis(asked.distance, recalled.cause, slope, this.points, "known")
        number, cause, distance, how = asked.nearby.nearest, None, asked.distance, "estimate"
        if asked.here is not None and distance <= NEAR * self._within:
            number, cause, walked = self._cause(this, asked.here, asked.nearby)
            how = "filter" if walked is None else "walk"
            distance = float(asked.nearby.distances[number]) if walked is None else walked
        slope = _relative_slope(this, asked, number)
        diagnosis = Diagnosis(distance, cause, slope, this.points, how)
        logger.debug("%s: %s at %.3f Å", how, cause, distance)
        order = np.argsort(this.points, kind="stable")
        self._known = _Known(
            diagnosis,
            number,
            modes=np.array([this.shift(mode)[order] for mode in asked.modes]),
            values=asked.sigma,
            n_null=found.n_null,
            center=found.center,
            atoms=atoms.copy(),
            slack=max(distance - self._within, self._within / 4) if cause is None else 0.0,
        )
        return diagnosis

    def _asked(self, this: Subject) -> _Asked:
        """Ask the lowest modes for their distance."""
        here = place(this, this.start)
        found = here.found
        lowest = LOWEST if self._always else self._suspects(found)
        nearby = estimate(this, here, lowest)
        return _Asked(found.modes.T[:lowest], found.singular_values[:lowest], nearby, here)

    def _asked_quickly(self, this: Subject, found: Sensitivity) -> _Asked | None:
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
        modes, sigma = found.modes[:lowest, this.moving], found.singular_values[:lowest]
        modes = modes.reshape(len(modes), -1)
        nearby = quick_estimate(this, this.start, modes, sigma)
        return None if nearby is None else _Asked(modes, sigma, nearby, None)

    def _cause(
        self, this: Subject, here: Place, nearby: Estimate
    ) -> tuple[int, str | None, float | None]:
        """A mode, the cause, and the distance if a walk gave one.

        Something benign may be next to something that is not: all modes that are near are asked.
        """
        if nearby.singular:
            return 0, label(this, here, here.found.modes[:, : here.found.n_null]), 0.0
        order = np.argsort(nearby.distances, kind="stable").tolist()
        first: tuple[int, str | None, float | None] = order[0], None, None
        # The same for all modes, and needed for some only.
        space = cache(partial(harmless, this, here, blind=BLIND_NEARBY))
        hinges = cache(partial(hinged, this, here))
        explained: list[tuple[float, Floats]] = []
        for number in order:
            if nearby.distances[number] > NEAR * self._within:
                break
            distance = float(nearby.distances[number])
            mode = here.found.modes[:, [number]]
            # Where it is low, an estimate is by a factor of two.
            if any(far <= 2 * distance and held(mode, ends) > NEARLY for far, ends in explained):
                continue
            cause, walked = self._harmless(mode, distance, space, hinges), None
            if cause is None:
                went = self._walk(this, here, number, CLOSE_ENOUGH)
                if not went.arrived:
                    continue
                cause, walked = cause_of(this, here, went), went.distance
                if cause not in HARMLESS:  # of which kind only the exact geometry tells
                    exact = self._walk(this, here, number, EXACT)
                    apart = exact.end.atoms.positions - went.end.atoms.positions
                    if np.linalg.norm(apart) < NEARBY[0]:
                        cause = cause_of(this, here, exact)
                if cause not in HARMLESS and walked <= self._within:
                    return number, cause, walked
                if cause in HARMLESS:
                    explained.append((walked, vanishing(went)))
            if first[1] is None:
                first = number, cause, walked
        return first

    def _walk(self, this: Subject, here: Place, number: int, arrived: float) -> Walk:
        reach = 2 * NEAR * self._within
        return walk(this, here, number, arrived=arrived, max_distance=reach)

    @staticmethod
    def _harmless(
        mode: Floats,
        distance: float,
        space: Callable[[float], Floats],
        hinges: Callable[[], Floats],
    ) -> str | None:
        """The cause of a mode if it is seen to be harmless without a walk."""
        score = held(mode, space(as_far(distance)))
        if score >= NEARLY:
            return "symmetry" if score > HELD else "near-symmetric"
        return "fragment" if held(mode, hinges()) > HELD else None

    def _suspects(self, found: Sensitivity | Spectrum) -> int:
        """How many modes are suspicious, as far as they are asked."""
        limit = self._suspicious * found.sigma_max
        return int(np.clip((found.singular_values < limit).sum(), 1, LOWEST))

    def _neighbors(self, atoms: Atoms) -> bytes:
        if not np.isfinite(self._descriptor.cutoff):
            return b""
        pairs = neighbor_pairs(atoms, self._descriptor.cutoff)
        order = np.lexsort((*pairs.shift.T, pairs.second, pairs.first))
        both = np.column_stack([pairs.first, pairs.second, pairs.shift])[order]
        return both.tobytes()

    def _same_neighbors(self, known: _Known, atoms: Atoms) -> bool:
        if known.neighbors is None:
            known.neighbors = self._neighbors(known.atoms)
        return known.neighbors == self._neighbors(atoms)

    def _recalled(self, atoms: Atoms, found: Sensitivity) -> Diagnosis | None:
        """The last diagnosis, if the state is still the same."""
        known = self._known
        if known is None or known.center != found.center:
            return None
        known.age += 1
        if known.age > REFRESH or known.n_null != found.n_null:
            return None
        before = known.diagnosis
        if found.n_null:
            if not self._same_neighbors(known, atoms):
                return None
            return Diagnosis(0.0, before.cause, None, before.points, "known")
        modes = found.modes[:, np.argsort(found.atoms, kind="stable")]
        if modes.shape[1:] != known.modes.shape[1:]:
            return None
        shares = np.einsum("kij,mij->km", modes, known.modes) ** 2
        share, values = shares[:, known.number], found.singular_values
        leading = values[share.argmax()]
        same = np.abs(values - leading) <= MEETING * leading
        if share[same].sum() < ALIKE:
            return None
        if before.cause in HARMLESS:
            # Every mode that would be asked now must have been asked, and be what it was.
            shares_of = shares[: self._suspects(found)]
            expected = np.sqrt(shares_of @ known.values**2)
            if (shares_of.sum(axis=1) < ALIKE).any():
                return None
            if (values[: len(expected)] < FALLEN * expected).any():
                return None
        else:
            # No distance changes by more than the positions do.
            change = atoms.positions - known.atoms.positions
            if np.linalg.norm(change - change.mean(axis=0)) > known.slack:
                return None
        if not self._same_neighbors(known, atoms):
            return None
        # Of a combination of modes, singular values add up in squares.
        sigma = float(np.sqrt((share[same] * values[same] ** 2).sum() / share[same].sum()))
        change_of_value = sigma / float(known.values[known.number])
        slope = before.slope
        if slope is not None:
            # A singular value that has passed zero grows again: its slope has turned round.
            change = (atoms.positions - known.atoms.positions)[before.points]
            passed = 1 + float((slope * change).sum()) < 0
            slope = slope / (-change_of_value if passed else change_of_value)
        distance = before.distance * change_of_value
        return Diagnosis(distance, before.cause, slope, before.points, "known")


def _relative_slope(this: Subject, asked: _Asked, number: int) -> Floats | None:
    """Derivative of a singular value by the points, relative to it; None where it is zero."""
    if asked.nearby.singular:
        return None
    slope = np.zeros((len(this.start), 3))
    slope[this.moving] = asked.nearby.slopes[number] / asked.sigma[number]
    return slope
