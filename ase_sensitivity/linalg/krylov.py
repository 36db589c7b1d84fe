"""A few extreme eigenpairs of a symmetric operator, which is applied to blocks of vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy

from ase_sensitivity.types import Floats

POWERS = 4
"""Number of applications between two restarts; the basis has one block more than this."""

MOST_RESTARTS = 60


def largest_eigenpairs(
    apply: Callable[[Floats], Floats],
    n: int,
    k: int,
    *,
    start: Floats | None = None,
    tolerance: float = 1e-7,
    limit: float = np.inf,
) -> tuple[Floats, Floats]:
    """The k largest eigenvalues, descending, and their eigenvectors, by block Krylov subspaces.

    Parameters
    ----------
    apply
        The operator on an array of shape (n, any). If memory bandwidth is the limit, as for a
        factorised matrix, a block costs little more than one vector.
    n
        Size of the operator.
    k
        The number of eigenvalues.
    start
        Approximate eigenvectors of shape (n, any).
    tolerance
        Largest residual relative to its eigenvalue. The error of the eigenvalue is its square.
    limit
        Raise an error as soon as an eigenvalue is known to be larger.

    Returns
    -------
    values, vectors
        Of shape (k,) and (n, k).

    Raises
    ------
    scipy.linalg.LinAlgError
        If the iteration does not converge, or an eigenvalue is above the limit.
    """
    width = k + 2  # the block is wider, so that a cluster of eigenvalues at its end is complete
    rng = np.random.default_rng(0)
    block = rng.normal(size=(n, width)) / np.sqrt(n)
    if start is not None and len(start) == n:
        known = min(width, start.shape[1])
        block[:, :known] = start[:, :known] + 1e-3 * block[:, :known]
    for _ in range(MOST_RESTARTS):
        basis, image = _krylov(apply, block)
        values, rotation = scipy.linalg.eigh(basis.T @ image)
        order = np.argsort(-values)[:width]
        values, rotation = values[order], rotation[:, order]
        block = basis @ rotation
        if values[0] > limit:  # a Rayleigh quotient is never above the largest eigenvalue
            raise scipy.linalg.LinAlgError(f"an eigenvalue is above {limit}")
        residual = np.linalg.norm(image @ rotation[:, :k] - block[:, :k] * values[:k], axis=0)
        if (residual <= tolerance * np.abs(values[:k])).all():
            return values[:k], block[:, :k]
    raise scipy.linalg.LinAlgError(f"no convergence within {MOST_RESTARTS} restarts")


def _krylov(apply: Callable[[Floats], Floats], block: Floats) -> tuple[Floats, Floats]:
    """An orthonormal basis of span(X, A X, A^2 X, ...), and A times it."""
    basis = scipy.linalg.qr(block, mode="economic", check_finite=False)[0]
    image = apply(basis)
    for _ in range(POWERS):
        following = image[:, -block.shape[1] :]
        for _ in range(2):  # orthogonal to working precision after two passes
            following = following - basis @ (basis.T @ following)
        following = scipy.linalg.qr(following, mode="economic", check_finite=False)[0]
        basis = np.concatenate([basis, following], axis=1)
        image = np.concatenate([image, apply(following)], axis=1)
    return basis, image
