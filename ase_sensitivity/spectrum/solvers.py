"""Singular values of a view of the Jacobian, exact where they are small (docs/theory, accuracy)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ase_sensitivity.descriptors.base import Floats
from ase_sensitivity.spectrum.scopes import View

GRAM_LIMIT = 1e-4
"""Below this sigma / sigma_max QR takes over: the relative error of the squared matrix is about
1e-15 / ratio^2, 1e-7 here."""

NULL_TOLERANCE = 1e-10
"""Singular values below this fraction of the largest are zero."""


@dataclass(frozen=True)
class Spectrum:
    """Non-trivial singular values of a view.

    Attributes
    ----------
    singular_values
        All non-trivial ones, ascending, of shape (n,).
    modes
        Right singular vectors of the same order, of shape (3 n_columns, n).
    n_trivial
        Number of trivial modes set aside.
    n_null
        Number of singular values that are zero.
    method
        ``"gram"`` or ``"qr"``: which route gave them.
    """

    singular_values: Floats
    modes: Floats
    n_trivial: int
    n_null: int
    method: str

    @property
    def sigma_max(self) -> float:
        """The largest singular value; 0 if there is none."""
        return float(self.singular_values[-1]) if len(self.singular_values) else 0.0

    @property
    def ratio(self) -> float:
        """Smallest over largest singular value: nan without any, 0 if all are zero."""
        if len(self.singular_values) == 0:
            return float("nan")
        return float(self.singular_values[0]) / self.sigma_max if self.sigma_max > 0 else 0.0


def spectrum(view: View, null_tolerance: float = NULL_TOLERANCE) -> Spectrum:
    """Singular values by the Gram matrix, and again by QR and SVD if the smallest needs it."""
    first = _by_gram(view)
    rounding = view.rounding()
    # Blocks may cancel altogether: every atom of a perfect fcc crystal is a centre of inversion.
    trusted = first.sigma_max * GRAM_LIMIT > rounding or rounding == 0
    if trusted and not first.ratio < GRAM_LIMIT:
        return first
    return _by_qr(view, max(first.sigma_max, rounding), null_tolerance, rounding)


def _by_gram(view: View) -> Spectrum:
    gram, t = view.gram(), view.trivial
    # P G P with P = 1 - t t^T, and the trivial modes moved below zero, where nothing else is.
    half = gram @ t
    gram += t @ (t.T @ half) @ t.T - half @ t.T - t @ half.T
    gram -= max(gram.diagonal().max(initial=0.0), 1e-300) * (t @ t.T)
    values, vectors = scipy.linalg.eigh(gram, overwrite_a=True, check_finite=False)
    n_trivial = t.shape[1]
    singular_values = np.sqrt(values[n_trivial:].clip(0.0))
    n_null = 0 if singular_values.any() else len(singular_values)
    return Spectrum(singular_values, vectors[:, n_trivial:], n_trivial, n_null, "gram")


def _by_qr(view: View, sigma_max: float, null_tolerance: float, rounding: float) -> Spectrum:
    t = view.trivial
    r = _stacked_r(view.r_factors(), 3 * view.n_columns)
    # The trivial modes get the largest singular value of all and are cut off there.
    r = np.concatenate([r - (r @ t) @ t.T, 4.0 * sigma_max * t.T])
    if len(r) < r.shape[1]:
        r = np.concatenate([r, np.zeros((r.shape[1] - len(r), r.shape[1]))])
    _, values, rows = scipy.linalg.svd(r, full_matrices=False, check_finite=False)
    n_trivial = t.shape[1]
    values, vectors = values[n_trivial:][::-1], rows[n_trivial:][::-1].T
    if len(values) and values[-1] <= rounding:
        values = np.zeros(len(values))
    limit = null_tolerance * values.max(initial=0.0)
    return Spectrum(values, vectors, n_trivial, int((values <= limit).sum()), "qr")


def _stacked_r(factors: Iterator[Floats], n_columns: int) -> Floats:
    """R of all factors stacked, a few column counts of rows at a time."""
    r = np.empty((0, n_columns))
    waiting: list[Floats] = []
    rows = 0

    def absorb() -> Floats:
        stacked = np.concatenate([r, *waiting])
        return scipy.linalg.qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0][
            :n_columns
        ]

    for factor in factors:
        waiting.append(factor)
        rows += len(factor)
        if rows > 2 * n_columns:
            r, waiting, rows = absorb(), [], 0
    return absorb() if waiting else r
