"""Jacobians that consist of blocks, one for each row of features and neighbor image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import scipy

from ase_sensitivity.geometry.neighbors import NeighborPairs
from ase_sensitivity.geometry.ranges import Range, as_reach
from ase_sensitivity.jacobian.accumulate import (
    LARGE,
    add_at,
    add_products,
    rows_with_repeated,
    sum_blocks,
)
from ase_sensitivity.jacobian.arrays import as_floats, as_indices
from ase_sensitivity.jacobian.contract import BlockJacobian
from ase_sensitivity.jacobian.sparsity import SQUARE, Sparsity
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import as_number


@dataclass(frozen=True, eq=False)
class FeatureJacobian(BlockJacobian):
    """Derivatives of atom-centered features, a dense block for each row and neighbor image.

    Arrays may have any data type, order, stride and byte order. They are stored as contiguous
    arrays of doubles and of integers, and ``precision`` is adapted to the data type.

    Parameters
    ----------
    features
        Feature vectors, of shape (n_rows, n_features). Most descriptors have one row per center;
        pair and triplet descriptors have several rows with the same center.
    centers
        Atom at the center of each row, of shape (n_rows,); -1 for a row that belongs to the whole
        structure, such as an average.
    row
        The row that each block differentiates, ascending, of shape (n_blocks,).
    atom
        The atom that moves, of shape (n_blocks,). An atom appears once per periodic image that the
        row depends on; the center itself is one of them.
    displacement
        From the center to that image of the atom, in Å, of shape (n_blocks, 3); 0 for the center
        itself and for rows that belong to the whole structure.
    blocks
        d features / d position of that image, in 1/Å, of shape (n_blocks, 3, n_features).
    n_atoms
        Number of atoms of the structure.
    cutoff
        Radius in Å within which a center sees an atom directly, without message passing; infinite
        if unknown. Atoms that no path of such neighbors connects are in different fragments.
    center_atoms
        All atoms that are centers. Needed only for rows of the whole structure, where ``centers``
        does not list them.
    precision
        Relative accuracy of the blocks: 1e-15 for analytic derivatives. It is raised to what the
        data type of the arrays allows, 1.2e-7 for single precision.
    pairs
        All pairs of atoms within the cutoff, if they are known; otherwise they are listed again
        when needed.
    per_image
        Whether the periodic images of an atom have blocks of their own. If False they are summed in
        one block, and environment scope and derivatives by strain are refused. It is True as well
        if no row depends on two images of one atom.
    reach
        Radius in Å beyond which no atom affects a row. It is at least the cutoff, which is the
        default. With message passing the cutoff is that of one hop, and the reach that of all hops.
        Symmetries of environments are those of all atoms within the reach.
    rotation_invariant
        Whether rotations change no feature. If False they are no rigid motions that are set aside.

    Raises
    ------
    ValueError
        If an array has another shape, is not an array of real numbers or integers in the memory of
        the host, or refers to a row or an atom that does not exist.
    """

    features: Floats
    centers: Ints
    row: Ints
    atom: Ints
    displacement: Floats
    blocks: Floats
    n_atoms: int
    cutoff: float
    center_atoms: Ints = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    precision: float = 1e-15
    pairs: NeighborPairs | None = None
    per_image: bool = True
    reach: float = 0.0
    rotation_invariant: bool = True

    def __post_init__(self) -> None:
        found: dict[str, Any] = {}
        precision = as_number("precision", self.precision, "positive")
        for name in ("features", "displacement", "blocks"):
            found[name], coarse = as_floats(name, getattr(self, name))
            precision = max(precision, coarse)
        if found["features"].ndim != 2:
            raise ValueError(
                f"`features` has shape {found['features'].shape} but must be (n_rows, n_features)"
            )
        n_rows, n_features = found["features"].shape
        limits = {
            "centers": (-1, self.n_atoms),
            "row": (0, n_rows),
            "atom": (0, self.n_atoms),
            "center_atoms": (0, self.n_atoms),
        }
        for name, (lowest, end) in limits.items():
            found[name] = as_indices(name, getattr(self, name), lowest, end)
        n_blocks = found["row"].size
        expected = {
            "features": (n_rows, n_features),
            "centers": (n_rows,),
            "row": (n_blocks,),
            "atom": (n_blocks,),
            "displacement": (n_blocks, 3),
            "blocks": (n_blocks, 3, n_features),
        }
        for name, shape in expected.items():
            if found[name].shape != shape:
                raise ValueError(f"`{name}` has shape {found[name].shape} but must be {shape}")
        if (found["row"][1:] < found["row"][:-1]).any():
            raise ValueError("`row` must be in ascending order")
        if len(found["center_atoms"]) == 0:
            found["center_atoms"] = np.unique(found["centers"][found["centers"] >= 0])
        found["precision"] = precision
        found["reach"] = as_reach(self.reach, self.cutoff)
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def parts(self) -> tuple[FeatureJacobian, ...]:
        """The Jacobian as a sequence of Jacobians of uniform feature length."""
        return (self,)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The centers and how far they see."""
        return (
            Range(
                self.cutoff,
                self.center_atoms,
                self.pairs,
                whole=bool((self.centers < 0).any()),
                reach=self.reach,
                rotation_invariant=self.rotation_invariant,
            ),
        )

    def of_rows(self, start: int, stop: int) -> FeatureJacobian:
        """The Jacobian of a range of rows."""
        first, last = np.searchsorted(self.row, (start, stop))
        blocks = slice(first, last)
        return replace(
            self,
            features=self.features[start:stop],
            centers=self.centers[start:stop],
            row=self.row[blocks] - start,
            atom=self.atom[blocks],
            displacement=self.displacement[blocks],
            blocks=self.blocks[blocks],
        )

    @property
    def has_displacements(self) -> bool:
        """Whether every block has the displacement of its image from the center."""
        return self.per_image and not bool((self.centers < 0).any())

    @property
    def center(self) -> Ints:
        """Atom at the center of each block's row, of shape (n_blocks,)."""
        return self.centers[self.row]

    @property
    def keys(self) -> Ints:
        """Atom and image of each block as integers: displacements in units of 0.001 Å."""
        return np.column_stack([self.atom, np.rint(self.displacement / 1e-3)]).astype(np.intp)

    def check_finite(self) -> None:
        """Raise ValueError if a feature or a derivative is not a finite number."""
        for name, array in (("feature", self.features), ("derivative", self.blocks)):
            bad = ~np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
            if bad.any():
                first = int(np.flatnonzero(bad)[0])
                row = first if name == "feature" else int(self.row[first])
                raise ValueError(f"the descriptor gave a {name} of row {row} that is not finite")

    def row_blocks(
        self, column: Ints, rows: Ints | None = None
    ) -> Iterator[tuple[Ints, Floats, float | None]]:
        """For each row of features, its columns (atoms) and its transposed Jacobian, dense.

        Parameters
        ----------
        column
            The column of each block, of shape (n_blocks,); -1 leaves the block out. Blocks of one
            row with the same column (images of one atom) are summed.
        rows
            The rows wanted, of shape (any,); by default all.

        Yields
        ------
        columns
            Distinct columns, of shape (m,).
        block
            Derivatives of shape (3 m, n_features).
        square
            Sum of the squares of all derivatives before images are summed; None if none are.
        """
        bounds = self.bounds
        repeated = rows_with_repeated(bounds, column, column.max(initial=-1) + 1)
        left_out = np.zeros(len(self.features), dtype=bool)
        left_out[self.row[column < 0]] = True
        for row in range(len(self.features)) if rows is None else rows.tolist():
            start, stop = bounds[row], bounds[row + 1]
            columns, blocks = column[start:stop], self.blocks[start:stop]
            if left_out[row]:
                kept = columns >= 0
                columns, blocks = columns[kept], blocks[kept]
            if len(columns) == 0:
                continue
            square = None
            if repeated[row]:
                square = float(np.vdot(blocks, blocks))
                columns, where = np.unique(columns, return_inverse=True)
                summed = np.zeros((len(columns), 3 * self.features.shape[1]))
                sum_blocks(blocks.reshape(len(where), -1), where, summed)
                blocks = summed
            yield columns, blocks.reshape(3 * len(columns), -1), square

    @property
    def bounds(self) -> Ints:
        """First block of each row, of shape (n_rows + 1,)."""
        return np.searchsorted(self.row, np.arange(len(self.features) + 1))

    def _matrices(self) -> Iterator[tuple[int, slice, Floats]]:
        """Each row of features, the slice of its blocks, and these as (3 n_blocks, n_features)."""
        for row, (start, stop) in enumerate(pairwise(self.bounds.tolist())):
            matrix = self.blocks[start:stop].reshape(3 * (stop - start), -1)
            yield row, slice(start, stop), matrix

    def changes(self, displacements: Floats) -> Floats:
        """J v of shape (m, n_rows, n_features), for displacements of shape (m, n_atoms, 3)."""
        m = len(displacements)
        found = np.empty((m, *self.features.shape))
        for row, own, matrix in self._matrices():
            found[:, row] = displacements[:, self.atom[own]].reshape(m, len(matrix)) @ matrix
        return found

    def forces(self, weights: Floats) -> Floats:
        """Contribution of each block to J^T w, (m, n_blocks, 3), for w (m, n_rows, n_features)."""
        m = len(weights)
        found = np.empty((m, len(self.row), 3))
        for row, own, matrix in self._matrices():
            found[:, own] = (weights[:, row] @ matrix.T).reshape(m, -1, 3)
        return found

    def add_gram(self, column: Ints, total: Floats, pattern: Sparsity = SQUARE) -> float:
        """Add J^T J, row by row of features, and return the sum of the squares of all blocks.

        Parameters
        ----------
        column
            As in :meth:`row_blocks`.
        total
            Of shape (3 n_columns, 3 n_columns), or a matrix of the pattern. Only its lower triangle
            is valid afterwards.
        pattern
            The blocks that are kept, by default all.
        """
        bounds, length = self.bounds, self.features.shape[1]
        apart = rows_with_repeated(bounds, column, column.max(initial=-1) + 1)
        apart |= 4.5 * np.diff(bounds) ** 2 * length > LARGE
        rows = np.flatnonzero(~apart)
        squares: float = 0.0
        if len(rows):
            flat = self.blocks.reshape(-1)
            squares = add_products(flat, length, bounds, rows, column, *pattern.arrays, total)
        if len(rows) < len(apart):
            for columns, block, square in self.row_blocks(column, np.flatnonzero(apart)):
                product = block @ block.T
                add_at(total, columns, product, *pattern.arrays)
                squares += float(product.trace()) if square is None else square
        return squares

    def features_of_blocks(self, column: Ints) -> float:
        """The squared norm of the features of a row, summed over all blocks with a column."""
        n_blocks = np.bincount(self.row[column >= 0], minlength=len(self.features))
        return float(n_blocks @ (self.features**2).sum(axis=1))

    def widest(self, column: Ints) -> int:
        """The largest difference of the columns of one row."""
        kept = column >= 0
        first = np.full(len(self.features), column.max(initial=0))
        last = np.full(len(self.features), -1)
        np.minimum.at(first, self.row[kept], column[kept])
        np.maximum.at(last, self.row[kept], column[kept])
        return int((last - first).max(initial=0))

    def r_factors(self, column: Ints) -> Iterator[tuple[Ints, Floats]]:
        """Columns and R factor of every row's QR decomposition, of shape (rank bound, 3 m).

        All R factors together have the same J^T J as J, but no singular value has been squared.
        """
        for columns, block, _ in self.row_blocks(column):
            r = scipy.linalg.qr(block.T, mode="r", check_finite=False)[0]
            yield columns, r[: min(block.shape)]

    def dense(self, column: Ints, n_columns: int) -> Floats:
        """J of shape (n_rows * n_features, 3 n_columns). For small cases and tests."""
        n_features = self.features.shape[1]
        total = np.zeros((len(self.features), n_features, n_columns, 3))
        for r, c, block in zip(self.row, column, self.blocks, strict=True):
            if c >= 0:
                total[r, :, c] += block.T
        return total.reshape(len(self.features) * n_features, 3 * n_columns)

    def __repr__(self) -> str:
        return (
            f"FeatureJacobian({len(self.centers)} rows of {self.features.shape[1]} features, "
            f"{len(self.row)} blocks)"
        )
