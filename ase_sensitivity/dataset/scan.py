"""Frames in, records out: in chunks, in order, on any executor."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

import ase_sensitivity
from ase_sensitivity.analysis import Scope, check_arguments
from ase_sensitivity.causes.symmetry import TOLERANCE
from ase_sensitivity.dataset.evaluation import Settings, Task, evaluate
from ase_sensitivity.dataset.forces import unit_factors
from ase_sensitivity.dataset.reading import Frame, Frames, check_frames, read_frames
from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.store import DatabaseStore, MemoryStore
from ase_sensitivity.descriptors.base import Descriptor, Floats

logger = logging.getLogger(__name__)

NULL_TOLERANCE = 1e-9
"""Singular values below this fraction of the largest are zero (docs/theory, fits)."""

SECONDS = 0.5
"""How long a chunk should take, and how often the store is written to."""

MOST_FRAMES = 256
"""Frames of a chunk."""

MOST_ATOMS = 20_000
"""Atoms of a chunk, unless one frame has more."""

Chunk = list[Task]
Evaluate = Callable[[Chunk], tuple[list[FrameRecord], float]]


def scan(
    frames: Frames,
    descriptor: Descriptor,
    *,
    scope: Scope = "structure",
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    executor: Executor | None = None,
    store: str | Path | None = None,
    k: int = 6,
    causes: bool = True,
    distance: bool = False,
    null_tolerance: float = NULL_TOLERANCE,
    tolerance: float = TOLERANCE,
    progress: Callable[[int], object] | None = None,
) -> ScanResult:
    """Find what a descriptor cannot resolve in a data set, and what force error that costs.

    Parameters
    ----------
    frames
        A file that ASE reads, all of it or what its ``@`` selects (``"run.traj@::10"``); or a list
        or iterator of structures and files. Files and iterators are never in memory as a whole.
    descriptor
        Anything with the attributes of :class:`~ase_sensitivity.Descriptor`.
    scope
        As in :func:`~ase_sensitivity.analyze`. Force errors are those of the structure always.
    forces_key
        Name of the array with reference forces; by default what a calculator has as forces, if it
        has some.
    energy_key
        Name of the entry of ``atoms.info`` with the energy; by default the calculator's.
    units
        Units of these energies and forces: "eV", "kcal/mol", "kJ/mol", "Ha", ... with lengths in Å,
        or "Ha/Bohr", "kJ/mol/nm", ...; results are in eV and eV/Å.
    executor
        Where to compute: any :class:`concurrent.futures.Executor`, such as a
        ``ProcessPoolExecutor`` or ``dask.distributed.Client(...).get_executor()``. By default here.
    store
        An ASE database to write to, ``"results.db"`` or ``"postgresql://..."``. If it has part of
        the frames already, only the rest is computed: after an interruption, call again with the
        same arguments. Without one all records are in memory, some kB for each frame.
    k
        Number of singular values and modes to keep of each frame.
    causes
        Find out why singular values vanish; costs nothing for frames where none does.
    distance
        Estimate the distance to the nearest singular configuration, with six to nine more
        Jacobians.
    null_tolerance
        Singular values below this fraction of the largest are zero.
    tolerance
        The geometry is symmetric, and distances are equal, up to this, in Å.
    progress
        Called with the number of frames done so far, every now and then.

    Returns
    -------
    ScanResult
        A row for each frame, in order. A frame that fails has its error there.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, there are no frames, the first one has no such forces, or the
        store is of another scan.
    OSError
        If a file is missing or the store cannot be written.
    RuntimeError
        If a worker died.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import QUIPDescriptor
    >>> frames = [molecule("CH4"), molecule("C2H6")]
    >>> soap = QUIPDescriptor("soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5", species=["C", "H"])
    >>> [row["n_symmetry"] for row in scan(frames, soap).rows]
    [2, 6]
    """
    check_frames(frames)
    check_arguments(
        Atoms("H"), descriptor, scope=scope, center=None, k=k, null_tolerance=null_tolerance
    )
    factors = unit_factors(units)
    settings = Settings(scope, k, causes, distance, null_tolerance, tolerance)
    parameters = {
        "descriptor": descriptor_text(descriptor),
        **asdict(settings),
        "forces_key": forces_key,
        "energy_key": energy_key,
        "units": units,
        "version": ase_sensitivity.__version__,
    }
    kept: DatabaseStore | MemoryStore
    if store is None:
        kept = MemoryStore(parameters)
        done: dict[str, set[int]] = {}
    else:
        kept = DatabaseStore(store)
        kept.begin(parameters)
        done = kept.done()
    read = read_frames(frames, done)
    tasks = _tasks(read, forces_key, energy_key, factors, first=not done)
    chunks = _Chunks(tasks)
    waiting: list[FrameRecord] = []
    n_done, written = sum(map(len, done.values())), time.perf_counter()
    try:
        for chunk, records, elapsed in _computed(
            partial(evaluate, descriptor, settings), chunks, executor
        ):
            chunks.adapt(len(chunk), elapsed)
            waiting += records
            if time.perf_counter() - written > SECONDS:
                kept.write(waiting)
                waiting, written = [], time.perf_counter()
            n_done += len(records)
            if progress is not None:
                progress(n_done)
    finally:
        if waiting:
            kept.write(waiting)
    if n_done == 0:
        raise ValueError(f"`frames` is {frames!r}, which has no frames")
    return ScanResult(kept)


def descriptor_text(descriptor: Descriptor) -> str:
    """What tells a descriptor from others: its ``repr``, unless that is a place in memory."""
    text = repr(descriptor)
    if " at 0x" not in text:
        return text
    kind = type(descriptor)
    return (
        f"{kind.__module__}.{kind.__qualname__}, species={descriptor.species}, "
        f"cutoff={descriptor.cutoff}, body_order={descriptor.body_order}"
    )


class _Chunks:
    """Tasks in lists that take about the same time."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._size = 1.0

    def adapt(self, n_frames: int, elapsed: float) -> None:
        """Learn from how long a chunk took, in s."""
        wanted = n_frames * SECONDS / max(elapsed, 1e-6)
        self._size = float(np.clip(wanted, self._size / 2, 2 * self._size).clip(1, MOST_FRAMES))

    def __iter__(self) -> Iterator[Chunk]:
        chunk: Chunk = []
        for task in self._tasks:
            chunk.append(task)
            full = sum(len(task.atoms) for task in chunk) >= MOST_ATOMS
            if len(chunk) >= int(self._size) or full:
                yield chunk
                chunk = []
        if chunk:
            yield chunk


