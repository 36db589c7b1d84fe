"""A sweep over the options of a descriptor, to find those that a data set needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_sensitivity.analysis import check_arguments
from ase_sensitivity.dataset.basis.candidates import Candidates, Family, candidates_of
from ase_sensitivity.dataset.basis.cost import N_TIMED, costs
from ase_sensitivity.dataset.basis.evaluation import Tried, evaluate_all
from ase_sensitivity.dataset.basis.result import Convergence
from ase_sensitivity.dataset.basis.store import NoStore, SweepStore
from ase_sensitivity.dataset.basis.totals import Totals, convergence_of
from ase_sensitivity.dataset.chunks import Chunks, check_executor, computed
from ase_sensitivity.dataset.evaluation import SCAN_NULL_TOLERANCE, Settings
from ase_sensitivity.descriptors.base import descriptor_text
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.geometry.symmetry import TOLERANCE
from ase_sensitivity.io.reading import Frames, check_frames, read_frames
from ase_sensitivity.io.references import Task, tasks_of, unit_factors
from ase_sensitivity.types import Scope


def converge(
    frames: Frames,
    family: Family | Sequence[Given],
    *,
    n_max: int | Iterable[int] | None = None,
    l_max: int | Iterable[int] | None = None,
    cutoff: float | Iterable[float] | None = None,
    atom_sigma: float | Iterable[float] | None = None,
    cutoff_transition_width: float | Iterable[float] | None = None,
    radial_basis: str | Iterable[str] | None = None,
    body_order: int | Iterable[int] | None = None,
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    type_map: Sequence[str] | None = None,
    scope: Scope = "structure",
    null_tolerance: float = SCAN_NULL_TOLERANCE,
    tolerance: float = TOLERANCE,
    executor: Executor | None = None,
    store: str | Path | None = None,
    progress: Callable[[int], object] | None = None,
    **options: Any,
) -> Convergence:
    """Find the descriptor that a data set needs: the basis, the cutoff, or any other option.

    Parameters
    ----------
    frames
        As in :func:`~ase_sensitivity.scan`. Only one structure is in memory at a time.
    family
        What has the options: a :class:`~ase_sensitivity.SOAP` or
        :class:`~ase_sensitivity.QUIPDescriptor`; a function of them that returns a descriptor; or
        a QUIP string for the species in the frames. Or a list of descriptors to compare as they
        are, of any kind; each of them may be a QUIP string, or a list of these for several that
        are seen together.
    n_max, l_max, cutoff, atom_sigma, cutoff_transition_width, radial_basis, body_order
        The values to try, or a single value; lengths in Å. All combinations are tried, 256 at most.
        An option that is not given stays as it is in the descriptor. If none is given, ``n_max`` is
        2, 4, 6, 8 and ``l_max`` is 0 to 6.
    forces_key, energy_key, units, type_map, scope, null_tolerance, tolerance, executor
        As in :func:`~ase_sensitivity.scan`.
    store
        A file to write to after each structure. The same call continues with it.
    progress
        Called with the number of structures done so far.
    **options
        Values to try of other options, by name: arguments of SOAP, words of QUIP strings (such as
        those that compress a soap, ``diagonal_radial=[False, True]``), arguments of the function.

    Returns
    -------
    Convergence
        It has a row for each candidate, and those that are sufficient.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, there are too many candidates, no structure can be evaluated,
        or the store is of another sweep.
    OSError
        If the store cannot be written.
    RuntimeError
        If a worker died.

    Notes
    -----
    The features of a :class:`~ase_sensitivity.SOAP` with a lower ``l_max`` are a subset of those
    with a higher one. So one Jacobian is enough for all ``l_max``. Radial functions depend on the
    other options, and nothing can be shared.

    If the cause of null directions is unknown, those that another ``n_max`` and ``l_max`` of the
    sweep see count as caused by truncation.

    The noise of required slopes is that of a bootstrap over structures, which is the same for all
    candidates (:doc:`/dataset_basis`).

    Examples
    --------
    >>> from ase import Atoms
    >>> from ase_sensitivity import SOAP
    >>> places = [(1, 0, 0), (0.28, 0.96, 0), (-0.48, 0.6, 0.64), (-0.36, -0.48, -0.8)]
    >>> molecule = Atoms("CH4", [(0, 0, 0), *places])
    >>> soap = SOAP(["H"], cutoff=3, n_max=8, l_max=5, atom_sigma=0.3, centers=["C"])
    >>> found = converge([molecule], soap, l_max=range(1, 7))
    >>> [row["n_truncation"] for row in found.rows]
    [6, 4, 2, 1, 0, 0]
    >>> found.resolving
    (5,)
    >>> [row["n_null"] for row in converge([molecule], soap, cutoff=[0.9, 3], l_max=[5]).rows]
    [..., 0]
    """
    check_frames(frames)
    named = {
        "n_max": n_max,
        "l_max": l_max,
        "cutoff": cutoff,
        "atom_sigma": atom_sigma,
        "cutoff_transition_width": cutoff_transition_width,
        "radial_basis": radial_basis,
        "body_order": body_order,
    }
    candidates = candidates_of(family, named | options, frames, type_map)
    for member in candidates.descriptors.values():
        check_arguments(
            Atoms("H"),
            member,
            scope=scope,
            center=None,
            k=None,
            null_tolerance=null_tolerance,
            tolerance=tolerance,
        )
    check_executor(executor)
    # The number of modes does not matter: with forces all of them are computed anyway.
    settings = Settings(scope, 1, True, False, null_tolerance, tolerance)
    about = {
        "descriptors": [descriptor_text(one) for one in candidates.descriptors.values()],
        **asdict(settings),
        "references": [forces_key, energy_key, units],
    }
    read = read_frames(frames, type_map=type_map)
    tasks = tasks_of(read, forces_key, energy_key, unit_factors(units), strict=True)
    keys = list(candidates.descriptors)
    kept = NoStore() if store is None else SweepStore(store, about, keys)
    totals = {key: Totals() for key in candidates.descriptors}
    timed: list[Atoms] = []
    with closing(kept):
        every = _all_tried(candidates, settings, tasks, kept, executor)
        for n_done, (task, tried) in enumerate(every, 1):
            for one in tried:
                totals[one.key].add(one)
            if len(timed) < N_TIMED and any(one.n_features for one in tried):
                timed.append(task.atoms)
            if progress is not None:
                progress(n_done)
    found = next(iter(totals.values())).found
    if found.n_frames == 0:
        raise ValueError("`frames` has no frames")
    if not timed:
        raise ValueError(f"no structure could be evaluated: {found.first_error}")
    return convergence_of(candidates, totals, costs(candidates.descriptors, timed))


def _all_tried(
    candidates: Candidates,
    settings: Settings,
    tasks: Iterator[Task],
    kept: SweepStore | NoStore,
    executor: Executor | None,
) -> Iterator[tuple[Task, list[Tried]]]:
    """What all candidates have in each frame, in order: first what the store knows."""
    descriptors = candidates.descriptors
    groups = [[(key, descriptors[key]) for key in own] for own in candidates.groups("l_max")]
    first: list[Task] = []
    for task in tasks:
        tried = kept.known(task)
        if tried is None:
            first.append(task)
            break
        yield task, tried
    sent: list[Task] = []

    def rest() -> Iterator[Task]:
        for task in chain(first, tasks):
            sent.append(task)
            yield task

    chunks = Chunks(rest())
    for found, elapsed in computed(partial(evaluate_all, groups, settings), chunks, executor):
        chunks.adapt(len(found), elapsed)
        for tried in found:
            task = sent.pop(0)
            kept.write(task, tried)
            yield task, tried
