"""The records of all frames, computed in chunks on any executor, or taken from a store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from ase_sensitivity.dataset.chunks import Chunks, computed
from ase_sensitivity.dataset.select.evaluation import evaluate
from ase_sensitivity.dataset.select.model import LinearModel
from ase_sensitivity.dataset.select.reading import Source, digest_of
from ase_sensitivity.dataset.select.row_store import Records, RowStore, record_type
from ase_sensitivity.descriptors.base import Descriptor, descriptor_text
from ase_sensitivity.linalg.threads import SMALL, threads_for
from ase_sensitivity.version import __version__


def all_records(
    descriptor: Descriptor,
    pool: Source,
    given: Source,
    *,
    derivatives: bool,
    seed: int,
    executor: Executor | None,
    store: str | Path | None,
    progress: Callable[[int], object] | None,
) -> tuple[Records, Records]:
    """The records of the pool, and those of the frames that are given.

    Parameters
    ----------
    descriptor, seed, executor, store, progress
        As in :func:`~ase_sensitivity.select`.
    pool, given
        The frames.
    derivatives
        Whether to compute rows of forces and energies, and not average features alone.

    Raises
    ------
    ValueError, OSError, RuntimeError
        As :func:`~ase_sensitivity.select`.
    """
    sample = pool.sample()
    with threads_for(SMALL):  # no matrix is large
        model = LinearModel(descriptor, sample, seed, derivatives=derivatives)
    species = np.unique(np.concatenate([atoms.numbers for atoms in sample]))
    kind = record_type(model.columns.shape[1], model.n_axes, len(species))
    about = {
        "descriptor": descriptor_text(descriptor),
        "seed": seed,
        "sample": digest_of(sample),
        "version": __version__,
    }
    compute = partial(evaluate, model, species, kind)
    n_done = 0
    found = []
    with closing(RowStore(kind)) as others, closing(RowStore(kind, store, about)) as rows:
        for source, part in ((given, others), (pool, rows)):
            chunks = Chunks(source.tasks(part.records["digest"]))
            for records, elapsed in computed(compute, chunks, executor):
                chunks.adapt(len(records), elapsed)
                part.add(records)
                if progress is not None:
                    progress(n_done + len(part))
            n_done += len(part)
            found.append(part.records)
    if not (found[1]["error"] == b"").any():
        raise ValueError(
            f"no frame of `frames` can be evaluated: {found[1]['error'][0].decode(errors='ignore')}"
        )
    return found[1], found[0]
