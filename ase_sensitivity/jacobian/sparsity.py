"""Which blocks of J^T J are kept, if most of them are zero: atoms that no center sees together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy

from ase_sensitivity.geometry.neighbors import NeighborPairs
from ase_sensitivity.types import Floats, Ints


def _nothing() -> Ints:
    return np.empty(0, dtype=np.intp)


@dataclass(frozen=True, eq=False)
class Sparsity:
    """The 3 x 3 blocks of the lower triangle of J^T J that are kept, row after row.

    A matrix of this pattern is stored as an array of shape (3 n_blocks + 3, 3), one block below the
    other. What does not belong to the pattern is put in the last block. Without a pattern, the
    matrix is a square array.

    Attributes
    ----------
    starts
        The first block of each row of blocks, of shape (n_columns + 1,); empty for a square array.
    columns
        The column of each block, ascending in each row, of shape (n_blocks,). The last one of each
        row is on the diagonal.
    """

    starts: Ints = field(default_factory=_nothing)
    columns: Ints = field(default_factory=_nothing)

    @classmethod
    def of(cls, pairs: NeighborPairs, column_of: Ints, n_columns: int, most: float) -> Sparsity:
        """The pattern for centers (first of each pair) that see neighbors and themselves.

        Parameters
        ----------
        pairs
            Centers with the atoms within their reach.
        column_of
            The column of each atom, negative without one, of shape (n_atoms,).
        n_columns
            Number of columns.
        most
            Gives up, with a pattern without blocks, where it is clear beforehand that more than
            this fraction of all blocks would be kept.
        """
        n_atoms = len(column_of)
        itself = np.arange(n_atoms)
        center, seen = np.append(pairs.first, itself), column_of[np.append(pairs.second, itself)]
        kept = seen >= 0
        entries = np.ones(np.count_nonzero(kept), dtype=bool), (center[kept], seen[kept])
        sees = scipy.sparse.csr_array(entries, shape=(n_atoms, n_columns))
        if np.diff(sees.indptr).max(initial=0) ** 2 > most * n_columns**2:
            return cls()
        both = scipy.sparse.tril(sees.T.tocsr() @ sees, format="csr")
        both.sort_indices()
        return cls(both.indptr.astype(np.intp), both.indices.astype(np.intp))

    @property
    def arrays(self) -> tuple[Ints, Ints]:
        """The arguments of compiled loops that add to a matrix."""
        return self.starts, self.columns

    def zeros(self) -> Floats:
        """A matrix of this pattern."""
        return np.zeros((3 * len(self.columns) + 3, 3))

    def trace(self, matrix: Floats) -> float:
        """The sum of the entries on the diagonal."""
        if len(self.starts) == 0:
            return float(matrix.diagonal().sum())
        return float(matrix.reshape(-1, 9)[self.starts[1:] - 1, ::4].sum())


SQUARE = Sparsity()
