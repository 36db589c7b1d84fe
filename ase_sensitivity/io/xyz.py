"""Frames of XYZ files one by one, also those after a damaged one.

ASE looks for the beginnings of all frames before it reads the first one. If that fails for one
frame, ASE returns none.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from ase_sensitivity.io.texts import Text, fault_of_rows, lines_missing
from ase_sensitivity.plain_text import reason

MOST_DIGITS = 18
"""The most digits that a number of atoms can have."""

QM9 = re.compile(r"gdb\s+\d+\s")
"""How comments of QM9's files begin. Three lines with other properties follow the atoms there."""


def xyz_texts(file: IO[bytes]) -> Iterator[Text]:
    """The text of each frame of an XYZ file, and what is wrong with it.

    A frame begins at a line that has only its number of atoms. Lines that belong to no frame are
    given as a text of their own.
    """
    text: list[str] = []
    missing = begin = spare = 0
    for number, read in enumerate(file, 1):
        line = read.decode(errors="replace")  # comments may be in any encoding
        is_comment = len(text) == 1 and missing > 0
        count = line.strip()
        is_header = count.isdecimal() and len(count) <= MOST_DIGITS and not is_comment
        if spare and not text and not is_header:
            spare -= 1
            continue
        if is_header and text:
            yield from _given(text, begin, missing)
            text = []
        if not text:
            missing, begin, spare = (int(line) + 2 if is_header else 0), number, 0
        text.append(line)
        missing -= 1
        if missing == 0:
            spare = 3 if QM9.match(text[1]) else 0
            yield Text("".join(text), begin, _short_end(text))
            text = []
    yield from _given(text, begin, missing)


def _given(text: list[str], begin: int, missing: int) -> Iterator[Text]:
    whole = "".join(text)
    if missing > 0:
        yield Text(whole, begin, lines_missing(begin, missing))
    elif whole.strip():
        found = text[0].strip()[:40]
        yield Text(whole, begin, f"expected a number of atoms in line {begin}, not {found!r}")


def _short_end(text: list[str]) -> str | None:
    """An error if the last line of a file is shorter than all others, which have equal lengths."""
    rows = text[2:]
    if len(rows) < 3 or rows[-1].endswith("\n"):
        return None
    lengths = {len(row.rstrip("\r\n")) for row in rows[:-1]}
    if len(lengths) == 1 and len(rows[-1]) < lengths.pop():
        return "the last line is shorter than the others: it is cut"
    return None


def parsed_xyz(found: Text, type_map: Sequence[str] | None = None) -> Atoms:
    """The structure of one frame.

    Parameters
    ----------
    found
        From :func:`xyz_texts`.
    type_map
        Chemical symbols of the types 1, 2, ..., which LAMMPS writes in the place of symbols.

    Raises
    ------
    ValueError
        If the frame is damaged, or names more columns than it has.
    """
    if found.wrong is not None:
        raise ValueError(found.wrong)
    text = found.text
    lines = text.split("\n")
    n_columns = len(lines[2].split()) if len(lines) > 2 else 0
    columns = [("species", "S"), *[("pos", "R")] * 3]

    def read_comment(line: str) -> dict[str, Any]:
        info: dict[str, Any] = key_val_str_to_dict(line)
        if "Properties" in info:
            columns[:] = _columns(str(info["Properties"]), n_columns)
        return info

    if type_map is not None:
        text = "\n".join(_with_symbols(lines, type_map))
    if QM9.match(lines[1]):
        text = text.replace("*^", "e")  # as Mathematica writes powers of ten
    try:
        atoms: Atoms = next(read_xyz(io.StringIO(text), 0, properties_parser=read_comment))
    except Exception as error:
        fault = fault_of_rows(text.split("\n")[2 : 2 + int(lines[0])], found.line + 2, columns)
        begins = f"the frame that begins in line {found.line} is none: {reason(error)}"
        raise ValueError(fault or begins) from error
    return atoms


def _with_symbols(lines: list[str], type_map: Sequence[str]) -> Iterable[str]:
    """Lines of a frame with symbols in the first column, where LAMMPS writes types."""
    yield from lines[:2]
    for line in lines[2:]:
        word = line.split(None, 1)[:1]
        if word and word[0].isdecimal() and 0 < int(word[0]) <= len(type_map):
            line = line.replace(word[0], type_map[int(word[0]) - 1], 1)
        yield line


def _columns(properties: str, n_columns: int) -> list[tuple[str, str]]:
    """Name and kind of each column.

    Raises
    ------
    ValueError
        If there are fewer columns than named. ASE would allocate all of them before it looks.
    """
    words = properties.split(":")
    total = 0
    for word in words[2::3]:
        if not (word.isdecimal() and len(word) <= MOST_DIGITS):
            raise ValueError(f"Properties has {word[:40]!r} where a number of columns belongs")
        total += int(word)
    if total > n_columns:
        raise ValueError(f"Properties has {total} columns, but the first atom has {n_columns}")
    triples = zip(words[::3], words[1::3], words[2::3], strict=False)
    return [(name, kind) for name, kind, number in triples for _ in range(int(number))]
