"""Frames from lists, iterators and files, one at a time, with the errors of those that fail."""

from __future__ import annotations

import io
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ase import Atoms

MEMORY = "frames"
"""The source of frames that were given as such, not as a file."""

Frames = str | Path | Iterable[str | Path | Atoms]


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame, or why there is none.

    Attributes
    ----------
    source
        The file, or :data:`MEMORY`.
    index
        Number in the source: what ASE's ``@`` takes. Negative if the slice was.
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
    """Raise if ``frames`` is nothing to read frames from, or names a file that is not there.

    Raises
    ------
    TypeError
        If it is neither a file nor an iterable.
    FileNotFoundError
        If a file of a list does not exist.
    """
    if isinstance(frames, Atoms):
        raise TypeError("`frames` is one ase.Atoms but must be a list of them, or files")
    if isinstance(frames, str | Path):
        frames = [frames]
    if not isinstance(frames, Iterable):
        raise TypeError(f"`frames` is {frames!r} but must be a list of Atoms, or files")
    if isinstance(frames, list | tuple):
        for item in frames:
            if not isinstance(item, str | Path | Atoms):
                raise TypeError(f"`frames` has {item!r}, which is neither an ase.Atoms nor a file")
            if isinstance(item, str | Path):
                name, _ = split_name(item)
                if "://" not in name and not os.path.exists(name):
                    raise FileNotFoundError(f"there is no file {name}")


def split_name(path: str | Path) -> tuple[str, slice | str]:
    """The name of a file and what ASE's ``@`` selects from it; all if nothing.

    A string is a selection of an ASE database.
    """
    from ase.io.formats import parse_filename  # loads much

    text = str(path)
    if os.path.exists(text):  # then an @ belongs to its name
        return text, slice(None)
    name, index = parse_filename(text)
    if isinstance(index, int):
        index = slice(index, index + 1 or None)
    return name, slice(None) if index is None else index


def read_frames(
    frames: Frames, done: Mapping[str, Container[int]] | None = None
) -> Iterator[Frame]:
    """Frames in order, those of files as they are read.

    Parameters
    ----------
    frames
        A file, or a list or iterator of files and structures.
    done
        Indices to leave out, by source.

    Yields
    ------
    Frame
        A frame that cannot be read is given with its error, and so is a file.
    """
    known = {} if done is None else done
    number = 0
    for item in [frames] if isinstance(frames, str | Path) else frames:
        if isinstance(item, str | Path):
            name, index = split_name(item)
            if isinstance(index, str):
                yield from _selected(name, index, known.get(name, ()))
            else:
                yield from _of_file(name, index, known.get(name, ()))
            continue
        if number not in known.get(MEMORY, ()):
            wrong = None if isinstance(item, Atoms) else f"{item!r} is not an ase.Atoms"
            yield Frame(MEMORY, number, None if wrong else item, wrong)
        number += 1


def _selected(name: str, query: str, done: Container[int]) -> Iterator[Frame]:
    """Rows of an ASE database; numbered in their order."""
    number = 0
    try:
        for atoms in _iread(name, query):
            if number not in done:
                yield Frame(name, number, atoms)
            number += 1
    except Exception as error:
        yield Frame(name, number, None, _told(name, error))


def _of_file(name: str, chosen: slice, done: Container[int]) -> Iterator[Frame]:
    step = 1 if chosen.step is None else chosen.step
    first = chosen.start if chosen.start is not None else (0 if step > 0 else -1)
    if first < 0 and step > 0 and _is_before_all(name, first):
        first = 0
    number = first
    while number in done:
        number += step
    found = number != first
    while (number < 0) == (first < 0):
        try:
            for atoms in _iread(name, slice(number, chosen.stop, chosen.step)):
                found = True
                if number not in done:
                    yield Frame(name, number, atoms)
                number += step
            break
        except Exception as error:
            found = True
            if not _is_unreadable(name):  # it is only this frame
                yield Frame(name, number, None, _told(name, error))
                number += step
            elif first >= 0 and step > 0 and _is_xyz(name):
                rest = slice(number, chosen.stop, step)
                yield from (frame for frame in _of_torn_xyz(name, rest) if frame.index not in done)
                break
            else:
                yield Frame(name, number, None, _told(name, error))
                break
    if not found:
        yield Frame(name, number, None, f"{name} has no frame {number}")


