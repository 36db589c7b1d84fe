"""What a sweep has found so far, in a file with which it is continued after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase_sensitivity.dataset.basis.evaluation import Tried
from ase_sensitivity.dataset.rows import digest
from ase_sensitivity.io.line_file import locked
from ase_sensitivity.io.references import Task


class SweepStore:
    """A file with a line of JSON for each frame, after a line about the sweep.

    Parameters
    ----------
    path
        The file to continue or to begin.
    about
        What the lines depend on. A file of something else is refused.
    keys
        The candidates, in an order that is the same whenever ``about`` is.

    Raises
    ------
    TypeError, ValueError
        If it is no path, or the file is not of the same sweep.
    OSError
        If it cannot be opened, or another process writes to it.

    Notes
    -----
    Half a line at the end, of a process that was killed, is removed.
    """

    def __init__(
        self, path: str | Path, about: Mapping[str, Any], keys: Sequence[tuple[Any, ...]]
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"`store` is {path!r} but must be a path")
        self._path = Path(path)
        self._keys = list(keys)  # their values may be of any kind: lines have the numbers
        header = json.dumps({"converge": dict(about)}).encode() + b"\n"
        self._descriptor = locked(self._path, "sweep")
        try:
            self._lines = self._read(header)
        except BaseException:
            self.close()
            raise

    def _read(self, header: bytes) -> list[bytes]:
        """The complete lines after the header, which is written if there is none."""
        whole = self._path.read_bytes()
        lines = whole.splitlines(keepends=True)
        if not lines or (len(lines) == 1 and header.startswith(lines[0]) and lines[0] != header):
            os.ftruncate(self._descriptor, 0)
            self._append(header)
            return []
        if lines[0] != header:
            raise ValueError(
                f"`store` is {str(self._path)!r}, which is not of a sweep with the same "
                "descriptors and options; use another file"
            )
        if not lines[-1].endswith(b"\n"):
            os.ftruncate(self._descriptor, len(whole) - len(lines.pop()))
        return lines[1:]

    def known(self, task: Task) -> list[Tried] | None:
        """What was found for the next frame; None if it has to be computed.

        Raises
        ------
        ValueError
            If the line is of another frame, or damaged.
        """
        if not self._lines:
            return None
        line = self._lines.pop(0)
        try:
            found = json.loads(line)
            tried = [Tried(self._keys[place], row, n) for place, row, n in found["tried"]]
            same = found["digest"] == digest(task.atoms)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(
                f"`store` is {str(self._path)!r}, which is damaged: {error}"
            ) from error
        if not same:
            raise ValueError(
                f"`store` is {str(self._path)!r}, which has another structure, or other forces, "
                f"for {task.source}@{task.index}: the data have changed; use another file"
            )
        return tried

    def write(self, task: Task, tried: list[Tried]) -> None:
        """Add what was found for a frame."""
        rows = [[self._keys.index(one.key), one.row, one.n_features] for one in tried]
        self._append(json.dumps({"digest": digest(task.atoms), "tried": rows}).encode() + b"\n")

    def _append(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class NoStore:
    """In the place of a file: nothing is known, and nothing is kept."""

    def known(self, task: Task) -> list[Tried] | None:
        """Nothing."""
        return None

    def write(self, task: Task, tried: list[Tried]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
