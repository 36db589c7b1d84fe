"""The log of a monitored run: written line by line, read back as arrays at any time."""

from __future__ import annotations

import gc
import io
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.sensitivity import Sensitivity

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

STATES = ("ok", "below", "singular", "calibrating", "failed")


class LineFile:
    """Appends text to a file as it comes, and keeps what the disk does not take.

    Nothing is buffered, so that a killed process loses at most part of its last line. After an
    error such as a full disk, the next call writes the rest first: no line is lost or torn.

    Parameters
    ----------
    file
        A path, ``"-"`` for the standard output, an open text file, or None to write nothing.
    append
        Whether to keep what the file holds.
    comm
        Only its rank 0 writes.
    mend
        Called with the path before anything is appended to a file.

    Attributes
    ----------
    empty
        Whether nothing was written yet, nor found in a file to append to.
    copy
        A stream that gets every text as well, on all ranks, or None.

    Raises
    ------
    TypeError
        If ``file`` is something else.
    OSError
        If it cannot be opened, or somebody else writes to it.
    """

    def __init__(
        self,
        file: str | Path | IO[str] | None,
        append: bool,
        comm: Any,
        mend: Callable[[str | Path], None] | None = None,
    ) -> None:
        self._stream: IO[str] | None = None
        self._descriptor: int | None = None
        self._pending = b""
        self._closed = False
        self.empty = True
        self.copy: IO[str] | None = None
        check_file(file)
        if file is None or comm.rank != 0:
            return
        if file == "-":
            self._stream = sys.stdout
        elif isinstance(file, str | os.PathLike):
            self._descriptor = locked(file)
            if append and mend is not None:
                mend(file)
            elif not append and os.fstat(self._descriptor).st_size:  # a device has no size
                os.ftruncate(self._descriptor, 0)
            self.empty = os.fstat(self._descriptor).st_size == 0
            if not self.empty and not _ends_line(file):
                self._pending = b"\n"  # the run before was killed in the middle of a line
        else:
            self._stream = file

    def write(self, text: str) -> None:
        """Write ``text``, after whatever an earlier error kept back.

        Raises
        ------
        OSError
            If not all of it could be written. It is kept for the next call.
        ValueError
            If the file was closed.
        """
        if self._closed:
            raise ValueError("the file was closed before the run ended")
        self.empty = False
        if self.copy is not None:
            self.copy.write(text)
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()
        elif self._descriptor is not None:
            self._pending += text.encode()
            self._write_pending(self._descriptor)

    def _write_pending(self, descriptor: int) -> None:
        while self._pending:
            written = os.write(descriptor, self._pending)
            self._pending = self._pending[written:]

    def close(self) -> None:
        """Close the file if it was opened here."""
        self._closed = True
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            try:
                self._write_pending(descriptor)
            except OSError as error:
                logger.error("%d bytes could not be written: %s", len(self._pending), error)
            finally:
                os.close(descriptor)


