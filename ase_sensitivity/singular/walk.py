"""The walk to the nearest singular configuration (:doc:`/approach`)."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms

from ase_sensitivity.geometry.neighbors import shortest_distance
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.jacobian.accumulate import mirror
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.singular.gradient import slope
from ase_sensitivity.singular.point import LOWEST, Point, point_at
from ase_sensitivity.singular.system import System, aligned, difference
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

ASIDE = 1e-6
"""Displacement in Å for differences to one side, which are off by about its ratio to the distance.
"""

LONGEST = 0.15
"""The longest step in Å of :func:`steps`."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Distances to first order.

    Attributes
    ----------
    distances
        To where each of the lowest modes becomes singular, in Å, of shape (m,): zero if the first
        one is.
    slopes
        Derivatives of their singular values, of shape (m, n_columns, 3), per Å; none if the first
        mode is singular.
    n_jacobians
        Number of Jacobians that this took.
    """

    distances: Floats
    slopes: Floats
    n_jacobians: int = 0

    @property
    def singular(self) -> bool:
        """Whether the first mode is singular, or there is none: nothing was estimated."""
        return len(self.slopes) == 0

    @property
    def nearest(self) -> int:
        """Which mode has the smallest distance."""
        return 0 if self.singular else int(self.distances.argmin())

    @classmethod
    def of(cls, sigma: Floats, slopes: Floats, n_jacobians: int = 0) -> Estimate:
        """From singular values (m,) and their derivatives (m, n_columns, 3)."""
        steepness = np.linalg.norm(slopes.reshape(len(sigma), -1), axis=1)
        return cls(sigma / np.maximum(steepness, 1e-300), slopes, n_jacobians)


def estimate(system: System, here: Point, lowest: int = LOWEST) -> Estimate:
    """Estimate the distance of the lowest modes, by as little as the descriptor needs for it."""
    found = here.found
    if found.n_null or len(found.singular_values) == 0:
        return Estimate(np.zeros(min(1, found.n_null)), np.empty((0, here.view.n_columns, 3)))
    modes, sigma = found.modes.T[:lowest], found.singular_values[:lowest]
    known = quick_estimate(system, here.atoms, modes, sigma)
    if known is not None:
        return known
    slopes = [slope(system, here.jacobian, mode, system.ahead(here.atoms, mode)) for mode in modes]
    return Estimate.of(sigma, np.array(slopes) / sigma[:, None, None], len(slopes))


def quick_estimate(system: System, atoms: Atoms, modes: Floats, sigma: Floats) -> Estimate | None:
    """Estimate the distance of modes (m, 3 n_columns) with values (m,), none of them zero.

    None if the descriptor cannot do it without Jacobians.
    """
    derivatives = system.quick_gradient(atoms, modes, ASIDE, central_difference=False)
    if derivatives is None:
        return None
    return Estimate.of(sigma, derivatives[0][:, system.moving] / (2 * sigma[:, None, None]))


def steps(
    system: System, start: Point, number: int, *, max_distance: float, closest: float
) -> Generator[tuple[Point, int], None, str]:
    """Follow a mode towards where its singular value vanishes, by Levenberg-Marquardt steps.

    The damping falls with the square of the ratio, so that the last steps are Newton steps.

    Parameters
    ----------
    system
        What is moved.
    start
        Where to start from.
    number
        The mode to follow, counted from the smallest singular value.
    max_distance
        How far from the start to go, in Å.
    closest
        The shortest distance of two atoms, in Å; or 0.9 times that of the start.

    Yields
    ------
    tuple
        After each step the configuration and the number of the mode there.

    Returns
    -------
    str
        Why the walk ended.
    """
    at, damping = start, 1e-2
    closest = min(closest, 0.9 * shortest_distance(start.atoms))
    while at.ratio(number) > 0:
        mode = at.found.modes[:, number]
        ahead = system.ahead(at.atoms, mode)
        normal, downhill = _normal_equations(system, at, number, ahead)
        values, vectors = np.linalg.eigh(normal)
        back = (start.atoms.positions - at.atoms.positions)[at.view.atoms].ravel()
        back = vectors.T @ _without(at.view.trivial, back)
        message = "no step makes the singular value smaller"
        for _ in range(4):
            penalty = max(damping, 1e-13) * values[-1]
            inverse = 1 / (values.clip(0.0) + penalty)
            step = vectors @ (inverse * (penalty * back - vectors.T @ downhill))
            step = _without(at.view.trivial, step)
            step *= min(1.0, LONGEST / max(float(np.linalg.norm(step)), 1e-12))
            moved = system.displaced(at.atoms, step)
            damping *= 10
            if np.linalg.norm(moved.positions - start.atoms.positions) >= max_distance:
                message = f"nothing singular within {max_distance:g} Å on this way"
                continue
            if shortest_distance(moved) <= closest:
                message = "atoms come too close to each other"
                continue
            trial = point_at(system, moved)
            followed = trial.mode_like(mode)
            fall = trial.ratio(followed) / at.ratio(number)
            if fall < 0.85:
                at, number = trial, followed
                damping = max(damping / 10 * max(fall**2, 1e-4), 1e-12)
                break
        else:
            return message
        yield at, number
    return "a singular configuration"


def _normal_equations(
    system: System, at: Point, number: int, ahead: StackedJacobian
) -> tuple[Floats, Floats]:
    """M^T M and M^T u sigma, with M = (1 - U_r U_r^T) H (1 - T T^T).

    U_r are all left singular vectors but u, T the trivial modes, H the derivative of J along v.
    """
    found, t, n = at.found, at.view.trivial, 3 * at.view.n_columns
    cross, square = np.zeros((n, n)), np.zeros((n, n))
    for here, after in zip(at.jacobian.parts, ahead.parts, strict=True):
        _add_products(here, difference(after, here), at.view, cross, square)
    sigma = found.singular_values
    rest = sigma > 1e-8 * found.scale
    rest[number] = False
    projected_weight = (found.modes[:, rest].T @ cross) / sigma[rest, None]
    normal = square - projected_weight.T @ projected_weight
    downhill = slope(system, at.jacobian, found.modes[:, number], ahead).ravel()
    return _without(t, _without(t, normal).T), _without(t, downhill)


def _add_products(
    here: FeatureJacobian, change: FeatureJacobian, view: View, cross: Floats, square: Floats
) -> None:
    """Add J^T H to ``cross`` and H^T H to ``square``."""
    if aligned(here, change):
        column = view.column(here)
        rows = zip(here.row_blocks(column), change.row_blocks(column), strict=True)
        for (columns, j, _), (_, h, _) in rows:
            where = coordinates_of(columns)
            cross[np.ix_(where, where)] += j @ h.T
            square[np.ix_(where, where)] += h @ h.T
        return
    n = len(cross)
    total = np.zeros((2 * n, 2 * n))
    both, columns = _side_by_side(here, change, view)
    both.add_gram(columns, total)
    mirror(total)
    cross += total[:n, n:]
    square += total[n:, n:]


def _without(t: Floats, x: Floats) -> Floats:
    return x - t @ (t.T @ x)


def _side_by_side(
    here: FeatureJacobian, change: FeatureJacobian, view: View
) -> tuple[FeatureJacobian, Ints]:
    """J and its derivative as one Jacobian of twice as many columns."""
    row = np.concatenate([here.row, change.row])
    order = np.argsort(row, kind="stable")
    own, other = view.column(here), view.column(change)
    columns = np.concatenate([own, np.where(other < 0, -1, other + view.n_columns)])[order]
    both = replace(
        here,
        row=row[order],
        atom=np.concatenate([here.atom, change.atom])[order],
        displacement=np.concatenate([here.displacement, change.displacement])[order],
        blocks=np.concatenate([here.blocks, change.blocks])[order],
    )
    return both, columns
