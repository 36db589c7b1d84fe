"""The records of a chunk of frames, computed by a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ase_sensitivity.dataset.rows import digest
from ase_sensitivity.dataset.select.model import LinearModel
from ase_sensitivity.dataset.select.row_store import LONGEST_ERROR, Records
from ase_sensitivity.io.references import Task
from ase_sensitivity.linalg.threads import SMALL, threads_for
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Ints

logger = logging.getLogger(__name__)


def evaluate(
    model: LinearModel, species: Ints, kind: np.dtype[np.void], tasks: Sequence[Task]
) -> tuple[Records, float]:
    """The records of some frames, and the elapsed time in s.

    Parameters
    ----------
    model
        The model. Its rows are computed if the records have columns for them.
    species
        The atomic numbers for the fractions of the species.
    kind
        That of the records.
    tasks
        The frames. One that fails has its error.
    """
    begin = time.perf_counter()
    records = np.zeros(len(tasks), kind)
    with threads_for(SMALL):  # no matrix is large
        for record, task in zip(records, tasks, strict=True):
            record["digest"] = digest(task.atoms).encode()
            error = task.error
            if error is None:
                try:
                    _fill(record, model, species, task.atoms)
                except Exception as failure:  # one frame must not stop the others
                    logger.info("%s@%d failed", task.source, task.index, exc_info=True)
                    error = reason(failure)
            if error is not None:
                for name in ("forces", "energy", "fractions", "average"):
                    record[name] = 0.0
                record["error"] = error.encode()[:LONGEST_ERROR]
    return records, time.perf_counter() - begin


def _fill(record: np.void, model: LinearModel, species: Ints, atoms: Atoms) -> None:
    if len(atoms) == 0:
        raise ValueError("the frame has no atoms")
    record["fractions"] = (atoms.numbers[:, None] == species).mean(axis=0)
    if record["energy"].size == 0:
        record["average"] = model.average(atoms)
    else:
        rows = model.rows(atoms)
        record["forces"][: len(rows.forces)] = rows.forces
        record["energy"], record["average"] = rows.energy, rows.average
    if not all(np.isfinite(record[name]).all() for name in ("forces", "energy", "average")):
        raise ValueError("the descriptor gave features that are not finite")
