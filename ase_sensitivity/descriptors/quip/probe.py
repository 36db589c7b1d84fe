"""A first call of QUIP in a separate process, so that a crash of QUIP does no harm.

Arguments that are known to stop QUIP are refused before (:mod:`.stops`); this is for unknown ones.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.spawn import get_executable
from threading import Lock
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.quip.arguments import QUIPArguments
from ase_sensitivity.descriptors.quip.library import quip_rows, reset_clebsch_gordan

logger = logging.getLogger(__name__)

PATIENCE = 600
"""Seconds to wait for a string; a few atoms take milliseconds."""

IDLE = 20
"""Seconds without a string after which the process ends; it is kept, as loading QUIP takes time."""

CHILD = f"""
import json, sys
sys.path[:] = json.loads(sys.stdin.readline())
from {__name__} import child
child()
"""

_accepted: set[tuple[str, int | None]] = set()
_lock = Lock()


def refuse_crashes(parsed: Sequence[QUIPArguments]) -> None:
    """Try each string in another process, with atoms of its species, and refuse it if QUIP crashes.

    Each string is tried once, as QUIP's errors depend on no more than the species of a structure.

    Raises
    ------
    ValueError
        If QUIP ends that process, crashes or does not return.
    """
    with _lock:
        for words in parsed:
            text = str(words)
            if (text, words.gap_version) in _accepted:
                continue
            try:
                given = [text, _numbers(words), words.arrays, words.gap_version]
                end = _Process.current().tried([os.getcwd(), *given])
            except OSError as error:  # no further process can be started
                logger.warning("QUIP strings could not be tried in a separate process: %s", error)
                return
            if end is not None:
                raise ValueError(f"QUIP ends the process ({end[0]}) on {text!r}: {end[1]}")
            _accepted.add((text, words.gap_version))


class _Process:
    """Another Python process, with QUIP."""

    latest: _Process | None = None

    def __init__(self) -> None:
        if getattr(sys, "frozen", False):  # a frozen program would start itself
            raise OSError("there is no Python to start")
        self.owner = os.getpid()
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            self.process = subprocess.Popen(
                [os.fsdecode(get_executable()), "-c", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.stderr,
            )
        except OSError:
            self.stderr.close()
            raise
        atexit.register(self.close)
        self._send([str(place) for place in sys.path])
        if not self._reports(b"+"):
            words = self._last_words(0)
            self.close()
            raise OSError(f"QUIP did not start: {words}")

    @classmethod
    def current(cls) -> _Process:
        """The process that is running, or a new one."""
        latest = cls.latest
        if latest is not None and (
            latest.owner != os.getpid() or latest.process.poll() is not None
        ):
            latest.close()
        if cls.latest is None:
            cls.latest = cls()
        return cls.latest

    def tried(self, task: Sequence[Any]) -> tuple[str, str] | None:
        """How the process ended on a task, and its last message; None if it did not end."""
        before = os.fstat(self.stderr.fileno()).st_size
        if not self._send(task) or not self._reports(b"+"):
            self.close()  # it has ended, as it was idle for too long
            return type(self).current().tried(task)
        if self._reports(b"."):
            return None
        ended = self._over()
        words = self._last_words(before)
        status = self.close()
        end = signal.Signals(-status).name if status < 0 else f"status {status}"
        return end if ended else f"not after {PATIENCE} s", words

    def close(self) -> int:
        """End the process and return its exit status."""
        atexit.unregister(self.close)
        if _Process.latest is self:
            _Process.latest = None
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            assert stream is not None
            with suppress(OSError):  # unsent data
                stream.close()
        if self.owner != os.getpid():
            return 0
        try:
            return self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _send(self, value: Sequence[Any]) -> bool:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(value).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def _reports(self, sign: bytes) -> bool:
        """Whether the next sign of the process is this one, before time runs out."""
        assert self.process.stdout is not None
        place = self.process.stdout.fileno()
        return bool(select.select([place], [], [], PATIENCE)[0]) and os.read(place, 1) == sign

    def _over(self) -> bool:
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _last_words(self, start: int) -> str:
        self.stderr.seek(start)
        return _message(self.stderr.read())


def _numbers(words: QUIPArguments) -> list[int]:
    """Atomic numbers of at least three atoms that this string sees."""
    given = words.arguments
    keys = ("species_Z",) if "species_Z" in given else ("Z", "Z1", "Z2")
    found = [int(word) for key in keys for word in re.findall(r"\d+", given.get(key, ""))]
    found = [number for number in found if 1 <= number <= 118] or [6]
    return found * (1 if len(found) > 2 else 3)


def _message(stderr: bytes) -> str:
    """The first line of the output with an error, or else the last line."""
    lines = [line.strip(" -\t") for line in stderr.decode(errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Traceback", "File "))]
    last = lines[-1] if lines else "no reason"
    message = next((line for line in lines if "error" in line.lower()), last)
    return "".join(character for character in message if character.isprintable())[:300]


def child() -> None:
    """Try one string after the other; report each one when it has come and when QUIP is done."""
    reports = os.dup(1)
    os.dup2(2, 1)  # QUIP's own messages are the reason for its end
    import quippy.descriptors

    os.write(reports, b"+")
    while select.select([sys.stdin], [], [], IDLE)[0] and (line := sys.stdin.readline()):
        folder, text, numbers, arrays, version = json.loads(line)
        os.write(reports, b"+")
        try:
            os.chdir(folder)
            descriptor = quippy.descriptors.Descriptor(text)
            if text.startswith("bispectrum"):
                reset_clebsch_gordan()
            atoms = _cluster(numbers, float(descriptor.cutoff()))
            for name in arrays:
                atoms.set_array(name, np.ones(len(atoms), dtype=np.int32))
            quip_rows(descriptor, atoms, gradients=True, version=version)
        except Exception:  # the caller will get the same error
            logger.debug("%s", text, exc_info=True)
        os.write(reports, b".")


def _cluster(numbers: Sequence[int], cutoff: float) -> Atoms:
    """A helix of atoms that see each other."""
    step = np.arange(len(numbers))
    spacing = min(0.3 * cutoff, 1.5)
    positions = spacing * np.column_stack([np.cos(2 * step), np.sin(2 * step), 0.5 * step])
    return Atoms(numbers, positions, cell=np.ptp(positions, axis=0) + 3 * cutoff)
