"""Descriptors as users give them: objects, or QUIP strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.of_calculator import descriptor_of
from ase_sensitivity.descriptors.quip.arguments import MANDATORY, QUIPArguments
from ase_sensitivity.descriptors.quip.quip import QUIPDescriptor

Given = Descriptor | str | Sequence[str]
"""What public functions accept as a descriptor: an object, a QUIP string, or several strings."""


def as_descriptor(given: Any, species: Callable[[], Sequence[str]]) -> Any:
    """The descriptor of QUIP strings; anything else is returned unchanged.

    Parameters
    ----------
    given
        A QUIP string or several, or anything else.
    species
        Returns the chemical symbols to use if the strings do not list any.

    Raises
    ------
    ValueError
        If a text is not a QUIP string.
    """
    if isinstance(given, str):
        return of_strings([given], None, species)
    if isinstance(given, list | tuple) and given and all(isinstance(text, str) for text in given):
        return of_strings(given, None, species)
    return given


def of_atoms(given: Any, atoms: Atoms) -> Any:
    """The descriptor that somebody gave for a structure, or None for that of its calculator.

    Raises
    ------
    TypeError
        If none was given and that of the calculator is not known.
    ValueError
        If text is no QUIP string.
    """
    if given is None:
        try:
            return descriptor_of(atoms.calc)
        except TypeError as error:
            raise TypeError(f"`descriptor` must be a Descriptor, not NoneType: {error}") from None
    return as_descriptor(given, lambda: species_in([atoms]))


def of_strings(
    texts: Sequence[str], listed: Sequence[str] | None, species: Callable[[], Sequence[str]]
) -> QUIPDescriptor:
    """The descriptor of QUIP strings.

    Parameters
    ----------
    texts
        The strings.
    listed
        Chemical symbols, if they are given.
    species
        Returns them otherwise; called only if some string does not list its own.

    Raises
    ------
    ValueError
        If a text is not a QUIP string.
    """
    for text in texts:
        check_is_no_file(text)
    parsed = [arguments for text in texts for arguments in QUIPArguments.parse_all(text)]
    if listed is None:
        complete = [_complete(arguments) for arguments in parsed]
        if all(complete):
            return QUIPDescriptor([str(arguments) for arguments in complete])
        listed = species()
    return QUIPDescriptor([str(arguments) for arguments in parsed], species=listed)


def check_is_no_file(text: str) -> None:
    """Raise ValueError if ``text`` is the name of a file and not a QUIP string."""
    name = text.strip()
    if name.endswith(".xml"):
        raise ValueError(
            f"{name} is no QUIP string but the name of an XML file; a GAP potential is given with "
            f'--gap {name}, or QUIPDescriptor.from_gap("{name}") in Python'
        )
    if name.endswith(".toml"):
        raise ValueError(f"{name} is a TOML file, which only the command line reads; give a string")


def with_any(text: str, options: Mapping[str, Any]) -> str:
    """A soap string with some value of those options that it needs, as a sweep replaces them."""
    if text.split()[:1] != ["soap"]:
        return text
    for name in MANDATORY["soap"]:
        if name in options and not re.search(rf"\b{name}\b", text):
            text += f" {name}={options[name]}"
    return text


def species_in(structures: Iterable[Atoms]) -> list[str]:
    """Chemical symbols in structures, by atomic number, without ghost atoms.

    Raises
    ------
    ValueError
        If there are no atoms.
    """
    found: set[int] = set()
    for atoms in structures:
        found.update(set(atoms.numbers.tolist()))
    symbols = [chemical_symbols[z] for z in sorted(found) if 0 < z < len(chemical_symbols)]
    if not symbols:
        raise ValueError("there are no atoms to take the species of the descriptor from")
    return symbols


def no_species(why: str) -> Callable[[], Sequence[str]]:
    """A function that raises ValueError, for use where species cannot be looked up."""

    def refuse() -> Sequence[str]:
        raise ValueError(
            f"`descriptor` is a string that does not list its species, and {why}; give "
            'QUIPDescriptor("...", species=["C", "H"])'
        )

    return refuse


def _complete(arguments: QUIPArguments) -> QUIPArguments | None:
    """The arguments with the centers filled in; None if the species have to be looked up."""
    if not arguments.takes_species:
        return arguments
    return arguments.with_species(arguments.species) if arguments.species else None
