"""Structures named on the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ase import Atoms


def read(name: str, index: str | None) -> Iterator[Atoms]:
    """Frames of a file one at a time, with an error that names it: ASE's need not.

    Parameters
    ----------
    name
        A file, or some of its frames: ``"run.traj@::10"``.
    index
        The frames of a name that does not say which; None for the last one.

    Raises
    ------
    ValueError, OSError
        If it cannot be read, or has no such frames.
    """
    from ase.io import iread  # loads much

    count = 0
    try:
        for atoms in iread(name, index=None if "@" in os.path.basename(name) else index):
            count += 1
            yield atoms
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it says all; other errors of ASE need not
        where = f" after {count} frames" if count else ""
        what = f"{type(error).__name__} {error}".strip()
        raise ValueError(f"ASE cannot read {name}{where}: {what}") from error
    if count == 0:
        raise ValueError(f"{name} has no frames")
