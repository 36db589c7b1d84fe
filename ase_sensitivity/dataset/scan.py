"""Frames in, records out: in chunks, in order, on any executor."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path

from ase import Atoms

from ase_sensitivity.analysis import check_arguments
from ase_sensitivity.dataset.descriptor import given_for
from ase_sensitivity.dataset.evaluation import SCAN_NULL_TOLERANCE, Settings, evaluate
from ase_sensitivity.dataset.executors import LostCluster, Watched
from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.dataset.records import MemoryStore, Part, Store
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.rows import digest
from ase_sensitivity.dataset.store import DatabaseStore, Digests
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.geometry.symmetry import TOLERANCE
from ase_sensitivity.io.reading import Frames, check_frames, read_frames
from ase_sensitivity.io.references import Task, tasks_of, unit_factors
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Scope
from ase_sensitivity.version import __version__

logger = logging.getLogger(__name__)


SECONDS = 0.5
"""How long a chunk should take, and how often the store is written to."""

MOST_FRAMES = 256
"""Frames of a chunk."""

MOST_ATOMS = 20_000
"""Atoms of a chunk, unless one frame has more."""

Evaluated = tuple[list[FrameRecord], float]
Evaluate = Callable[[list[Task]], Evaluated]


def scan(
    frames: Frames,
    descriptor: Given,
    *,
    scope: Scope = "structure",
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    type_map: Sequence[str] | None = None,
    executor: Executor | None = None,
    store: str | Path | None = None,
    k: int = 6,
    causes: bool = True,
    distance: bool = False,
    null_tolerance: float = SCAN_NULL_TOLERANCE,
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
        Anything with the attributes of :class:`~ase_sensitivity.Descriptor`; or a QUIP string, or
        several, for the species in the frames, which takes a pass of its own.
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
    type_map
        Chemical symbols of the types 1, 2, ... in files of LAMMPS, which ASE takes for H, He, ...
    executor
        Where to compute: any :class:`concurrent.futures.Executor`, such as a
        ``ProcessPoolExecutor`` or ``dask.distributed.Client(...).get_executor()``. By default here.
    store
        An ASE database to write to, ``"results.db"`` or ``"postgresql://..."``. If it has part of
        the frames already, only the rest is computed: after an interruption, call again with the
        same arguments. The result is of these frames, also if the store has others. Without a
        store all records are in memory, some kB for each frame.
    k
        Number of singular values and modes to keep of each frame.
    causes
        Find out why singular values vanish; costs nothing for frames where none does.
    distance
        Estimate the distance to the nearest singular configuration, to first order, with up to
        four more Jacobians.
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
        If a worker died, or a Dask scheduler or all its workers for half a minute.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import QUIPDescriptor
    >>> frames = [molecule("CH4"), molecule("C2H6")]
    >>> soap = QUIPDescriptor("soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5", species=["C", "H"])
    >>> [row["n_symmetry"] for row in scan(frames, soap).rows]
    [2, 1]
    """
    check_frames(frames)
    seen: Descriptor = given_for(descriptor, frames, type_map)
    if k is None:
        raise ValueError("`k` is None but must be a positive integer")
    check_arguments(
        Atoms("H"),
        seen,
        scope=scope,
        center=None,
        k=k,
        null_tolerance=null_tolerance,
        tolerance=tolerance,
    )
    if not (executor is None or hasattr(executor, "submit")):
        raise TypeError(f"`executor` is {executor!r} but must be a concurrent.futures.Executor")
    factors = unit_factors(units)
    settings = Settings(scope, int(k), causes, distance, float(null_tolerance), float(tolerance))
    parameters = {
        "descriptor": descriptor_text(seen),
        **asdict(settings),
        "forces_key": forces_key,
        "energy_key": energy_key,
        "units": units,
        "version": __version__,
    }
    kept: Store = MemoryStore(parameters)
    known: Digests = {}
    sources: set[str] = set()
    database = None if store is None else DatabaseStore(store)
    if database is not None and database.exists:
        database.begin(parameters)
        known, sources = database.done()
    had = sum(digest is not None for digest in known.values())
    read = read_frames(frames, sources, type_map)
    tasks = tasks_of(read, forces_key, energy_key, factors, strict=not had)
    first = list(islice(tasks, 1))  # if it raises, there is no database without rows
    if not first:
        raise ValueError(f"`frames` is {frames!r}, which has no frames")
    if database is not None:
        database.begin(parameters)
        kept = database
    n_done = Counter[str]()
    chunks = _Chunks(_new(chain(first, tasks), known, n_done))
    waiting: list[FrameRecord] = []
    written = time.perf_counter()
    try:
        for records, elapsed in _computed(partial(evaluate, seen, settings), chunks, executor):
            chunks.adapt(len(records), elapsed)
            waiting += records
            if time.perf_counter() - written > SECONDS:
                ready, waiting = waiting, []
                kept.write(ready)
                written = time.perf_counter()
            n_done["new"] += len(records)
            if progress is not None:
                progress(n_done.total())
    finally:
        if waiting:
            kept.write(waiting)
    return ScanResult(Part(kept, known) if known else kept, n_besides=len(known))


