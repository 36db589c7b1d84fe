"""The environments that may be the softest, found for all at once by stacks of Gram matrices."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.jacobian.accumulate import stacked_products
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import BlockJacobian
from ase_sensitivity.spectrum.rigid import DEPENDENT
from ase_sensitivity.types import Floats, Ints

STACK = 2**24
"""Bytes of Gram matrices that are decomposed at a time."""


def softest_environments(jacobian: BlockJacobian) -> Ints | None:
    """Centers whose sigma_min / sigma_max may be the smallest of all in environment scope.

    One Gram matrix gives the square of the ratio up to rounding. Environments within that of the
    smallest ratio have to be analyzed accurately; usually this is one.

    Parameters
    ----------
    jacobian
        A Jacobian with one row for each center.

    Returns
    -------
    centers
        Ascending, of shape (any,). None if a center has several rows, or if no environment has more
        than rigid motions.
    """
    centers, low, high = [], [], []
    for part in jacobian.parts:
        bounds = bounds_of(part)
        if bounds is None:
            return None
        centers.append(part.centers)
        low.append(bounds[0])
        high.append(bounds[1])
    center = np.concatenate(centers)
    if len(np.unique(center)) < len(center):
        return None
    limit = np.concatenate(high).min(initial=np.inf)
    return np.sort(center[np.concatenate(low) <= limit]) if np.isfinite(limit) else None


def bounds_of(part: FeatureJacobian) -> tuple[Floats, Floats] | None:
    """Lower and upper bounds of the square of each row's ratio, of shape (n_rows,) each.

    Infinite for rows with only rigid motions. None if rows belong to the whole structure, several
    blocks of a row to one image, rotations are seen, or blocks are not finite.
    """
    n_rows, n_features = part.features.shape
    key = np.column_stack([part.row, part.keys])
    order = np.lexsort(key.T)
    if (
        not part.rotation_invariant
        or (part.centers < 0).any()
        or (np.diff(key[order], axis=0) == 0).all(axis=1).any()
    ):
        return None
    starts = part.bounds
    flat = part.blocks.reshape(-1)
    low, high = np.full((2, n_rows), np.inf)
    count = np.diff(starts)
    for n in np.unique(count[count > 1]).tolist():
        alike = np.flatnonzero(count == n)
        n_stacks = -(-len(alike) * (3 * n) ** 2 * 8 // STACK)
        for rows in np.array_split(alike, min(n_stacks, len(alike))):
            gram = np.zeros((len(rows), 3 * n, 3 * n))
            stacked_products(flat, n_features, starts, rows, gram)
            points = part.displacement[starts[rows][:, None] + np.arange(n)]
            trivial, n_trivial = _trivial(points)
            if not np.isfinite(gram).all():
                return None
            largest = gram.diagonal(axis1=1, axis2=2).max(axis=1)
            # Trivial modes are shifted below zero, where there is no other eigenvalue.
            gram -= largest[:, None, None] * (trivial @ trivial.transpose(0, 2, 1))
            values = np.linalg.eigvalsh(gram)  # reads the lower triangle
            moves = n_trivial < 3 * n
            first = values[np.arange(len(rows)), np.where(moves, n_trivial, 0)].clip(0.0)
            top = values[:, -1]
            seen = moves & (top > 0)
            square = np.where(moves, 0.0, np.inf)
            square[seen] = first[seen] / top[seen]
            rounding = 4 * np.finfo(float).eps * 3 * n
            low[rows], high[rows] = square - rounding, square + rounding
    return low, high


def _trivial(points: Floats) -> tuple[Floats, Ints]:
    """Orthonormal rigid motions of points (b, n, 3), of shape (b, 3 n, 6), and their numbers (b,).

    The columns beyond that number are zero.
    """
    relative = points - points.mean(axis=1, keepdims=True)
    size = np.sqrt((relative**2).sum(axis=(1, 2)) / points.shape[1])
    relative /= np.where(size > 0, size, 1.0)[:, None, None]
    generators = np.empty((len(points), points.shape[1], 3, 6))
    generators[..., :3] = np.eye(3)
    generators[..., 3:] = np.moveaxis(rotation_generators(relative), 0, -1)
    u, s, _ = np.linalg.svd(generators.reshape(len(points), -1, 6), full_matrices=False)
    independent = s > DEPENDENT * np.sqrt(points.shape[1])
    return u * independent[:, None], independent.sum(axis=1)
