"""The frames of a pool: a sample of them, all of them in order, and a few of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_sensitivity.dataset.rows import digest
from ase_sensitivity.environments.place import Place
from ase_sensitivity.io.reading import Frames, check_frames, count_frames, read_frames
from ase_sensitivity.io.references import Task

MOST_SAMPLED = 300
"""Number of frames in the sample."""


def as_source(frames: Frames) -> str | Path | list[str | Path | Atoms]:
    """Frames that can be read several times; those of an iterator are put in a list.

    Raises
    ------
    TypeError, FileNotFoundError
        If frames cannot be read from it.
    """
    check_frames(frames)
    if isinstance(frames, str | Path):
        return frames
    found = list(frames)
    check_frames(found)
    return found


@dataclass(eq=False)
class Source:
    """Frames that are read several times.

    Attributes
    ----------
    frames, type_map
        As in :func:`~ase_sensitivity.select`.
    places
        The place of each frame, once all have been read.
    """

    frames: Frames
    type_map: Sequence[str] | None
    places: list[Place] = field(default_factory=list)

    def sample(self) -> list[Atoms]:
        """Structures at even distances over the set.

        Raises
        ------
        ValueError
            If no frame can be read.
        """
        number = count_frames(self.frames)
        if number is None:
            number = sum(1 for _ in read_frames(self.frames, type_map=self.type_map))
        places = np.linspace(0, number, min(number, MOST_SAMPLED), endpoint=False)
        wanted = places.astype(int).tolist()
        found: list[Atoms] = []
        error: str | None = "there are none"
        for count, frame in enumerate(read_frames(self.frames, type_map=self.type_map)):
            if len(found) == len(wanted):
                break
            if count < wanted[len(found)]:
                continue
            if frame.atoms is not None and len(frame.atoms):
                found.append(_bare(frame.atoms))
            else:  # the next one takes its place
                error = frame.error or "the frame has no atoms"
        if not found:
            raise ValueError(f"`frames` is {self.frames!r}, which has no usable frames: {error}")
        return found

    def tasks(self, known: NDArray[np.bytes_]) -> Iterator[Task]:
        """Tasks of all frames in order but the first ones, whose digests are known already.

        Raises
        ------
        ValueError
            If the structure of such a frame has changed.
        """
        self.places.clear()
        for frame in read_frames(self.frames, type_map=self.type_map):
            self.places.append(Place(frame.index, None, frame.source))
            atoms = Atoms() if frame.atoms is None else _bare(frame.atoms)
            if len(self.places) > len(known):
                yield Task(frame.source, frame.index, atoms, error=frame.error)
            elif known[len(self.places) - 1] != digest(atoms).encode():
                raise ValueError(
                    f"`store` has another structure for {self.places[-1]}: the data have changed; "
                    "use another file"
                )
        if len(self.places) < len(known):
            raise ValueError(
                f"`store` has {len(known)} frames but `frames` only {len(self.places)}; use "
                "another file"
            )

    def structures(self, numbers: Collection[int]) -> dict[int, Atoms]:
        """Some of the frames as they were read, by their numbers."""
        wanted = set(numbers)
        found: dict[int, Atoms] = {}
        for number, frame in enumerate(read_frames(self.frames, type_map=self.type_map)):
            if len(found) == len(wanted):
                break
            if number in wanted and frame.atoms is not None:
                found[number] = frame.atoms
        return found


def digest_of(structures: Sequence[Atoms]) -> str:
    """A hash of several structures."""
    return hashlib.sha256("".join(map(digest, structures)).encode()).hexdigest()[:16]


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
