"""The observer over a finished trajectory: what a live run would have said."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from ase import Atoms
from ase.units import fs

from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.io.reading import Frames, check_frames, count_frames
from ase_sensitivity.io.usable import usable_frames
from ase_sensitivity.md.log import SensitivityLog, read_log
from ase_sensitivity.md.observer import SensitivityObserver
from ase_sensitivity.progress import progress as progress_bar
from ase_sensitivity.validation import is_number


class Replay:
    """Plays frames back to observers, as a dynamics does.

    Attributes
    ----------
    atoms
        The present frame.
    nsteps
        Its number, counted from 0.
    max_steps
        Where to stop.
    """

    def __init__(self, timestep: float | None) -> None:
        self.atoms = Atoms()
        self.nsteps = 0
        self.max_steps = 0
        self._timestep = timestep

    def get_time(self) -> float:
        """Time of the present frame in ASE units; nan if the time step is not known."""
        return float("nan") if self._timestep is None else self.nsteps * self._timestep * fs


def replay(
    frames: Frames,
    descriptor: Given,
    *,
    timestep: float | None = None,
    progress: bool = False,
    logfile: str | Path | IO[str] | None = None,
    type_map: Sequence[str] | None = None,
    **settings: Any,
) -> SensitivityLog:
    """Run a :class:`SensitivityObserver` over frames that exist already.

    Parameters
    ----------
    frames
        A file that ASE can read (all its frames; or some, as in ``"run.traj@::10"``), or a list or
        an iterator of frames and files, which follow on each other. Files and iterators are read
        one frame at a time. Frames that cannot be read are left out, with a warning; the others
        keep their steps.
    descriptor
        What the potential sees.
    timestep
        Time between two frames in fs, for the time column.
    progress
        Show a progress bar, or where there is no terminal a line every so often, on the standard
        error.
    logfile
        Path, ``"-"`` or open file for the log, the same as a live run writes.
    type_map
        Chemical symbols of the types 1, 2, ... in files of LAMMPS.
    **settings
        Everything else :class:`SensitivityObserver` takes, except ``max_overhead``: no run goes on
        that could pay for a call. ``on_singular="halt"`` ends the replay.

    Returns
    -------
    SensitivityLog
        The log of these frames as arrays, without what ``append=True`` found in the file.

    Raises
    ------
    TypeError, ValueError
        If there are no frames, or an argument is out of place.

    Warns
    -----
    ReadingWarning
        If some frames of the file cannot be read.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import QUIPDescriptor
    >>> frames = [molecule("NH3"), molecule("NH3")]
    >>> frames[1].rattle(0.1, seed=0)
    >>> soap = QUIPDescriptor("soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5", species=["N", "H"])
    >>> replay(frames, soap, timestep=0.5).time
    array([0. , 0.5])
    """
    if timestep is not None and not (is_number(timestep) and 0 < timestep < math.inf):
        raise ValueError(f"`timestep` is {timestep!r} but must be a positive number in fs or None")
    if settings.get("max_overhead") is not None:
        raise ValueError(
            f"`max_overhead` is {settings['max_overhead']!r} but has no meaning for frames that "
            "exist already: leave it out, and choose frames, as by run.traj@::10"
        )
    check_frames(frames)
    run = Replay(timestep)
    observer: SensitivityObserver | None = None
    memory = io.StringIO()
    try:
        with progress_bar("Replaying", lambda: count_frames(frames), shown=progress) as move:
            for number, frame in usable_frames(_items(frames), type_map=type_map):
                assert frame.atoms is not None
                run.atoms, run.nsteps, run.max_steps = frame.atoms, number, number + 1
                if observer is None:
                    observer = SensitivityObserver(run, descriptor, logfile=logfile, **settings)
                    observer.copy_log_to(memory)
                observer()
                move(number + 1)
                if run.max_steps == run.nsteps:
                    break
    finally:
        if observer is not None:
            observer.close()
    if observer is None:
        raise ValueError(f"`frames` is {frames!r}, which has no frames")
    log = read_log(memory.getvalue().splitlines(keepends=True))
    return replace(log, lost=observer.lost)


def _items(frames: Frames) -> Iterator[str | Path | Atoms]:
    for number, item in enumerate([frames] if isinstance(frames, str | Path) else frames):
        if not isinstance(item, str | Path | Atoms):
            raise TypeError(f"`frames` has {item!r} at {number}, which is not an ase.Atoms")
        yield item
