"""The Gram matrix of a structure that is large in every direction, in 3 x 3 blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_sensitivity.compiled.sparse import WIDTH, combine, mirrored, multiply
from ase_sensitivity.jacobian.contract import BlockJacobian
from ase_sensitivity.jacobian.sparsity import Sparsity
from ase_sensitivity.spectrum.scopes import Gram, View
from ase_sensitivity.types import Floats, Ints

MOST = 0.6
"""Largest fraction of blocks that are kept. Beyond, a square array costs no more."""


@dataclass(frozen=True, eq=False)
class SparseGram:
    """G = J^T J over the columns of a view, without the blocks that are zero.

    Attributes
    ----------
    starts, columns
        First block of each row of blocks, of shape (n_columns + 1,), and the column of each.
    blocks
        One after the other, of shape (9 n_blocks,).
    scale, rounding
        See :class:`ScaleSums`.
    """

    starts: Ints
    columns: Ints
    blocks: Floats
    scale: float
    rounding: float

    @classmethod
    def of(cls, view: View) -> SparseGram | None:
        """Accumulate G of a view; None if most blocks are not zero."""
        if view.pairs_within_reach is None or not isinstance(view.jacobian, BlockJacobian):
            return None
        n = view.n_columns
        assert view.column_of is not None, "that of structure scope"
        pattern = Sparsity.of(view.pairs_within_reach(), view.column_of, n, MOST)
        n_blocks = 2 * len(pattern.columns) - n
        if not 0 < n_blocks <= MOST * n**2:
            return None
        lower = pattern.zeros()
        sums = view.jacobian.fill_gram(view.column_of, lower, pattern=pattern)
        assert sums is not None, "columns may be any distance apart"
        if lower[-3:].any():
            return None  # the descriptor sees farther than its reach
        starts, columns = np.empty(n + 1, dtype=np.intp), np.empty(n_blocks, dtype=np.intp)
        blocks = np.empty(9 * n_blocks)
        mirrored(*pattern.arrays, lower.reshape(-1), starts, columns, blocks)
        precision = view.jacobian.precision
        return cls(starts, columns, blocks, sums.scale(n), sums.rounding(n, precision))

    def __len__(self) -> int:
        return 3 * len(self.starts) - 3

    def times(self, x: Floats) -> Floats:
        """G times vectors of shape (n, any), or one of shape (n,)."""
        matrix = self.starts, self.columns, self.blocks
        if x.ndim == 1:
            y = np.empty(len(x))
            multiply(*matrix, np.ascontiguousarray(x), y)
            return y
        width = WIDTH * -(-x.shape[1] // WIDTH)
        if width > x.shape[1]:
            wide = np.zeros((len(x), width))
            wide[:, : x.shape[1]] = x
            return self.combined(wide, wide, 1.0, 0.0, 0.0)[:, : x.shape[1]]
        return self.combined(x, x, 1.0, 0.0, 0.0)

    def combined(self, x: Floats, z: Floats, a: float, b: float, c: float) -> Floats:
        """Give a G x + b x + c z for x and z of shape (n, a multiple of `WIDTH`)."""
        x, z = np.ascontiguousarray(x), np.ascontiguousarray(z)
        y = np.empty_like(x)
        matrix = self.starts, self.columns, self.blocks
        combine(*matrix, x.shape[1], x.reshape(-1), z.reshape(-1), a, b, c, y.reshape(-1))
        return y

    def diagonal(self) -> Floats:
        """The diagonal of G, of shape (n,)."""
        row = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return self.blocks.reshape(-1, 9)[row == self.columns, ::4].ravel()

    def square(self, dtype: type = float) -> Any:
        """G as a square array."""
        row = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        found: Any = np.zeros((len(self), len(self)), dtype=dtype)
        blocks = found.reshape(len(self) // 3, 3, len(self) // 3, 3)
        blocks[row, :, self.columns] = self.blocks.reshape(-1, 3, 3)
        return found

    def dense(self) -> Gram:
        """The same as a square array."""
        return Gram(self.square(), self.scale, self.rounding)
