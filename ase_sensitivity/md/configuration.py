"""What the calculator knows of one configuration, and how its results are read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from ase import Atoms

from ase_sensitivity.analysis import analyze
from ase_sensitivity.causes.cause import SPURIOUS
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.errors import CostWarning, warn
from ase_sensitivity.md.bias import Attract, BiasTerm, Repel
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.budget import EXCEEDED, Budget
from ase_sensitivity.singular.diagnosis import Diagnosis
from ase_sensitivity.singular.monitor import Monitor
from ase_sensitivity.singular.nearest import singularity_distance
from ase_sensitivity.types import Scope

logger = logging.getLogger(__name__)

LARGEST = 1e16
"""Inverses of what is zero: checks can compare with them, unlike with infinity."""


class ConfigurationSettings(NamedTuple):
    """What a configuration is asked for; as the arguments of :class:`SensitivityCalculator`."""

    descriptor: Descriptor
    scope: Scope
    k: int | None
    bias: Repel | Attract | None
    within: float
    budget: float | None

    def watch(self) -> Monitor:
        """A judge that remembers nothing yet."""
        budget = Budget(self.budget)
        return Monitor(self.descriptor, scope=self.scope, within=self.within, budget=budget)


class Configuration:
    """What is known of one configuration, found out when it is asked for."""

    KEYS: ClassVar = {
        "sigma_min": "sensitivity",
        "sigma_ratio": "sensitivity",
        "condition_number": "sensitivity",
        "singularity_distance": "distance",
        "spurious_distance": "diagnosis",
        "spurious_proximity": "diagnosis",
        "bias_energy": "term",
        "bias_forces": "term",
        "bias_stress": "term",
    }

    def __init__(self, atoms: Atoms, settings: ConfigurationSettings, watch: Monitor) -> None:
        self.atoms = atoms
        self.settings = settings
        self.watch = watch  # it remembers what it found for earlier configurations

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """As of :func:`~ase_sensitivity.analyze`."""
        asked = self.settings
        return analyze(self.atoms, asked.descriptor, scope=asked.scope, k=asked.k)

    @cached_property
    def distance(self) -> float:
        """To the nearest singular configuration in Å, to first order."""
        asked = self.settings
        return singularity_distance(self.atoms, asked.descriptor, scope=asked.scope)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """As of an observer."""
        found = self.watch.diagnose(self.atoms, self.sensitivity)
        if found.how == "skipped":
            logger.info("not looked for: %s", self.watch.budget)
            warn(EXCEEDED, CostWarning)
        return found

    @property
    def spurious_distance(self) -> float:
        """In Å; infinite where nothing that matters is known to be near."""
        within = self.settings.within
        worst = self.diagnosis.worst(within, SPURIOUS)
        return math.inf if worst is None else worst[1]

    @cached_property
    def term(self) -> BiasTerm:
        """What the bias adds."""
        assert self.settings.bias is not None
        return self.settings.bias.evaluate(self.atoms, self.settings.descriptor)

    def keys(self) -> list[str]:
        """What can be asked for."""
        return [key for key, of in self.KEYS.items() if of != "term" or self.settings.bias]

    def knows(self, key: str) -> bool:
        """Whether it was found out already."""
        return self.KEYS[key] in self.__dict__

    def __getitem__(self, key: str) -> Any:
        if key not in self.keys():
            raise KeyError(key)
        if key == "singularity_distance":
            return self.distance
        if key == "spurious_distance":
            return self.spurious_distance
        if key == "spurious_proximity":
            return 1 / max(self.spurious_distance, 1 / LARGEST)
        if key.startswith("bias_"):
            return getattr(self.term, key.removeprefix("bias_"))
        found = self.sensitivity
        if key == "sigma_min":
            return float(found.singular_values[0]) if len(found.singular_values) else float("nan")
        if key == "condition_number":
            return 1 / max(found.ratio, 1 / LARGEST) if found.ratio == found.ratio else float("nan")
        return found.ratio


class Results(dict[str, Any]):
    """Results of a calculation; reads more than it lists, see :class:`SensitivityCalculator`."""

    def __init__(self, values: Mapping[str, Any], found: Configuration) -> None:
        super().__init__(values)
        self._found = found

    def __missing__(self, key: str) -> Any:
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._found.keys()  # noqa: SIM118

    def get(self, key: str, default: Any = None) -> Any:
        """The value, also of what is not listed, or ``default``."""
        return self[key] if key in self else default  # noqa: SIM401 (that is this method)
