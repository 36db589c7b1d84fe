"""What an observer writes: log, flagged frames, and every warning once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from ase import Atoms

from ase_sensitivity.errors import EvaluationWarning, warn
from ase_sensitivity.io.line_file import LineFile, check_file, locked
from ase_sensitivity.md.frames import FrameFile, check_is_flagged, check_path
from ase_sensitivity.md.log import check_is_log, columns
from ase_sensitivity.plain_text import reason

logger = logging.getLogger(__name__)


class Output:
    """Log and trajectory of an observer, and its warnings.

    Parameters
    ----------
    logfile, trajectory, append, comm
        As of :class:`~ase_sensitivity.SensitivityObserver`.
    header
        Text before the first line, or None for none and no names of columns.
    k
        Number of singular values in a line.
    compared
        Whether lines have the columns of a reference.

    Attributes
    ----------
    n_unwritten
        How often something could not be written at once.

    Raises
    ------
    TypeError, ValueError
        If a file is none, or one of something else.
    OSError
        If a file cannot be opened, or another observer writes to it.
    """

    # For a constructor that fails before it opens them.
    _log: LineFile | None = None
    _frames: FrameFile | None = None

    def __init__(
        self,
        logfile: str | Path | IO[str] | None,
        trajectory: str | Path | None,
        *,
        header: str | None,
        k: int,
        compared: bool = False,
        append: bool,
        comm: Any,
    ) -> None:
        self.n_unwritten = 0
        self._warned: set[str] = set()
        _check_files(logfile, trajectory, comm)
        self._log = LineFile(logfile, append, comm)
        if trajectory is not None:
            self._frames = FrameFile(trajectory, append, comm)
        if header is not None:
            self.write_line(header + (columns(k, compared) if self._log.empty else ""))

    def copy_log_to(self, stream: IO[str]) -> None:
        """Write every further line of the log to ``stream`` as well, on all ranks."""
        assert self._log is not None
        self._log.copy = stream

    def write_line(self, text: str) -> None:
        """Write text, which ends with a newline, to the log."""
        log = self._log
        assert log is not None
        self._write(lambda: log.write(text))

    def record(self, frame: Callable[[], Atoms]) -> None:
        """Write what ``frame`` gives to the trajectory, if there is one."""
        frames = self._frames
        if frames is not None:
            self._write(lambda: frames.write(frame()))

    def _write(self, write: Callable[[], None]) -> None:
        """Write, and go on if that fails: the run is worth more than its log."""
        try:
            write()
        except Exception as error:
            self.n_unwritten += 1
            level = logging.ERROR if self.n_unwritten == 1 else logging.INFO
            logger.log(level, "a result could not be written: %s", error)
            self.warn("a result of the observer could not be written", EvaluationWarning)

    def warn(self, message: str, category: type[Warning]) -> None:
        """Warn once.

        Python's own memory of what it has shown does not survive `warnings.catch_warnings`, which
        a calculator may use at every step.
        """
        if message not in self._warned:
            self._warned.add(message)
            warn(message, category)

    def close(self) -> None:
        """Close log and trajectory, as far as they were opened here."""
        for file in self._files:
            file.close()

    @property
    def lost(self) -> str | None:
        """Why log or trajectory are not complete after they were closed; None if they are."""
        reasons = [reason(file.lost) for file in self._files if file.lost is not None]
        return "; ".join(reasons) or None

    @property
    def _files(self) -> list[LineFile | FrameFile]:
        return [file for file in (self._log, self._frames) if file is not None]


def _check_files(logfile: object, trajectory: Any, comm: object) -> None:
    """Raise if a file cannot be used: opening one empties it, so that both are checked before."""
    check_file(logfile)
    if trajectory is not None:
        check_path(trajectory)
        if isinstance(logfile, str | os.PathLike) and _same(logfile, trajectory):
            raise ValueError(f"`logfile` and `trajectory` are both {str(logfile)!r}")
    for file in (logfile, trajectory):  # neither is emptied if the other one is in use
        if isinstance(file, str | os.PathLike) and file != "-" and os.path.isfile(file):
            os.close(locked(file))
    check_is_log(logfile)
    if trajectory is not None:
        check_is_flagged(trajectory)
    if not hasattr(comm, "rank"):
        raise TypeError(f"`comm` is {comm!r} but must be an MPI communicator such as ASE's `world`")


def _same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
