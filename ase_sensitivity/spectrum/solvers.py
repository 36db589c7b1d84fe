"""Singular values of a view of the Jacobian, exact where they are small (docs/theory, accuracy)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import scipy

from ase_sensitivity.geometry.structure import check_fits
from ase_sensitivity.jacobian.scale import CANCELLED
from ase_sensitivity.linalg.canonical import canonical, multiplets
from ase_sensitivity.linalg.davidson import TooSmallError
from ase_sensitivity.linalg.krylov import largest_eigenpairs
from ase_sensitivity.linalg.threads import threads_for
from ase_sensitivity.spectrum.banded import SHIFT, BandedGram
from ase_sensitivity.spectrum.scopes import Factor, Gram, View
from ase_sensitivity.spectrum.smallest import Smallest, SquareGram, largest
from ase_sensitivity.spectrum.sparse import SparseGram
from ase_sensitivity.types import Floats

GRAM_LIMIT = 1e-4
"""Singular values from one Gram matrix have lost digits if they are below this fraction of the
largest: their relative error is about 1e-15 / ratio^2, 1e-7 here."""

NULL_TOLERANCE = 1e-10
"""Singular values below this fraction of the largest are zero."""

MARGIN = 10
"""Singular values below this many times the precision of the Jacobian, relative to the largest,
cannot be distinguished from zero. Errors of single entries add up to less in the values."""

CLEANED = 1e-9
"""Modes are orthogonalized against found modes with values above this fraction of the largest.
Their overlap with other modes, about 1e-8, changes values by no more than rounding does, and cannot
be determined."""

FEW = 18
"""Number of coordinates above which computing a few modes costs less than computing all."""

TRIDIAGONAL = 200
"""Number of coordinates up to which all eigenvalues of a tridiagonal form cost less than a few."""

MOLECULE = 50
"""Number of coordinates up to which BLAS has one thread by itself; a limit takes 25 µs."""

MANY = 750
"""Number of coordinates above which a tridiagonal form costs more than subspaces."""

LONG = 1500
"""Number of coordinates above which the matrix is stored as a band if that is narrow."""


RIGID = 1e-6
"""Of a typical displacement, a rigid motion may change the features by this fraction: a hundred
times what a Gram matrix resolves."""


class SumRuleError(ValueError):
    """Rigid motions change features, so that singular values would mean nothing."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Non-trivial singular values of a view.

    Attributes
    ----------
    singular_values
        The smallest non-trivial ones, ascending, of shape (k,).
    modes
        Right singular vectors in the same order, of shape (3 n_columns, k).
    sigma_max
        The largest singular value; 0 if there is none.
    scale
        What singular values are compared with: usually `sigma_max`. If blocks cancel, such as those
        of the images of an atom that is a center of inversion, a tenth of a typical value without
        cancellation.
    n_trivial
        Number of trivial modes set aside.
    n_null
        Number of all non-trivial singular values that are zero.
    method
        ``"gram"``, ``"krylov"`` or ``"refined"``: how the values were computed.
    resolution
        Fraction of the scale below which the precision of the Jacobian does not distinguish a value
        from zero.
    """

    singular_values: Floats
    modes: Floats
    sigma_max: float
    scale: float
    n_trivial: int
    n_null: int
    method: str
    resolution: float = 0.0

    @property
    def ratio(self) -> float:
        """Smallest singular value over the scale: nan without values, 0 if all are zero."""
        return ratio_of(self.singular_values, self.scale)


def ratio_of(singular_values: Floats, scale: float, number: int = 0) -> float:
    """A singular value relative to the scale: nan without values, 0 if the scale is zero."""
    if len(singular_values) == 0:
        return float("nan")
    return float(singular_values[number]) / scale if scale > 0 else 0.0


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
        The part of a Jacobian to decompose.
    k
        The number of values; None for all.
    start
        Modes of a similar view, of shape (3 n_columns, any), to start from.
    null_tolerance
        Singular values below this fraction of the largest are zero. It is raised to at least ten
        times the precision of the Jacobian.

    Raises
    ------
    SumRuleError
        If a trivial mode changes the features by more than `RIGID` of a typical displacement, or
        what the precision of the Jacobian allows: a ValueError. Views without trivial modes, of
        single atoms, are not tested.
    ValueError
        If a square matrix of all coordinates is needed and does not fit into memory.
    """
    precision = view.jacobian.precision
    null_tolerance = max(null_tolerance, MARGIN * precision)
    n_values = 3 * view.n_columns - view.trivial.shape[1]
    wanted = n_values if k is None else min(k, n_values)
    few = wanted <= n_values // 4
    found, sparse = None, None
    if few:
        found, sparse = _of_large(view, wanted, start, null_tolerance)
        if found is not None:
            return found
    _check_square(3 * view.n_columns)
    gram = view.gram() if sparse is None else sparse.dense()
    if gram.scale == 0:
        modes = scipy.linalg.qr(view.trivial)[0][:, view.trivial.shape[1] :]
        nothing = np.zeros(n_values)
        found = Spectrum(nothing, modes, 0.0, 0.0, view.trivial.shape[1], n_values, "gram")
        return _chosen(found, wanted, 0.0, precision, 0.0)
    with threads_for(len(gram.matrix)) if len(gram.matrix) > MOLECULE else nullcontext():
        image = _deflate(gram.matrix, view.trivial)
        _check_sum_rule(view, gram, view.trivial, image)
        if len(gram.matrix) > FEW and few and sparse is None:
            found = _by_few(gram, view.trivial, wanted, start)
        if found is None:
            found = _by_eigh(gram, view.trivial)
    if n_values and not _trusted(found, gram.rounding, null_tolerance):
        if len(found.singular_values) < n_values:
            found = _by_eigh(gram, view.trivial)
        found = _refined(view, found, null_tolerance, gram.rounding)
    zero = max(null_tolerance * found.scale, gram.rounding)
    return _chosen(found, wanted, zero, precision, gram.rounding)


