"""Calculators that have methods such as ``get_forces(atoms)``, but no ``get_property``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError

METHODS = {
    "energy": "get_potential_energy",
    "energies": "get_potential_energies",
    "forces": "get_forces",
    "stress": "get_stress",
    "stresses": "get_stresses",
    "dipole": "get_dipole_moment",
    "charges": "get_charges",
    "magmom": "get_magnetic_moment",
    "magmoms": "get_magnetic_moments",
}


class OldStyleCalculator(BaseCalculator):
    """Gives a calculator of the old style what others have.

    Parameters
    ----------
    calc
        Has some of ASE's methods, at least ``get_potential_energy(atoms)``.
    """

    def __init__(self, calc: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calc = calc
        self.implemented_properties = [
            name for name, method in METHODS.items() if hasattr(calc, method)
        ]
        self.implemented_properties.append("free_energy")

    def calculate(
        self, atoms: Atoms, properties: Sequence[str], system_changes: Sequence[str]
    ) -> None:
        """Call one method for each of ``properties``."""
        for name in properties:
            try:
                if name == "free_energy":
                    value = self.calc.get_potential_energy(atoms, force_consistent=True)
                else:
                    value = getattr(self.calc, METHODS[name])(atoms)
            except NotImplementedError as error:
                raise PropertyNotImplementedError(f"{name}: {error}") from error
            self.results[name] = value

    def _get_name(self) -> str:
        name: str = getattr(self.calc, "name", type(self.calc).__name__.lower())
        return name
