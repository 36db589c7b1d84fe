"""The rows of all frames of a pool: in memory, or in a file with which a selection is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.dataset.select.model import N_DIRECTIONS
from ase_sensitivity.io.line_file import locked

Records = NDArray[np.void]

BLOCK = 512
"""Number of frames that are worked on at a time."""

GROWTH = 1.2
"""Factor by which the array in memory grows when it is full."""

LONGEST_ERROR = 240
"""Length of the longest error that is kept, in bytes."""


def record_type(n_columns: int, n_axes: int, n_species: int) -> np.dtype[np.void]:
    """The fields of the record of a frame, in single precision.

    ``n_columns`` is 0 if the frames have no rows of energies and forces.
    """
    return np.dtype(
        [
            ("digest", "S17"),
            ("error", f"S{LONGEST_ERROR}"),
            ("forces", "f4", (N_DIRECTIONS, n_columns)),
            ("energy", "f4", (n_columns,)),
            ("fractions", "f4", (n_species,)),
            ("average", "f4", (n_axes,)),
        ]
    )


class RowStore:
    """Records of frames in the order in which they were read.

    Parameters
    ----------
    kind
        That of :func:`record_type`.
    path
        A file to append to, or None for memory.
    about
        What the records depend on. A file of something else is refused.

    Raises
    ------
    ValueError
        If the file is not that of records of the same kind.
    OSError
        If the file cannot be opened, or another process writes to it.

    Notes
    -----
    The file begins with a line of JSON. What follows are records of equal length; half a record at
    the end, of a process that was killed, is overwritten.
    """

    def __init__(
        self,
        kind: np.dtype[np.void],
        path: str | Path | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._kind = kind
        self._path = None if path is None else Path(path)
        self._array: Records = np.empty(0, kind)
        self._n = 0
        if self._path is None:
            return
        self._descriptor = locked(self._path, "selection")
        try:
            shapes = {name: kind[name].shape for name in ("energy", "fractions", "average")}
            shape = {f"length of {name}": size for name, (size,) in shapes.items()}
            self._begin(self._path, dict(about or {}) | shape)
        except BaseException:
            self.close()
            raise

    def _begin(self, path: Path, about: dict[str, Any]) -> None:
        header = json.dumps({"select": about}).encode() + b"\n"
        with path.open("rb") as file:
            first = file.readline(1_000_000)
        if not header.startswith(first) or first == header:
            _check_header(path, first, about)
        else:  # empty, or of a process that was killed here
            os.ftruncate(self._descriptor, 0)
            self._append(header)
        self._offset = len(header)
        self._n = (path.stat().st_size - self._offset) // self._kind.itemsize
        os.ftruncate(self._descriptor, self._offset + self._n * self._kind.itemsize)

    def __len__(self) -> int:
        return self._n

    def add(self, records: Records) -> None:
        """Add records.

        Raises
        ------
        OSError
            If they cannot be written. Those before are safe.
        """
        if self._path is not None:
            self._append(records.tobytes())
        else:
            needed = self._n + len(records)
            if needed > len(self._array):
                # No second copy: that would be the most memory of all.
                self._array.resize(int(GROWTH * needed) + BLOCK, refcheck=False)
            self._array[self._n : needed] = records
        self._n += len(records)

    def _append(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    @property
    def records(self) -> Records:
        """All records, of shape (n,). Those of a file are read when they are needed."""
        if self._path is None:
            return self._array[: self._n]
        if self._n == 0:
            return self._array
        return np.memmap(self._path, self._kind, "r", self._offset, (self._n,))

    def close(self) -> None:
        """Close the file."""
        if self._path is not None:
            os.close(self._descriptor)


def _check_header(path: Path, line: bytes, about: Mapping[str, Any]) -> None:
    try:
        known = json.loads(line)["select"]
        wrong = [name for name, value in about.items() if known.get(name) != value]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"`store` is {str(path)!r}, which is not of a selection") from None
    if wrong:
        raise ValueError(
            f"`store` is {str(path)!r}, which is of a selection with {wrong[0]} = "
            f"{known.get(wrong[0])!r}, not {about[wrong[0]]!r}; use another file"
        )
