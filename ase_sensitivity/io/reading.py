"""Frames from lists, iterators and files, one at a time; a frame that fails has its error."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.utils import string2index

from ase_sensitivity.errors import ReadingWarning, warn
from ase_sensitivity.io.files import counted_from_start, length_of, read_file, read_rows
from ase_sensitivity.io.lammps import check_type_map, has_types_for_elements
from ase_sensitivity.plain_text import printable, reason
from ase_sensitivity.validation import check_exists

MEMORY = "frames"
"""The source of frames that were given as structures, not as a file."""

TYPES = (
    "the files have LAMMPS' types and no elements: type 1 is taken for H, 2 for He, ...; name "
    "the elements: --type-map Si,O, or type_map=['Si', 'O'] in Python"
)

Frames = str | Path | Iterable[str | Path | Atoms]


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame, or why it could not be read.

    Attributes
    ----------
    source
        The file, or :data:`MEMORY`.
    index
        Number in the source, as in ASE's ``@`` notation. Negative if the slice has negative numbers
        and the number of frames is unknown (:func:`count_frames`).
    atoms
        The structure, or None.
    error
        Why it could not be read, or None.
    """

    source: str
    index: int
    atoms: Atoms | None
    error: str | None = None


def check_frames(frames: Frames) -> None:
    """Raise if frames cannot be read from ``frames``, or a file that it names does not exist.

    Raises
    ------
    TypeError
        If it is neither a file nor an iterable.
    FileNotFoundError
        If a file does not exist.
    """
    if isinstance(frames, Atoms):
        raise TypeError("`frames` is one ase.Atoms but must be a list of them, or files")
    if isinstance(frames, str | Path):
        frames = [frames]
    if not isinstance(frames, Iterable) or isinstance(frames, bytes | Mapping):
        raise TypeError(f"`frames` is {frames!r} but must be a list of Atoms, or files")
    if isinstance(frames, list | tuple):
        for item in frames:
            if not isinstance(item, str | Path | Atoms):
                raise TypeError(f"`frames` has {item!r}, which is neither an ase.Atoms nor a file")
            if isinstance(item, str | Path):
                name, _ = split_name(item)
                if "://" not in name:
                    check_exists(name)


def split_name(path: str | Path, otherwise: str = ":") -> tuple[str, slice | str]:
    """The name of a file and the selection after ASE's ``@``, or ``otherwise`` without an ``@``.

    A selection that is returned as a string is a query of an ASE database.

    Raises
    ------
    ValueError
        If the selection makes no sense.
    """
    name, separator, selection = str(path).rpartition("@")
    if os.path.exists(str(path)) or not separator or os.sep in selection:
        name, selection = str(path), otherwise  # the @, if any, belongs to the name
    try:
        index = string2index(selection)
    except ValueError:
        index = selection
    if isinstance(index, int):
        index = slice(index, index + 1 or None)
    if isinstance(index, slice) and index.step == 0:
        raise ValueError(f"the step of {str(path)!r} is 0")
    if _is_literal(name):  # ASE's database would read it as a number
        name = os.path.join(os.curdir, name)
    return name, index


def _is_literal(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return name in ("True", "False")
    return True


def read_frames(
    frames: Frames, sources: Iterable[str] = (), type_map: Sequence[str] | None = None
) -> Iterator[Frame]:
    """Frames in order; those of files are read one at a time.

    Parameters
    ----------
    frames
        A file, or a list or iterator of files and structures.
    sources
        Names that are already in use for files: each file has one name, however its path is
        written.
    type_map
        Chemical symbols of the types 1, 2, ... in files of LAMMPS.

    Yields
    ------
    Frame
        A frame or a file that cannot be read is given with its error. A frame of a file is given
        once, even if several selections have it.

    Warns
    -----
    ReadingWarning
        If ASE reads LAMMPS' types as atomic numbers.

    Raises
    ------
    TypeError, ValueError
        If ``type_map`` has no chemical symbols.
    """
    type_map = check_type_map(type_map)
    number = 0
    names = {os.path.realpath(name): name for name in sources}
    seen: set[tuple[str, int]] = set()
    for item in [frames] if isinstance(frames, str | Path) else frames:
        if isinstance(item, str | Path):
            name, index = split_name(item)
            source = names.setdefault(os.path.realpath(name), printable(name))
            for frame in _of_file(name, index, source, type_map):
                if (frame.source, frame.index) not in seen:
                    seen.add((frame.source, frame.index))
                    yield _checked(frame)
            continue
        wrong = None if isinstance(item, Atoms) else f"{item!r} is not an ase.Atoms"
        yield _checked(Frame(MEMORY, number, None if wrong else item, wrong))
        number += 1


def _of_file(
    name: str, index: slice | str, source: str, type_map: Sequence[str] | None
) -> Iterator[Frame]:
    if isinstance(index, str):
        whole = f"{source}@{printable(index)}"
        yield from (Frame(whole, *found) for found in read_rows(name, index))
        return
    for found in read_file(name, counted_from_start(name, index), type_map):
        if type_map is None and found.atoms is not None and has_types_for_elements(found.atoms):
            warn(TYPES, ReadingWarning)
        yield Frame(source, *found)


def _checked(frame: Frame) -> Frame:
    """The frame; with an error instead of the structure if an atomic number is not valid."""
    if frame.atoms is None:
        return frame
    try:
        check_numbers(frame.atoms)
    except ValueError as error:
        return replace(frame, atoms=None, error=reason(error))
    return frame


def check_numbers(atoms: Atoms) -> None:
    """Raise ValueError if an atomic number is not that of an element."""
    numbers = np.asarray(atoms.numbers)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(chemical_symbols)))
    if len(wrong):
        raise ValueError(
            f"atom {wrong[0]} has the atomic number {numbers[wrong[0]]}, which is no element; "
            f"they end at {len(chemical_symbols) - 1}"
        )


def count_frames(frames: Frames) -> int | None:
    """How many frames there are, if that is known without reading them.

    None for iterators and for files that are neither XYZ files, LAMMPS dumps, ASE
    trajectories nor ASE databases.
    """
    if isinstance(frames, str | Path):
        frames = [frames]
    if not isinstance(frames, list | tuple):
        return None
    n_structures = 0
    of_files: dict[str, set[int]] = {}
    for item in frames:
        if not isinstance(item, str | Path):
            n_structures += 1
            continue
        name, index = split_name(item)
        number = length_of(name)
        if number is None or isinstance(index, str):
            return None
        chosen = range(*index.indices(number))
        of_files.setdefault(os.path.realpath(name), set()).update(chosen)
    return n_structures + sum(map(len, of_files.values()))
