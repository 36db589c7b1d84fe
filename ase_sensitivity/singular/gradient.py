"""How singular values change with the positions and with strain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.singular.system import STEP, System, check_rows, system_of
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.spectrum.solvers import Spectrum, spectrum
from ase_sensitivity.types import Floats, Ints, Scope
from ase_sensitivity.validation import as_integer, as_number

EQUAL_VALUES = 1e-4
"""Singular values that differ by less than this fraction are taken together."""


@dataclass(frozen=True, eq=False)
class Gradient:
    """A singular value, or the root mean square of several close ones, and its derivatives.

    Attributes
    ----------
    value
        In 1/Å times the unit of the features.
    members
        Which non-trivial singular values it is made of, counted from the smallest.
    positions
        Derivative with respect to the position of each point, of shape (n_points, 3), per Å.
    points
        The atom that each point belongs to, of shape (n_points,): in structure and atom scope all
        atoms, in environment scope the center and then every neighbor image.
    strain
        Derivative with respect to a strain of positions and cell, symmetric, of shape (3, 3); nan
        where rows belong to the whole structure, or the Jacobian sums periodic images.
    """

    value: float
    members: tuple[int, ...]
    positions: Floats
    points: Ints
    strain: Floats

    @property
    def distance(self) -> float:
        """Distance to where the value vanishes, to first order, in Å."""
        steepness = float(np.linalg.norm(self.positions))
        return self.value / steepness if steepness > 0 else float("inf")

    def __repr__(self) -> str:
        return f"Gradient(value={self.value:.3g}, {len(self.positions)} points)"


def gradient(
    atoms: Atoms,
    descriptor: Given,
    *,
    scope: Scope = "structure",
    center: int | None = None,
    index: int = 0,
    tolerance: float = EQUAL_VALUES,
    step: float = STEP,
) -> Gradient:
    """Differentiate a singular value by positions and strain.

    Where singular values meet, each has a kink, but the root mean square of all that meet is
    smooth. It is what is returned for values closer than ``tolerance``.

    Parameters
    ----------
    atoms, descriptor, scope, center
        As in :func:`~ase_sensitivity.analyze`.
    index
        Which non-trivial singular value, counted from the smallest.
    tolerance
        Values that differ by less than this fraction belong together.
    step
        Displacement in Å along the modes for the derivative of the Jacobian.

    Returns
    -------
    Gradient
        The value and its derivatives. Add up ``positions`` over the images of an atom by
        ``points`` in environment scope.

    Raises
    ------
    TypeError
        If ``atoms`` or ``descriptor`` is something else.
    ValueError
        If there is no such singular value, or it is zero, where it has a kink.

    Notes
    -----
    d sigma / d x = u^T (J(x + h v) - J(x - h v)) / 2h (:ref:`gradient`): two more Jacobians
    for each singular value, but none for the power spectrum of :class:`~ase_sensitivity.SOAP`. The
    error is of order ``step`` squared.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import SOAP
    >>> ammonia = molecule("NH3")
    >>> soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
    >>> found = gradient(ammonia, soap)
    >>> found.members, f"{found.distance:.2f} Å from planarity to first order"
    ((0, 1), ...)
    """
    index = as_integer("index", index, 0)
    if not 0 <= as_number("tolerance", tolerance) < 1:
        raise ValueError(f"`tolerance` is {tolerance} but must be at least 0 and below 1")
    if not 0 < as_number("step", step) <= 0.1:
        raise ValueError(f"`step` is {step} but must be positive and at most 0.1 Å")
    system = system_of(atoms, descriptor, scope, center)
    jacobian = system.jacobian(system.start)
    view = system.view(jacobian, system.start)
    found = spectrum(view)
    sigma = found.singular_values
    if len(sigma) == 0:
        raise ValueError("there is nothing but rigid motions: no singular value has a gradient")
    if len(sigma) <= index:
        raise ValueError(f"`index` is {index} but there are {len(sigma)} singular values")
    members = _meeting(found, index, tolerance)
    value = float(np.sqrt((sigma[members] ** 2).mean()))
    if members[0] < found.n_null:
        raise ValueError(f"singular value {index} is zero, where it has no gradient")
    derivatives = sigma_squared_gradient(system, view, found.modes[:, members].T, step)
    positions, strain = (part.sum(axis=0) for part in derivatives)
    scale = 1 / (2 * value * len(members))
    return Gradient(
        value=value,
        members=tuple(members.tolist()),
        positions=scale * positions,
        points=system.points,
        strain=scale * (strain + strain.T) / 2,
    )


def _meeting(found: Spectrum, index: int, tolerance: float) -> Ints:
    """All values that are linked to one by gaps below a fraction."""
    sigma = found.singular_values
    part = np.concatenate([[0], np.cumsum(np.diff(sigma) > tolerance * sigma[1:])])
    return np.flatnonzero(part == part[index])


def sigma_squared_gradient(
    system: System, view: View, modes: Floats, step: float
) -> tuple[Floats, Floats]:
    """Derivatives of |J v|^2 at fixed v, each by positions (n_points, 3) and by strain (3, 3).

    Those by strain are nan where the Jacobian has no displacements.

    Parameters
    ----------
    system, view
        The subject, and its view at the start.
    modes
        The v, of shape (m, 3 n_columns).
    step
        For the differences along them, in Å.

    Raises
    ------
    ValueError
        If rows of features appear or vanish with the step.
    """
    positions, strain = np.zeros((len(modes), len(system.start), 3)), np.zeros((len(modes), 3, 3))
    if len(modes) == 0:
        return positions, strain
    quick = system.quick_gradient(system.start, modes, step)
    if quick is not None:
        return quick
    for number, mode in enumerate(modes):
        shift = system.shift(mode)[None]
        rows = [part.changes(shift) for part in view.parts]
        for sign in (1, -1):
            moved = system.jacobian(system.displaced(system.start, sign * step * mode))
            for w, part, before in zip(rows, moved.parts, view.parts, strict=True):
                check_rows(part, before)
                forces = sign / step * part.forces(w)[0]
                np.add.at(positions[number], part.atom, forces)
                strain[number] += forces.T @ part.displacement
        # The mode stays what it is while positions are strained.
        for w, part in zip(rows, view.parts, strict=True):
            strain[number] -= 2 * part.adjoint(w.reshape(1, -1))[0].T @ shift[0]
    if not all(part.has_displacements for part in view.parts):
        strain[:] = np.nan
    return positions, strain


def slope(system: System, here: StackedJacobian, mode: Floats, ahead: StackedJacobian) -> Floats:
    """Half the derivative of |J v|^2 at fixed v, by the points that may move, (n_columns, 3).

    Parameters
    ----------
    system, here, mode
        The system, its Jacobian, and v.
    ahead
        The Jacobian a step along v (:meth:`System.ahead`).

    Raises
    ------
    ValueError
        If rows appear or vanish with the step.
    """
    total = np.zeros((len(system.start), 3))
    for after, before in zip(ahead.parts, here.parts, strict=True):
        check_rows(after, before)
        rows = before.apply(system.shift(mode)[None])
        total += (after.adjoint(rows) - before.adjoint(rows))[0] / STEP
    return total[system.moving]