def _computed(
    compute: Evaluate, chunks: _Chunks, executor: Executor | None
) -> Iterator[tuple[Chunk, list[FrameRecord], float]]:
    """Chunks and their records, in order; only some are on their way at any time."""
    if executor is None:
        for chunk in chunks:
            yield chunk, *compute(chunk)
        return
    most = 2 * (getattr(executor, "_max_workers", None) or 16)
    sent: deque[tuple[Chunk, Future[tuple[list[FrameRecord], float]]]] = deque()
    try:
        for chunk in chunks:
            sent.append((chunk, executor.submit(compute, chunk)))
            if len(sent) >= most:
                chunk, future = sent.popleft()
                yield chunk, *_outcome(chunk, future)
        while sent:
            chunk, future = sent.popleft()
            yield chunk, *_outcome(chunk, future)
    finally:
        for _, future in sent:
            future.cancel()


def _outcome(
    chunk: Chunk, future: Future[tuple[list[FrameRecord], float]]
) -> tuple[list[FrameRecord], float]:
    try:
        return future.result()
    except Exception as error:
        first, last = chunk[0], chunk[-1]
        raise RuntimeError(
            f"a worker died, or was lost, at one of the frames {first.source}@{first.index} to "
            f"{last.source}@{last.index}: {error}. The frames before are stored if there is a "
            "`store`, and the same call goes on from there"
        ) from error


def _tasks(
    frames: Iterator[Frame],
    forces_key: str | None,
    energy_key: str | None,
    factors: tuple[float, float],
    *,
    first: bool,
) -> Iterator[Task]:
    for frame in frames:
        if frame.atoms is None:
            yield Task(frame.source, frame.index, Atoms(), error=frame.error)
            continue
        atoms = frame.atoms
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        energy, forces, error = None, None, None
        try:
            energy = _energy(atoms, energy_key)
            forces = _forces(atoms, forces_key)
        except ValueError as problem:
            if first:
                raise
            error = str(problem)
        first = False
        if energy is not None:
            energy *= factors[0]
        if forces is not None:
            forces = forces * factors[1]
        _attach(bare, energy, forces)
        yield Task(frame.source, frame.index, bare, energy, forces, error)


def _attach(atoms: Atoms, energy: float | None, forces: Floats | None) -> None:
    known = {"energy": energy, "forces": forces}
    known = {name: value for name, value in known.items() if value is not None}
    if known:
        from ase.calculators.singlepoint import SinglePointCalculator  # loads much

        atoms.calc = SinglePointCalculator(atoms, **known)


def _results(atoms: Atoms) -> dict[str, Any]:
    """What a calculator knows already; nothing is computed."""
    results = getattr(atoms.calc, "results", None)
    return results if isinstance(results, dict) else {}


def _energy(atoms: Atoms, key: str | None) -> float | None:
    if key is not None and key not in atoms.info:
        raise ValueError(
            f"`energy_key` is {key!r} but the frame has only {', '.join(atoms.info) or 'nothing'}"
        )
    value = atoms.info[key] if key is not None else _results(atoms).get("energy")
    if value is None:
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"the energy is {value!r}, which is no number") from None
    if not np.isfinite(value):
        raise ValueError(f"the energy is {value}")
    return value


def _forces(atoms: Atoms, key: str | None) -> Floats | None:
    results = _results(atoms)
    value = results.get("forces")
    if key is not None and (key != "forces" or value is None):
        if key not in atoms.arrays:
            there = [*atoms.arrays, *(["forces"] if value is not None else [])]
            raise ValueError(
                f"`forces_key` is {key!r} but the frame has only the arrays {', '.join(there)}"
            )
        value = atoms.arrays[key]
    if value is None:
        return None
    forces = np.asarray(value, dtype=float)
    if forces.shape != (len(atoms), 3):
        raise ValueError(f"the forces have shape {forces.shape}, not {(len(atoms), 3)}")
    if not np.isfinite(forces).all():
        bad = int(np.flatnonzero(~np.isfinite(forces).all(axis=1))[0])
        raise ValueError(f"the force on atom {bad} is {forces[bad]}, not finite")
    return forces
