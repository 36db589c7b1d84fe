"""Frames of a scan compared with a reference set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.environments.reference_set import ReferenceSet
from ase_sensitivity.io.references import cached_results
from ase_sensitivity.plain_text import reason

logger = logging.getLogger(__name__)


def add_comparisons(records: Sequence[FrameRecord], reference: ReferenceSet) -> None:
    """Fill the columns of records that come from a comparison with a reference.

    This is done in the process that has the reference: to send it to others would take longer.
    """
    for record in records:
        if len(record.atoms) == 0:
            continue
        try:
            known = cached_results(record.atoms)
            found = reference.compare(record.atoms, **known)
        except Exception as error:  # one frame must not stop the others
            row = record.row
            logger.info("%s@%d failed", row["source"], row["index"], exc_info=True)
            row["error"] = row["error"] or f"not compared with the reference: {reason(error)}"
            continue
        if np.isfinite(found.novelty):
            record.row["novelty"] = found.novelty
        else:  # a database has no infinite numbers
            new = record.atoms if found.center is None else record.atoms[[found.center]]
            record.row["not_in_reference"] = ", ".join(sorted({*new.symbols}))
        if found.twin is not None:
            record.row |= {
                "twin_frame": found.twin.frame,
                "twin_features": found.twin.features,
                "twin_distance": found.twin.distance,
                "twin_forces": found.twin.forces,
            }
