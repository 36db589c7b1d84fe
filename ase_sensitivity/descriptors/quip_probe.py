"""A first call of QUIP in a process of its own, whose end does no harm.

What QUIP is known to stop on is refused before; this is for what is not known.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.spawn import get_executable

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.quip_arguments import QUIPArguments
from ase_sensitivity.descriptors.quip_library import quip_rows, reset_clebsch_gordan

logger = logging.getLogger(__name__)

PATIENCE = 600
"""Seconds for all strings together; a few atoms take milliseconds."""

CHILD = """
import json, sys
path, tasks = json.load(sys.stdin)
sys.path[:] = path
from ase_sensitivity.descriptors.quip_probe import child
child(tasks)
"""

_survived: set[str] = set()


def survive(parsed: Sequence[QUIPArguments]) -> None:
    """Let QUIP see these strings, and atoms of their species, in another process.

    Once for each string; the structure matters to QUIP's errors by its species at most.

    Raises
    ------
    ValueError
        If QUIP ends that process, crashes or does not come back.
    """
    tasks = {str(words): _numbers(words) for words in parsed if str(words) not in _survived}
    if not tasks:
        return
    try:
        if getattr(sys, "frozen", False):  # it would start itself again, and again
            raise OSError("there is no Python to start")
        done = subprocess.run(
            [os.fsdecode(get_executable()), "-c", CHILD],
            input=json.dumps([[str(place) for place in sys.path], list(tasks.items())]).encode(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        reports, said, status = done.stdout, done.stderr, done.returncode
        end = signal.Signals(-status).name if status < 0 else f"status {status}"
    except subprocess.TimeoutExpired as expired:
        reports, said = expired.stdout or b"", expired.stderr or b""
        end = f"not after {PATIENCE} s"
    except OSError as error:  # no further process is allowed here
        logger.warning("QUIP strings could not be tried in a process of their own: %s", error)
        return
    count = reports.count(b"\n") - 1  # the first line says that QUIP is there
    _survived.update(list(tasks)[: max(count, 0)])
    if count < 0:
        logger.warning("QUIP did not start in a process of its own: %s", _last_words(said))
    elif count < len(tasks):
        raise ValueError(
            f"QUIP ends the process ({end}) on {list(tasks)[count]!r}: {_last_words(said)}"
        )


def _numbers(words: QUIPArguments) -> list[int]:
    """Atomic numbers of at least three atoms for this string to see."""
    given = words.arguments
    keys = ("species_Z",) if "species_Z" in given else ("Z", "Z1", "Z2")
    found = [int(word) for key in keys for word in re.findall(r"\d+", given.get(key, ""))]
    found = [number for number in found if 1 <= number <= 118] or [6]
    return found * (1 if len(found) > 2 else 3)


def _last_words(said: bytes) -> str:
    lines = [line.strip(" -\t") for line in said.decode(errors="replace").splitlines()]
    told = [line for line in lines if line and not line.startswith(("Traceback", "File "))]
    message = next((line for line in told if "error" in line.lower()), (told or ["no reason"])[-1])
    return "".join(character for character in message if character.isprintable())[:300]


def child(tasks: Sequence[tuple[str, list[int]]]) -> None:
    """Try one string after the other; a line on the standard output for each that went well."""
    reports = os.dup(1)
    os.dup2(2, 1)  # QUIP's own messages tell why it ended
    import quippy.descriptors

    os.write(reports, b"\n")
    for text, numbers in tasks:
        try:
            descriptor = quippy.descriptors.Descriptor(text)
            if text.startswith("bispectrum"):
                reset_clebsch_gordan()
            quip_rows(descriptor, _cluster(numbers, float(descriptor.cutoff())), gradients=True)
        except Exception:  # whatever it is, the caller will meet it as well
            logger.debug("%s", text, exc_info=True)
        os.write(reports, b"\n")


def _cluster(numbers: Sequence[int], cutoff: float) -> Atoms:
    """A helix of atoms that see each other."""
    step = np.arange(len(numbers))
    spacing = min(0.3 * cutoff, 1.5)
    positions = spacing * np.column_stack([np.cos(2 * step), np.sin(2 * step), 0.5 * step])
    return Atoms(numbers, positions, cell=np.ptp(positions, axis=0) + 3 * cutoff)
