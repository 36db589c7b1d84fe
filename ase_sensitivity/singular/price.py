"""What a reference calculator says to two structures that features confuse."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.plain_text import reason
from ase_sensitivity.singular.partner import Partner, matched
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Price:
    """Difference of energies and forces of a structure and its partner.

    Attributes
    ----------
    energy
        Absolute difference of the energies in eV. 0 where symmetry is the cause.
    forces
        Root mean square difference of the force components in eV/Å, the partner rotated, reflected
        and permuted to the best match. As the two are apart, it is 0 for copies alone.
    energies
        Of the structure and of its partner, in eV.
    """

    energy: float
    forces: float
    energies: tuple[float, float]

    def __repr__(self) -> str:
        return f"Price(energy={self.energy:.3g} eV, forces={self.forces:.3g} eV/Å)"


class Pricing:
    """Prices of partners of one structure, of which a calculator is asked once.

    Parameters
    ----------
    atoms
        The structure.
    calculator
        Any ASE calculator with energies and forces.

    Raises
    ------
    TypeError
        If it is no calculator.
    """

    def __init__(self, atoms: Atoms, calculator: Any) -> None:
        check_price(calculator)
        self._atoms, self._calculator = atoms, calculator

    def of(self, partner: Partner, points: Ints) -> Price | str:
        """The price of a partner, or why there is none.

        Parameters
        ----------
        partner
            Of the structure, or of one of its environments.
        points
            The atom that each point of the partner belongs to.
        """
        if np.bincount(points).max() > 1:
            return "the environment has several images of an atom, which do not move apart"
        other = self._atoms.copy()
        other.positions[points] += partner.atoms.positions - partner.given.positions
        try:
            first, forces = self._here
            second, theirs = self._single_point(other)
        except Exception as error:  # of all kinds: calculators of others
            logger.info("no price: %s: %s", type(error).__name__, error)
            return f"the calculator failed: {reason(error)}"
        match = matched(other, self._atoms, np.arange(len(other)), None)
        matching = np.empty_like(theirs)
        matching[match.permutation] = theirs @ match.rotation.T
        difference = float(np.sqrt(((matching - forces) ** 2).mean()))
        return Price(abs(second - first), difference, (first, second))

    @cached_property
    def _here(self) -> tuple[float, Floats]:
        return self._single_point(self._atoms)

    def _single_point(self, atoms: Atoms) -> tuple[float, Floats]:
        copy = atoms.copy()
        copy.set_constraint()
        copy.calc = self._calculator
        energy, forces = float(copy.get_potential_energy()), copy.get_forces()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise ValueError("energy or forces are not finite")
        return energy, forces


def check_price(calculator: Any) -> None:
    """Raise TypeError if an argument ``price`` is no calculator."""
    if isinstance(calculator, type) or not hasattr(calculator, "get_potential_energy"):
        raise TypeError(
            f"`price` is {calculator!r} but must be an ASE calculator, such as TBLite(method=...)"
        )
