"""Flagged frames: the configuration, its softest mode, and what was found, in ASE's formats."""

from __future__ import annotations

import io
import logging
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory
from ase.io.extxyz import write_extxyz

from ase_sensitivity.environments.comparison import Comparison, ReferenceTwin
from ase_sensitivity.io.line_file import LineFile, locked
from ase_sensitivity.io.references import cached_results
from ase_sensitivity.sensitivity import Sensitivity

logger = logging.getLogger(__name__)

SUFFIXES = (".xyz", ".extxyz", ".traj")
MODE = "sensitivity_mode"
SCOPE = "sensitivity_scope"


class FrameFile:
    """Appends flagged frames to an extended XYZ file or an ASE trajectory.

    Parameters
    ----------
    path
        Ends in .xyz, .extxyz or .traj.
    append
        Whether to keep what the file holds.
    comm
        Only its rank 0 writes.

    Attributes
    ----------
    lost
        Why frames are lost: not written when the file was closed, or not fit to be; None without.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_path`.
    OSError
        If it cannot be opened, or somebody else writes to it.

    Notes
    -----
    A process that is killed may leave half a frame at the end of an extended XYZ file. Appending
    cuts it off; :func:`ase.io.iread` gives all frames before it, then an error.
    """

    def __init__(self, path: str | Path, append: bool, comm: Any) -> None:
        check_path(path)
        suffix = Path(path).suffix
        self.lost: Exception | None = None
        self._lines: LineFile | None = None
        self._trajectory: Any = None
        self._lock: int | None = None
        self._waiting: list[Atoms] = []
        if suffix == ".traj":
            if comm.rank == 0:
                self._lock = locked(path)
            mode = "a" if append else "w"
            try:
                self._trajectory = Trajectory(path, mode, master=comm.rank == 0, comm=comm)
            except BaseException:
                self._unlock()
                raise
        else:
            self._lines = LineFile(path, append, comm, mend=_cut_torn_frame)

    def write(self, frame: Atoms) -> None:
        """Append one frame of :func:`flagged_frame`."""
        if self._lines is not None:
            text = io.StringIO()
            write_extxyz(text, [frame])
            self._lines.write(text.getvalue())
            return
        frame.info[MODE] = frame.arrays[MODE]  # .traj keeps info but not custom arrays
        self._waiting.append(frame)
        self._write_waiting()

    def _write_waiting(self) -> None:
        while self._waiting:
            frame = self._waiting.pop(0)
            try:
                self._trajectory.write(frame)
            except OSError:  # a full disk: the frame is all right and waits for the next call
                self._waiting.insert(0, frame)
                raise
            except Exception as error:
                self.lost = error
                raise

    def close(self) -> None:
        """Close the file."""
        if self._lines is not None:
            self._lines.close()
            self.lost = self.lost or self._lines.lost
            return
        try:
            self._write_waiting()
            self._trajectory.close()
        except Exception as error:  # as for a line of the log: no reason to stop
            self.lost = error
            logger.error("%d frames could not be written: %s", len(self._waiting), error)
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def check_path(path: object) -> None:
    """Raise TypeError or ValueError if ``path`` does not name a file of frames."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`trajectory` is {path!r} but must be a path")
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"`trajectory` is {str(path)!r} but must end in {', '.join(SUFFIXES)}")


def check_is_flagged(path: str | Path) -> None:
    """Raise ValueError if a file holds frames that no observer wrote: they would be lost."""
    if not os.path.isfile(path) or os.path.getsize(path) == 0:
        return
    if Path(path).suffix == ".traj":
        try:
            with Trajectory(path) as frames:
                ours = len(frames) == 0 or SCOPE in frames[0].info
        except Exception:  # no trajectory at all
            ours = False
    else:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = list(islice(file, 2))
        torn = lines[0].strip().isdigit() and not (len(lines) > 1 and lines[1].endswith("\n"))
        ours = torn or SCOPE in lines[-1]
    if not ours:
        raise ValueError(
            f"`trajectory` is {str(path)!r}, which holds other frames than flagged ones; "
            "use another name"
        )


def _cut_torn_frame(path: str | Path) -> None:
    """Shorten an extended XYZ file to its last complete frame: nobody could read on after it."""
    with open(path, "rb+") as file:
        complete = 0
        for count in file:
            try:
                lines = list(islice(file, int(count) + 1))
            except ValueError:
                raise ValueError(
                    f"`trajectory` is {str(path)!r}, which is not an XYZ file, to append to"
                ) from None
            if len(lines) <= int(count) or not lines[-1].endswith(b"\n"):
                break
            complete += len(count) + sum(map(len, lines))
        file.truncate(complete)


def flagged_frame(atoms: Atoms, found: Sensitivity, step: int, time: float) -> Atoms:
    """A copy of ``atoms`` that carries the softest mode and the values found.

    Energy and forces come along if the calculator has them for exactly these positions; nothing is
    calculated. Entries of ``info`` and ``arrays`` that a file could not hold are left out.
    """
    frame: Atoms = atoms.copy()
    frame.calc = None
    frame.info = {key: value for key, value in atoms.info.items() if _fits(key, value)}
    for name in [name for name, array in frame.arrays.items() if not _fits(name, array)]:
        del frame.arrays[name]
    frame.arrays[MODE] = found.mode_of_atoms(len(atoms))
    frame.info |= {
        "step": step,
        "time": time,
        SCOPE: found.scope,
        "sigma_max": found.sigma_max,
        "sigma_ratio": found.ratio,
        "n_null": found.n_null,
        "worst_atom": found.worst_atom,
    }
    if len(found.singular_values):
        frame.info["sigma_min"] = float(found.singular_values[0])
    if found.distance is not None:
        frame.info["singularity_distance"] = found.distance
        frame.info["singularity_cause"] = str(found.approaching)
    if found.harmful_distance is not None:
        frame.info["harmful_distance"] = found.harmful_distance
        frame.info["harmful_cause"] = str(found.harmful)
    known = cached_results(atoms)
    if known:
        frame.calc = SinglePointCalculator(frame, **known)
    return frame


def with_comparison(frame: Atoms, found: Comparison) -> Atoms:
    """A frame of :func:`flagged_frame` with what a comparison with a reference has found."""
    frame.info["novelty"] = found.novelty
    if found.twin is not None:
        frame.info |= {
            "twin_frame": found.twin.frame,
            "twin_features": found.twin.features,
            "twin_distance": found.twin.distance,
        }
        if found.twin.forces is not None:
            frame.info["twin_forces"] = found.twin.forces
    return frame


def twin_frame(twin: ReferenceTwin, frame: Atoms) -> Atoms:
    """The frame of a twin, to be beside the flagged frame that it is the twin of."""
    found: Atoms = twin.atoms.copy()
    found.arrays[MODE] = np.zeros((len(found), 3))
    found.info = {"step": frame.info["step"], SCOPE: "reference", "source": str(twin.place)}
    found.info["frame"] = twin.frame
    return found


def _fits(key: Any, value: Any) -> bool:
    """Whether all formats can hold this entry; one that does not fit may spoil the whole file."""
    if not isinstance(key, str) or not key.isprintable():
        return False
    if isinstance(value, str):
        return value.isprintable()
    array = np.asarray(value) if isinstance(value, bool | int | float | np.generic) else value
    return isinstance(array, np.ndarray) and array.dtype.kind in "biuf" and array.ndim <= 2
