"""Any calculator, with the sensitivity of its atoms, and a bias of its energy by that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators import calculator as registry
from ase.calculators.calculator import (
    BaseCalculator,
    PropertyNotImplementedError,
    compare_atoms,
)
from ase.outputs import Properties, all_outputs

from ase_sensitivity.analysis import Scope, analyze, check_arguments
from ase_sensitivity.approach.nearest import singularity_distance
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.dynamics.bias import BIASED, Attract, BiasTerm, Repel
from ase_sensitivity.dynamics.old_style import OldStyleCalculator
from ase_sensitivity.sensitivity import Sensitivity


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

    Attributes
    ----------
    calc, descriptor, scope, k, bias
        As given. ``calc.results`` holds the physical energy and forces.
    results
        The results of ``calc``, with the bias added. These, which are no ASE properties, are
        computed when first read, as ``results[...]`` or with :meth:`get_property`, and are not
        listed, because ASE's files and ``SinglePointCalculator`` take no others than ASE's:

        - ``"sigma_min"``, ``"sigma_ratio"``, ``"condition_number"``: the smallest singular value,
          its ratio to the largest, and the inverse of that, at most 1e16;
        - ``"singularity_distance"``: the distance to the nearest singular configuration in Å to
          first order, from the three softest modes: four more Jacobians;
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
        descriptor: Descriptor,
        *,
        scope: Scope = "structure",
        k: int | None = 3,
        bias: Repel | Attract | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        check_arguments(Atoms(), descriptor, scope=scope, center=None, k=k)
        if bias is not None and not isinstance(bias, Repel | Attract):
            raise TypeError(f"`bias` is {bias!r} but must be a Repel, an Attract or None")
        if bias is not None and scope != "structure":
            raise ValueError(f'`bias` needs scope="structure", not {scope!r}')
        self.calc = calc
        self.descriptor = descriptor
        self.scope = scope
        self.k = k
        self.bias = bias
        self._inner = _modern(calc)
        self.implemented_properties = list(self._inner.implemented_properties)
        self._found: _Configuration | None = None

    @property
    def sensitivity(self) -> Sensitivity:
        """What :func:`~ase_sensitivity.analyze` finds for the atoms last calculated.

        Raises
        ------
        RuntimeError
            If nothing was calculated yet.
        """
        if self._found is None:
            raise RuntimeError("nothing was calculated yet; ask the atoms for their energy first")
        return self._found.sensitivity

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """A property of the wrapped calculator, with the bias, or one of :attr:`results`."""
        atoms = self._known(atoms)
        found = self._look(atoms)
        if name in _Configuration.KEYS:
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
                "the bias has no stress: rows of features belong to the whole structure"
            )
        return value

    def _known(self, atoms: Atoms | None) -> Atoms:
        for known in (atoms, self.atoms, self._inner.atoms):
            if known is not None:
                return known
        raise RuntimeError("nothing was calculated yet: give `atoms`")

    def _look(self, atoms: Atoms) -> _Configuration:
        changes = compare_atoms(self.atoms, atoms)
        if changes:
            self.atoms = atoms.copy()
        settings = (self.descriptor, self.scope, self.k, self.bias)
        unseen = set(changes) - {"initial_charges", "initial_magmoms"}
        if self._found is None or unseen or self._found.settings != settings:
            self._found = _Configuration(atoms.copy(), *settings)
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
        wanted = [name for name in properties if name not in _Configuration.KEYS]
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
        }

    def __getattr__(self, name: str) -> Any:
        # Only for what is not found here; private names would confuse copies and pickles.
        if name.startswith("_") or "calc" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.calc, name)


class Results(dict[str, Any]):
    """Results of a calculation; reads more than it lists, see :class:`SensitivityCalculator`."""

    def __init__(self, values: Mapping[str, Any], found: _Configuration) -> None:
        super().__init__(values)
        self._found = found

    def __missing__(self, key: str) -> Any:
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._found.keys()  # noqa: SIM118

    def get(self, key: str, default: Any = None) -> Any:
        """The value, also of what is not listed, or ``default``."""
        return self[key] if key in self else default  # noqa: SIM401 (that is this method)


class _Configuration:
    """What is known of one configuration, found out when it is asked for."""

    KEYS: ClassVar = {
        "sigma_min": "sensitivity",
        "sigma_ratio": "sensitivity",
        "condition_number": "sensitivity",
        "singularity_distance": "distance",
        "bias_energy": "term",
        "bias_forces": "term",
        "bias_stress": "term",
    }

    def __init__(
        self,
        atoms: Atoms,
        descriptor: Descriptor,
        scope: Scope,
        k: int | None,
        bias: Repel | Attract | None,
    ) -> None:
        self.atoms = atoms
        self.settings = (descriptor, scope, k, bias)

    @cached_property
    def sensitivity(self) -> Sensitivity:
        descriptor, scope, k, _ = self.settings
        return analyze(self.atoms, descriptor, scope=scope, k=k)

    @cached_property
    def distance(self) -> float:
        descriptor, scope, *_ = self.settings
        return singularity_distance(self.atoms, descriptor, scope=scope)

    @cached_property
    def term(self) -> BiasTerm:
        descriptor, *_, bias = self.settings
        assert bias is not None
        return bias.evaluate(self.atoms, descriptor)

    def keys(self) -> list[str]:
        return [key for key, of in self.KEYS.items() if of != "term" or self.settings[-1]]

    def knows(self, key: str) -> bool:
        """Whether it was found out already."""
        return self.KEYS[key] in self.__dict__

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys():
            raise KeyError(key)
        if key == "singularity_distance":
            return self.distance
        if key.startswith("bias_"):
            return getattr(self.term, key.removeprefix("bias_"))
        found = self.sensitivity
        if key == "sigma_min":
            return float(found.singular_values[0]) if len(found.singular_values) else float("nan")
        if key == "condition_number":
            return 1 / max(found.ratio, 1e-16) if found.ratio == found.ratio else float("nan")
        return found.ratio


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
