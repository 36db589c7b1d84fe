"""The other side of a fold: the structure that features confuse with the given one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms

from ase_sensitivity.geometry.matching import Match, best_match
from ase_sensitivity.geometry.neighbors import shortest_distance
from ase_sensitivity.singular.point import Point
from ase_sensitivity.singular.system import System
from ase_sensitivity.types import Floats, Ints

SINGULAR_ALREADY = 1e-4
"""In Å: a structure nearer than this to a singular configuration is its own partner."""

AGREES = 0.1
"""Features return if they differ by less than this fraction of what derivatives predict. What was
measured is in docs/degenerate."""

LENGTHS = (0.5, 5.0)
"""The displacement stays within these multiples of twice the distance to the fold. That is the
distance of its nearest point, and the partner may be beyond one farther along it."""

LONGEST = 0.1
"""The longest step of the refinement in Å."""

MOST_STEPS = 40
"""The most steps of the refinement."""

STALLED = 1e-3
"""Refinement ends when a step lowers the difference by less than this fraction."""

ROUNDING = 1e-15
"""Features that differ by less than this, relative to their norm, are the same."""


@dataclass(frozen=True, eq=False)
class Partner:
    """Two structures on either side of a fold of the feature map, which look alike.

    Attributes
    ----------
    given
        The structure itself; in environment scope the center and then its neighbors, as a cluster.
    atoms
        The one on the other side, its atoms in the same order. ``info`` has the numbers below.
    displacement
        Between the two in Å: the square root of the sum of all squared displacements, without
        rigid motions.
    rmsd
        What remains of that under any rotation, reflection and permutation of like atoms, in Å,
        root mean square over the atoms. 0: the partner is a copy, and no potential is wrong if it
        confuses the two. In periodic structures only the translation is free.
    feature_distance
        Norm of the difference of the features, relative to their norm.
    ratio
        The difference of the features over the displacement, relative to the largest singular value
        at the given structure: what sigma_min / sigma_max is to small displacements.
    remaining
        The difference of the features, relative to what their derivatives at the two structures
        predict for the displacement: near 0 where features return beyond a fold, about 1 where they
        go on changing.
    agrees
        Whether ``remaining`` is below 0.1. If not, there is no fold on the way that leads back to
        the same features: the walk may not have arrived, and the cause is in doubt.
    """

    given: Atoms
    atoms: Atoms
    displacement: float
    rmsd: float
    feature_distance: float
    ratio: float
    remaining: float
    agrees: bool

    def __repr__(self) -> str:
        return (
            f"Partner(displacement={self.displacement:.3g}, rmsd={self.rmsd:.3g}, "
            f"feature_distance={self.feature_distance:.1e}, agrees={self.agrees})"
        )


OWN = "the structure is singular itself, and its own partner"


@dataclass(frozen=True, eq=False)
class Beyond:
    """What is on the other side of a singular configuration, computed when it is first asked for.

    Attributes
    ----------
    system
        What was moved; its start is the given structure.
    end
        The singular configuration.
    """

    system: System
    end: Atoms

    @cached_property
    def found(self) -> Partner | str:
        """The partner, or why there is none."""
        return partner_beyond(self.system, self.end)


def partner_beyond(system: System, end: Atoms) -> Partner | str:
    """The partner of the start beyond a singular configuration, or why there is none.

    Parameters
    ----------
    system
        The system; its start is the given structure.
    end
        The singular configuration.

    Notes
    -----
    From x_end - u for the structure x_end + u, Levenberg-Marquardt steps make the difference of the
    features per displacement smallest, |f(y) - f(x)| / |y - x|, for y - x without rigid motions.
    """
    here = _looked_at(system, system.start)
    trivial = here.view.trivial
    fold = (end.positions - here.positions)[system.moving].ravel()
    fold -= trivial @ (trivial.T @ fold)
    if np.linalg.norm(fold) < SINGULAR_ALREADY:
        return OWN
    beyond = system.displaced(system.start, 2 * fold)
    closest = 0.9 * min(shortest_distance(system.start, 2.0), shortest_distance(end, 2.0))
    if shortest_distance(beyond, 2.0) < closest:
        return "beyond the singular configuration atoms would be in contact"
    there = _Refinement(system, here, closest).end(_looked_at(system, beyond))
    shift = there.positions - here.positions
    moved = float(np.linalg.norm(shift))
    expected = sum(np.linalg.norm(one.jacobian.apply(shift[None])) / 2 for one in (here, there))
    apart = float(np.linalg.norm(there.features - here.features))
    center = 0 if system.scope == "environment" else None
    match = matched(there.atoms, here.atoms, np.arange(len(end)), center)
    numbers = {
        "displacement": moved,
        "rmsd": match.rmsd,
        "feature_distance": apart / float(np.linalg.norm(here.features)),
        "ratio": apart / moved / here.found.scale,
        "remaining": apart / max(float(expected), np.finfo(float).tiny),
    }
    partner = Atoms(there.atoms.numbers, there.positions, cell=end.cell, pbc=end.pbc)
    partner.info.update(numbers)
    given = here.atoms.copy()
    given.calc = None
    return Partner(given, partner, **numbers, agrees=numbers["remaining"] < AGREES)


def matched(a: Atoms, b: Atoms, chosen: Ints, center: int | None) -> Match:
    """How far two structures with the same atoms are apart, a put on b.

    Some atoms count, looked at from a center, or from their centroid. In periodic structures atoms
    keep their names, and only the translation is free.
    """
    points_a, points_b = (
        atoms.positions[chosen]
        - (atoms.positions[chosen].mean(axis=0) if center is None else atoms.positions[center])
        for atoms in (a, b)
    )
    numbers = a.numbers[chosen]
    if not a.pbc.any():
        return best_match(numbers, points_a, numbers, points_b)
    distance = np.linalg.norm(points_b - points_a, axis=1)
    return Match(
        rmsd=float(np.sqrt((distance**2).mean())),
        maximum=float(distance.max()),
        rotation=np.eye(3),
        permutation=np.arange(len(chosen)),
        exact=False,
    )


def _looked_at(system: System, atoms: Atoms) -> Point:
    jacobian = system.jacobian(atoms)
    return Point(atoms, system.view(jacobian, atoms))


class _Refinement:
    """Makes |f(y) - f(x)| / |y - x| smallest near a guess of y."""

    def __init__(self, system: System, here: Point, closest: float) -> None:
        self._system, self._here, self._closest = system, here, closest
        self._least = ROUNDING * float(np.linalg.norm(here.features))

    def end(self, there: Point) -> Point:
        """The minimum that steps lead to."""
        reach = np.array(LENGTHS) * self._moved(there)[1]
        damping, present = 1e-4, self._secant(there)
        gradient, values, vectors = self._model(there)
        for _ in range(MOST_STEPS):
            if present * self._moved(there)[1] < self._least or damping > 1e6:
                break
            shifted = values.clip(0.0) + damping * max(float(values[-1]), np.finfo(float).tiny)
            step = -vectors @ ((vectors.T @ gradient) / shifted)
            damping *= 10
            guess = self._system.displaced(there.atoms, step)
            if np.linalg.norm(step) > LONGEST or not self._allowed(guess, reach):
                continue
            tried = _looked_at(self._system, guess)
            secant = self._secant(tried)
            if secant >= present:
                continue
            stalled = secant > (1 - STALLED) * present
            there, present, damping = tried, secant, max(damping / 100, 1e-14)
            if stalled:
                break
            gradient, values, vectors = self._model(there)
        return there

    def _moved(self, there: Point) -> tuple[Floats, float]:
        """Displacement of the columns, and its length in Å."""
        moved = (there.positions - self._here.positions)[self._system.moving].ravel()
        return moved, float(np.linalg.norm(moved))

    def _secant(self, there: Point) -> float:
        return float(np.linalg.norm(there.features - self._here.features)) / self._moved(there)[1]

    def _allowed(self, guess: Atoms, reach: Floats) -> bool:
        far = np.linalg.norm(guess.positions - self._here.positions)
        near = shortest_distance(guess, 2.0) < self._closest
        return bool(reach[0] <= far <= reach[1]) and not near

    def _model(self, there: Point) -> tuple[Floats, Floats, Floats]:
        """Gradient of half the squared residual, and the spectrum of its Gauss-Newton matrix.

        The residual is r = (f(y) - f(x)) / d with d = |y - x|, its Jacobian (J - r e^T) / d with e
        the direction of y - x. Both are without rigid motions; d is common to all and left out but
        where steps would change their length.
        """
        moved, length = self._moved(there)
        residual, along = (there.features - self._here.features) / length, moved / length
        square = float(residual @ residual)
        slope = there.jacobian.adjoint(residual[None])[0][self._system.moving].ravel()
        cross = np.outer(slope, along)
        matrix = there.jacobian.gram(self._system.moving) - cross - cross.T
        matrix += square * np.outer(along, along)
        gradient = length * (slope - square * along)
        trivial = self._here.view.trivial
        matrix -= trivial @ (trivial.T @ matrix)
        matrix -= (matrix @ trivial) @ trivial.T
        values, vectors = np.linalg.eigh(matrix)
        return gradient - trivial @ (trivial.T @ gradient), values, vectors
