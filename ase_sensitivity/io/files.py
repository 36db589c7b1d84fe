"""Frames of one file of any format: those that can be read, and why others cannot."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import IO, Any, NamedTuple

from ase import Atoms
from ase.db import connect
from ase.io import Trajectory, iread
from ase.io.formats import get_compression, ioformats

from ase_sensitivity.io.compressed import fault_of, opened
from ase_sensitivity.io.formats import because, format_of, named
from ase_sensitivity.io.lammps import dump_texts, parsed_dump, with_elements
from ase_sensitivity.io.texts import Text, chosen_texts
from ase_sensitivity.io.xdatcar import parsed_xdatcar, xdatcar_texts
from ase_sensitivity.io.xyz import parsed_xyz, xyz_texts
from ase_sensitivity.plain_text import printable, reason

Parse = Callable[[Text, Sequence[str] | None], Atoms]

TEXTS: dict[str, tuple[Callable[[IO[bytes]], Iterator[Text]], Parse]] = {
    "xyz": (xyz_texts, parsed_xyz),
    "extxyz": (xyz_texts, parsed_xyz),
    "lammps-dump-text": (dump_texts, parsed_dump),
    "vasp-xdatcar": (xdatcar_texts, parsed_xdatcar),
}
"""Formats that are read frame by frame as text. ASE returns no frame of them if one is damaged."""

BEGINNINGS = {
    "cif": re.compile(rb"^data_", re.MULTILINE),
    "proteindatabank": re.compile(rb"^MODEL", re.MULTILINE),
}
"""How frames begin in formats that ASE reads as a whole: the last one can be cut off if it is
incomplete."""

LAMMPS = ("lammps-dump-text", "lammps-dump-binary", "lammps-data")


class _ClearError(ValueError):
    """An error with a message that needs no explanation."""


class Read(NamedTuple):
    """A frame with its number in the file, or the reason why it could not be read."""

    number: int
    atoms: Atoms | None
    error: str | None = None


def read_file(name: str, chosen: slice, type_map: Sequence[str] | None = None) -> Iterator[Read]:
    """Read some frames of a file.

    Parameters
    ----------
    name
        The file.
    chosen
        Which of its frames, as returned by :func:`counted_from_start`.
    type_map
        Chemical symbols of LAMMPS' types.

    Yields
    ------
    Read
        If the file cannot be read at all, only one, with the reason.
    """
    found = False
    try:
        kind = format_of(name)
    except Exception as error:
        yield Read(chosen.start, None, read_error(name, error))
        return
    if _is_plain(chosen) and kind in TEXTS:
        frames = _of_texts(name, chosen, kind, type_map)
    else:
        frames = _of_any(name, chosen, kind)
    for frame in frames:
        found = True
        if frame.atoms is not None and type_map is not None and kind in LAMMPS:
            try:
                with_elements(frame.atoms, type_map)
            except ValueError as error:
                frame = Read(frame.number, None, read_error(name, error))
        yield frame
    if not found:
        yield Read(chosen.start, None, printable(f"{name} has none of the frames asked for"))


def read_rows(name: str, query: str) -> Iterator[Read]:
    """Rows that a query selects from an ASE database, numbered in their order from 0."""
    number = 0
    try:
        for atoms in iread(name, index=query, do_not_split_by_at_sign=True):
            yield Read(number, atoms)
            number += 1
    except Exception as error:
        why = f"{query!r} is neither a slice nor a selection of an ASE database"
        yield Read(number, None, f"{read_error(f'{name}@{query}', error)} ({printable(why)}?)")


def counted_from_start(name: str, chosen: slice) -> slice:
    """The same slice with a start and a step, and if possible without negative indices."""
    step = 1 if chosen.step is None else chosen.step
    start = chosen.start if chosen.start is not None else (0 if step > 0 else -1)
    if start < 0 or step < 0 or (chosen.stop is not None and chosen.stop < 0):
        length = length_of(name)
        if length:
            start, stop, step = chosen.indices(length)
            return slice(start, None if stop < 0 else stop, step)
    return slice(start, chosen.stop, step)


def length_of(name: str) -> int | None:
    """How many frames a file has, if that is known without reading them; else None."""
    try:
        kind = format_of(name)
        if kind in TEXTS:
            with opened(name) as file:
                return sum(1 for _ in TEXTS[kind][0](file))
        if kind == "traj":
            with Trajectory(name) as trajectory:
                return len(trajectory)
        if kind in ("db", "postgresql"):
            return int(connect(name).count())
    except Exception:  # reported when the file is read
        pass
    return None


def read_error(name: str, error: Exception, kind: str | None = None) -> str:
    """Why a file or a frame of it could not be read, as a sentence that names the file.

    If a format is given, the error comes from ASE's reader, and its message may not say much.
    """
    what = reason(error)
    if isinstance(error, KeyError) and error.args:
        what = f"{error.args[0]!r} is not what belongs there, such as a chemical symbol"
    if kind is not None and not isinstance(error, _ClearError):
        what = f"ASE's reader of {kind} files stops ({what}); is it torn, or of another format?"
    return printable(what if what.startswith(name) else f"{name} cannot be read here: {what}")


def _is_plain(chosen: slice) -> bool:
    """Whether a slice counts frames from the start of the file."""
    return chosen.start >= 0 and (chosen.stop is None or chosen.stop >= 0)


def _of_texts(
    name: str, chosen: slice, kind: str, type_map: Sequence[str] | None
) -> Iterator[Read]:
    texts, parse = TEXTS[kind]
    number = chosen.start - chosen.step
    try:
        with opened(name) as file:
            for number, text in chosen_texts(texts(file), chosen):
                try:
                    yield Read(number, parse(text, type_map))
                except Exception as error:
                    yield Read(number, None, read_error(name, error) + because(fault_of(file)))
    except Exception as error:  # of the file as a whole
        yield Read(number + chosen.step, None, read_error(name, error))


def _of_any(name: str, chosen: slice, kind: str) -> Iterator[Read]:
    number, step = chosen.start, chosen.step
    while (number < 0) == (chosen.start < 0):
        try:
            for atoms in _iread(name, slice(number, chosen.stop, step), kind):
                yield Read(number, atoms)
                number += step
            return
        except Exception as error:
            wrong = read_error(name, error, kind)
        whole = _is_unreadable(name, kind)
        if whole and _is_plain(slice(number, chosen.stop)):
            rescued, complete = _rescued(name, slice(number, chosen.stop, step), kind)
            for atoms in rescued:
                yield Read(number, atoms)
                number += step
            if complete:
                return
        yield Read(number, None, wrong)
        if whole:
            return
        number += step


def _iread(name: str | IO[Any], index: slice, kind: str) -> Iterator[Atoms]:
    """Frames up to the first one that cannot be read; its error is raised."""
    form = ioformats[kind]
    if form.single and index.start not in (0, -1):
        raise _ClearError(f"a file of the format {kind} has one frame")
    if isinstance(name, str) and not form.acceptsfd and get_compression(name)[1]:
        raise _ClearError(
            f"ASE reads no compressed files of the format {kind}; decompress it first"
        )
    yield from iread(name, index=index, format=kind, do_not_split_by_at_sign=True)


def _is_unreadable(name: str, kind: str) -> bool:
    """Whether a file cannot be read as a whole: then no frame after a bad one can be read."""
    try:
        return bool(list(islice(_iread(name, slice(2**40, None), kind), 1)))
    except Exception:
        return True


def _rescued(name: str, chosen: slice, kind: str) -> tuple[list[Atoms], bool]:
    """Frames before the damage of a file that ASE reads as a whole, and whether these are all.

    Bytes of another encoding are replaced. If a compressed file is torn, its decompressed part is
    read. If the last frame is incomplete, it is cut off.
    """
    if not ioformats[kind].acceptsfd or not os.path.isfile(name):
        return [], False
    with opened(name) as file:
        try:
            data = file.read()
        except OSError:
            return [], False
        whole = fault_of(file) is None
    begin = BEGINNINGS.get(kind)
    last = max((found.start() for found in begin.finditer(data)), default=0) if begin else 0
    cut = data[:last]
    for part in (data, cut):
        if part is data and not whole and (begin or ioformats[kind].single):
            continue  # the rest of an incomplete frame may look like a frame
        frames: list[Atoms] = []
        try:
            for atoms in _iread(_file_of(part, name, kind), chosen, kind):
                frames.append(atoms)
        except Exception:  # the first error is reported already
            if not frames:
                continue
            return frames, False
        if frames:
            return frames, whole and part is data
    return [], False


def _file_of(data: bytes, name: str, kind: str) -> IO[Any]:
    """A file object for ASE, with the name of the file, which some readers need."""
    if ioformats[kind].isbinary:
        return named(io.BytesIO(data), name)
    return named(io.StringIO(data.decode(errors="replace")), name)
