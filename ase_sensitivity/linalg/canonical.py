"""One choice of modes where singular values leave a choice, the same on every machine."""

from __future__ import annotations

import numpy as np
import scipy

from ase_sensitivity.types import Floats, Ints

MEETING = 1e-7
"""Singular values that differ by less than this fraction are one multiple value: decompositions
of the Gram matrix are right to about that (`GRAM_LIMIT`)."""

TIE = 1e-4
"""Of coordinates whose weights differ by less than this fraction, the first counts. Equivalent
atoms have equal weights up to rounding."""


def multiplets(values: Floats, zero: float) -> Ints:
    """Number the groups of equal singular values, of shape (k,).

    Parameters
    ----------
    values
        Singular values, ascending, of shape (k,).
    zero
        Values up to this are zero, and belong together.
    """
    upper = values[1:]
    groups = np.zeros(len(values), dtype=np.intp)
    np.cumsum((upper - values[:-1] > MEETING * upper) & (upper > zero), out=groups[1:])
    return groups


def canonical(modes: Floats, groups: Ints) -> Floats:
    """The same modes, with a fixed choice of basis in each group and of each sign.

    Rounding decides which orthonormal combinations of the modes of a multiple singular value a
    decomposition returns. Here the first is the projection of the coordinate that has the most
    weight in their space, the next one that of the coordinate that has the most weight in the rest.

    Parameters
    ----------
    modes
        Orthonormal modes of shape (n, k), those of a group next to each other.
    groups
        The group of each mode, from 0 on and ascending, of shape (k,).
    """
    n = len(modes)
    # Ties are decided by the order of the coordinates, as rounding would decide them else.
    weights = 1.0 - TIE * np.arange(n) / max(n, 1)
    found = modes.copy()
    sizes = np.bincount(groups)
    for last, size in zip(sizes.cumsum().tolist(), sizes.tolist(), strict=True):
        if size > 1:
            first = last - size
            space = modes[:, first:last]
            q = scipy.linalg.qr((space * weights[:, None]).T, pivoting=True, check_finite=False)[0]
            found[:, first:last] = space @ q
    largest = (np.abs(found) * weights[:, None]).argmax(axis=0)
    found *= np.where(found[largest, np.arange(found.shape[1])] < 0, -1.0, 1.0)
    return found