def _check_square(n: int) -> None:
    """Raise ValueError if decompositions of a square matrix do not fit into memory."""
    check_fits(
        4 * 8.0 * n**2,
        f"the decomposition of a square matrix of {n} coordinates",
        "it is needed where singular values are below 1e-4 of the largest, for many values (`k`), "
        "and where most atoms see each other; analyze a smaller structure",
    )


def _of_large(
    view: View, wanted: int, start: Floats | None, null_tolerance: float
) -> tuple[Spectrum | None, SparseGram | None]:
    """A few values without a square array, and the Gram matrix; None if there is no such way."""
    n, t, found = 3 * view.n_columns, view.trivial, None
    banded = BandedGram.of(view) if n > LONG else None
    if banded is not None and banded.scale > 0:
        _check_sum_rule(view, banded, banded.trivial, banded.times(banded.trivial))
        found = _whole_multiplets(
            lambda k: _by_band(banded, view, k, start, null_tolerance), wanted
        )
        if found is not None:
            return _chosen(found, wanted, 0.0, view.jacobian.precision, banded.rounding), None
    sparse = None
    if n > MANY and Smallest.suffices(n - t.shape[1], 2 * wanted + 8):
        sparse = SparseGram.of(view)
    if sparse is None or sparse.scale == 0:
        return None, sparse
    with threads_for(n):
        _check_sum_rule(view, sparse, t, sparse.times(t))
        found = _whole_multiplets(_by_subspaces(sparse, t, start), wanted)
    if found is None or not _trusted(found, sparse.rounding, null_tolerance):
        return None, sparse
    return _chosen(found, wanted, 0.0, view.jacobian.precision, sparse.rounding), sparse


def _whole_multiplets(by: Callable[[int], Spectrum | None], wanted: int) -> Spectrum | None:
    """Compute a few values more than wanted, so that the last multiplet is complete."""
    found = None
    for k in (wanted + 1, 2 * wanted + 8):
        found = by(k)
        if found is None:
            return None
        groups = multiplets(found.singular_values[wanted - 1 :], 0.0)
        if groups[-1] > 0:
            break
    return found


