"""Groups of numbers that are equal up to a tolerance."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.types import Floats, Ints


def clusters(values: Floats, tolerance: float, groups: Ints) -> Ints:
    """Label values by single linkage: sorted neighbors within ``tolerance`` share a label.

    Rounding the values would separate equal ones at the ends of the rounding intervals.

    Parameters
    ----------
    values
        Of shape (n,).
    tolerance
        The largest gap within a cluster.
    groups
        Values of different groups never share a label; of shape (n,).

    Returns
    -------
    labels
        Integers from 0, of shape (n,), in the order of groups and values.
    """
    order = np.lexsort((values, groups))
    new = (np.diff(values[order]) > tolerance) | (np.diff(groups[order]) != 0)
    labels = np.empty(len(values), dtype=np.intp)
    labels[order] = np.concatenate([[0], np.cumsum(new)]) if len(values) else 0
    return labels