def descriptor_text(descriptor: Descriptor) -> str:
    """What tells a descriptor from others: its ``repr``, but not where it is in memory."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(descriptor))


def _new(tasks: Iterator[Task], known: Digests, n_done: Counter[str]) -> Iterator[Task]:
    """Tasks that are not known; those that are get lost from ``known``, and are counted.

    Raises
    ------
    ValueError
        If a known frame has another structure, or other references, than it had.
    """
    for task in tasks:
        before = known.pop((task.source, task.index), None)
        if before is None:
            yield task
        elif before != digest(task.atoms):
            raise ValueError(
                f"`store` has another structure, or other forces or another energy, for "
                f"{task.source}@{task.index}: the data have changed; scan them into another file"
            )
        else:
            n_done["known"] += 1


class _Chunks:
    """Tasks in lists that take about the same time."""

    def __init__(self, tasks: Iterator[Task]) -> None:
        self._tasks = tasks
        self._size = 1.0

    def adapt(self, n_frames: int, elapsed: float) -> None:
        """Learn from how long a chunk took, in s."""
        wanted = n_frames * SECONDS / max(elapsed, 1e-6)
        wanted = min(max(wanted, self._size / 2), 2 * self._size)
        self._size = min(max(wanted, 1.0), MOST_FRAMES)

    def __iter__(self) -> Iterator[list[Task]]:
        chunk: list[Task] = []
        n_atoms = 0
        for task in self._tasks:
            chunk.append(task)
            n_atoms += len(task.atoms)
            if len(chunk) >= int(self._size) or n_atoms >= MOST_ATOMS:
                yield chunk
                chunk, n_atoms = [], 0
        if chunk:
            yield chunk


def _computed(compute: Evaluate, chunks: _Chunks, executor: Executor | None) -> Iterator[Evaluated]:
    """Records of chunk after chunk, in order; only some are on their way at any time."""
    if executor is None:
        yield from map(compute, chunks)
        return
    watched = Watched(executor)
    most = 2 * watched.n_workers
    sent: deque[tuple[list[Task], Future[Evaluated]]] = deque()
    try:
        for chunk in chunks:
            sent.append((chunk, _submitted(executor, compute, chunk)))
            if len(sent) >= most:
                yield _outcome(watched, *sent.popleft())
        while sent:
            yield _outcome(watched, *sent.popleft())
    except LostCluster:
        sent.clear()  # to cancel them would take as long as to wait for them
        raise
    finally:
        for _, future in sent:
            future.cancel()


def _submitted(executor: Executor, compute: Evaluate, chunk: list[Task]) -> Future[Evaluated]:
    try:
        return executor.submit(compute, chunk)
    except Exception as error:  # broken by an earlier chunk
        raise _lost(chunk, error) from error


def _outcome(watched: Watched, chunk: list[Task], future: Future[Evaluated]) -> Evaluated:
    try:
        return watched.result(future)
    except Exception as error:
        raise _lost(chunk, error) from error


def _lost(chunk: list[Task], error: Exception) -> RuntimeError:
    first, last = chunk[0], chunk[-1]
    kind = LostCluster if isinstance(error, LostCluster) else RuntimeError
    return kind(
        f"the workers did not compute {first.source}@{first.index} to {last.source}@{last.index}: "
        f"{reason(error)}. With a `store` the frames before these are safe, and the same call "
        "goes on from there"
    )
