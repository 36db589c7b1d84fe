"""Frames of LAMMPS dumps one by one, and the elements of LAMMPS' types."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.lammpsrun import read_lammps_dump_text

from ase_sensitivity.io.texts import Text, fault_of_rows

BEGIN = "ITEM: TIMESTEP"
WHOLE_NUMBERS = ("id", "type", "mol")


def dump_texts(file: IO[bytes]) -> Iterator[Text]:
    """The text of each frame of a dump. ASE returns no frame if one of them is incomplete."""
    text: list[str] = []
    begin = 1
    for number, read in enumerate(file, 1):
        line = read.decode(errors="replace")
        if line.startswith(BEGIN) and text:
            yield _given(text, begin)
            text = []
        if not text:
            if not line.strip():
                continue
            begin = number
        text.append(line)
    if text:
        yield _given(text, begin)


def _given(text: list[str], begin: int) -> Text:
    whole = "".join(text)
    if not text[0].startswith(BEGIN):
        found = text[0].strip()[:40]
        return Text(whole, begin, f"expected {BEGIN!r} in line {begin}, not {found!r}")
    return Text(whole, begin)


def parsed_dump(found: Text, type_map: Sequence[str] | None = None) -> Atoms:
    """The structure of one frame of a dump; types are mapped later, by :func:`with_elements`.

    Raises
    ------
    ValueError
        If the frame is damaged.
    """
    if found.wrong is not None:
        raise ValueError(found.wrong)
    lines = found.text.splitlines()
    fault = _fault(lines, found.line)
    try:
        atoms: Atoms = read_lammps_dump_text(io.StringIO(found.text), index=0)
    except Exception as error:
        if fault is None:
            raise
        raise ValueError(fault) from error
    if fault is not None:
        raise ValueError(fault)
    return atoms


def _fault(lines: Sequence[str], begin: int) -> str | None:
    """What is wrong with the lines of a frame, or None."""
    places = {line.split()[1]: n for n, line in enumerate(lines) if line.startswith("ITEM: ")}
    early = f"the frame that begins in line {begin} ends too early"
    if "NUMBER" not in places or "ATOMS" not in places:
        return early
    count = lines[places["NUMBER"] + 1 :][:1]
    first = places["ATOMS"] + 1
    if not (count and count[0].strip().isdecimal()):
        return f"line {begin + places['NUMBER'] + 1} is no number of atoms"
    n_atoms = int(count[0])
    rows = lines[first:]
    if len(rows) < n_atoms:
        return f"{early}: it has {len(rows)} of {n_atoms} atoms"
    names = lines[places["ATOMS"]].split()[2:]
    columns = [("species" if name == "element" else name, _kind(name)) for name in names]
    return fault_of_rows(rows[:n_atoms], begin + first, columns)


def _kind(name: str) -> str:
    if name == "element":
        return "S"
    return "I" if name in WHOLE_NUMBERS or name.startswith(("i_", "i2_")) else "R"


def check_type_map(type_map: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check the chemical symbols of the types 1, 2, ...

    Raises
    ------
    TypeError, ValueError
        If ``type_map`` is not a sequence of chemical symbols.
    """
    if type_map is None:
        return None
    if isinstance(type_map, str) or not isinstance(type_map, Sequence) or not type_map:
        raise TypeError(
            f"`type_map` is {type_map!r} but must be chemical symbols of the types 1, 2, ..., such "
            "as ['Si', 'O']"
        )
    for symbol in type_map:
        if not isinstance(symbol, str) or symbol not in atomic_numbers or symbol == "X":
            raise ValueError(f"`type_map` has {symbol!r}, which is no chemical symbol")
    return tuple(type_map)


def with_elements(atoms: Atoms, type_map: Sequence[str]) -> Atoms:
    """Give the atoms of a structure from LAMMPS the elements of their types.

    Raises
    ------
    ValueError
        If the structure has no types, or a type without a symbol.
    """
    types = atoms.arrays.get("type")
    if types is None:
        raise ValueError("the frame has no types, which `type_map` (--type-map) is about")
    wrong = np.flatnonzero((types < 1) | (types > len(type_map)))
    if len(wrong):
        raise ValueError(
            f"atom {wrong[0]} is of type {types[wrong[0]]}, but `type_map` (--type-map) names "
            f"{len(type_map)}: {', '.join(type_map)}"
        )
    atoms.symbols = [type_map[number - 1] for number in types.tolist()]
    return atoms


def has_types_for_elements(atoms: Atoms) -> bool:
    """Whether ASE has read LAMMPS' types as atomic numbers."""
    types = atoms.arrays.get("type")
    return types is not None and np.array_equal(types, atoms.numbers)
