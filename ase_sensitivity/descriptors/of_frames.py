"""The descriptor for a data set. QUIP strings without species get those of the frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_sensitivity.descriptors.given import as_descriptor, no_species, species_in
from ase_sensitivity.io.reading import Frames, read_frames


def descriptor_for(given: Any, frames: Frames, type_map: Sequence[str] | None = None) -> Any:
    """The descriptor that was given; QUIP strings without species get those of the frames.

    To find the species, all frames are read once.

    Raises
    ------
    ValueError
        If strings list no species, and the frames can be read only once or not at all.
    """
    if isinstance(frames, str | Path | Sequence):
        read = (frame.atoms for frame in read_frames(frames, type_map=type_map))
        return as_descriptor(given, lambda: species_in(atoms for atoms in read if atoms))
    return as_descriptor(given, no_species("an iterator can be read only once"))
