"""Frames of XYZ files one by one, also behind one that is torn or corrupt.

ASE looks for the beginnings of all frames before it reads the first one, and gives none if that
fails somewhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from ase import Atoms


def is_xyz(name: str) -> bool:
    """Whether ASE takes a file for an XYZ file."""
    from ase.io.formats import filetype  # loads much

    try:
        return filetype(name) in ("xyz", "extxyz")
    except Exception:  # to be told when it is read
        return False


def xyz_texts(name: str) -> Iterator[tuple[str, str | None]]:
    """Frames of an XYZ file as they stand there, and what is wrong with them.

    A frame begins at a line with nothing but its number of atoms. What is neither part of a frame
    nor one of these is given as a text of its own.
    """
    from ase.io.formats import open_with_compression  # loads much

    with open_with_compression(name, "rb") as file:
        text: list[str] = []
        missing = 0
        for read in file:
            line = read.decode(errors="replace")  # comments may be in any encoding
            is_comment = len(text) == 1 and missing > 0
            is_header = line.strip().isdecimal() and not is_comment
            if is_header and text:
                yield from _given(text, missing)
                text = []
            if not text:
                missing = int(line) + 2 if is_header else 0
            text.append(line)
            missing -= 1
            if missing == 0:
                yield "".join(text), None
                text = []
        yield from _given(text, missing)


def _given(text: list[str], missing: int) -> Iterator[tuple[str, str | None]]:
    whole = "".join(text)
    if missing > 0:
        yield whole, f"the frame ends {missing} lines too early"
    elif whole.strip():
        yield whole, f"expected a number of atoms, not {text[0].strip()[:40]!r}"


def parsed(text: str) -> Atoms:
    """The structure of one frame."""
    from ase.io.extxyz import read_xyz  # loads much

    atoms: Atoms = next(read_xyz(io.StringIO(text), 0))
    return atoms