def _chosen(
    found: Spectrum, wanted: int, zero: float, precision: float, rounding: float
) -> Spectrum:
    """The values wanted, with a choice of modes that does not depend on rounding."""
    relative = rounding / found.scale if found.scale > 0 else 0.0
    groups = multiplets(found.singular_values, zero)
    # If the last value wanted is degenerate, its mode depends on the rest of the multiplet.
    used = int(groups.searchsorted(groups[wanted - 1], side="right")) if wanted else 0
    return Spectrum(
        singular_values=found.singular_values[:wanted],
        modes=canonical(found.modes[:, :used], groups[:used])[:, :wanted],
        sigma_max=found.sigma_max,
        scale=found.scale,
        n_trivial=found.n_trivial,
        n_null=found.n_null,
        method=found.method,
        resolution=max(MARGIN * precision, relative),
    )


def _check_sum_rule(
    view: View, gram: Gram | BandedGram | SparseGram, t: Floats, image: Floats
) -> None:
    """Raise SumRuleError unless G times the trivial modes t is zero."""
    typical = gram.scale / CANCELLED
    most = max(RIGID * typical, MARGIN * gram.rounding)
    if np.vdot(t, image) <= most**2:  # the sum of the squares
        return
    seen = math.sqrt(np.einsum("ij,ij->j", t, image).max(initial=0.0))
    if seen <= most:
        return
    where = ""
    if view.of is not None:
        where = f"{view.of[0]!r} breaks the sum rule in {view.of[1].get_chemical_formula()}: "
    raise SumRuleError(
        f"{where}a rigid motion changes the features by {seen / typical:.1e} of what a typical "
        "displacement does, and must not change them at all; they are not invariant, depend on "
        "atoms beyond the cutoff, or have wrong derivatives, and "
        "ase_sensitivity.testing.check_descriptor tells which"
    )


def _deflate(gram: Floats, t: Floats) -> Floats:
    """Replace G by P G P with P = 1 - t t^T and t the trivial modes; returns G t."""
    image = gram @ t
    half = image - t @ (0.5 * (t.T @ image))
    change = half @ t.T
    gram -= change
    gram -= change.T
    return image


def _by_eigh(gram: Gram, t: Floats) -> Spectrum:
    """All singular values; trivial modes are shifted below zero, where there is no other value."""
    n_trivial, matrix = t.shape[1], gram.matrix
    shift = max(matrix.diagonal().max(initial=0.0), 1e-300)
    matrix -= (shift * t) @ t.T
    # What numpy.linalg.eigh calls, which copies; scipy.linalg.eigh takes twice the time for a small
    # molecule.
    values, vectors, failed = scipy.linalg.lapack.dsyevd(matrix.T, lower=1, overwrite_a=1)
    if failed:
        raise scipy.linalg.LinAlgError("the eigenvalues of the Gram matrix did not converge")
    values = np.sqrt(np.maximum(values[n_trivial:], 0.0))  # ascending
    top = float(values[-1]) if len(values) else 0.0
    scale = max(top, gram.scale)
    return Spectrum(values, vectors[:, n_trivial:], top, scale, n_trivial, 0, "gram")


def _by_few(gram: Gram, t: Floats, wanted: int, start: Floats | None) -> Spectrum | None:
    """The smallest values and the largest; None if G has a null space beyond rigid motions."""
    matrix = gram.matrix
    n_values = len(matrix) - t.shape[1]
    if len(matrix) > MANY and Smallest.suffices(n_values, 2 * wanted + 8):
        return _whole_multiplets(_by_subspaces(gram, t, start), wanted)

    def by(k: int) -> Spectrum | None:
        # The k-th eigenvalue is below twice the largest diagonal entry, to which trivial modes are
        # lifted: k of the trace's n_values parts are smaller, the others not.
        if 2 * (n_values - k) < len(matrix):
            return None
        try:
            vectors, top = _both_ends(matrix, t, k)
        except scipy.linalg.LinAlgError:
            return None
        image = matrix @ vectors
        return _of_vectors(vectors, image, vectors, top, gram.scale, t.shape[1], "gram")

    return _whole_multiplets(by, wanted)


