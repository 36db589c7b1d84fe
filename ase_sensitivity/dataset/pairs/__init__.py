"""Environments and structures that a descriptor does not distinguish, and the lost forces."""

from ase_sensitivity.moved import names_moved

__getattr__ = names_moved(
    __name__,
    dict.fromkeys(("Pair", "Conflict"), "dataset.pairs.result") | {"Place": "environments.place"},
)
