"""What to do next about invisible directions and lost forces, as commands to paste."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

LARGER_CUTOFFS = (1.0, 1.2, 1.5)
"""Cutoffs to try where parts are out of each other's reach, relative to the present one."""

MOST = 5
"""Number of files that a command lists."""


@dataclass(frozen=True)
class Origin:
    """What a result was computed from.

    Attributes
    ----------
    files
        The files; empty for structures in memory, for which there are calls of functions instead of
        commands.
    structures
        A name for the structures in such calls.
    descriptor
        The ``repr`` of the descriptor.
    forces_key
        The name of the reference forces.
    units
        Their units.
    option
        The options that give the descriptor on the command line, where they are known.
    """

    files: tuple[str, ...] = ()
    structures: str = "frames"
    descriptor: str = ""
    forces_key: str | None = None
    units: str = "eV"
    option: str = ""

    def sweep(self, **options: str) -> str:
        """A sweep over n_max and l_max, or over an option."""
        if not self.files:
            tried = "".join(f", {name}=[{values}]" for name, values in options.items())
            return f"converge({self.structures}, descriptor{tried})"
        given = [f"--{name.replace('_', '-')} {text}" for name, text in options.items()]
        if self.forces_key is not None:
            given.append(f"--forces-key {shlex.quote(self.forces_key)}")
        if self.units != "eV":
            given.append(f"--units {shlex.quote(self.units)}")
        return " ".join(["ase-sensitivity converge", *self._files, self._descriptor, *given])

    def look_at(self, frame: str) -> str:
        """An analysis of a frame that is named as in ``data.xyz@3``."""
        if not self.files:
            number = frame.rpartition("@")[2]
            return f"analyze({self.structures}[{number}], descriptor, causes=True)"
        return f"ase-sensitivity analyze {shlex.quote(frame)} {self._descriptor}"

    @property
    def cutoffs(self) -> str | None:
        """Larger cutoffs to try; None if the present one is not known."""
        found = re.search(r"cutoff=([\d.]+)", self.descriptor)
        if found is None:
            return None
        return ",".join(f"{factor * float(found[1]):.3g}" for factor in LARGER_CUTOFFS)

    @property
    def _files(self) -> list[str]:
        return [shlex.quote(file) for file in self.files] if len(self.files) <= MOST else ["FILES"]

    @property
    def _descriptor(self) -> str:
        """The options that give the descriptor: a QUIP string, or what the user has to put in."""
        if self.option:
            return self.option
        found = re.fullmatch(r"QUIPDescriptor\((['\"])(.*)\1\)", self.descriptor)
        return f"-d {shlex.quote(found[2]) if found else 'DESCRIPTOR'}"


IN_MEMORY = Origin()
"""Structures in memory."""


def next_steps(
    causes: Collection[str], origin: Origin, frames: Mapping[str, str | None] | None = None
) -> list[str]:
    """Lines with what to do, and the command for it.

    Parameters
    ----------
    causes
        Those of invisible directions.
    origin
        What these were found in.
    frames
        Frames to look at, by what is to be seen there.
    """
    steps = []
    if "truncation" in causes:
        steps.append(("find a basis that is large enough", origin.sweep()))
    if "fragment" in causes and origin.cutoffs is not None:
        steps.append(("see what a larger cutoff joins", origin.sweep(cutoff=origin.cutoffs)))
    looked: dict[str, list[str]] = {}
    for what, frame in (frames or {}).items():
        if frame is not None:
            looked.setdefault(frame, []).append(what)
    steps += [
        (f"look at {frame}, {' and '.join(what)}", origin.look_at(frame))
        for frame, what in looked.items()
    ]
    return [f"Next: {what}: {command}" for what, command in steps]
