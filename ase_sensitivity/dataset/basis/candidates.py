"""The descriptors that a sweep tries: a grid of options of one descriptor, or a list."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_sensitivity.analysis import check_descriptor_type
from ase_sensitivity.descriptors.base import Descriptor, descriptor_text
from ase_sensitivity.descriptors.given import Given, with_any
from ase_sensitivity.descriptors.of_frames import descriptor_for
from ase_sensitivity.descriptors.quip.quip import QUIPDescriptor
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.io.reading import Frames

MOST = 256
"""Largest number of candidates of a sweep: each takes an analysis of every frame."""

LOWEST = {"n_max": 1, "l_max": 0}
"""Options that are integers, and the lowest value of each."""

USUAL: dict[str, Iterable[int]] = {"n_max": (2, 4, 6, 8), "l_max": range(7)}
"""What is tried if nothing is asked for."""

OF_SOAP = ("radial_basis", "body_order", "smooth_cutoff")
"""Options of SOAP that no soap string has."""

DESCRIPTOR = "descriptor"
"""The name of what differs between the candidates of a list."""

Family = Callable[..., Descriptor] | SOAP | QUIPDescriptor | str
"""What has options to try."""

Key = tuple[Any, ...]
"""The values of the options of a candidate, in the order of :attr:`Candidates.varied`."""


@dataclass(frozen=True)
class Candidates:
    """Descriptors to compare.

    Attributes
    ----------
    varied
        The names of the options that were asked for, or "descriptor" alone for a list.
    descriptors
        Each descriptor, by the values of these options.
    """

    varied: tuple[str, ...]
    descriptors: dict[Key, Descriptor]

    def groups(self, *apart: str) -> list[list[Key]]:
        """The candidates, those that differ in no other option than ``apart`` together."""
        fixed = [n for n, name in enumerate(self.varied) if name not in apart]
        found: dict[Key, list[Key]] = {}
        for key in self.descriptors:
            found.setdefault(tuple(key[n] for n in fixed), []).append(key)
        return list(found.values())


def candidates_of(
    given: Family | Sequence[Given],
    options: Mapping[str, Any],
    frames: Frames,
    type_map: Sequence[str] | None,
) -> Candidates:
    """All combinations of the values of options; or the descriptors of a list.

    Parameters
    ----------
    given
        As ``family`` of :func:`~ase_sensitivity.converge`.
    options
        For each option a value, values, or None if it is not tried.
    frames, type_map
        As in :func:`~ase_sensitivity.converge`. A string gets the species of the frames.

    Raises
    ------
    TypeError, ValueError
        If an option makes no sense, or there are more than :data:`MOST` candidates.
    """
    values = {name: _values(name, one) for name, one in options.items() if one is not None}
    if isinstance(given, list | tuple):
        if values:
            raise ValueError(
                f"`{next(iter(values))}` cannot be tried with a list of descriptors, which are "
                "compared as they are; give one descriptor. QUIPDescriptor([...]) is one"
            )
        return _listed(given, frames, type_map)
    values = values or {name: list(usual) for name, usual in USUAL.items()}
    _check_number(math.prod(map(len, values.values())), values)
    if isinstance(given, str):
        given = with_any(given, {name: own[0] for name, own in values.items()})
    make = _maker(descriptor_for(given, frames, type_map), tuple(values))
    found = {}
    for key in itertools.product(*values.values()):
        chosen = dict(zip(values, key, strict=True))
        try:
            found[key] = make(**chosen)
        except ValueError as error:
            raise ValueError(f"there is no candidate with {label(chosen)}: {error}") from error
        check_descriptor_type(found[key])
    return Candidates(tuple(values), found)


def label(options: Mapping[str, Any]) -> str:
    """The options of a candidate as a text: ``n_max=8, l_max=5``."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


def _values(name: str, given: Any) -> list[Any]:
    """The values of an option to try, each once; in ascending order if they are numbers."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found: list[Any] = list(dict.fromkeys(map(_hashable, given if several else [given])))
    if not found:
        raise ValueError(f"`{name}` has no values to try")
    if name in LOWEST:
        for value in found:
            if not isinstance(value, int) or isinstance(value, bool) or value < LOWEST[name]:
                raise ValueError(
                    f"`{name}` has {value!r} but must be integers of {LOWEST[name]} or more"
                )
    numbers = all(isinstance(value, int | float) for value in found)
    return sorted(found) if numbers else found


def _hashable(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return tuple(value) if isinstance(value, list) else value


def _check_number(number: int, values: Mapping[str, Sequence[Any]]) -> None:
    if number > MOST:
        sizes = " x ".join(f"{len(own)} of {name}" for name, own in values.items())
        raise ValueError(
            f"{sizes} make {number} candidates, more than {MOST}; try fewer values, or one option "
            "after the other"
        )


def _listed(given: Sequence[Given], frames: Frames, type_map: Sequence[str] | None) -> Candidates:
    _check_number(len(given), {DESCRIPTOR: given})
    found: dict[Key, Descriptor] = {}
    for one in given:
        descriptor = descriptor_for(one, frames, type_map)
        check_descriptor_type(descriptor)
        name = descriptor_text(descriptor)
        if (name,) in found:
            raise ValueError(f"`family` lists {name} twice")
        found[name,] = descriptor
    if not found:
        raise ValueError("`family` lists no descriptor")
    return Candidates((DESCRIPTOR,), found)


def _maker(family: Any, varied: Sequence[str]) -> Callable[..., Descriptor]:
    """What makes a descriptor of options by name."""
    if isinstance(family, QUIPDescriptor) and family.soap and {*varied} & {*OF_SOAP}:
        return family.soap.with_options
    if isinstance(family, SOAP | QUIPDescriptor):
        return family.with_options
    if isinstance(family, type | Descriptor) or not callable(family):
        raise TypeError(
            f"`family` is {family!r} but must be a SOAP, a QUIPDescriptor, a function of the "
            "options that returns a descriptor, or a list of descriptors"
        )
    if {*varied} == {*USUAL}:  # such functions need not have these names
        return lambda n_max, l_max: family(n_max, l_max)
    return family
