"""Frames of VASP's XDATCAR files one by one. ASE returns none if one of them is incomplete."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import IO

from ase import Atoms
from ase.io.vasp import read_vasp_xdatcar

from ase_sensitivity.io.texts import Text, fault_of_rows, lines_missing

BEGIN = "Direct configuration="
HEADER = 7
"""Number of lines with name, scale, cell, symbols and numbers of atoms. They stand before the first
frame or before each frame."""


def xdatcar_texts(file: IO[bytes]) -> Iterator[Text]:
    """The text of each frame of a file, with its header."""
    header: list[str] = []
    fresh: list[str] = []
    frame: list[str] = []
    begin = missing = 0
    for number, read in enumerate(file, 1):
        line = read.decode(errors="replace")
        if line.startswith(BEGIN):
            if missing > 0:
                yield Text("".join(frame), begin, lines_missing(begin, missing))
            header, fresh = fresh or header, []
            begin, missing, frame = number, _n_atoms(header), [*header, line]
            if missing == 0:
                yield Text(line, begin, f"no number of atoms is given before line {begin}")
        elif missing > 0:
            frame.append(line)
            missing -= 1
            if missing == 0:
                yield Text("".join(frame), begin)
        elif line.strip() or fresh:
            fresh.append(line)
    if missing > 0:
        yield Text("".join(frame), begin, lines_missing(begin, missing))
    elif fresh:
        yield Text("".join(fresh), begin, "the file ends in the header of a frame")


def _n_atoms(header: Sequence[str]) -> int:
    """The number of atoms in a header; 0 if the header has none."""
    words = header[HEADER - 1].split() if len(header) >= HEADER else []
    return sum(map(int, words)) if all(word.isdecimal() for word in words) else 0


def parsed_xdatcar(found: Text, type_map: Sequence[str] | None = None) -> Atoms:
    """The structure of one frame. ``type_map`` is ignored, as the format has no types.

    Raises
    ------
    ValueError
        If the frame is damaged.
    """
    rows = found.text.splitlines()[HEADER + 1 :]
    wrong = found.wrong or fault_of_rows(rows, found.line + 1, [("", "R")] * 3)
    if wrong is not None:
        raise ValueError(wrong)
    atoms: Atoms = read_vasp_xdatcar(io.StringIO(found.text), index=0)
    return atoms
