"""A first call of QUIP in a process of its own, whose end does no harm.

What QUIP is known to stop on is refused before; this is for what is not known.
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
"""Seconds for a string; a few atoms take milliseconds."""

IDLE = 20
"""Seconds after which the process ends if there is nothing to try: loading QUIP takes some."""

CHILD = f"""
import json, sys
sys.path[:] = json.loads(sys.stdin.readline())
from {__name__} import child
child()
"""

_survived: set[tuple[str, int | None]] = set()
_lock = Lock()


def survive(parsed: Sequence[QUIPArguments]) -> None:
    """Let QUIP see these strings, and atoms of their species, in another process.

    Once for each string; the structure matters to QUIP's errors by its species at most.

    Raises
    ------
    ValueError
        If QUIP ends that process, crashes or does not come back.
    """
    with _lock:
        for words in parsed:
            text = str(words)
            if (text, words.gap_version) in _survived:
                continue
            try:
                given = [text, _numbers(words), words.arrays, words.gap_version]
                end = _Process.current().tried([os.getcwd(), *given])
            except OSError as error:  # no further process is allowed here
                logger.warning(
                    "QUIP strings could not be tried in a process of their own: %s", error
                )
                return
            if end is not None:
                raise ValueError(f"QUIP ends the process ({end[0]}) on {text!r}: {end[1]}")
            _survived.add((text, words.gap_version))


class _Process:
    """Another Python, with QUIP."""

    latest: _Process | None = None

    def __init__(self) -> None:
        if getattr(sys, "frozen", False):  # it would start itself again, and again
            raise OSError("there is no Python to start")
        self.owner = os.getpid()
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        try:
            self.process = subprocess.Popen(
                [os.fsdecode(get_executable()), "-c", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.said,
            )
        except OSError:
            self.said.close()
            raise
        atexit.register(self.close)
        self._send([str(place) for place in sys.path])
        if not self._reports(b"+"):
            words = self._last_words(0)
            self.close()
            raise OSError(f"QUIP did not start: {words}")

    @classmethod
    def current(cls) -> _Process:
        """The one that runs, or a new one."""
        latest = cls.latest
        if latest is not None and (
            latest.owner != os.getpid() or latest.process.poll() is not None
        ):
            latest.close()
        if cls.latest is None:
            cls.latest = cls()
        return cls.latest

    def tried(self, task: Sequence[Any]) -> tuple[str, str] | None:
        """How the process ended on a task, and its last words; None if it did not."""
        before = os.fstat(self.said.fileno()).st_size
        if not self._send(task) or not self._reports(b"+"):
            self.close()  # it had nothing to do for too long
            return type(self).current().tried(task)
        if self._reports(b"."):
            return None
        ended = self._over()
        words = self._last_words(before)
        status = self.close()
        end = signal.Signals(-status).name if status < 0 else f"status {status}"
        return end if ended else f"not after {PATIENCE} s", words

    def close(self) -> int:
        """End it, and tell its status."""
        atexit.unregister(self.close)
        if _Process.latest is self:
            _Process.latest = None
        for stream in (self.process.stdin, self.process.stdout, self.said):
            assert stream is not None
            with suppress(OSError):  # what was not sent
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
        """Whether it gives this sign next, and soon."""
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
        self.said.seek(start)
        return _message(self.said.read())


def _numbers(words: QUIPArguments) -> list[int]:
    """Atomic numbers of at least three atoms for this string to see."""
    given = words.arguments
    keys = ("species_Z",) if "species_Z" in given else ("Z", "Z1", "Z2")
    found = [int(word) for key in keys for word in re.findall(r"\d+", given.get(key, ""))]
    found = [number for number in found if 1 <= number <= 118] or [6]
    return found * (1 if len(found) > 2 else 3)


def _message(said: bytes) -> str:
    """The last line that tells why, of what was printed."""
    lines = [line.strip(" -\t") for line in said.decode(errors="replace").splitlines()]
    told = [line for line in lines if line and not line.startswith(("Traceback", "File "))]
    message = next((line for line in told if "error" in line.lower()), (told or ["no reason"])[-1])
    return "".join(character for character in message if character.isprintable())[:300]


def child() -> None:
    """Try one string after the other: a sign when it is there, and when it went well."""
    reports = os.dup(1)
    os.dup2(2, 1)  # QUIP's own messages tell why it ended
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
        except Exception:  # whatever it is, the caller will meet it as well
            logger.debug("%s", text, exc_info=True)
        os.write(reports, b".")


def _cluster(numbers: Sequence[int], cutoff: float) -> Atoms:
    """A helix of atoms that see each other."""
    step = np.arange(len(numbers))
    spacing = min(0.3 * cutoff, 1.5)
    positions = spacing * np.column_stack([np.cos(2 * step), np.sin(2 * step), 0.5 * step])
    return Atoms(numbers, positions, cell=np.ptp(positions, axis=0) + 3 * cutoff)