def _by_subspaces(
    gram: Gram | SparseGram, t: Floats, start: Floats | None
) -> Callable[[int], Spectrum | None]:
    """Gives the k smallest values and the largest of a large matrix; None as before."""
    operator = SquareGram(gram.matrix) if isinstance(gram, Gram) else gram
    smallest = Smallest(operator, t, start, GRAM_LIMIT**2)

    def by(k: int) -> Spectrum | None:
        try:
            vectors, top = smallest.vectors(k), smallest.top
        except (TooSmallError, scipy.linalg.LinAlgError, scipy.sparse.linalg.ArpackError):
            return None
        image = operator.times(vectors)
        return _of_vectors(vectors, image, vectors, top, gram.scale, t.shape[1], "krylov")

    return by


def _by_band(
    gram: BandedGram, view: View, k: int, start: Floats | None, null_tolerance: float
) -> Spectrum | None:
    """The same from a Gram matrix stored as a band; None if values would lose digits."""
    order, n = gram.order, len(gram.order)
    known = None if start is None or len(start) != n else start[order]
    try:
        top = float(gram.band[0].max())
        limit = _worth_inverting(top, SHIFT * top)
        vectors = largest_eigenpairs(gram.inverse(), n, k, start=known, limit=limit)[1]
        top = largest(gram)
    except (scipy.linalg.LinAlgError, scipy.sparse.linalg.ArpackError):
        return None
    modes = np.empty_like(vectors)
    modes[order] = vectors
    found = _of_vectors(
        vectors, gram.times(vectors), modes, top, gram.scale, view.trivial.shape[1], "krylov"
    )
    return found if _trusted(found, gram.rounding, null_tolerance) else None


def _of_vectors(
    vectors: Floats,
    image: Floats,
    modes: Floats,
    top: float,
    scale: float,
    n_trivial: int,
    method: str,
) -> Spectrum:
    """Singular values from Rayleigh quotients of vectors and G times them, without any shift."""
    squares = np.maximum(np.einsum("ij,ij->j", vectors, image), 0.0)
    order = np.argsort(squares)
    largest = math.sqrt(top)
    scale = max(scale, largest)
    return Spectrum(np.sqrt(squares[order]), modes[:, order], largest, scale, n_trivial, 0, method)


def _trusted(found: Spectrum, rounding: float, null_tolerance: float) -> bool:
    """Whether one Gram matrix is accurate enough for all values.

    If it is not, values are refined, and then zeros are counted.
    """
    # All blocks may cancel: every atom of a perfect fcc crystal is a center of inversion.
    resolved = found.sigma_max * GRAM_LIMIT > rounding
    return resolved and found.ratio > max(GRAM_LIMIT, null_tolerance)


def _lift(gram: Floats) -> float:
    """An eigenvalue for the trivial modes above the k smallest, which are below 4/3 of the mean."""
    return 2.0 * float(gram.diagonal().max())


def _both_ends(gram: Floats, t: Floats, k: int) -> tuple[Floats, float]:
    """The k lowest eigenvectors and the largest eigenvalue, from one tridiagonal form."""
    lapack = scipy.linalg.lapack
    n, lift = len(gram), _lift(gram)
    matrix = gram + (lift * t) @ t.T
    reflectors, diagonal, off_diagonal, scales, _ = lapack.dsytrd(
        matrix.T, lower=1, lwork=32 * n, overwrite_a=1
    )
    vectors, last = _ends_of_tridiagonal(diagonal, off_diagonal, k, t.shape[1])
    vectors[1:] = lapack.dormqr("L", "N", reflectors[1:, :-1], scales, vectors[1:], 64 * n)[0]
    # The largest eigenvalue is either above the trivial modes, or next below them.
    return vectors, float(last[-1] if last[-1] > (1 + 1e-12) * lift else last[0])


