"""Singular values of a view of the Jacobian, exact where they are small (docs/theory, accuracy)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from ase_sensitivity.descriptors.base import Floats, Ints
from ase_sensitivity.spectrum.banded import BandedGram
from ase_sensitivity.spectrum.krylov import largest_eigenpairs
from ase_sensitivity.spectrum.scopes import View

GRAM_LIMIT = 1e-4
"""Of the singular values of one Gram matrix, those below this fraction of its largest have lost
digits: their relative error is about 1e-15 / ratio^2, 1e-7 here."""

NULL_TOLERANCE = 1e-10
"""Singular values below this fraction of the largest are zero."""

FEW = 60
"""Number of coordinates above which a few values cost less than all."""

MANY = 750
"""Number of coordinates above which Krylov subspaces cost less than a tridiagonal form, with the
previous modes to start from; without them it is 1000."""

LONG = 1500
"""Number of coordinates above which the matrix is stored as a band if it has a narrow one."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Non-trivial singular values of a view.

    Attributes
    ----------
    singular_values
        The smallest non-trivial ones, ascending, of shape (k,).
    modes
        Right singular vectors of the same order, of shape (3 n_columns, k).
    sigma_max
        The largest singular value; 0 if there is none.
    n_trivial
        Number of trivial modes set aside.
    n_null
        Number of all singular values that are zero.
    method
        ``"gram"``, ``"krylov"`` or ``"refined"``: which route gave them.
    """

    singular_values: Floats
    modes: Floats
    sigma_max: float
    n_trivial: int
    n_null: int
    method: str

    @property
    def ratio(self) -> float:
        """Smallest over largest singular value: nan without any, 0 if all are zero."""
        return ratio_of(self.singular_values, self.sigma_max)


def ratio_of(singular_values: Floats, sigma_max: float) -> float:
    """Smallest over largest singular value: nan without any, 0 if all are zero."""
    if len(singular_values) == 0:
        return float("nan")
    return float(singular_values[0]) / sigma_max if sigma_max > 0 else 0.0


def spectrum(
    view: View,
    k: int | None = None,
    *,
    start: Floats | None = None,
    null_tolerance: float = NULL_TOLERANCE,
) -> Spectrum:
    """The k smallest non-trivial singular values, and the largest.

    Parameters
    ----------
    view
        What to decompose.
    k
        How many; None for all.
    start
        Modes of a similar view, of shape (3 n_columns, any), to start from.
    null_tolerance
        Singular values below this fraction of the largest are zero, or below ten times the
        precision of the Jacobian.
    """
    null_tolerance = max(null_tolerance, 10 * view.jacobian.precision)
    n_values = 3 * view.n_columns - view.trivial.shape[1]
    wanted = n_values if k is None else min(k, n_values)
    if 3 * view.n_columns > LONG and wanted <= n_values // 4:
        found = _by_band(view, wanted, start)
        if found is not None:
            return found
    gram, rounding = view.gram()
    _deflate(gram, view.trivial)
    if rounding == 0:
        nothing = np.zeros(n_values)
        modes = scipy.linalg.qr(view.trivial)[0][:, view.trivial.shape[1] :]
        return Spectrum(
            nothing[:wanted], modes[:, :wanted], 0.0, view.trivial.shape[1], n_values, "gram"
        )
    found = None
    if len(gram) > FEW and wanted <= n_values // 4:
        found = _by_few(gram, view.trivial, wanted, start)
    if found is None:
        found = _by_eigh(gram, view.trivial)
    if n_values and not _trusted(found, rounding):
        if len(found.singular_values) < n_values:
            found = _by_eigh(gram, view.trivial)
        found = _refined(view, found, null_tolerance, rounding)
    return Spectrum(
        found.singular_values[:wanted],
        found.modes[:, :wanted],
        found.sigma_max,
        found.n_trivial,
        found.n_null,
        found.method,
    )


def _deflate(gram: Floats, t: Floats) -> None:
    """Put P G P with P = 1 - t t^T, t the trivial modes, in the place of G."""
    half = gram @ t
    half -= 0.5 * t @ (t.T @ half)
    gram -= half @ t.T
    gram -= t @ half.T


def _by_eigh(gram: Floats, t: Floats) -> Spectrum:
    """All singular values; the trivial modes are moved below zero, where nothing else is."""
    n_trivial = t.shape[1]
    gram -= max(gram.diagonal().max(initial=0.0), 1e-300) * (t @ t.T)
    values, vectors = scipy.linalg.eigh(gram, overwrite_a=True, check_finite=False)
    values = np.sqrt(values[n_trivial:].clip(0.0))
    sigma_max = float(values.max(initial=0.0))
    return Spectrum(values, vectors[:, n_trivial:], sigma_max, n_trivial, 0, "gram")


def _by_few(gram: Floats, t: Floats, k: int, start: Floats | None) -> Spectrum | None:
    """The k smallest and the largest; None if G has a null space beyond rigid motions."""
    try:
        if len(gram) > MANY:
            vectors = _by_inverse(gram, t, k, start)
            top = _largest(gram)
            method = "krylov"
        else:
            vectors, top = _both_ends(gram, t, k)
            method = "gram"
    except (scipy.linalg.LinAlgError, scipy.sparse.linalg.ArpackError):
        return None
    return _of_vectors(vectors, gram @ vectors, vectors, top, t.shape[1], method)


def _by_band(view: View, k: int, start: Floats | None) -> Spectrum | None:
    """The same from a Gram matrix that is stored as a band; None if it has none or loses digits."""
    gram = BandedGram.of(view)
    if gram is None or gram.rounding == 0:
        return None
    order, n = gram.order, len(gram.order)
    known = None if start is None or len(start) != n else start[order]
    try:
        vectors = largest_eigenpairs(gram.inverse(), n, k, start=known)[1]
        operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=gram.times, dtype=float)
        top = _largest(operator)
    except (scipy.linalg.LinAlgError, scipy.sparse.linalg.ArpackError):
        return None
    modes = np.empty_like(vectors)
    modes[order] = vectors
    found = _of_vectors(vectors, gram.times(vectors), modes, top, view.trivial.shape[1], "krylov")
    return found if _trusted(found, gram.rounding) else None


def _largest(gram: Any) -> float:
    """The largest eigenvalue of a matrix or operator, good to 1e-6."""
    # One vector at a time: products of G with a few are no faster than that many with one.
    first = np.random.default_rng(0).normal(size=gram.shape[0])
    return float(
        scipy.sparse.linalg.eigsh(
            gram, k=1, which="LA", v0=first, tol=1e-6, return_eigenvectors=False
        )[0]
    )


def _of_vectors(
    vectors: Floats, image: Floats, modes: Floats, top: float, n_trivial: int, method: str
) -> Spectrum:
    """Singular values by Rayleigh quotients of vectors and G times them: free of any shift."""
    squares = np.einsum("ij,ij->j", vectors, image).clip(0.0)
    order = np.argsort(squares)
    return Spectrum(np.sqrt(squares[order]), modes[:, order], math.sqrt(top), n_trivial, 0, method)


def _trusted(found: Spectrum, rounding: float) -> bool:
    """Whether one Gram matrix has resolved the values, beyond what it loses and what cancels."""
    # Blocks may cancel altogether: every atom of a perfect fcc crystal is a centre of inversion.
    return found.sigma_max * GRAM_LIMIT > rounding and found.ratio > GRAM_LIMIT


def _lift(gram: Floats) -> float:
    """Where to put the trivial modes: the k smallest are below 4/3 of the mean of all."""
    return 2.0 * float(gram.diagonal().max())


def _both_ends(gram: Floats, t: Floats, k: int) -> tuple[Floats, float]:
    """Eigenvectors of the k smallest eigenvalues and the largest one, from one tridiagonal form."""
    lapack = scipy.linalg.lapack
    n, lift = len(gram), _lift(gram)
    matrix = gram + lift * (t @ t.T)
    reflectors, diagonal, beside, scales, _ = lapack.dsytrd(
        matrix.T, lower=1, lwork=32 * n, overwrite_a=1
    )
    _, vectors = scipy.linalg.eigh_tridiagonal(
        diagonal, beside, select="i", select_range=(0, k - 1), check_finite=False
    )
    vectors[1:] = lapack.dormqr("L", "N", reflectors[1:, :-1], scales, vectors[1:], 64 * n)[0]
    high = (n - 1 - t.shape[1], n - 1)
    last = scipy.linalg.eigvalsh_tridiagonal(
        diagonal, beside, select="i", select_range=high, check_finite=False
    )
    # Either something is above the trivial modes, or the first of these is the one below them.
    return vectors, float(last[-1] if last[-1] > (1 + 1e-12) * lift else last[0])


def _by_inverse(gram: Floats, t: Floats, k: int, start: Floats | None) -> Floats:
    """Eigenvectors of the k smallest eigenvalues, from Krylov subspaces of the inverse."""
    lapack = scipy.linalg.lapack
    n = len(gram)
    matrix = gram + _lift(gram) * (t @ t.T)
    matrix[np.diag_indices(n)] += 1e-14 * matrix.diagonal().max()  # keeps Cholesky from zero
    factor, failed = lapack.dpotrf(matrix.T, lower=True, overwrite_a=True, clean=False)
    if failed:
        raise scipy.linalg.LinAlgError("the Gram matrix is singular")

    def inverse(x: Floats) -> Floats:
        return lapack.dpotrs(factor, x, lower=True)[0]

    return largest_eigenpairs(inverse, n, k, start=start)[1]


def _refined(view: View, first: Spectrum, null_tolerance: float, rounding: float) -> Spectrum:
    """Singular values down to 1e-15 of the largest, by Gram matrices of ever smaller parts.

    One Gram matrix resolves values within a factor of `GRAM_LIMIT` of its largest. What lies below
    spans a subspace; J restricted to it has a Gram matrix of its own, and so on. Before each level
    the subspace is cleaned of the singular vectors found so far: V -= V_b S_b^-2 (J V_b)^T J V.
    """
    factors = view.r_factors()
    vectors, values = first.modes, first.singular_values
    found_values: list[Floats] = []
    found_vectors: list[Floats] = []
    sigma_max = first.sigma_max
    while len(values):
        good = values > GRAM_LIMIT * values[-1]
        if values[-1] <= max(1e-15 * sigma_max, rounding):
            good[:] = True
        found_values.append(values[good])
        found_vectors.append(vectors[:, good])
        vectors = vectors[:, ~good]
        if vectors.shape[1] == 0:
            break
        for known, sigma in zip(found_vectors, found_values, strict=True):
            vectors = vectors - known @ (_cross(factors, known, vectors) / sigma[:, None] ** 2)
        vectors = scipy.linalg.qr(vectors, mode="economic", check_finite=False)[0]
        squares, rotation = scipy.linalg.eigh(_cross(factors, vectors, vectors))
        values, vectors = np.sqrt(squares.clip(0.0)), vectors @ rotation
    values, vectors = np.concatenate(found_values), np.concatenate(found_vectors, axis=1)
    order = np.argsort(values, kind="stable")
    values, vectors = values[order], vectors[:, order]
    if values[-1] <= rounding:
        values = np.zeros(len(values))
    sigma_max = float(values[-1])
    n_null = int((values <= null_tolerance * sigma_max).sum())
    return Spectrum(values, vectors, sigma_max, first.n_trivial, n_null, "refined")


def _cross(factors: Sequence[tuple[Ints, Floats]], left: Floats, right: Floats) -> Floats:
    """(J left)^T (J right), row by row of features."""
    total = np.zeros((left.shape[1], right.shape[1]))
    for columns, r in factors:
        where = (3 * columns[:, None] + np.arange(3)).ravel()
        product = r @ right[where]
        total += (product if left is right else r @ left[where]).T @ product
    return total
