"""A property of TorchSim's trajectory reporter: how sensitive a descriptor is to each system."""

import torch

from ase_sensitivity import analyze


class SensitivityRatio:
    """sigma_min / sigma_max of the systems of a state.

    Parameters
    ----------
    descriptor
        What the potential sees.
    stop_below
        The run ends with an error when a ratio falls below this number.
    """

    def __init__(self, descriptor, stop_below=0.0):
        self.descriptor, self.stop_below = descriptor, stop_below

    def __call__(self, state, model=None):
        """The ratios, of shape (n_systems,)."""
        ratios = [analyze(atoms, self.descriptor, k=1).ratio for atoms in state.to_atoms()]
        if min(ratios) < self.stop_below:
            raise RuntimeError(f"sigma_min / sigma_max is {min(ratios):.2g}")
        return torch.tensor(ratios)