def _is_xyz(name: str) -> bool:
    from ase.io.formats import filetype  # loads much

    try:
        return filetype(name) in ("xyz", "extxyz")
    except Exception:
        return False


def _of_torn_xyz(name: str, chosen: slice) -> Iterator[Frame]:
    from ase.io import read  # loads much

    texts = islice(enumerate(xyz_texts(name)), chosen.start, None)
    for number, text in texts:
        if chosen.stop is not None and 0 <= chosen.stop <= number:
            return
        if (number - chosen.start) % chosen.step:
            continue
        try:
            (atoms,) = read(io.StringIO(text), index=":", format="extxyz")
            yield Frame(name, number, atoms)
        except Exception as error:
            yield Frame(name, number, None, _told(name, error))


def xyz_texts(name: str) -> Iterator[str]:
    """Frames of an XYZ file as they stand there, also behind one that is torn.

    A frame begins at a line with nothing but its number of atoms; what is neither part of a frame
    nor one of these is given as a text of its own.
    """
    from ase.io.formats import open_with_compression  # loads much

    with open_with_compression(name, "r") as file:
        text: list[str] = []
        missing = 0
        for line in file:
            is_comment = len(text) == 1 and missing > 0
            is_header = line.strip().isdigit() and not is_comment
            if is_header and text:
                if "".join(text).strip():
                    yield "".join(text)  # too short, or no frame at all
                text = []
            if not text:
                missing = int(line) + 2 if is_header else 0
            text.append(line)
            missing -= 1
            if missing == 0:
                yield "".join(text)
                text = []
        if "".join(text).strip():
            yield "".join(text)


def count_frames(frames: Frames) -> int | None:
    """How many frames there are, where that is known without reading them.

    None for iterators and for files that are neither XYZ files, ASE trajectories nor ASE databases.
    """
    if isinstance(frames, str | Path):
        frames = [frames]
    if not isinstance(frames, list | tuple):
        return None
    total = 0
    for item in frames:
        if not isinstance(item, str | Path):
            total += 1
            continue
        name, index = split_name(item)
        try:
            number = _length(name)
        except Exception:  # to be told when it is read
            number = None
        if number is None or isinstance(index, str):
            return None
        total += len(range(*index.indices(number)))
    return total


def _length(name: str) -> int | None:
    from ase.io.formats import filetype  # loads much

    kind = filetype(name)
    if kind in ("xyz", "extxyz"):
        return sum(1 for _ in xyz_texts(name))
    if kind == "traj":
        from ase.io import Trajectory

        with Trajectory(name) as trajectory:
            return len(trajectory)
    if kind in ("db", "postgresql"):
        from ase.db import connect

        return int(connect(name).count())
    return None


def _iread(name: str, index: Any) -> Iterator[Atoms]:
    from ase.io import iread  # loads much

    yield from iread(name, index=index, do_not_split_by_at_sign=True)


def _is_before_all(name: str, number: int) -> bool:
    """Whether a file has fewer frames than a negative number counts back."""
    try:
        return not list(_iread(name, slice(number, number + 1 or None)))
    except Exception:
        return False


def _is_unreadable(name: str) -> bool:
    """Whether a file as a whole cannot be read: then there are no frames behind a bad one."""
    try:
        return bool(list(islice(_iread(name, slice(2**40, None)), 1)))
    except Exception:
        return True


def _told(name: str, error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{name} cannot be read here: {text}"
