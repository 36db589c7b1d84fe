"""Any calculator, with the sensitivity of its atoms, and a bias of its energy by that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators import calculator as registry
from ase.calculators.calculator import (
    BaseCalculator,
    PropertyNotImplementedError,
    compare_atoms,
)
from ase.outputs import Properties, all_outputs

from ase_sensitivity.analysis import check_arguments
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.given import Given, as_descriptor, no_species
from ase_sensitivity.md.bias import BIASED, Attract, Repel
from ase_sensitivity.md.configuration import Configuration, ConfigurationSettings, Results
from ase_sensitivity.md.old_style import OldStyleCalculator
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.budget import BUDGET, Budget
from ase_sensitivity.singular.diagnosis import Diagnosis
from ase_sensitivity.singular.monitor import WITHIN
from ase_sensitivity.types import Scope
from ase_sensitivity.validation import as_number


class SensitivityCalculator(BaseCalculator):
    """Wraps a calculator: the same properties, and what a descriptor makes of the atoms.

    Parameters
    ----------
    calc
        Any ASE calculator, also one of the old style with methods such as ``get_forces(atoms)``.
        It is evaluated exactly when it would be without this.
    descriptor
        What the potential sees.
    scope, k
        As in :func:`~ase_sensitivity.analyze`.
    bias
        :class:`~ase_sensitivity.Repel` or :class:`~ase_sensitivity.Attract`, whose energy, forces
        and stress are added to those of ``calc``; None for no bias. Structure scope only.
    distance_threshold
        How near, in Å, a singular configuration has to be for its cause to be looked for.
    budget
        Seconds that this may take for one configuration, as of
        :class:`~ase_sensitivity.SensitivityObserver`.

    Attributes
    ----------
    calc, descriptor, scope, k, bias, distance_threshold, budget
        As given. ``calc.results`` holds the physical energy and forces.
    results
        The results of ``calc``, with the bias added. These, which are no ASE properties, are
        computed when first read, as ``results[...]`` or with :meth:`get_property`, and are not
        listed, because ASE's files and ``SinglePointCalculator`` take no others than ASE's:

        - ``"sigma_min"``, ``"sigma_ratio"``, ``"condition_number"``: the smallest singular value,
          its ratio to the largest, and the inverse of that, at most 1e16;
        - ``"singularity_distance"``: the distance to the nearest singular configuration in Å to
          first order, from the three softest modes: four more Jacobians;
        - ``"spurious_distance"``: the distance in Å to a singular configuration that no physics
          asks for, as :class:`~ase_sensitivity.SensitivityObserver` judges it; infinite where none
          is known within ``distance_threshold``, as at a perfect crystal;
        - ``"spurious_proximity"``: its inverse in 1/Å, at most 1e16, and 0 where there is none;
        - ``"bias_energy"``, ``"bias_forces"``, ``"bias_stress"``, if there is a bias: its part.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of place.

    Notes
    -----
    ``energies`` and ``stresses`` of single atoms remain physical. Whatever else the calculator has,
    such as ``set`` or ``get_fermi_level``, is passed on. Atoms held by constraints count as free.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> from ase_sensitivity import SOAP
    >>> soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
    >>> atoms = molecule("NH3")
    >>> atoms.calc = SensitivityCalculator(EMT(), soap)
    >>> _ = atoms.get_forces()
    >>> print(f"{atoms.calc.results['sigma_ratio']:.2f}, {atoms.calc.sensitivity.n_null} null")
    0.30, 0 null
    """

    def __init__(
        self,
        calc: Any,
        descriptor: Given,
        *,
        scope: Scope = "structure",
        k: int | None = 3,
        bias: Repel | Attract | None = None,
        distance_threshold: float = WITHIN,
        budget: float | None = BUDGET,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        seen: Descriptor = as_descriptor(
            descriptor, no_species("a calculator has no structure to take them from")
        )
        check_arguments(Atoms(), seen, scope=scope, center=None, k=k)
        if bias is not None and not isinstance(bias, Repel | Attract):
            raise TypeError(f"`bias` is {bias!r} but must be a Repel, an Attract or None")
        if bias is not None and scope != "structure":
            raise ValueError(f'`bias` needs scope="structure", not {scope!r}')
        self.calc = calc
        self.descriptor = seen
        self.scope = scope
        self.k = k
        self.bias = bias
        self.distance_threshold = as_number("distance_threshold", distance_threshold, "positive")
        self.budget = Budget(budget).seconds
        self._inner = _modern(calc)
        self.implemented_properties = list(self._inner.implemented_properties)
        self._found: Configuration | None = None

    @property
    def sensitivity(self) -> Sensitivity:
        """What :func:`~ase_sensitivity.analyze` finds for the atoms last calculated.

        Raises
        ------
        RuntimeError
            If nothing was calculated yet.
        """
        return self._now.sensitivity

    @property
    def diagnosis(self) -> Diagnosis:
        """What an observer would know of the nearest singular configuration.

        Raises
        ------
        RuntimeError
            If nothing was calculated yet.
        """
        return self._now.diagnosis

    @property
    def _now(self) -> Configuration:
        if self._found is None:
            raise RuntimeError("nothing was calculated yet; ask the atoms for their energy first")
        return self._found

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """A property of the wrapped calculator, with the bias, or one of ``results``."""
        atoms = self._known(atoms)
        found = self._look(atoms)
        if name in Configuration.KEYS:
            if name not in found.keys():  # noqa: SIM118 (no dictionary)
                raise PropertyNotImplementedError(f"{name}: there is no bias")
            wanted = allow_calculation or found.knows(name)
            value = found[name] if wanted else None
            return value.copy() if isinstance(value, np.ndarray) else value
        value = self._inner.get_property(name, atoms, allow_calculation)
        if value is None:
            return None
        results = self._inner.results
        if self.bias is not None:
            if not allow_calculation and not found.knows("bias_energy"):
                return None if name in BIASED else value
            results = found.term.added_to(results)
            if name in BIASED:
                value = found.term.added_to({name: value}).get(name)
        self.results = Results(results, found)
        if value is None:
            raise PropertyNotImplementedError(
                "the bias has no stress: rows of features belong to the whole structure, or "
                "derivatives by periodic images are summed"
            )
        return value

    def _known(self, atoms: Atoms | None) -> Atoms:
        for known in (atoms, self.atoms, self._inner.atoms):
            if known is not None:
                return known
        raise RuntimeError("nothing was calculated yet: give `atoms`")

    def _look(self, atoms: Atoms) -> Configuration:
        changes = compare_atoms(self.atoms, atoms)
        if changes:
            self.atoms = atoms.copy()
        settings = ConfigurationSettings(
            self.descriptor, self.scope, self.k, self.bias, self.distance_threshold, self.budget
        )
        unseen = set(changes) - {"initial_charges", "initial_magmoms"}
        if self._found is None or self._found.settings != settings:
            self._found = Configuration(atoms.copy(), settings, settings.watch())
            self.results = Results({}, self._found)
        elif unseen:
            self._found = Configuration(atoms.copy(), settings, self._found.watch)
            self.results = Results({}, self._found)
        return self._found

    def calculate(
        self, atoms: Atoms, properties: Sequence[str], system_changes: Sequence[str]
    ) -> None:
        """Ask for all ``properties``; ASE's hook."""
        for name in properties:
            self.get_property(name, atoms)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the wrapped calculator was asked last."""
        return self._inner.check_state(atoms, tol)

    def calculation_required(self, atoms: Atoms, properties: Sequence[str]) -> bool:
        """Whether the wrapped calculator would have to compute one of ``properties``."""
        wanted = [name for name in properties if name not in Configuration.KEYS]
        return bool(self._inner.calculation_required(atoms, wanted))

    def export_properties(self) -> Properties:
        """The results that are ASE's."""
        return Properties({key: v for key, v in self.results.items() if key in all_outputs})

    def _get_name(self) -> str:
        return "sensitivity"

    def todict(self) -> dict[str, Any]:
        """What ASE's files say of the calculator."""
        inner = self.calc.todict() if hasattr(self.calc, "todict") else {}
        return {
            "calculator": self._inner.name,
            "calculator_parameters": inner,
            "descriptor": repr(self.descriptor),
            "scope": self.scope,
            "k": self.k,
            "bias": None if self.bias is None else repr(self.bias),
            "distance_threshold": self.distance_threshold,
            "budget": self.budget,
        }

    def __getattr__(self, name: str) -> Any:
        # Only for what is not found here; private names would confuse copies and pickles.
        if name.startswith("_") or "calc" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.calc, name)

    def __repr__(self) -> str:
        return (
            f"SensitivityCalculator({type(self.calc).__name__}, {type(self.descriptor).__name__})"
        )


def _modern(calc: Any) -> Any:
    """The calculator, with `get_property` and a cache if it has none."""
    if not isinstance(calc, type | Atoms):
        if hasattr(calc, "get_property"):
            return calc
        if hasattr(calc, "get_potential_energy"):
            return OldStyleCalculator(calc)
    raise TypeError(f"`calc` is {calc!r} but must be an ASE calculator")


if "sensitivity" not in getattr(registry, "external_calculators", {"sensitivity": None}):
    registry.register_calculator_class("sensitivity", SensitivityCalculator)
