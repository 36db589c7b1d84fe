"""Solving with the Gram matrix of a long structure, a wire or a tube: narrow after reordering."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy

from ase_sensitivity.descriptors.base import Floats

WORTHWHILE = 8
"""How many times the bandwidth the matrix has to be large for the band to pay (measured: sparse
factorisations with general fill lose to dense ones in three dimensions up to 2000 atoms)."""

SHIFT = 1e-8
"""Added to the diagonal, relative to its largest entry: G itself is singular."""


def banded_inverse(gram: Floats, trivial: Floats) -> Callable[[Floats], Floats] | None:
    """Apply P (G + shift)^-1 P, P the projector off the trivial modes; None if G has no band.

    Parameters
    ----------
    gram
        G of shape (n, n), whose null space contains the trivial modes.
    trivial
        Orthonormal modes of shape (n, n_trivial).

    Returns
    -------
    callable or None
        The operator on arrays of shape (n, any). Its eigenvectors on the complement of the trivial
        modes are those of G.

    Raises
    ------
    scipy.linalg.LinAlgError
        If G + shift is not positive definite.
    """
    n, scale = len(gram), float(gram.diagonal().max())
    rows, columns = np.nonzero(np.abs(gram) > 1e-13 * scale)
    pattern = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=gram.shape)
    order = scipy.sparse.csgraph.reverse_cuthill_mckee(pattern, symmetric_mode=True)
    place = np.empty(n, dtype=np.intp)
    place[order] = np.arange(n)
    distance = place[rows] - place[columns]
    width = int(distance.max(initial=0))
    if width * WORTHWHILE > n:
        return None
    band = np.zeros((width + 1, n))
    lower = distance >= 0
    band[distance[lower], place[columns[lower]]] = gram[rows[lower], columns[lower]]
    band[0] += SHIFT * scale
    factor = scipy.linalg.cholesky_banded(band, lower=True, overwrite_ab=True, check_finite=False)

    def project(x: Floats) -> Floats:
        return x - trivial @ (trivial.T @ x)

    def apply(x: Floats) -> Floats:
        y = scipy.linalg.cho_solve_banded((factor, True), project(x)[order], check_finite=False)
        return project(y[place])

    return apply
