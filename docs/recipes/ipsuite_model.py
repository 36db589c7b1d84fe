"""A model for IPSuite's dynamics whose results tell where its descriptor goes blind."""

from dataclasses import dataclass
from typing import Any

from ase_sensitivity import SOAP, SensitivityCalculator


@dataclass
class SensitivityModel:
    """Another model, with its sensitivity to what SOAP sees."""

    model: Any
    species: list[str]
    cutoff: float = 5.0
    n_max: int = 8
    l_max: int = 6

    def get_calculator(self, **kwargs):
        """The calculator of the other model, wrapped."""
        soap = SOAP(self.species, cutoff=self.cutoff, n_max=self.n_max, l_max=self.l_max)
        return SensitivityCalculator(self.model.get_calculator(**kwargs), soap)
