"""What features of a body order can resolve at best, in an infinite basis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import scipy

from ase_sensitivity.causes.environments import Environment
from ase_sensitivity.geometry.clusters import clusters
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.types import Floats, Ints

MAX_TUPLES = 300_000
"""Limit of the number of tuples of neighbors: 547 neighbors at nu = 2, 66 at nu = 3."""


def class_sums(environment: Environment, nu: int, tolerance: float) -> scipy.sparse.csr_array:
    """Rows that span the displacements which sums over nu-tuples resolve, of shape (any, 3 n).

    A feature that correlates nu neighbors does not distinguish two tuples with the same species,
    distances and pairwise angles. Features depend on sums over the tuples of such a class. To first
    order, they depend on the sums over the class of the gradients of each distance and each cosine.

    Parameters
    ----------
    environment
        The center and its n points. The columns are the points' coordinates relative to the center.
    nu
        Number of correlated neighbors: the body order minus one.
    tolerance
        Distances (Å) and cosines that differ by less are equal.

    Raises
    ------
    ValueError
        If there are more than :data:`MAX_TUPLES` tuples, or ``nu`` is not positive.

    Examples
    --------
    Three neighbors at different distances: at nu = 1 only the distances are seen, at nu = 2 also
    the three angles.

    >>> import numpy as np
    >>> points = np.array([(1.0, 0.2, 0.0), (-0.3, 1.1, 0.1), (0.2, 0.4, 1.3)])
    >>> about = Environment(np.ones(3, int), points, np.arange(1, 4), np.zeros(3, int))
    >>> [resolved_rank(about, nu, 1e-5) for nu in (1, 2)]
    [3, 6]
    """
    if nu < 1:
        raise ValueError(f"`nu` is {nu} but must be positive")
    n_points = len(environment.numbers)
    if n_points**nu > MAX_TUPLES:
        raise ValueError(
            f"features that correlate {nu} of {n_points} neighbors depend on {n_points**nu} "
            f"tuples, more than the limit of {MAX_TUPLES}; reduce the cutoff"
        )
    if n_points == 0:
        return scipy.sparse.csr_array((0, 0))
    distance = np.linalg.norm(environment.displacements, axis=1)
    unit = environment.displacements / distance[:, None]
    shell = clusters(distance, tolerance, environment.numbers)
    tuples = np.indices((n_points,) * nu).reshape(nu, -1).T
    # One order of each tuple is enough; within a shell, the order is not unique.
    tuples = tuples[(np.diff(shell[tuples], axis=1) >= 0).all(axis=1)]
    pairs = list(combinations(range(nu), 2))
    label = _combined([shell[tuples[:, p]] for p in range(nu)])
    cosines = []
    keys = [label]
    for p, q in pairs:
        i, j = tuples[:, p], tuples[:, q]
        cosine = np.einsum("ij,ij->i", unit[i], unit[j])
        cosines.append(cosine)
        keys.append(clusters(cosine, tolerance, shell[i] * n_points + shell[j]))
    label = _combined(keys)
    width = nu + len(pairs)
    rows: list[Ints] = []
    points: list[Ints] = []
    data: list[Floats] = []
    for p in range(nu):
        rows.append(label * width + p)
        points.append(tuples[:, p])
        data.append(unit[tuples[:, p]])
    for number, ((p, q), cosine) in enumerate(zip(pairs, cosines, strict=True)):
        for i, j in ((tuples[:, p], tuples[:, q]), (tuples[:, q], tuples[:, p])):
            rows.append(label * width + nu + number)
            points.append(i)
            data.append((unit[j] - cosine[:, None] * unit[i]) / distance[i, None])
    row = np.repeat(np.concatenate(rows), 3)
    column = coordinates_of(np.concatenate(points))
    shape = (width * (int(label.max()) + 1), 3 * n_points)
    return scipy.sparse.coo_array(
        (np.concatenate(data).ravel(), (row, column)), shape=shape
    ).tocsr()


def resolved_rank(environment: Environment, nu: int, tolerance: float, cut: float = 1e-7) -> int:
    """Number of independent displacements of the points that nu-tuples resolve.

    Parameters
    ----------
    environment, nu, tolerance
        As in :func:`class_sums`.
    cut
        Singular values of the class sums below this fraction of the largest are zero.
    """
    sums = class_sums(environment, nu, tolerance)
    factor = np.empty((0, sums.shape[1]))
    # Block by block, as the dense matrix of a large environment would need much memory.
    step = max(1000, sums.shape[1])
    for start in range(0, sums.shape[0], step):
        block = sums[start : start + step].toarray()
        factor = scipy.linalg.qr(np.concatenate([factor, block]), mode="economic")[1]
    values = np.linalg.svd(factor, compute_uv=False)
    return int((values > cut * values.max(initial=0.0)).sum())


def _combined(labels: Sequence[Ints]) -> Ints:
    """One label for each combination of labels."""
    total = np.zeros(len(labels[0]), dtype=np.intp)
    for label in labels:
        total = np.unique(total * (int(label.max()) + 1) + label, return_inverse=True)[1]
    return total