def _ends_of_tridiagonal(
    diagonal: Floats, off_diagonal: Floats, k: int, n_trivial: int
) -> tuple[Floats, Floats]:
    """The k lowest eigenvectors, and the n_trivial + 1 largest eigenvalues."""
    n, first = len(diagonal), len(diagonal) - 1 - n_trivial
    if n <= TRIDIAGONAL:
        lapack = scipy.linalg.lapack
        values, failed = lapack.dsterf(diagonal, off_diagonal)
        if not failed:
            one, end = np.ones(n, dtype=np.intc), np.full(n, n, dtype=np.intc)  # a single block
            vectors, failed = lapack.dstein(diagonal, off_diagonal, values[:k], one, end)
        if failed:
            raise scipy.linalg.LinAlgError("the eigenvalues of the Gram matrix did not converge")
        return vectors, values[first:]
    _, vectors = scipy.linalg.eigh_tridiagonal(
        diagonal, off_diagonal, select="i", select_range=(0, k - 1), check_finite=False
    )
    return vectors, scipy.linalg.eigvalsh_tridiagonal(
        diagonal, off_diagonal, select="i", select_range=(first, n - 1), check_finite=False
    )


def _worth_inverting(top: float, shift: float) -> float:
    """Eigenvalues of (G + shift)^-1 above this belong to singular values that G does not resolve.

    `top` is a diagonal entry of G, and so a lower bound of its largest eigenvalue.
    """
    return 1.0 / (GRAM_LIMIT**2 * top + shift)


def _refined(view: View, first: Spectrum, null_tolerance: float, rounding: float) -> Spectrum:
    """All singular values, down to 1e-15 of the largest."""
    factors = view.factors()
    if sum(factor.n_rows for factor in factors) <= len(first.singular_values):
        image = np.concatenate([factor.times(first.modes) for factor in factors])
        values, vectors = by_svd(image, first.modes)
    else:
        values, vectors = _level_by_level(factors, first, rounding)
    if values[-1] <= rounding:
        values = np.zeros(len(values))
    sigma_max = float(values[-1])
    scale = max(sigma_max, first.scale if first.scale > rounding else 0.0)
    n_null = int((values <= max(null_tolerance * scale, rounding)).sum())
    return Spectrum(values, vectors, sigma_max, scale, first.n_trivial, n_null, "refined")


def by_svd(image: Floats, basis: Floats) -> tuple[Floats, Floats]:
    """All singular values, ascending, and vectors (n, m) of J in a basis (n, m).

    ``image`` is J times the basis. If it has fewer rows than columns, the missing values are zero.
    """
    if len(image) > image.shape[1]:
        image = scipy.linalg.qr(image, mode="r", check_finite=False)[0][: image.shape[1]]
    _, values, right = scipy.linalg.svd(image, full_matrices=True, check_finite=False)
    values = np.concatenate([values, np.zeros(len(right) - len(values))])
    return values[::-1], basis @ right[::-1].T


def _level_by_level(
    factors: Sequence[Factor], first: Spectrum, rounding: float
) -> tuple[Floats, Floats]:
    """Values, ascending, and vectors, from Gram matrices of smaller and smaller subspaces.

    One Gram matrix resolves values within a factor of `GRAM_LIMIT` of its largest. The other
    vectors span a subspace, and J restricted to it has its own Gram matrix, and so on. Before each
    level, the part of found singular vectors is removed from the subspace:
    V -= V_b S_b^-2 (J V_b)^T J V.
    """
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
            known, sigma = (part[..., sigma > CLEANED * sigma_max] for part in (known, sigma))
            vectors = vectors - known @ (_cross(factors, known, vectors) / sigma[:, None] ** 2)
        vectors = scipy.linalg.qr(vectors, mode="economic", check_finite=False)[0]
        squares, rotation = scipy.linalg.eigh(_cross(factors, vectors, vectors))
        values, vectors = np.sqrt(squares.clip(0.0)), vectors @ rotation
    values, vectors = np.concatenate(found_values), np.concatenate(found_vectors, axis=1)
    order = np.argsort(values, kind="stable")
    values = values[order]
    # The part of a vector along one with a smaller value hardly changes its own value.
    vectors = scipy.linalg.qr(vectors[:, order], mode="economic", check_finite=False)[0]
    return values, vectors


def _cross(factors: Sequence[Factor], left: Floats, right: Floats) -> Floats:
    """(J left)^T (J right), row by row of features."""
    total = np.zeros((left.shape[1], right.shape[1]))
    for factor in factors:
        product = factor.times(right)
        total += (product if left is right else factor.times(left)).T @ product
    return total
