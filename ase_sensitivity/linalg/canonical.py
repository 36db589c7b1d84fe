"""A choice of modes for degenerate singular values that is the same on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy

from ase_sensitivity.types import Floats, Ints

DEGENERATE = 1e-7
"""Singular values that differ by less than this fraction are degenerate: decompositions of the Gram
matrix have about this accuracy (`GRAM_LIMIT`)."""

TIE = 1e-4
"""If the weights of two coordinates differ by less than this fraction, the first one is taken.
Equivalent atoms have equal weights up to rounding."""


def multiplets(values: Floats, zero: float) -> Ints:
    """Number the groups of degenerate singular values, of shape (k,).

    Parameters
    ----------
    values
        Singular values, ascending, of shape (k,).
    zero
        Values up to this are zero, and form one group.
    """
    upper = values[1:]
    groups = np.zeros(len(values), dtype=np.intp)
    np.cumsum((upper - values[:-1] > DEGENERATE * upper) & (upper > zero), out=groups[1:])
    return groups


def canonical(modes: Floats, groups: Ints) -> Floats:
    """The same modes, with a fixed choice of basis in each group and of each sign.

    Rounding decides which orthonormal combinations of the modes of a degenerate singular value a
    decomposition returns. Here the first mode is the projection of the coordinate with the largest
    weight in their space. The next one is that of the coordinate with the largest weight in the
    rest of the space, and so on.

    Parameters
    ----------
    modes
        Orthonormal modes of shape (n, k); those of a group are next to each other.
    groups
        The group of each mode, from 0 on and ascending, of shape (k,).
    """
    weights = _weights(len(modes))
    found = modes.copy()
    if len(groups) and groups[-1] < len(groups) - 1:
        sizes = np.bincount(groups)
        for last, size in zip(sizes.cumsum().tolist(), sizes.tolist(), strict=True):
            if size > 1:
                first = last - size
                space = modes[:, first:last]
                weighted: Floats = (space * weights).T
                q = scipy.linalg.qr(weighted, pivoting=True, check_finite=False)[0]
                found[:, first:last] = space @ q
    largest = (np.abs(found) * weights).argmax(axis=0)
    found *= np.copysign(1.0, found[largest, np.arange(found.shape[1])])
    return found


@lru_cache(maxsize=64)
def _weights(n: int) -> Floats:
    """Weights of n coordinates, of shape (n, 1).

    The order of the coordinates decides between equal ones; otherwise rounding would.
    """
    return (1.0 - TIE * np.arange(n) / max(n, 1))[:, None]
