"""Copies of a structure with other labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.dataset.pairs.find import find_pairs
from ase_sensitivity.dataset.pairs.result import Conflict
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.select.idle import first_copies
from ase_sensitivity.descriptors.base import Descriptor


def conflicts(
    result: ScanResult,
    numbers: Sequence[int],
    averages: Sequence[NDArray[np.float32] | None],
    descriptor: Descriptor,
) -> tuple[list[tuple[int, int, Conflict]], str | None]:
    """Pairs of rows of a scan that have the same structure and other labels.

    Parameters
    ----------
    result
        The scan.
    numbers
        Rows of it, ascending.
    averages
        Average features of the centers of each; None if they are not known.
    descriptor
        The descriptor of these features.

    Returns
    -------
    found
        The two rows of each conflict, and the conflict.
    undecided
        What could not be compared, and why, or None.

    Notes
    -----
    Only frames with the same average features are compared in full and held in memory.
    """
    known = [place for place, average in enumerate(averages) if average is not None]
    if not known:
        return [], None
    first = first_copies(np.array([averages[place] for place in known]))
    places, counts = np.unique(first, return_counts=True)
    again = np.isin(first, places[counts > 1])
    rows = [numbers[place] for place, is_copy in zip(known, again, strict=True) if is_copy]
    if not rows:
        return [], None
    structures = [result.record(row).atoms for row in rows]
    try:
        found = find_pairs(structures, descriptor, bound=False)
    except ValueError as error:
        return [], f"whether copies have the same labels: {error}"
    pairs = [(rows[one.first.frame], rows[one.second.frame], one) for one in found.conflicts]
    return [(a, b, one) for a, b, one in pairs if a != b], None
