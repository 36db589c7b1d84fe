"""Scan a data set: frames are evaluated in chunks, in order, and what is known is left out."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from pathlib import Path

from ase import Atoms

from ase_sensitivity.analysis import check_arguments
from ase_sensitivity.dataset.chunks import Chunks, check_executor, computed
from ase_sensitivity.dataset.comparing import add_comparisons
from ase_sensitivity.dataset.evaluation import SCAN_NULL_TOLERANCE, Settings, evaluate
from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.dataset.records import Digests, MemoryStore, PartialStore, Store
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.rows import digest
from ase_sensitivity.dataset.stores import store_of
from ase_sensitivity.descriptors.base import Descriptor, descriptor_text
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.descriptors.of_frames import descriptor_for
from ase_sensitivity.environments.given_set import reference_set
from ase_sensitivity.environments.reference_set import ReferenceSet
from ase_sensitivity.geometry.symmetry import TOLERANCE
from ase_sensitivity.io.reading import Frames, check_frames, read_frames
from ase_sensitivity.io.references import Task, tasks_of, unit_factors
from ase_sensitivity.types import Scope
from ase_sensitivity.version import __version__

logger = logging.getLogger(__name__)


WRITTEN_AFTER = 0.5
"""Time in s between two writes to the store, and so of the work that a killed process loses."""


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
    reference: ReferenceSet | Frames | None = None,
    progress: Callable[[int], object] | None = None,
) -> ScanResult:
    """Find what a descriptor cannot resolve in a data set, and the force error that follows.

    Parameters
    ----------
    frames
        A file that ASE reads, or frames of it selected by ``@`` (``"run.traj@::10"``); or a list or
        iterator of structures and files. Files and iterators are never in memory as a whole.
    descriptor
        Anything with the attributes of :class:`~ase_sensitivity.Descriptor`; or a QUIP string, or
        several, for the species in the frames. Then all frames are read once more to find these.
    scope
        As in :func:`~ase_sensitivity.analyze`. Force errors are always those in structure scope.
    forces_key
        Name of the array with reference forces; by default the calculator's forces, if there are
        any.
    energy_key
        Name of the entry of ``atoms.info`` with the energy; by default the calculator's.
    units
        Units of these energies and forces: "eV", "kcal/mol", "kJ/mol", "Ha", ... with lengths in Å,
        or "Ha/Bohr", "kJ/mol/nm", ...; results are in eV and eV/Å.
    type_map
        Chemical symbols of the types 1, 2, ... in files of LAMMPS, which ASE reads as H, He, ...
    executor
        Where to compute: any :class:`concurrent.futures.Executor`, such as a
        ``ProcessPoolExecutor`` or ``dask.distributed.Client(...).get_executor()``. By default in
        this process.
    store
        An ASE database to write to, ``"results.db"`` or ``"postgresql://..."``; or a folder of
        Parquet files, ``"results.parquet"`` (extra ``parquet``). If it has some of the frames
        already, only the others are computed: after an interruption, call again with the same
        arguments. The result has only these frames, even if the store has more. Without a store all
        records are in memory, a few kB for each frame.
    k
        Number of singular values and modes to keep for each frame.
    causes
        Find out why singular values vanish. This takes no time for frames without such values.
    distance
        Estimate the distance to the nearest singular configuration, to first order, with up to
        four more Jacobians.
    null_tolerance
        Singular values below this fraction of the largest are zero.
    tolerance
        Tolerance in Å for symmetries of the geometry and for equal distances.
    reference
        What a model was trained on: every frame is compared with it, for the columns that begin
        with ``novelty`` and ``twin``. A :class:`~ase_sensitivity.ReferenceSet`, the path of a saved
        one (.npz), or frames for one, as a list or files. See :doc:`/reference_set`.
    progress
        Called from time to time with the number of frames done so far.

    Returns
    -------
    ScanResult
        It has a row for each frame, in order. The row of a frame that fails has its error.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, there are no frames, none of the first frames has forces or
        an energy under the key, or the store is of another scan.
    OSError
        If a file is missing or the store cannot be written.
    RuntimeError
        If a worker died, or a Dask scheduler did not answer or had no workers for half a minute.

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
    seen: Descriptor = descriptor_for(descriptor, frames, type_map)
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
    check_executor(executor)
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
    compared = None
    if reference is not None:
        names = {"forces_key": forces_key, "energy_key": energy_key}
        compared = reference_set(reference, seen, **names, units=units, type_map=type_map)
        parameters["reference"] = compared.digest
    kept: Store = MemoryStore(parameters)
    known: Digests = {}
    sources: set[str] = set()
    database = None if store is None else store_of(store)
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
    chunks = Chunks(_new(chain(first, tasks), known, n_done))
    waiting: list[FrameRecord] = []
    written = time.perf_counter()
    try:
        for records, elapsed in computed(partial(evaluate, seen, settings), chunks, executor):
            chunks.adapt(len(records), elapsed)
            if compared is not None:
                add_comparisons(records, compared)
            waiting += records
            if time.perf_counter() - written > WRITTEN_AFTER:
                ready, waiting = waiting, []
                kept.write(ready)
                written = time.perf_counter()
            n_done["new"] += len(records)
            if progress is not None:
                progress(n_done.total())
    finally:
        if waiting:
            kept.write(waiting)
    return ScanResult(PartialStore(kept, known) if known else kept, n_besides=len(known))


def _new(tasks: Iterator[Task], known: Digests, n_done: Counter[str]) -> Iterator[Task]:
    """Tasks that are not in ``known``; those that are in it are counted and removed from it.

    Raises
    ------
    ValueError
        If the structure or the references of a known frame have changed.
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
