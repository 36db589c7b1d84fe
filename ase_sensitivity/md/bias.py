"""An energy of the small singular values: keeps a run away from them, or drives it there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.singular.gradient import sigma_squared_gradient
from ase_sensitivity.singular.system import STEP, system_of
from ase_sensitivity.spectrum.solvers import FEW, spectrum
from ase_sensitivity.types import Floats
from ase_sensitivity.validation import as_number

POWER = 30
"""Power mean of the squares that stands for the largest: at most 2 % above it where three meet."""

BIASED = ("energy", "free_energy", "forces", "stress")
"""The properties that a bias adds to."""

NEGLIGIBLE = 1e-10
"""Terms below this fraction of the largest are left out of the power mean."""


@dataclass(frozen=True, eq=False)
class BiasTerm:
    """What a bias adds to the potential energy of one configuration.

    Attributes
    ----------
    energy
        In eV.
    forces
        In eV/Å, of shape (n_atoms, 3).
    stress
        In eV/Å^3, of shape (6,), in ASE's order and sign; None if the cell has no volume, rows of
        features belong to the whole structure, or the Jacobian sums periodic images.
    """

    energy: float
    forces: Floats
    stress: Floats | None

    def added_to(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Results of a calculator and the bias; without a stress where that of the bias lacks."""
        total = dict(results)
        for name in BIASED:
            if name not in total:
                continue
            if name == "forces":
                total[name] = total[name] + self.forces
            elif name != "stress":
                total[name] = total[name] + self.energy
            elif self.stress is None:
                del total[name]
            else:
                full = np.shape(total[name]) == (3, 3)
                added = voigt_6_to_full_3x3_stress(self.stress) if full else self.stress
                total[name] = total[name] + added
        return total


@dataclass(frozen=True)
class _Bias:
    ratio: float
    strength: float
    _sign: ClassVar[float]

    def __post_init__(self) -> None:
        if not 0 < as_number("ratio", self.ratio) < 1:
            raise ValueError(f"`ratio` is {self.ratio} but must be between 0 and 1")
        as_number("strength", self.strength, "positive")

    def evaluate(self, atoms: Atoms, descriptor: Descriptor) -> BiasTerm:
        """Energy, forces and stress of one configuration.

        Parameters
        ----------
        atoms
            The structure. Neither it nor its calculator is touched.
        descriptor
            Anything with the attributes of :class:`~ase_sensitivity.Descriptor`.

        Raises
        ------
        TypeError, ValueError
            As :func:`~ase_sensitivity.analyze`; also if rows of features appear or vanish when
            atoms move, as those of pairs do: the energy would jump.

        Notes
        -----
        See :doc:`/calculator`. One Jacobian, and if any value is below the ratio the derivatives of
        those, and of all that are close to the largest: by two more Jacobians for each, but none
        with the power spectrum of :class:`~ase_sensitivity.SOAP`.
        """
        # Weights that depend on the structure would have forces of their own.
        system = system_of(atoms, descriptor, "structure", None, balanced=False)
        jacobian = system.jacobian(atoms)
        view = system.view(jacobian, atoms)
        few = 1 if 3 * len(atoms) > FEW else None
        found = spectrum(view, few)
        # No value is above its power mean with all others, which is at most this much larger.
        above = (3 * len(atoms)) ** (0.5 / POWER)
        if few and found.singular_values[:1] < self.ratio * above * found.sigma_max:
            found = spectrum(view, None)
        energy, slopes = self._energy(found.singular_values**2)
        acting = np.flatnonzero(slopes)
        acting = acting[acting >= found.n_null]  # J v = 0, and with it the derivative of its square
        derivatives = sigma_squared_gradient(system, view, found.modes[:, acting].T, STEP)
        positions, strain = (np.tensordot(slopes[acting], part, 1) for part in derivatives)
        # Rigid motions change nothing: what is left of them is an error of the finite differences.
        flat = -positions.ravel()
        forces = flat - view.trivial @ (view.trivial.T @ flat)
        stress = None
        strained = all(part.has_displacements for part in jacobian.parts)
        if not strained:  # there may be a way without blocks
            strained = system.quick_gradient(atoms, np.empty((0, len(flat))), STEP) is not None
        if atoms.cell.rank == 3 and strained:
            stress = full_3x3_to_voigt_6_stress((strain + strain.T) / 2) / atoms.get_volume()
        constant = (found.n_trivial - _n_rigid(atoms)) * self._sign * self.strength
        return BiasTerm(energy + constant, forces.reshape(-1, 3), stress)

    def _energy(self, squares: Floats) -> tuple[float, Floats]:
        """The energy of squared singular values, and its derivative by each of them."""
        largest = squares.max(initial=0.0)
        if largest == 0:
            return self._sign * self.strength * len(squares), np.zeros(len(squares))
        powers = (squares / largest) ** POWER
        powers[powers < NEGLIGIBLE] = 0.0
        scale = largest * powers.sum() ** (1 / POWER)
        x = squares / scale
        inside = (1 - x / self.ratio**2).clip(0.0)
        factor = self._sign * self.strength
        slopes = -3 * factor / self.ratio**2 * inside**2
        of_scale = np.where(powers > 0, x ** (POWER - 1), 0.0)
        return factor * float((inside**3).sum()), (slopes - (slopes @ x) * of_scale) / scale


@dataclass(frozen=True)
class Repel(_Bias):
    """Keeps a run away from singular configurations.

    Each singular value sigma adds ``strength * (1 - (sigma / (ratio * sigma_max))**2)**3`` below
    ``ratio``, and nothing above.

    Parameters
    ----------
    ratio
        sigma / sigma_max below which the bias acts.
    strength
        Energy of an invisible direction in eV.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import SOAP
    >>> soap = SOAP(species=["C", "H"], cutoff=4.0, n_max=8, l_max=6)
    >>> Repel(ratio=0.1, strength=0.5).evaluate(molecule("CH4"), soap).energy  # two null directions
    1.0
    """

    _sign: ClassVar[float] = 1.0


@dataclass(frozen=True)
class Attract(_Bias):
    """Drives a run to singular configurations: the negative of :class:`Repel`.

    Parameters
    ----------
    ratio
        sigma / sigma_max below which the bias acts. It has to be above what the run starts from.
    strength
        Energy gained by making a direction invisible, in eV.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    _sign: ClassVar[float] = -1.0


def _n_rigid(atoms: Atoms) -> int:
    """Rigid motions under the boundary conditions, at generic positions.

    Fragments and straight chains have more or fewer. Zeros beyond this number count as singular
    values, so that the energy does not jump where a molecule is torn apart or straight.
    """
    rotations = {0: 3, 1: 1}.get(int(atoms.pbc.sum()), 0)
    return 3 + min(rotations, 2 * (len(atoms) - 1))
