"""The smallest eigenpairs of a symmetric operator, by block Davidson.

A subspace grows by corrections of its Ritz vectors. Where the correction is an inverse, this is a
Krylov subspace of the inverse. Values and residuals are those of the operator, so that the
correction need not be accurate: only the number of steps depends on it. (E. R. Davidson, J. Comput.
Phys. 17, 87 (1975). Directions are made orthonormal as by A. Stathopoulos and K. Wu, SIAM J. Sci.
Comput. 23, 2165 (2002).)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy

from ase_sensitivity.types import Floats

BLOCKS = 6
"""Number of blocks of the subspace, which then is replaced by the lowest half of its vectors."""

INDEPENDENT = 1e-12
"""Of normalised directions, combinations whose square is below this fraction are dropped."""

APART = 1e-3
"""The first value that is not wanted is known to this relative accuracy, or to be larger."""

MOST_STEPS = 60


Correction = Callable[[Floats, Floats, Floats], Floats]


class TooSmallError(ValueError):
    """An eigenvalue is smaller than the operator can resolve."""


def smallest_eigenpairs(
    times: Callable[[Floats], Floats],
    correction: Correction,
    k: int,
    start: Floats,
    *,
    outside: Floats,
    tolerance: float,
    least: float = -np.inf,
) -> tuple[Floats, Floats]:
    """The k smallest eigenvalues, ascending, and their eigenvectors.

    Parameters
    ----------
    times
        The operator on an array of shape (n, any).
    correction
        ``correction(residuals, vectors, values)`` of Ritz vectors gives new directions, of shapes
        (n, width), (n, width), (width,) and (n, width): the inverse of the operator times the
        residuals, or another function of the operator times the vectors.
    k
        The number of eigenvalues, smaller than the width.
    start
        Vectors to start from, of shape (n, width). Some of them should be random: no eigenvector is
        orthogonal to all of these.
    outside
        Orthonormal eigenvectors that are left out, of shape (n, any).
    tolerance
        Largest residual relative to its eigenvalue. The relative error of the eigenvalue is about
        its square, divided by the relative distance to those that are not wanted.
    least
        Raise an error as soon as an eigenvalue is known to be smaller.

    Raises
    ------
    TooSmallError
        If an eigenvalue is below `least`.
    scipy.linalg.LinAlgError
        If the iteration does not converge.
    """
    n, width = start.shape
    basis, image = (np.empty((n, width * BLOCKS), order="F") for _ in range(2))
    square = np.empty((width * BLOCKS,) * 2)
    size, directions = 0, start
    for _ in range(MOST_STEPS + 1):
        new = _orthonormal(directions, [outside, basis[:, :size]])
        if new.shape[1] == 0:
            break
        end = size + new.shape[1]
        basis[:, size:end] = new
        image[:, size:end] = (
            times(new) if new.flags.c_contiguous else times(np.ascontiguousarray(new))
        )
        square[:end, size:end] = basis[:, :end].T @ image[:, size:end]
        square[size:end, :size] = square[:size, size:end].T
        size = end
        values, rotation = scipy.linalg.eigh(square[:size, :size], check_finite=False)
        if values[0] < least:  # a Ritz value is never below the smallest eigenvalue
            raise TooSmallError(f"an eigenvalue is below {least}")
        vectors = basis[:, :size] @ rotation[:, :width]
        residuals = image[:, :size] @ rotation[:, :width] - vectors * values[:width]
        residuals -= outside @ (outside.T @ residuals)
        errors = np.sqrt(np.einsum("ij,ij->j", residuals, residuals))
        if (errors[:k] <= tolerance * np.abs(values[:k])).all() and (
            errors[k] <= max(values[k] - values[k - 1], APART * abs(values[k]))
        ):
            return values[:k], vectors[:, :k]
        directions = correction(residuals, vectors, values[:width])
        if size + width > basis.shape[1]:
            size = width * (BLOCKS // 2)
            for array in basis, image:
                array[:, :size] = array[:, :end] @ rotation[:, :size]
            square[:size, :size] = np.diag(values[:size])
    raise scipy.linalg.LinAlgError(f"no convergence within {MOST_STEPS} corrections")


def _orthonormal(vectors: Floats, others: list[Floats]) -> Floats:
    """Combinations that are orthonormal, and orthogonal to others; there may be fewer."""
    for _ in range(2):  # orthogonal to working precision after two passes
        for other in others:
            vectors = vectors - other @ (other.T @ vectors)
        square = vectors.T @ vectors
        scale = 1.0 / np.sqrt(square.diagonal().clip(1e-300))
        values, rotation = np.linalg.eigh(scale[:, None] * square * scale)
        kept = values > INDEPENDENT * values[-1]
        vectors = vectors @ (scale[:, None] * rotation[:, kept] / np.sqrt(values[kept]))
    return vectors
