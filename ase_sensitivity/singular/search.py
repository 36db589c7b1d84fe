"""Singular configurations of a wanted cause, from many starts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_sensitivity.causes.cause import NULL_CAUSES
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.singular.feature_map import FeatureMap
from ase_sensitivity.types import Floats, Scope
from ase_sensitivity.validation import as_integer, as_number

logger = logging.getLogger(__name__)

REACH = 1.0
"""How far a walk may go, in Å."""

LEAST = 0.25
"""Displacements are at least this fraction of the largest: small ones find what is near to the
start, such as configurations next to a symmetric one."""


@dataclass(frozen=True, eq=False)
class SingularPoint:
    """A singular configuration.

    Attributes
    ----------
    atoms
        The configuration; in environment scope the center and then its neighbors, as a cluster.
        ``info`` has the cause, the ratio and the rmsd.
    cause
        Why it is singular: one of "fragment", "symmetry", "incompleteness",
        "truncation" and "unknown" (:doc:`/causes`).
    mode
        The displacement that is invisible there, of shape (n_atoms, 3), normalised.
    ratio
        sigma_min / sigma_max.
    rmsd
        Distance in Å from the structure that the search began with, under any rotation, reflection
        and permutation of like atoms.
    energy
        In eV, relative to that structure; None without a calculator.
    start
        Which start led here first, counted from 0.
    count
        How many walks ended here.
    """

    atoms: Atoms
    cause: str
    mode: Floats
    ratio: float
    rmsd: float
    energy: float | None
    start: int
    count: int


@dataclass(frozen=True, eq=False)
class SingularSearch:
    """What a search for singular configurations found.

    Attributes
    ----------
    found
        Whether there is any.
    message
        What was found, in words.
    points
        The configurations of the wanted cause, all different, in the order they were found.
    n_starts
        Number of starts.
    n_successful
        Number of starts that led to a configuration of the wanted cause.
    n_walks, n_arrived
        Number of walks, and of those that ended at a singular configuration.
    causes
        How many of these had which cause.
    n_duplicates
        Walks that ended where another had.
    n_too_high
        Walks that ended above the energy ceiling.
    n_evaluations
        Number of Jacobians.
    """

    found: bool
    message: str
    points: tuple[SingularPoint, ...]
    n_starts: int
    n_successful: int
    n_walks: int
    n_arrived: int
    causes: dict[str, int]
    n_duplicates: int
    n_too_high: int
    n_evaluations: int

    def __repr__(self) -> str:
        return f"SingularSearch(found={self.found}, message={self.message!r})"


def find_singular(
    atoms: Atoms,
    descriptor: Given,
    *,
    cause: str | None = None,
    scope: Scope = "structure",
    center: int | None = None,
    n_starts: int = 20,
    n_walks: int = 3,
    displacement: float = 0.5,
    rng: int | np.random.Generator | None = 0,
    min_distance: float = 0.05,
    calculator: Any = None,
    energy_ceiling: float | None = None,
    max_evaluations: int = 20_000,
    callback: Callable[[int, int], None] | None = None,
) -> SingularSearch:
    """Look for singular configurations of a wanted cause.

    Parameters
    ----------
    atoms
        Where to begin. It is not changed; its constraints are ignored.
    descriptor
        The descriptor, as of :func:`~ase_sensitivity.analyze`.
    cause
        ``"symmetry"``, ``"fragment"``, ``"incompleteness"``, ``"truncation"`` or ``"unknown"``
        (:doc:`/causes`); by default any. A harmful one of this cause is taken even if a harmless
        one is nearer.
    scope, center
        As in :func:`~ase_sensitivity.analyze`; not ``"atom"``.
    n_starts
        Number of starts: ``atoms`` after random displacements.
    n_walks
        Walks from each start: the second and further ones from where the one before ended,
        displaced again by half as much.
    displacement
        Largest norm of the displacements in Å; a quarter of it is the smallest. Where they would
        bring atoms into contact or above the energy ceiling, they are made smaller.
    rng
        Seed or generator of the displacements.
    min_distance
        Configurations are the same if their best match has an rmsd below this, in Å.
    calculator
        Any ASE calculator: gives the energies.
    energy_ceiling
        Configurations with more energy than this above ``atoms``, in eV, are left out.
    max_evaluations
        Number of Jacobians after which no further walk is made.
    callback
        Called with the number of starts done and the number of all, after each.

    Returns
    -------
    SingularSearch
        The configurations, different ones only, and counts.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense.

    Notes
    -----
    Walks are those of :func:`~ase_sensitivity.nearest_singular`. Atoms never come closer than
    0.7 Å, or than 0.9 times the closest two of the start.

    Examples
    --------
    Methane with features on carbon only:

    >>> from ase.build import molecule
    >>> from ase_sensitivity import SOAP
    >>> soap = SOAP(["H"], cutoff=3, n_max=8, l_max=8, atom_sigma=0.3, centers=["C"])
    >>> search = find_singular(molecule("CH4"), soap, cause="incompleteness", n_starts=4)
    >>> search.found, search.points[0].cause
    (True, 'incompleteness')
    """
    if cause is not None and cause not in NULL_CAUSES:
        raise ValueError(
            f"`cause` is {cause!r} but must be one of {', '.join(NULL_CAUSES)}, or None"
        )
    for name, count in (("n_starts", n_starts), ("n_walks", n_walks)):
        as_integer(name, count, 1)
    for name, value in (("displacement", displacement), ("min_distance", min_distance)):
        as_number(name, value, "positive")
    _check_has("calculator", calculator, "get_potential_energy")
    _check_has("callback", callback, "__call__")
    if energy_ceiling is not None and calculator is None:
        raise ValueError("`energy_ceiling` needs a `calculator`")
    if calculator is not None and scope != "structure":
        raise ValueError('a `calculator` needs scope="structure": a cluster is not the structure')
    features = FeatureMap(atoms, descriptor, scope, center)
    energy = _Energy(features, calculator)
    ceiling = np.inf if energy_ceiling is None else energy_ceiling
    tally = _Tally(features, cause, ceiling, min_distance)
    for start, (end, point) in _walks(
        features, energy, ceiling, cause, n_starts, n_walks, displacement, rng, callback
    ):
        tally.add(start, end, point)
        if features.n_evaluations >= max_evaluations:
            logger.info("no further walk after %d Jacobians", features.n_evaluations)
            break
    return tally.result()


def _check_has(name: str, given: object, needed: str) -> None:
    """Raise TypeError if an argument that is not None lacks a method."""
    if given is not None and (isinstance(given, type) or not hasattr(given, needed)):
        raise TypeError(f"`{name}` is {given!r}, which has no `{needed}`")


class _Tally:
    """What the walks of a search have found so far."""

    def __init__(
        self, features: FeatureMap, cause: str | None, ceiling: float, min_distance: float
    ) -> None:
        self._features = features
        self._cause = cause
        self._ceiling = ceiling
        self._min_distance = min_distance
        self._points: list[SingularPoint] = []
        self._successful: set[int] = set()
        self._causes: Counter[str] = Counter()
        self._n_walks = self._n_too_high = self._n_duplicates = self._n_starts = 0

    def add(self, start: int, end: Floats, point: SingularPoint | None) -> None:
        """Add the end of a walk, and the singular configuration there, if it is one."""
        self._n_starts = start + 1
        self._n_walks += 1
        if point is None:
            return
        self._causes[point.cause] += 1
        if point.energy is not None and point.energy > self._ceiling:
            self._n_too_high += 1
        elif self._cause in (None, point.cause):
            self._successful.add(start)
            self._keep(replace(point, start=start), end)

    def _keep(self, point: SingularPoint, end: Floats) -> None:
        for n, known in enumerate(self._points):
            if self._features.match(known.atoms.positions, end).rmsd < self._min_distance:
                self._points[n] = replace(known, count=known.count + 1)
                self._n_duplicates += 1
                return
        self._points.append(point)

    def result(self) -> SingularSearch:
        """The result of the search."""
        kind = "" if self._cause is None else f" by {self._cause}"
        message = (
            f"{len(self._points)} different configurations singular{kind} from "
            f"{len(self._successful)} of {self._n_starts} starts"
        )
        if self._n_too_high:
            message += f"; {self._n_too_high} were above the energy ceiling"
        return SingularSearch(
            found=bool(self._points),
            message=message,
            points=tuple(self._points),
            n_starts=self._n_starts,
            n_successful=len(self._successful),
            n_walks=self._n_walks,
            n_arrived=sum(self._causes.values()),
            causes=dict(self._causes),
            n_duplicates=self._n_duplicates,
            n_too_high=self._n_too_high,
            n_evaluations=self._features.n_evaluations,
        )


class _Energy:
    """Energies in eV relative to the start; nothing without a calculator."""

    def __init__(self, features: FeatureMap, calculator: Any) -> None:
        self._features = features
        self._calculator = calculator
        self._start = 0.0 if calculator is None else self._absolute(features.start.positions)

    def _absolute(self, positions: Floats) -> float:
        atoms = self._features.atoms(positions)
        atoms.calc = self._calculator
        return float(atoms.get_potential_energy())

    def __call__(self, positions: Floats) -> float | None:
        if self._calculator is None:
            return None
        return self._absolute(positions) - self._start

    def keep(self, atoms: Atoms, energy: float | None) -> None:
        """Let the energy be written along with the atoms."""
        if energy is not None:
            atoms.calc = SinglePointCalculator(atoms, energy=energy + self._start)


def _walks(
    features: FeatureMap,
    energy: _Energy,
    ceiling: float,
    cause: str | None,
    n_starts: int,
    n_walks: int,
    displacement: float,
    rng: int | np.random.Generator | None,
    callback: Callable[[int, int], None] | None,
) -> Iterator[tuple[int, tuple[Floats, SingularPoint | None]]]:
    """Every walk's start, end, and what it found."""
    generator = np.random.default_rng(rng)
    for start in range(n_starts):
        here, length = features.start.positions, displacement
        for _ in range(n_walks):
            amount = length * generator.uniform(LEAST, 1.0)
            begin = _displaced(features, energy, ceiling, here, amount, generator)
            end, point = _walked(features, energy, begin, cause)
            yield start, (end, point)
            low = point is not None and (point.energy is None or point.energy <= ceiling)
            here, length = end if low else begin, displacement / 2
        if callback is not None:
            callback(start + 1, n_starts)


def _displaced(
    features: FeatureMap,
    energy: _Energy,
    ceiling: float,
    here: Floats,
    length: float,
    rng: np.random.Generator,
) -> Floats:
    """A random displacement, without contacts and below the ceiling."""
    for _ in range(50):
        moved = features.displaced(rng, length, here)
        if np.isinf(ceiling) or (energy(moved) or 0.0) <= ceiling:
            return moved
        length *= 0.8
    return here


def _walked(
    features: FeatureMap, energy: _Energy, begin: Floats, cause: str | None
) -> tuple[Floats, SingularPoint | None]:
    """Where a walk ends, and what is there, if it is singular."""
    end, found = features.walk(begin, REACH, cause)
    if not found.found or found.cause is None:
        return end, None
    mode = np.zeros_like(end)
    mode[found.points] = found.mode
    above = energy(end)
    atoms = features.atoms(end)
    rmsd = features.match(features.start.positions, end).rmsd
    atoms.info.update(cause=found.cause, ratio=found.ratio, rmsd=rmsd)
    energy.keep(atoms, above)
    return end, SingularPoint(atoms, found.cause, mode, found.ratio, rmsd, above, 0, 1)
