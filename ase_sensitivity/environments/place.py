"""Where an environment is: source, frame and center."""

from __future__ import annotations

from typing import NamedTuple

from ase_sensitivity.io.reading import MEMORY


class Place(NamedTuple):
    """An environment, or a whole structure.

    Attributes
    ----------
    frame
        Number of the structure in its source.
    center
        The atom at the center; None for the whole structure.
    source
        The file, or ``"frames"`` for structures that were given as such.
    """

    frame: int
    center: int | None
    source: str = MEMORY

    def __str__(self) -> str:
        atom = "" if self.center is None else f" atom {self.center}"
        return f"{self.source}@{self.frame}{atom}"
