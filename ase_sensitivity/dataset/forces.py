"""The force error and the slopes that a descriptor makes unavoidable (:ref:`fits`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.geometry.fragments import Fragment
from ase_sensitivity.geometry.rotations import cross
from ase_sensitivity.geometry.structure import is_periodic
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.spectrum.rigid import trivial_modes
from ase_sensitivity.types import Floats

THRESHOLDS = np.logspace(-10, 0, 41)
"""Values of sigma / sigma_max at which the curve is computed, of shape (41,)."""

NOISE = 1e-8
"""In eV/Å. No reference forces are as accurate as this."""

ROUNDING = 1e-9
"""Parts of the forces below this fraction of their root mean square are rounding errors."""


AXES = np.eye(3)


@dataclass(frozen=True, eq=False)
class ForceLoss:
    """The part of the forces of one frame that no fit can learn, and the slope that a fit needs.

    Attributes
    ----------
    lost
        The part of the forces that no model on these features has, in eV/Å, of shape (n_atoms, 3).
        Components below the accuracy of the forces are zero.
    between_fragments
        Root mean square in eV/Å of the lost forces outside of all null directions. These are forces
        between parts that no center sees together.
    curve
        Sum of the squares of the lost forces in eV²/Å², of shape (41,), for models that use only
        directions with singular values above :data:`THRESHOLDS` times sigma_max.
    required_slope
        The smallest slope of a model with the right forces, times sigma_max, in eV/Å.
    rms_force
        Root mean square of the force components in eV/Å.
    net_force
        Length of the sum of the forces in eV/Å. It acts on a rigid motion and does not count as
        lost.
    net_torque
        Length of their torque about the centroid in eV; None if periodic images prevent a rotation
        of the structure.
    """

    lost: Floats
    between_fragments: float
    curve: Floats
    required_slope: float
    rms_force: float
    net_force: float
    net_torque: float | None

    @property
    def irreducible(self) -> float:
        """Root mean square of the lost components in eV/Å."""
        return _rms(self.lost)


def force_loss(atoms: Atoms, forces: Floats, found: Sensitivity) -> ForceLoss:
    """The part of the reference forces of one frame that is lost.

    Parameters
    ----------
    atoms
        The structure.
    forces
        Reference forces in eV/Å, of shape (n_atoms, 3).
    found
        All singular values and modes in structure scope (``k=None``).

    Notes
    -----
    The forces of any model are in the row space of the Jacobian. Their components along rigid
    motions of the whole structure are removed first, as a net force or torque is an error of the
    data. Components along motions of fragments against each other are not removed, although no
    descriptor sees these motions.
    """
    n_atoms = len(atoms)
    axes = _rotation_axes(atoms)
    rigid = _rigid_motions(atoms)
    internal = _without(rigid, forces)
    modes = found.modes.reshape(len(found.modes), 3 * n_atoms)
    values = found.singular_values
    along = modes @ internal.ravel()
    seen = slice(found.n_null, None)
    rms_force = _rms(forces)
    known = max(NOISE, ROUNDING * rms_force)
    if found.method == "gram" and not found.n_null and rigid.shape[1] + len(modes) == 3 * n_atoms:
        lost = rest = np.zeros(3 * n_atoms)  # the modes span all but rigid motions
    else:
        lost = outside(modes[seen], internal.ravel(), known)
        rest = outside(modes[: found.n_null], lost, known)
    # In ascending order: fragments and null vectors first, then one mode after the other.
    resolved, along = values[seen], along[seen]
    squares = np.full(len(along) + 1, float(np.vdot(lost, lost)))
    squares[1:] += np.cumsum(along**2)
    curve = squares[resolved.searchsorted(THRESHOLDS * found.sigma_max)]
    slopes = along / resolved
    center = atoms.positions - atoms.positions.sum(axis=0) / n_atoms
    torque = axes @ cross(center, forces).sum(axis=0)
    net = forces.sum(axis=0)
    return ForceLoss(
        lost=lost.reshape(n_atoms, 3),
        between_fragments=_rms(rest),
        curve=curve,
        required_slope=_length(slopes) * found.sigma_max,
        rms_force=rms_force,
        net_force=_length(net),
        net_torque=_length(torque) if len(axes) else None,
    )


def _length(numbers: Floats) -> float:
    """Square root of the sum of squares; faster than ``numpy.linalg.norm``."""
    return math.sqrt(np.vdot(numbers, numbers))


def _rms(numbers: Floats) -> float:
    return _length(numbers) / math.sqrt(numbers.size)


def _rotation_axes(atoms: Atoms) -> Floats:
    """Axes about which the whole structure can rotate, of shape (3, 1 or 0, 3)."""
    if not is_periodic(atoms):
        return AXES
    vectors = atoms.cell.array[atoms.pbc]
    return vectors / np.linalg.norm(vectors) if len(vectors) == 1 else np.empty((0, 3))


def internal_forces(atoms: Atoms, forces: Floats) -> Floats:
    """The forces without components along rigid motions of the whole structure, (n_atoms, 3)."""
    return _without(_rigid_motions(atoms), forces)


def _rigid_motions(atoms: Atoms) -> Floats:
    """Rigid motions of the whole structure, of shape (3 n_atoms, any)."""
    whole = Fragment(np.arange(len(atoms)), atoms.positions, atoms.cell.array[atoms.pbc])
    return trivial_modes([whole], len(atoms))


def _without(modes: Floats, forces: Floats) -> Floats:
    return forces - (modes @ (modes.T @ forces.ravel())).reshape(-1, 3)


def outside(modes: Floats, forces: Floats, known: float) -> Floats:
    """The part of forces (n,) outside the span of modes (m, n); 0 where it is below ``known``."""
    # Modes with very different values come from different steps: orthogonal only up to 1e-9.
    basis = np.linalg.qr(modes.T)[0]
    rest = forces - basis @ (basis.T @ forces)
    rest[np.abs(rest) <= known] = 0.0
    return rest
