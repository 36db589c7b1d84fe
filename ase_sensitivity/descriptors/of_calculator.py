"""The descriptor of the potential that a calculator runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.chgnet import CHGNetDescriptor
from ase_sensitivity.descriptors.mace import MACEDescriptor
from ase_sensitivity.descriptors.metatomic import MetatomicDescriptor
from ase_sensitivity.descriptors.sevennet import SevenNetDescriptor

KNOWN: dict[str, Callable[[Any], Descriptor]] = {
    "chgnet.CHGNetCalculator": CHGNetDescriptor,
    "mace.MACECalculator": MACEDescriptor,
    "metatomic_ase.MetatomicCalculator": lambda found: MetatomicDescriptor(found.model()),
    "sevenn.SevenNetCalculator": SevenNetDescriptor,
}
"""Descriptors of calculators, by package and class: none of the packages is imported for that."""


def descriptor_of(calculator: Any) -> Descriptor:
    """The descriptor of the potential that a calculator runs.

    Parameters
    ----------
    calculator
        That of CHGNet, SevenNet, MACE or metatomic, or a sum with one of them; or any that has a
        descriptor as an attribute ``descriptor``.

    Returns
    -------
    Descriptor
        With a copy of the model.

    Raises
    ------
    TypeError
        If it is none of these.
    ImportError, ValueError
        As the descriptor.

    Examples
    --------
    >>> from ase.calculators.emt import EMT
    >>> descriptor_of(EMT())
    Traceback (most recent call last):
        ...
    TypeError: the descriptor of EMT is not known; give one. Known are those of CHGNetCalculator...
    """
    for part in _parts(calculator):
        own = getattr(part, "descriptor", None)
        if not isinstance(own, type) and isinstance(own, Descriptor):
            return own
        for kind in type(part).__mro__:
            known = KNOWN.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
            if known is not None:
                return known(part)
    names = ", ".join(name.partition(".")[2] for name in KNOWN)
    hint = ""
    if type(calculator).__module__.startswith("quippy"):
        hint = "; of a GAP it is QUIPDescriptor.from_gap(file), as quippy does not keep the file"
    what = "atoms without a calculator" if calculator is None else type(calculator).__name__
    raise TypeError(
        f"the descriptor of {what} is not known; give one. Known are those of {names}{hint}"
    )


def _parts(calculator: Any) -> Iterator[Any]:
    """A calculator, and those that it is a sum of."""
    yield calculator
    mixer = getattr(calculator, "mixer", None)
    for part in getattr(mixer, "calcs", ()):
        yield from _parts(part)
