"""The smallest eigenvalues of a large Gram matrix, and the largest one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import scipy

from ase_sensitivity.compiled.sparse import WIDTH
from ase_sensitivity.linalg.davidson import BLOCKS, Correction, smallest_eigenpairs
from ase_sensitivity.linalg.threads import threads_for
from ase_sensitivity.spectrum.sparse import SparseGram
from ase_sensitivity.types import Floats

FACTORISED = 7000
"""Number of coordinates of a sparse matrix above which a Chebyshev polynomial takes less time and
memory than a Cholesky factor in single precision."""

TOLERANCE = 1e-6
"""Largest residual relative to an eigenvalue, with a Cholesky factor."""

FILTER_TOLERANCE = 1e-5
"""The same with a polynomial."""

SINGLE_SHIFT, DOUBLE_SHIFT = 1e-6, 1e-14
"""Added to the diagonal for a Cholesky factor, relative to its largest entry."""

DEPTH = 1.0
"""Degree of the polynomial, in units of the square root of the ratio of the largest eigenvalue to
the one up to which the polynomial is large. Fewer steps or fewer products cost more."""

STEPS = 24
"""Number of polynomials that may cost as much as a Cholesky factor."""

MARGIN = 2.0
"""The polynomial is small from this many times the largest value of the block on."""


class Products(Protocol):
    """A symmetric matrix G with its products."""

    def __len__(self) -> int: ...

    def times(self, x: Floats) -> Floats:
        """G times vectors (n, any), or one (n,)."""
        ...


class Operator(Products, Protocol):
    """The same, that can be factorised."""

    def diagonal(self) -> Floats:
        """The diagonal, of shape (n,)."""
        ...

    def square(self, dtype: type = float) -> Any:
        """A copy as a square array in C order."""
        ...


@dataclass(frozen=True, eq=False)
class SquareGram:
    """A Gram matrix that is a square array."""

    matrix: Floats

    def __len__(self) -> int:
        return len(self.matrix)

    def times(self, x: Floats) -> Floats:
        """G times vectors (n, any), or one (n,)."""
        return self.matrix @ x

    def diagonal(self) -> Floats:
        """The diagonal, of shape (n,)."""
        return self.matrix.diagonal()

    def square(self, dtype: type = float) -> Any:
        """A copy as a square array in C order."""
        return np.array(self.matrix, dtype=dtype, order="C")


def largest(gram: Products) -> float:
    """The largest eigenvalue, accurate to 1e-5, and to 1e-9 if no others are nearly as large."""
    # One vector at a time: products of a square array with a few vectors are no faster.
    n = len(gram)
    operator = scipy.sparse.linalg.LinearOperator((n, n), matvec=gram.times, dtype=float)
    first = np.random.default_rng(0).normal(size=n)
    found = scipy.sparse.linalg.eigsh(
        operator, k=1, which="LA", v0=first, tol=1e-5, return_eigenvectors=False
    )
    return float(found[0])


class Smallest:
    """Finds the smallest eigenvalues of a Gram matrix apart from those of trivial modes.

    A Cholesky factor, or what else is needed, is kept for further calls.

    Parameters
    ----------
    gram
        The matrix.
    trivial
        Orthonormal trivial modes, of shape (n, n_trivial).
    start
        Modes of a similar matrix, of shape (n, any), or None.
    resolved
        Eigenvalues below this fraction of the largest cannot be computed from G.
    """

    def __init__(
        self, gram: Operator, trivial: Floats, start: Floats | None, resolved: float
    ) -> None:
        self._gram, self._trivial, self._resolved = gram, trivial, resolved
        self._start = np.empty((len(gram), 0))
        if start is not None and len(start) == len(gram):
            self._start = start
        self._correction: Filter | Factor | None = None
        self._ways: list[Callable[[], Filter | Factor]] = [
            lambda: Factor(gram, trivial, np.float32, SINGLE_SHIFT),
            lambda: Factor(gram, trivial, np.float64, DOUBLE_SHIFT),
        ]
        if isinstance(gram, SparseGram) and len(gram) > FACTORISED:
            self._ways.insert(0, lambda: Filter(gram, self.top))

    @staticmethod
    def suffices(n: int, k: int) -> bool:
        """Whether k of n eigenvalues are so few that subspaces stay small."""
        return 2 * BLOCKS * _width(k) <= n

    @cached_property
    def top(self) -> float:
        """The largest eigenvalue."""
        return largest(self._gram)

    def vectors(self, k: int) -> Floats:
        """Orthonormal eigenvectors of the k smallest eigenvalues, of shape (n, k).

        Raises
        ------
        TooSmallError
            If an eigenvalue is too small to be computed from G.
        scipy.linalg.LinAlgError
            If nothing converges.
        """
        # A diagonal entry is a lower bound of the largest eigenvalue.
        least = self._resolved * float(self._gram.diagonal().max())
        while True:
            try:
                if self._correction is None:
                    self._correction = self._ways[0]()
                with threads_for(0):  # products with few columns
                    return smallest_eigenpairs(
                        self._gram.times,
                        self._correction,
                        k,
                        self._block(self._correction, _width(k)),
                        outside=self._trivial,
                        tolerance=self._correction.tolerance,
                        least=least,
                    )[1]
            except scipy.linalg.LinAlgError:
                self._correction = None
                del self._ways[0]
                if not self._ways:
                    raise

    def _block(self, correction: Correction, width: int) -> Floats:
        """Vectors to start from. Half of them are random, so that no eigenvector is missed."""
        n = len(self._gram)
        block = np.random.default_rng(0).normal(size=(n, width))
        block -= self._trivial @ (self._trivial.T @ block)
        block = correction(block, block, np.full(width, self._gram.diagonal().mean()))
        known = self._start[:, : width // 2]
        block[:, : known.shape[1]] = known
        return block


def _width(k: int) -> int:
    """Number of vectors at a time for k eigenvalues."""
    return WIDTH * -(-(k + 1) // WIDTH)


class Factor:
    """(G + shift)^-1 by a Cholesky factor; trivial modes are lifted above the values wanted.

    Raises
    ------
    scipy.linalg.LinAlgError
        If G + shift is not positive definite to the precision of `dtype`.
    """

    tolerance = TOLERANCE

    def __init__(self, gram: Operator, trivial: Floats, dtype: type, shift: float) -> None:
        matrix = gram.square(dtype)
        typical = float(gram.diagonal().max())
        factorise, self._solve = scipy.linalg.get_lapack_funcs(("potrf", "potrs"), dtype=dtype)
        if trivial.shape[1]:
            # The k smallest values are below 4/3 of the mean of the diagonal.
            update = scipy.linalg.get_blas_funcs("syrk", dtype=dtype)
            part: Any = np.asfortranarray(trivial, dtype=dtype)
            matrix = update(2 * typical, part, beta=1, c=matrix.T, lower=1, overwrite_c=1).T
        matrix[np.diag_indices(len(matrix))] += dtype(shift * typical)
        self._factor, failed = factorise(matrix.T, lower=True, overwrite_a=True, clean=False)
        if failed:
            raise scipy.linalg.LinAlgError("the Gram matrix is singular")
        self._dtype = dtype

    def __call__(self, residuals: Floats, vectors: Floats, values: Floats) -> Floats:
        """(G + shift)^-1 times residuals."""
        scaled: Any = np.asfortranarray(residuals / values, dtype=self._dtype)
        return self._solve(self._factor, scaled, lower=True, overwrite_b=True)[0].astype(float)


class Filter:
    """A Chebyshev polynomial of G that is large at small eigenvalues only.

    (Y. Zhou and Y. Saad, SIAM J. Matrix Anal. Appl. 29, 954 (2007).)
    """

    tolerance = FILTER_TOLERANCE

    def __init__(self, gram: SparseGram, top: float) -> None:
        self._gram, self._top = gram, 1.001 * top
        self._low, self._degree = 0.0, 0
        # A factor takes n^3 / 3 multiplications, a product 8 x 9 a block at a quarter of the rate.
        self._most = len(gram) ** 3 / 3 / (STEPS * 4 * WIDTH * len(gram.blocks))

    def __call__(self, residuals: Floats, vectors: Floats, values: Floats) -> Floats:
        """The polynomial of G times Ritz vectors; LinAlgError if a factor costs less."""
        low = min(MARGIN * values[-1], 0.05 * self._top)
        # With one polynomial for all steps, they span a Krylov subspace, which converges faster.
        if not 0.8 * self._low < low < 1.25 * self._low:
            self._low = low
            self._degree = math.ceil(DEPTH * math.sqrt(self._top / low))
            if self._degree > self._most:
                raise scipy.linalg.LinAlgError(f"a polynomial of degree {self._degree} is needed")
        half, middle = (self._top - self._low) / 2, (self._top + self._low) / 2
        x = np.ascontiguousarray(vectors)
        y = self._gram.combined(x, x, 1 / half, -middle / half, 0.0)
        for _ in range(self._degree - 1):
            x, y = y, self._gram.combined(y, x, 2 / half, -2 * middle / half, -1.0)
        return y
