"""The Gram matrix of a long structure, such as a wire or a tube, stored as a band."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.lib.stride_tricks import as_strided

from ase_sensitivity.geometry.neighbors import NeighborPairs
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.jacobian.contract import BlockJacobian
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.types import Floats, Ints

MIN_BANDWIDTHS = 8
"""The band is used if the size of the matrix is at least this many times the bandwidth. (Measured:
in three dimensions up to 2000 atoms, sparse factorisations with general fill are slower than dense
ones.)"""

SHIFT = 1e-8
"""Added to the diagonal, relative to its largest entry: G itself is singular."""


@dataclass(frozen=True, eq=False)
class BandedGram:
    """G = J^T J with its coordinates reordered so that all entries are near the diagonal.

    Attributes
    ----------
    band
        Entry (i, j) of the lower triangle at [i - j, j], of shape (width + 1, n).
    order
        The coordinate at each place of the new order, of shape (n,).
    trivial
        Orthonormal trivial modes in the new order, of shape (n, n_trivial).
    scale, rounding
        See :class:`ScaleSums`.
    """

    band: Floats
    order: Ints
    trivial: Floats
    scale: float
    rounding: float

    @classmethod
    def of(cls, view: View) -> BandedGram | None:
        """Accumulate G of a view in a band; None if the band would not be narrow."""
        if view.pairs_within_reach is None or not isinstance(view.jacobian, BlockJacobian):
            return None
        n = view.n_columns
        place, reach = _places(view.pairs_within_reach(), view.atoms)
        width = 3 * reach + 2
        if width * MIN_BANDWIDTHS > 3 * n:
            return None
        # The kernel gets a square array with columns that overlap in memory, so that only the band
        # is stored. Blocks on the diagonal also write two entries between the columns.
        lines = np.zeros((3 * n, width + 3))
        step = lines.itemsize
        square = as_strided(lines, (3 * n, 3 * n), (step, (width + 2) * step))
        assert view.column_of is not None, "that of structure scope"
        column_of = np.where(view.column_of < 0, -1, place[view.column_of])
        sums = view.jacobian.fill_gram(column_of, square, band=reach)
        if sums is None:
            return None  # the descriptor sees farther than its reach
        order = np.empty(3 * n, dtype=np.intp)
        order[coordinates_of(place)] = np.arange(3 * n)
        band = np.asfortranarray(lines.T[: width + 1])
        scale, rounding = sums.scale(n), sums.rounding(n, view.jacobian.precision)
        return cls(band, order, view.trivial[order], scale, rounding)

    def __len__(self) -> int:
        return len(self.order)

    def times(self, x: Floats) -> Floats:
        """G times a vector of shape (n,) or vectors of shape (n, any)."""
        columns = [
            scipy.linalg.blas.dsbmv(len(self.band) - 1, 1.0, self.band, column, lower=1)
            for column in np.atleast_2d(x.T)
        ]
        return np.array(columns).T.reshape(x.shape)

    def inverse(self) -> Callable[[Floats], Floats]:
        """P (G + shift)^-1 P on arrays of shape (n, any).

        P projects on the complement of the trivial modes. There the eigenvectors are those of G.

        Raises
        ------
        scipy.linalg.LinAlgError
            If G + shift is not positive definite.
        """
        shifted = self.band.copy(order="F")
        shifted[0] += SHIFT * shifted[0].max()
        factor = scipy.linalg.cholesky_banded(
            shifted, lower=True, overwrite_ab=True, check_finite=False
        )

        def project(x: Floats) -> Floats:
            return x - self.trivial @ (self.trivial.T @ x)

        def apply(x: Floats) -> Floats:
            y = scipy.linalg.cho_solve_banded((factor, True), project(x), check_finite=False)
            return project(y)

        return apply


def _places(pairs: NeighborPairs, atoms: Ints) -> tuple[Ints, int]:
    """The place of each atom, (n,), and the largest difference of places that one center sees."""
    n_atoms = 1 + max(int(array.max(initial=0)) for array in (pairs.first, pairs.second, atoms))
    ones = np.ones(len(pairs.first))
    graph = scipy.sparse.csr_array((ones, (pairs.first, pairs.second)), shape=(n_atoms, n_atoms))
    at = scipy.sparse.csgraph.reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True)
    present = at[np.isin(at, atoms)]
    place = np.full(n_atoms, -1)
    place[present] = np.arange(len(present))
    first, last = np.where(place < 0, len(atoms), place), place.copy()
    seen = place[pairs.second] >= 0
    center, second = pairs.first[seen], place[pairs.second[seen]]
    np.minimum.at(first, center, second)
    np.maximum.at(last, center, second)
    return place[atoms], int((last - first).max(initial=0))
