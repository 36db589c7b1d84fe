"""Frames from lists, iterators and files, one at a time, with the errors of those that fail."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import numpy as np
from ase import Atoms

from ase_sensitivity.dataset.xyz import chosen_texts, is_xyz, parsed, xyz_texts
from ase_sensitivity.plain_text import printable, reason

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
        Number in the source: what ASE's ``@`` takes. Negative if the slice is, and the number of
        frames is not known (:func:`count_frames`).
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
    if not isinstance(frames, Iterable) or isinstance(frames, bytes | Mapping):
        raise TypeError(f"`frames` is {frames!r} but must be a list of Atoms, or files")
    if isinstance(frames, list | tuple):
        for item in frames:
            if not isinstance(item, str | Path | Atoms):
                raise TypeError(f"`frames` has {item!r}, which is neither an ase.Atoms nor a file")
            if isinstance(item, str | Path):
                name, _ = split_name(item)
                if "://" not in name and not os.path.exists(name):
                    raise FileNotFoundError(f"there is no file {name}")


def split_name(path: str | Path, otherwise: str = ":") -> tuple[str, slice | str]:
    """The name of a file and what ASE's ``@`` selects from it, or ``otherwise`` if nothing.

    A string is a selection of an ASE database.

    Raises
    ------
    ValueError
        If the selection makes no sense.
    """
    from ase.utils import string2index

    name, separator, selection = str(path).rpartition("@")
    if os.path.exists(str(path)) or not separator or os.sep in selection:
        name, selection = str(path), otherwise  # an @ belongs to the name
    try:
        index = string2index(selection)
    except ValueError:
        index = selection
    if isinstance(index, int):
        index = slice(index, index + 1 or None)
    if isinstance(index, slice) and index.step == 0:
        raise ValueError(f"the step of {str(path)!r} is 0")
    if _is_literal(name):  # a database would take it for a number
        name = os.path.join(os.curdir, name)
    return name, index


def _is_literal(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return name in ("True", "False")
    return True


def read_frames(frames: Frames, sources: Iterable[str] = ()) -> Iterator[Frame]:
    """Frames in order, those of files as they are read.

    Parameters
    ----------
    frames
        A file, or a list or iterator of files and structures.
    sources
        Names that files have already: a file has one, however it is spelled.

    Yields
    ------
    Frame
        A frame that cannot be read is given with its error, and so is a file. Frames of files come
        once, also if several selections have them.
    """
    number = 0
    names = {os.path.realpath(name): name for name in sources}
    seen: set[tuple[str, int]] = set()
    for item in [frames] if isinstance(frames, str | Path) else frames:
        if isinstance(item, str | Path):
            name, index = split_name(item)
            source = names.setdefault(os.path.realpath(name), printable(name))
            if isinstance(index, str):
                found = _selected(name, index, source)
            else:
                found = (replace(frame, source=source) for frame in _of_file(name, index))
            for frame in found:
                if (frame.source, frame.index) not in seen:
                    seen.add((frame.source, frame.index))
                    yield _checked(frame)
            continue
        wrong = None if isinstance(item, Atoms) else f"{item!r} is not an ase.Atoms"
        yield _checked(Frame(MEMORY, number, None if wrong else item, wrong))
        number += 1


def _checked(frame: Frame) -> Frame:
    """The frame, or why it is none: of whatever a file holds, only structures get further."""
    if frame.atoms is None:
        return frame
    try:
        check_numbers(frame.atoms)
    except ValueError as error:
        return replace(frame, atoms=None, error=reason(error))
    return frame


def check_numbers(atoms: Atoms) -> None:
    """Raise ValueError if an atom is of no element."""
    from ase.data import chemical_symbols

    numbers = np.asarray(atoms.numbers)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(chemical_symbols)))
    if len(wrong):
        raise ValueError(
            f"atom {wrong[0]} has the atomic number {numbers[wrong[0]]}, which is no element; "
            f"they end at {len(chemical_symbols) - 1}"
        )


def read_strictly(path: str | Path, otherwise: str = ":") -> Iterator[Atoms]:
    """Frames of a file one at a time; the first one that cannot be read is the end of it.

    Parameters
    ----------
    path
        A file, or some of its frames: ``"run.traj@::10"``.
    otherwise
        The frames of a name that does not say which.

    Raises
    ------
    ValueError, OSError
        If it cannot be read, or has no such frames.
    """
    name, index = split_name(path, otherwise)
    number = 0
    try:
        for atoms in _iread(name, index):
            check_numbers(atoms)
            number += 1
            yield atoms
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it says all; other errors of ASE need not
        where = f" after {number} frame{'s' if number > 1 else ''}" if number else ""
        what = f"{type(error).__name__} {error}".strip()
        raise ValueError(f"ASE cannot read {path}{where}: {what}") from error
    if number == 0:
        raise ValueError(f"{path} has no frames")


def frame_numbers(path: str | Path, otherwise: str = ":") -> Iterator[int]:
    """The numbers that the frames of :func:`read_strictly` have in their file, without an end."""
    name, index = split_name(path, otherwise)
    if isinstance(index, str):
        return count()
    chosen = _from_the_front(name, index)
    return count(chosen.start, chosen.step)


def _selected(name: str, query: str, source: str) -> Iterator[Frame]:
    """Rows of an ASE database, numbered in their order: the numbers are those of the selection."""
    number = 0
    whole = f"{source}@{printable(query)}"
    try:
        for atoms in _iread(name, query):
            yield Frame(whole, number, atoms)
            number += 1
    except Exception as error:
        why = f"{query!r} is neither a slice nor a selection of an ASE database"
        yield Frame(whole, number, None, f"{_told(whole, error)} ({why}?)")


def _of_file(name: str, chosen: slice) -> Iterator[Frame]:
    chosen = _from_the_front(name, chosen)
    found = False
    for frame in (_of_xyz if _is_plain(chosen) and is_xyz(name) else _of_any)(name, chosen):
        found = True
        yield frame
    if not found:
        wrong = printable(f"{name} has none of the frames asked for")
        yield Frame(name, chosen.start, None, wrong)


def _from_the_front(name: str, chosen: slice) -> slice:
    """The same slice with a start and a step, and without negative numbers if that is possible."""
    step = 1 if chosen.step is None else chosen.step
    start = chosen.start if chosen.start is not None else (0 if step > 0 else -1)
    if start < 0 or step < 0 or (chosen.stop is not None and chosen.stop < 0):
        try:
            length = _length(name)
        except Exception:  # to be told when it is read
            length = None
        if length:
            start, stop, step = chosen.indices(length)
            return slice(start, None if stop < 0 else stop, step)
    return slice(start, chosen.stop, step)


def _is_plain(chosen: slice) -> bool:
    """Whether all frames are counted from the front."""
    return chosen.start >= 0 and (chosen.stop is None or chosen.stop >= 0)


def _of_xyz(name: str, chosen: slice) -> Iterator[Frame]:
    number = chosen.start - chosen.step
    try:
        for number, text, wrong in chosen_texts(name, chosen):
            yield _of_text(name, number, text, wrong)
    except Exception as error:  # the file itself, such as one that is compressed and torn
        yield Frame(name, number + chosen.step, None, _told(name, error))


def _of_text(name: str, number: int, text: str, wrong: str | None) -> Frame:
    try:
        return Frame(name, number, parsed(text, wrong))
    except Exception as error:
        return Frame(name, number, None, _told(name, error))


def _of_any(name: str, chosen: slice) -> Iterator[Frame]:
    number, step = chosen.start, chosen.step
    while (number < 0) == (chosen.start < 0):
        try:
            for atoms in _iread(name, slice(number, chosen.stop, step)):
                yield Frame(name, number, atoms)
                number += step
            return
        except Exception as error:
            yield Frame(name, number, None, _told(name, error))
            if _is_unreadable(name):
                return
            number += step


def count_frames(frames: Frames) -> int | None:
    """How many frames there are, where that is known without reading them.

    None for iterators and for files that are neither XYZ files, ASE trajectories nor ASE databases.
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
        try:
            number = _length(name)
        except Exception:  # to be told when it is read
            number = None
        if number is None or isinstance(index, str):
            return None
        chosen = range(*index.indices(number))
        of_files.setdefault(os.path.realpath(name), set()).update(chosen)
    return n_structures + sum(map(len, of_files.values()))


def _length(name: str) -> int | None:
    from ase.io.formats import filetype  # loads much

    if is_xyz(name):
        return sum(1 for _ in xyz_texts(name))
    kind = filetype(name)
    if kind == "traj":
        from ase.io import Trajectory

        with Trajectory(name) as trajectory:
            return len(trajectory)
    if kind in ("db", "postgresql"):
        from ase.db import connect

        return int(connect(name).count())
    return None


def _iread(name: str, index: slice | str) -> Iterator[Atoms]:
    """Frames up to the first one that cannot be read, whose error is raised."""
    from ase.io import iread  # loads much

    if isinstance(index, slice) and is_xyz(name):
        index = _from_the_front(name, index)
        if _is_plain(index):
            yield from (parsed(text, wrong) for _, text, wrong in chosen_texts(name, index))
            return
    yield from iread(name, index=index, do_not_split_by_at_sign=True)


def _is_unreadable(name: str) -> bool:
    """Whether a file as a whole cannot be read: then there are no frames behind a bad one."""
    try:
        return bool(list(islice(_iread(name, slice(2**40, None)), 1)))
    except Exception:
        return True


def _told(name: str, error: Exception) -> str:
    return printable(f"{name} cannot be read here: {reason(error)}")