def locked(file: str | os.PathLike[str]) -> int:
    """Open a file to append to, as it is; nobody else gets it until the descriptor is closed.

    Raises
    ------
    OSError
        If somebody else has it, in this process or another one, or it cannot be opened.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    if fcntl is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            gc.collect()  # an observer whose run is gone
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError(
            f"another observer writes to {file}, in this process or another one; end that run, or "
            "close() that observer, or use another name"
        ) from None
    except OSError as error:  # a file system without locks
        logger.info("%s could not be locked: %s", file, error)
    return descriptor


def check_file(file: object) -> None:
    """Raise TypeError if ``file`` is nothing that a log can be written to."""
    binary = isinstance(file, io.RawIOBase | io.BufferedIOBase)
    if file is None or isinstance(file, str | os.PathLike):
        return
    if binary or not hasattr(file, "write") or not hasattr(file, "flush"):
        raise TypeError(f"`logfile` is {file!r} but must be a path, an open text file or None")


def check_is_log(file: object) -> None:
    """Raise ValueError if ``file`` is a path to something else than a log, which would be lost."""
    if file == "-" or not isinstance(file, str | os.PathLike) or not os.path.isfile(file):
        return
    with open(file, encoding="utf-8", errors="replace") as stream:
        words = stream.readline().split()
    if words and not words[0].startswith("#") and words[0] != "Step" and _parse(words) is None:
        raise ValueError(f"`logfile` is {str(file)!r}, which is not a log; use another name")


def _ends_line(path: str | os.PathLike[str]) -> bool:
    """Whether a file that is not empty ends with a newline."""
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


@dataclass(frozen=True, eq=False)
class SensitivityLog:
    """A log as arrays, one entry per call of the observer.

    Attributes
    ----------
    step
        Step of the run, of shape (n,).
    time
        In fs, of shape (n,); nan where the run has no time.
    sigma
        The k smallest non-trivial singular values, of shape (n, k); nan where there are fewer, the
        evaluation failed, or a part of the log was written with a smaller k.
    sigma_max, ratio
        The largest singular value and sigma_1 / sigma_max, of shape (n,).
    n_null
        Number of non-trivial singular values that are zero, of shape (n,); -1 for a failure.
    worst_atom
        The atom that moves most in the softest mode, of shape (n,); -1 for a failure.
    distance
        To the nearest singular configuration in Å, of shape (n,); nan where it was not looked for.
    arrival
        Time in fs until it is reached at the present velocities, of shape (n,); nan where it
        moves away or is not known.
    cause
        Of that configuration, of shape (n,); ``"-"`` where none is known.
    state
        ``"ok"``, ``"below"`` (the threshold, but not long enough), ``"singular"``,
        ``"calibrating"`` or ``"failed"``, of shape (n,).
    """

    step: NDArray[np.int64]
    time: NDArray[np.float64]
    sigma: NDArray[np.float64]
    sigma_max: NDArray[np.float64]
    ratio: NDArray[np.float64]
    n_null: NDArray[np.int64]
    worst_atom: NDArray[np.int64]
    distance: NDArray[np.float64]
    arrival: NDArray[np.float64]
    cause: NDArray[np.str_]
    state: NDArray[np.str_]

    def __repr__(self) -> str:
        return f"SensitivityLog({len(self)} calls, smallest ratio {self._smallest():.3g})"

    def _smallest(self) -> float:
        known = self.ratio[np.isfinite(self.ratio)]
        return float(known.min()) if len(known) else float("nan")

    def __len__(self) -> int:
        return len(self.step)


def columns(k: int) -> str:
    """Column names with their units."""
    sigma = "".join(f" {f'sigma_{i + 1}[1/A]':>13}" for i in range(k))
    return (
        f"{'Step':>9} {'Time[fs]':>12}{sigma} {'sigma_max':>12} {'ratio':>11} "
        f"{'n_null':>6} {'worst_atom':>10} {'distance[A]':>11} {'arrival[fs]':>11} {'cause':>14} "
        "state\n"
    )


def line(
    step: int,
    time: float,
    k: int,
    found: Sensitivity | None,
    state: str,
    arrival: float = float("nan"),
) -> str:
    """One line of the log; ``found`` is None if the evaluation failed."""
    sigma = np.full(k, np.nan)
    sigma_max, ratio, n_null, worst = np.nan, np.nan, -1, -1
    distance, cause = np.nan, None
    if found is not None:
        sigma[: len(found.singular_values)] = found.singular_values[:k]
        sigma_max, ratio = found.sigma_max, found.ratio
        n_null, worst = found.n_null, found.worst_atom
        distance, cause = np.nan if found.distance is None else found.distance, found.approaching
    values = "".join(f" {value:13.6e}" for value in sigma)
    return (
        f"{step:9d} {time:12.4f}{values} {sigma_max:12.6e} {ratio:11.5e} "
        f"{n_null:6d} {worst:10d} {distance:11.4e} {arrival:11.4e} {cause or '-':>14} {state}\n"
    )


def read_log(file: str | Path | Iterable[str]) -> SensitivityLog:
    """Read a log, also of a run that goes on or was killed in the middle of a line.

    Parameters
    ----------
    file
        A path, or the lines of a log.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no line of a log and is not empty.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, encoding="utf-8", errors="replace", newline="") as stream:
            lines = list(stream)
    elif isinstance(file, Iterable):
        lines = list(file)
    else:
        raise TypeError(f"`file` is {file!r} but must be a path or the lines of a log")
    rows: list[tuple[Any, ...]] = []
    skipped = 0
    for text in lines:
        words = text.split()
        if not words or words[0].startswith("#") or words[0] == "Step":
            continue
        row = _parse(words) if text.endswith("\n") else None
        if row is None:
            skipped += 1
            continue
        rows.append(row)
    if skipped:
        logger.info("%d incomplete or foreign lines were skipped", skipped)
    if not rows and skipped > 1:
        raise ValueError(f"{file} is not a log of SensitivityObserver")
    step, time, sigma, sigma_max, ratio, n_null, worst, distance, arrival, cause, state = (
        zip(*rows, strict=True) if rows else ((),) * 11
    )
    width = max((len(values) for values in sigma), default=0)
    return SensitivityLog(
        step=np.array(step, dtype=np.int64),
        time=np.array(time, dtype=float),
        sigma=np.array(
            [values + [np.nan] * (width - len(values)) for values in sigma], dtype=float
        ).reshape(len(rows), width),
        sigma_max=np.array(sigma_max, dtype=float),
        ratio=np.array(ratio, dtype=float),
        n_null=np.array(n_null, dtype=np.int64),
        worst_atom=np.array(worst, dtype=np.int64),
        distance=np.array(distance, dtype=float),
        arrival=np.array(arrival, dtype=float),
        cause=np.array(cause, dtype=str),
        state=np.array(state, dtype=str),
    )


def _parse(words: list[str]) -> tuple[Any, ...] | None:
    if len(words) < 11 or words[-1] not in STATES:
        return None
    try:
        return (
            int(words[0]),
            float(words[1]),
            [float(word) for word in words[2:-8]],
            float(words[-8]),
            float(words[-7]),
            int(words[-6]),
            int(words[-5]),
            float(words[-4]),
            float(words[-3]),
            words[-2],
            words[-1],
        )
    except ValueError:
        return None
