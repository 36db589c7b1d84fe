"""Environments and structures that a descriptor takes for the same, and what that costs."""

from ase_sensitivity.moved import names_moved

__getattr__ = names_moved(
    __name__, dict.fromkeys(("Pair", "Conflict", "Place"), "dataset.pairs.result")
)
