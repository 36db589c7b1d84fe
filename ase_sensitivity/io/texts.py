"""The text of frames in text formats, and what is wrong with a line of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ase.data import atomic_numbers, chemical_symbols

from ase_sensitivity.plain_text import many

INTEGER = re.compile(r"[+-]?\d+")


class Text(NamedTuple):
    """The text of a frame in a file.

    Attributes
    ----------
    text
        All its lines.
    line
        The number of the first one, from 1.
    wrong
        What is known to be wrong with the frame, or None.
    """

    text: str
    line: int
    wrong: str | None = None


def chosen_texts(texts: Iterator[Text], chosen: slice) -> Iterator[tuple[int, Text]]:
    """The chosen frames with their numbers.

    The slice has a start, a step and no negative indices. Frames in reverse order are in memory at
    the same time.
    """
    numbered = enumerate(texts)
    start, stop, step = chosen.start, chosen.stop, chosen.step
    if step > 0:
        return islice(numbered, start, stop, step)
    first = 0 if stop is None else stop + 1
    first += (start - first) % -step
    return reversed(list(islice(numbered, first, start + 1, -step)))


def fault_of_rows(rows: Sequence[str], line: int, columns: Sequence[tuple[str, str]]) -> str | None:
    """The first thing that is wrong with lines of a table, or None.

    Parameters
    ----------
    rows
        The lines.
    line
        Number of the first one.
    columns
        Name and kind of each column: S for text, I and L for integers, R for numbers. A column with
        the name "species" must have chemical symbols.
    """
    for number, row in enumerate(rows, line):
        words = row.split()
        if len(words) < len(columns):
            return f"line {number} has {many(len(words), 'column')}, not {len(columns)}"
        for (name, kind), word in zip(columns, words, strict=False):
            if name == "species" and not is_symbol(word):
                return (
                    f"line {number} has {word[:40]!r} where a chemical symbol belongs{_hint(word)}"
                )
            if kind == "I" and not INTEGER.fullmatch(word):
                return f"line {number} has {word[:40]!r} where an integer belongs"
            if kind == "R" and not _is_number(word):
                return f"line {number} has {word[:40]!r} where a number belongs"
    return None


def lines_missing(begin: int, missing: int) -> str:
    """The error for a frame that begins in line ``begin`` and lacks lines at its end."""
    return f"the frame that begins in line {begin} ends {many(missing, 'line')} too early"


def is_symbol(word: str) -> bool:
    """Whether ASE reads a word of a file as a chemical symbol."""
    return word.capitalize() in atomic_numbers


def _hint(word: str) -> str:
    if word in ("D", "T"):
        return "; write H for an isotope of hydrogen"
    if word.isdecimal():
        known = 0 < int(word) < len(chemical_symbols) if len(word) < 4 else False
        element = (
            f"; write {chemical_symbols[int(word)]} if it is an atomic number" if known else ""
        )
        return f"{element}, or name the types with --type-map if it is a type of LAMMPS"
    letters = re.match("[A-Z][a-z]?", word)
    if letters:
        for symbol in (letters[0], letters[0][0]):
            if symbol in atomic_numbers:
                return f"; write {symbol} if that is meant, labels are not read"
    return "; write symbols such as H or Si"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
