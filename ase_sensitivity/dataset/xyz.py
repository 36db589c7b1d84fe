"""Frames of XYZ files one by one, also behind one that is torn or corrupt.

ASE looks for the beginnings of all frames before it reads the first one, and gives none if that
fails somewhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from ase import Atoms

MOST_DIGITS = 18
"""Of a number of atoms: a longer one would not be a number of anything."""


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
            count = line.strip()
            is_header = count.isdecimal() and len(count) <= MOST_DIGITS and not is_comment
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


def chosen_texts(name: str, chosen: slice) -> Iterator[tuple[int, str, str | None]]:
    """Number, text and fault of some frames; a slice with a start and a step, neither from behind.

    Frames in reverse order are in memory together.
    """
    texts = ((number, text, wrong) for number, (text, wrong) in enumerate(xyz_texts(name)))
    start, stop, step = chosen.start, chosen.stop, chosen.step
    if step > 0:
        return islice(texts, start, stop, step)
    first = 0 if stop is None else stop + 1
    first += (start - first) % -step
    return reversed(list(islice(texts, first, start + 1, -step)))


def parsed(text: str, wrong: str | None = None) -> Atoms:
    """The structure of one frame.

    Parameters
    ----------
    text
        What :func:`xyz_texts` gives.
    wrong
        What is wrong with it already.

    Raises
    ------
    ValueError
        If something is, or it asks for more columns than it has.
    """
    from ase.io.extxyz import key_val_str_to_dict, read_xyz  # loads much

    if wrong is not None:
        raise ValueError(wrong)
    lines = text.split("\n", 3)
    n_columns = len(lines[2].split()) if len(lines) > 2 else 0

    def read_comment(line: str) -> dict[str, Any]:
        info: dict[str, Any] = key_val_str_to_dict(line)
        _check_columns(str(info.get("Properties", "")).split(":")[2::3], n_columns)
        return info

    atoms: Atoms = next(read_xyz(io.StringIO(text), 0, properties_parser=read_comment))
    return atoms


def _check_columns(wanted: Iterable[str], n_columns: int) -> None:
    """Raise ValueError if more columns are wanted: ASE would make all of them before it looks."""
    total = 0
    for word in wanted:
        if not (word.isdecimal() and len(word) <= MOST_DIGITS):
            raise ValueError(f"Properties has {word[:40]!r} where a number of columns belongs")
        total += int(word)
    if total > n_columns:
        raise ValueError(f"Properties has {total} columns, but the first atom has {n_columns}")
