"""Choose the frames of a pool that are worth a calculation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity.analysis import check_descriptor_type
from ase_sensitivity.dataset.chunks import check_executor
from ase_sensitivity.dataset.select.choice import Choice, at_random, by_design, cur, farthest_points
from ase_sensitivity.dataset.select.computation import all_records
from ase_sensitivity.dataset.select.design import DESIGNS, Design
from ase_sensitivity.dataset.select.idle import (
    MOST_POOR,
    NOT_LOOKED_AT,
    IdleFrame,
    first_copies,
    poor_places,
    why_poor,
)
from ase_sensitivity.dataset.select.pool import Pool
from ase_sensitivity.dataset.select.reading import Source, as_source
from ase_sensitivity.dataset.select.result import Selection
from ase_sensitivity.dataset.select.row_store import Records
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.descriptors.of_frames import descriptor_for
from ase_sensitivity.environments.place import Place
from ase_sensitivity.io.reading import Frames
from ase_sensitivity.linalg.threads import SMALL, threads_for
from ase_sensitivity.types import SELECTION_METHODS, Ints, SelectionMethod
from ase_sensitivity.validation import as_integer, as_number

HIGHEST_SEED = 2**32 - 1


def select(
    frames: Frames,
    descriptor: Given,
    n: int,
    *,
    method: SelectionMethod = "balanced",
    given: Frames | None = None,
    force_weight: float = 1.0,
    energy_weight: float = 1.0,
    type_map: Sequence[str] | None = None,
    executor: Executor | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
    choice_progress: Callable[[int, int], object] | None = None,
) -> Selection:
    """Choose the frames that are worth a calculation of energy and forces.

    Parameters
    ----------
    frames
        The pool, as in :func:`~ase_sensitivity.scan`. It needs no energies or forces. Files are
        read three times, and are never in memory as a whole; iterators are put in a list.
    descriptor
        As in :func:`~ase_sensitivity.scan`. The Jacobian needs the product ``apply`` alone.
    n
        How many frames to choose.
    method
        ``"balanced"``: the frame that most lowers the predicted errors of forces and energies over
        the pool (I-optimal design). ``"balanced-averages"``: the same with energies that are smooth
        functions of average features, and with more weight. ``"i-optimal"``: of forces alone.
        ``"d-optimal"``: the frame with the most information on the parameters of a model of forces.
        ``"farthest-points"`` and ``"cur"`` compare the average features of frames, ``"random"``
        nothing.
    given
        Frames that are in the training set already.
    force_weight, energy_weight
        Weights of forces and energies (balanced designs only).
    type_map, executor
        As in :func:`~ase_sensitivity.scan`.
    store
        A file for the rows of all frames. If it has some of them already, only the others are
        computed: after an interruption, or for another ``n``, ``method``, ``given`` or weight.
    seed
        Seed of the random features and of all random choices. Equal seeds give equal choices.
    progress
        Called from time to time with the number of frames done so far, the given ones first.
    choice_progress
        Called with the number of frames chosen so far, and the number of all.

    Returns
    -------
    Selection
        It has ``indices``, ``frames``, ``gain`` and the frames that add nothing.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, no frame is usable, or the store is of another selection.
    OSError
        If a file is missing or the store cannot be written.
    RuntimeError
        As in :func:`~ase_sensitivity.scan`.

    Notes
    -----
    See docs/select. Copies of earlier frames are never chosen: those with the same average features
    of their centers.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import SOAP
    >>> pool = [molecule("CH3OH") for _ in range(20)]
    >>> for number, atoms in enumerate(pool[1:]):
    ...     atoms.rattle(0.02 + 0.01 * number, seed=number)
    >>> soap = SOAP(["C", "H", "O"], cutoff=4, n_max=4, l_max=3)
    >>> chosen = select(pool, soap, 5)
    >>> len(chosen.frames), len(set(chosen.indices.tolist()))
    (5, 5)
    """
    as_integer("n", n, 1)
    as_integer("seed", seed, 0, HIGHEST_SEED)
    if method not in SELECTION_METHODS:
        raise ValueError(
            f"`method` is {method!r} but must be one of {', '.join(SELECTION_METHODS)}"
        )
    weights = (
        as_number("force_weight", force_weight, "not negative"),
        as_number("energy_weight", energy_weight, "not negative"),
    )
    if not any(weights):
        raise ValueError("`force_weight` and `energy_weight` are 0 but one must be positive")
    check_executor(executor)
    pool = Source(as_source(frames), type_map)
    before = Source([] if given is None else as_source(given), type_map)
    seen: Descriptor = descriptor_for(descriptor, _both(pool.frames, before.frames), type_map)
    check_descriptor_type(seen)
    records, others = all_records(
        seen,
        pool,
        before,
        derivatives=method in DESIGNS,
        seed=seed,
        executor=executor,
        store=store,
        progress=progress,
    )
    choice, first = _choice(records, others, n, method, weights, seed, choice_progress)
    failed = np.concatenate([others["error"], records["error"]])
    places = before.places + pool.places
    idle = _copies(places, first, len(others))
    idle += _poor(pool, choice, seen)
    structures = pool.structures(choice.chosen.tolist())
    errors = choice.variances / np.where(choice.variances[:1] > 0, choice.variances[:1], np.nan)
    return Selection(
        indices=choice.chosen,
        places=[pool.places[number] for number in choice.chosen],
        frames=[structures[number] for number in choice.chosen.tolist()],
        gain=choice.gains,
        usual_gain=choice.usual_gains,
        predicted_error=np.sqrt(errors[1:]),
        method=method,
        seed=int(seed),
        n_asked=int(n),
        n_frames=len(pool.places),
        n_given=len(others),
        idle=idle,
        errors=[
            (places[number], failed[number].decode(errors="ignore"))
            for number in np.flatnonzero(failed != b"").tolist()
        ],
    )


def _both(first: Any, second: Any) -> list[Any]:
    """All frames of two sources, for a pass over both."""
    return [
        item
        for frames in (first, second)
        for item in ([frames] if isinstance(frames, str | Path) else frames)
    ]


def _choice(
    records: Records,
    others: Records,
    n: int,
    method: SelectionMethod,
    weights: tuple[float, float],
    seed: int,
    progress: Callable[[int, int], object] | None,
) -> tuple[Choice, Ints]:
    """The choice, and for each frame, given ones first, the first copy (-1 if it failed)."""
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(others["error"] == b"")
    usable = np.flatnonzero(records["error"] == b"")
    numbers = np.concatenate([known, usable + len(others)])
    averages = np.concatenate([others["average"][known], records["average"][usable]])
    first = np.full(len(others) + len(records), -1)
    first[numbers] = numbers[first_copies(averages)]
    candidates = usable[first[usable + len(others)] == usable + len(others)]
    if method == "random":
        return at_random(candidates, n, rng), first
    given = averages[: len(known)].astype(float)
    if method == "farthest-points":
        return farthest_points(records["average"], candidates, n, given, rng), first
    if method == "cur":
        return cur(records["average"], candidates, n, given), first
    pool = Pool(records, usable, method)
    design = Design(pool.forces, pool.energies, method, *weights, pool.n_parameters)
    prior = design.variances
    for number in known:
        design.add(pool.rows(np.array([number]), others)[0])
    told = None if progress is None else lambda done: progress(done, min(n, len(candidates)))
    with threads_for(SMALL):  # no matrix is large
        found = by_design(design, pool.rows, candidates, n, rng, told)
    return replace(found, variances=np.vstack([prior, found.variances])), first


def _copies(places: Sequence[Place], first: Ints, n_given: int) -> list[IdleFrame]:
    """The frames of the pool that are copies of earlier or given ones."""
    return [
        IdleFrame(
            places[number],
            f"a copy of {places[first[number]]}"
            + (", which is given" if first[number] < n_given else ""),
        )
        for number in range(n_given, len(places))
        if 0 <= first[number] < number
    ]


def _poor(pool: Source, choice: Choice, seen: Descriptor) -> list[IdleFrame]:
    """The frames that would add little to the chosen ones, with the reasons of the poorest."""
    poor, relative = poor_places(choice.gains_of_others)
    numbers = choice.others[poor].tolist()
    looked_at = pool.structures(numbers[:MOST_POOR])
    return [
        IdleFrame(
            pool.places[number],
            why_poor(looked_at[number], seen) if number in looked_at else NOT_LOOKED_AT,
            float(relative[place]),
        )
        for number, place in zip(numbers, poor.tolist(), strict=True)
    ]
