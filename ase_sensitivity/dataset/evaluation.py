"""The evaluation of a chunk of frames by a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.symbols import Symbols

from ase_sensitivity.analysis import analyze
from ase_sensitivity.causes.cause import HARMLESS, NULL_CAUSES
from ase_sensitivity.dataset.forces import ForceLoss, force_loss
from ase_sensitivity.dataset.record import FrameRecord, row_of, text_alone
from ase_sensitivity.descriptors.base import Descriptor, remembering
from ase_sensitivity.io.references import Task
from ase_sensitivity.linalg.threads import threads_for
from ase_sensitivity.plain_text import reason
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.nearest import singularity_distance
from ase_sensitivity.types import Scope

logger = logging.getLogger(__name__)


SCAN_NULL_TOLERANCE = 1e-9
"""Singular values below this fraction of the largest are zero (:ref:`fits`)."""


@dataclass(frozen=True)
class Settings:
    """The options of the evaluation of each frame: arguments of :func:`scan`."""

    scope: Scope
    k: int
    causes: bool
    distance: bool
    null_tolerance: float
    tolerance: float


def evaluate(
    descriptor: Descriptor, settings: Settings, tasks: Sequence[Task]
) -> tuple[list[FrameRecord], float]:
    """The records of some frames, and the elapsed time in s."""
    begin = time.perf_counter()
    with threads_for(3 * max((len(task.atoms) for task in tasks), default=0)):
        records = [_record(descriptor, settings, task) for task in tasks]
    return records, time.perf_counter() - begin


def _record(descriptor: Descriptor, settings: Settings, task: Task) -> FrameRecord:
    row = row_of(source=task.source, index=task.index, error=task.error)
    record = FrameRecord(row=row, atoms=task.atoms)
    record.modes = np.empty((0, len(task.atoms), 3))
    if len(task.atoms) == 0:
        row["error"] = task.error or "the frame has no atoms"
        return record
    row |= {"n_atoms": len(task.atoms), "energy": task.energy}
    try:
        row["formula"] = _formula(np.sort(task.atoms.numbers).tobytes())
        with remembering(descriptor):
            _fill(record, descriptor, settings, task)
    except Exception as error:  # one frame must not stop the others
        logger.info("%s@%d failed", task.source, task.index, exc_info=True)
        row["error"] = reason(error)
    return record


@lru_cache(maxsize=4096)
def _formula(numbers: bytes) -> str:
    """The formula of sorted atomic numbers: a data set has each many times."""
    return str(Symbols(np.frombuffer(numbers, dtype=int)).get_chemical_formula())


def _fill(record: FrameRecord, descriptor: Descriptor, settings: Settings, task: Task) -> None:
    atoms, row = task.atoms, record.row
    # Forces need all directions, and not only the first k.
    whole = settings.scope == "structure" and task.forces is not None
    found = _sensitivity(atoms, descriptor, settings, row, None if whole else settings.k)
    row |= _sensitivity_columns(found)
    row["unseen"] = ", ".join(found.unseen) or None
    k = min(settings.k, len(found.singular_values))
    record.singular_values = found.singular_values[:k]
    if found.scope == "environment":
        record.modes = np.array([found.mode_of_atoms(len(atoms), n) for n in range(k)])
    else:
        record.modes = found.modes[:k].copy()  # not a view that keeps all of them
    record.causes = None if found.causes is None else found.causes[:k]
    alone = {name: _sensitivity_columns(own) for name, own in (found.alone or {}).items()}
    if task.forces is not None:
        if not whole:
            found = analyze(atoms, descriptor, k=None, null_tolerance=settings.null_tolerance)
        loss = force_loss(atoms, task.forces, found)
        record.lost_forces, record.curve = loss.lost, loss.curve
        row |= _force_columns(loss, row["cause"], settings)
        for name, own in (found.alone or {}).items():
            one = force_loss(atoms, task.forces, own)
            columns = alone.setdefault(name, {})
            columns |= _force_columns(one, columns.get("cause"), settings)
    row["alone"] = text_alone(alone, found.masking)
    if settings.distance:
        row["distance"] = singularity_distance(
            atoms, descriptor, scope=settings.scope, center=row["center"]
        )


def _sensitivity_columns(found: Sensitivity) -> dict[str, Any]:
    """The columns of a row that follow from the singular values."""
    row: dict[str, Any] = {"n_null": found.n_null, "center": found.center}
    if len(found.singular_values):  # otherwise only fragments can move
        row |= {
            "sigma_min": float(found.singular_values[0]),
            "sigma_max": found.sigma_max,
            "ratio": found.ratio,
            "worst_atom": found.worst_atom,
        }
    if found.counts is not None:
        row |= {f"n_{cause}": found.counts.get(cause, 0) for cause in NULL_CAUSES}
        row["n_near_null"] = found.n_near_null
        row["cause"] = next((cause for cause in NULL_CAUSES if found.counts.get(cause)), None)
    return row


def _force_columns(loss: ForceLoss, cause: str | None, settings: Settings) -> dict[str, Any]:
    """The columns of a row that follow from the forces."""
    row: dict[str, Any] = {
        "rms_force": loss.rms_force,
        "irreducible_force_error": loss.irreducible,
        "required_slope": loss.required_slope,
        "net_force": loss.net_force,
        "net_torque": loss.net_torque,
    }
    if settings.causes and loss.between_fragments and cause in (None, *HARMLESS):
        row["cause"] = "fragment"
    return row


def _sensitivity(
    atoms: Atoms, descriptor: Descriptor, settings: Settings, row: dict[str, Any], k: int | None
) -> Sensitivity:
    arguments: dict[str, Any] = {
        "scope": settings.scope,
        "k": k,
        "null_tolerance": settings.null_tolerance,
        "tolerance": settings.tolerance,
    }
    if not settings.causes:
        return analyze(atoms, descriptor, **arguments)
    try:
        return analyze(atoms, descriptor, causes=True, **arguments)
    except ValueError as error:
        # Either the causes could not be found, or the whole analysis fails again.
        found = analyze(atoms, descriptor, **arguments)
        row["error"] = f"causes were not found: {reason(error)}"
        row["cause"] = "unknown"
        return found
