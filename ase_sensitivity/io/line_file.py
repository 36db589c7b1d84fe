"""Files that one writer at a time writes line by line, without losing a line."""

from __future__ import annotations

import gc
import io
import logging
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


class LineFile:
    """Append text to a file at once, and keep what could not be written.

    Nothing is buffered, so that a killed process loses at most part of its last line. After an
    error such as a full disk, the next call writes the rest first: no line is lost or incomplete.

    Parameters
    ----------
    file
        A path, ``"-"`` for the standard output, an open text file, or None to write nothing.
    append
        Whether to keep the content of the file.
    comm
        Communicator; only its rank 0 writes.
    mend
        Called with the path before anything is appended, to repair the end of the file.

    Attributes
    ----------
    empty
        Whether nothing has been written yet, and the file to append to was empty.
    copy
        A stream that every text is written to as well, on all ranks, or None.
    lost
        Why a part of the text is lost: not written when the file was closed, or refused by an open
        file, which is not tried again; None if nothing is.

    Raises
    ------
    TypeError
        If ``file`` is something else.
    OSError
        If it cannot be opened, or another writer has it open.
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
        self.lost: OSError | None = None
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
                self._pending = b"\n"  # the previous run was killed in the middle of a line
        else:
            self._stream = file

    def write(self, text: str) -> None:
        """Write ``text``, after what could not be written before.

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
            try:
                self._stream.write(text)
                self._stream.flush()
            except OSError as error:
                self.lost = error
                raise
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
                self.lost = error
                logger.error("%d bytes could not be written: %s", len(self._pending), error)
            finally:
                os.close(descriptor)


def locked(file: str | os.PathLike[str], writer: str = "observer") -> int:
    """Open a file to append to, and lock it until the descriptor is closed.

    Parameters
    ----------
    file
        The file.
    writer
        What writes to such files, for the error.

    Raises
    ------
    OSError
        If it is locked already, in this process or another one, or cannot be opened.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    if fcntl is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            gc.collect()  # the lock may be that of an observer that nothing refers to any more
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError(
            f"another {writer} writes to {file}, in this process or another one; end that run, or "
            f"close() that {writer}, or use another name"
        ) from None
    except OSError as error:  # a file system without locks
        logger.info("%s could not be locked: %s", file, error)
    return descriptor


def check_file(file: object) -> None:
    """Raise TypeError if a log cannot be written to ``file``."""
    binary = isinstance(file, io.RawIOBase | io.BufferedIOBase)
    if file is None or isinstance(file, str | os.PathLike):
        return
    if binary or not hasattr(file, "write") or not hasattr(file, "flush"):
        raise TypeError(f"`logfile` is {file!r} but must be a path, an open text file or None")


def _ends_line(path: str | os.PathLike[str]) -> bool:
    """Whether a file that is not empty ends with a newline."""
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
