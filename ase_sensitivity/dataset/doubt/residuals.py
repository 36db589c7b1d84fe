"""The forces of each frame without those of a model fitted to other frames."""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_sensitivity.dataset.chunks import Chunks, computed
from ase_sensitivity.dataset.doubt.fit import N_FOLDS, RobustFit
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.select.model import LinearModel, directions_of
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.io.references import Task, cached_results
from ase_sensitivity.linalg.threads import SMALL, threads_for
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Floats

T = TypeVar("T")
logger = logging.getLogger(__name__)

MOST_FITTED = 2000
"""Number of frames that the models are fitted to, at even distances over the set."""

N_FOURIER = 600
MOST_AXES = 200
"""Random Fourier features and their axes: with half as many, noise is found less often."""


@dataclass(frozen=True, eq=False)
class Residual:
    """What a model fitted to other frames misses.

    Attributes
    ----------
    rms
        Root mean square of the missed components in eV/Å; nan without a fit.
    worst, residual_atom
        The largest missed force on an atom in eV/Å, and this atom; nan and -1 without a fit.
    average
        Average features of the centers, to recognize copies; None if the frame failed.
    error
        Why it failed.
    """

    rms: float = float("nan")
    worst: float = float("nan")
    residual_atom: int = -1
    average: NDArray[np.float32] | None = None
    error: str | None = None


def model_of_forces(
    descriptor: Descriptor, sample: Sequence[Atoms], seed: int, *, fit: bool = True
) -> LinearModel:
    """The model that is fitted; without any columns if only average features are wanted.

    Parameters
    ----------
    descriptor, seed
        As in :func:`~ase_sensitivity.doubt`.
    sample
        Structures for the length scale.
    fit
        Whether forces are fitted.
    """
    with threads_for(SMALL):  # no matrix is large
        return LinearModel(
            descriptor,
            sample,
            seed,
            derivatives=fit,
            n_columns=None,
            n_fourier=N_FOURIER,
            most_axes=MOST_AXES,
        )


def residuals(
    model: LinearModel,
    result: ScanResult,
    numbers: Sequence[int],
    *,
    fit: bool,
    executor: Executor | None,
    progress: Callable[[int, int], object] | None,
) -> list[Residual]:
    """The residuals of frames, or their average features alone.

    Parameters
    ----------
    model
        With all columns for a fit, without any for average features.
    result
        The scan that has structures and forces.
    numbers
        The rows of the scan that have forces, ascending.
    fit
        Whether to fit forces.
    executor
        As in :func:`~ase_sensitivity.scan`.
    progress
        Called with the number of frames done, and the number of all in both passes.
    """
    some = np.linspace(0, len(numbers), min(len(numbers), MOST_FITTED), endpoint=False).astype(int)
    fitted = [numbers[place] for place in some] if fit else []
    n_done, total = 0, len(numbers) + len(fitted)

    def all_of(
        compute: Callable[[list[Task]], tuple[list[T], float]], of: Sequence[int]
    ) -> list[T]:
        nonlocal n_done
        chunks = Chunks(_tasks(result, of))
        collected: list[T] = []
        for found, elapsed in computed(compute, chunks, executor):
            chunks.adapt(len(found), elapsed)
            collected += found
            n_done += len(found)
            if progress is not None:
                progress(n_done, total)
        return collected

    weights = None
    rows = [one for one in all_of(partial(_rows, model), fitted) if one is not None]
    if rows:
        with threads_for(SMALL):  # no matrix is large
            weights = RobustFit.of(
                [own for own, _, _ in rows],
                [force for _, force, _ in rows],
                np.array([fold for _, _, fold in rows]),
            ).weights
    return all_of(partial(_residuals, model, weights), numbers)


def _tasks(result: ScanResult, numbers: Sequence[int]) -> Iterator[Task]:
    """Structures and forces of some rows of a scan."""
    wanted = iter(numbers)
    number = next(wanted, None)
    for count, record in enumerate(result.records()):
        if count == number:
            atoms, row = record.atoms, record.row
            yield Task(row["source"], row["index"], atoms, forces=cached_results(atoms)["forces"])
            number = next(wanted, None)


def _fold(task: Task) -> int:
    """The fold of a frame: at random, and known to every worker."""
    return zlib.crc32(f"{task.source}@{task.index}".encode()) % N_FOLDS


def _rows(
    model: LinearModel, tasks: Sequence[Task]
) -> tuple[list[tuple[NDArray[np.float32], Floats, int] | None], float]:
    """Rows, forces along their directions, and fold of each frame; None if it fails."""
    begin = time.perf_counter()
    found: list[tuple[NDArray[np.float32], Floats, int] | None] = []
    with threads_for(SMALL):
        for task in tasks:
            assert task.forces is not None
            try:
                rows = model.rows(task.atoms).forces.astype(np.float32)
            except Exception:  # the second pass tells why
                logger.info("%s@%d failed", task.source, task.index, exc_info=True)
                found.append(None)
                continue
            along = directions_of(task.atoms).reshape(len(rows), -1) @ task.forces.ravel()
            found.append((rows, along, _fold(task)))
    return found, time.perf_counter() - begin


def _residuals(
    model: LinearModel, weights: Floats | None, tasks: Sequence[Task]
) -> tuple[list[Residual], float]:
    begin = time.perf_counter()
    found = []
    with threads_for(SMALL):
        for task in tasks:
            try:
                found.append(_residual(model, weights, task))
            except Exception as failure:  # one frame must not stop the others
                logger.info("%s@%d failed", task.source, task.index, exc_info=True)
                found.append(Residual(error=reason(failure)))
    return found, time.perf_counter() - begin


def _residual(model: LinearModel, weights: Floats | None, task: Task) -> Residual:
    if weights is None or task.forces is None:
        return Residual(average=model.average(task.atoms).astype(np.float32))
    forces, average = model.forces(task.atoms, weights[_fold(task)])
    missed = task.forces - forces
    lengths = np.linalg.norm(missed, axis=1)
    worst = int(np.argmax(lengths))
    return Residual(
        rms=float(np.sqrt((missed**2).mean())),
        worst=float(lengths[worst]),
        residual_atom=worst,
        average=average.astype(np.float32),
    )
