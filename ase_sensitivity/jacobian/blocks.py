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
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import as_number


@dataclass(frozen=True, eq=False)
class FeatureJacobian(BlockJacobian):
    """Derivatives of atom-centered features, a dense block for each row and neighbor image.

    Arrays may have any data type, order, stride and byte order; they are kept as contiguous arrays
    of doubles and of integers, and ``precision`` follows.

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
        Radius in Å within which an atom is heard directly; infinite if unknown. Fragments are
        atoms that no path of such neighbors connects.
    center_atoms
        All atoms that are centers, where ``centers`` does not tell (rows of the whole structure).
    precision
        Relative accuracy of the blocks; 1e-15 for analytic derivatives, and no less than what the
        data type of the arrays allows: 1.2e-7 for single precision.
    pairs
        All pairs of atoms within the cutoff, if they are known: nobody has to list them again.
    per_image
        Whether the periodic images of an atom have blocks of their own. If False they are summed in
        one, and environment scope and derivatives by strain are refused. Without periodic images,
        or where no row depends on two images of one atom, it is True.
    reach
        Radius in Å beyond which nothing matters to a row: no less than the cutoff, which it is by
        default. A descriptor that passes messages on has the cutoff of one hop, and the reach of
        all. Symmetries of environments are those of all atoms within it.

    Raises
    ------
    ValueError
        If an array has another shape, is no array of real numbers or integers in the memory of the
        host, or names a row or an atom that does not exist.
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
        """How far which centers see."""
        whole = bool((self.centers < 0).any())
        return (Range(self.cutoff, self.center_atoms, self.pairs, whole, self.reach),)

    def of_rows(self, start: int, stop: int) -> FeatureJacobian:
        """The part that belongs to a range of rows."""
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
        """Whether every block tells where in space the image is that it belongs to."""
        return self.per_image and not bool((self.centers < 0).any())

    @property
    def center(self) -> Ints:
        """Atom at the center of each block's row, of shape (n_blocks,)."""
        return self.centers[self.row]

    @property
    def keys(self) -> Ints:
        """Atom and image of each block as integers: images are a lattice vector from each other."""
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
        """Per row of features: its columns (atoms) and the dense transposed Jacobian over them.

        Parameters
        ----------
        column
            The column of each block, of shape (n_blocks,); -1 leaves the block out. Blocks of a row
            with the same column (images of one atom) are summed.
        rows
            The rows wanted, of shape (any,); by default all.

        Yields
        ------
        columns
            Distinct columns, of shape (m,).
        block
            Derivatives of shape (3 m, n_features).
        square
            Sum of the squares of all derivatives before images were summed; None if none were.
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
        """Each row of features, its blocks, and those as a matrix (3 n_blocks, n_features)."""
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
        """What each block adds to J^T w, (m, n_blocks, 3), for w of (m, n_rows, n_features)."""
        m = len(weights)
        found = np.empty((m, len(self.row), 3))
        for row, own, matrix in self._matrices():
            found[:, own] = (weights[:, row] @ matrix.T).reshape(m, -1, 3)
        return found

    def add_gram(self, column: Ints, total: Floats) -> float:
        """Add J^T J, row by row of features, and return the sum of the squares of all blocks.

        Parameters
        ----------
        column
            As in :meth:`row_blocks`.
        total
            Of shape (3 n_columns, 3 n_columns). Only its lower triangle means anything afterwards.
        """
        bounds, length = self.bounds, self.features.shape[1]
        apart = rows_with_repeated(bounds, column, len(total) // 3)
        apart |= 4.5 * np.diff(bounds) ** 2 * length > LARGE
        rows = np.flatnonzero(~apart)
        squares: float = 0.0
        if len(rows):
            squares = add_products(self.blocks.reshape(-1), length, bounds, rows, column, total)
        if len(rows) < len(apart):
            for columns, block, square in self.row_blocks(column, np.flatnonzero(apart)):
                product = block @ block.T
                add_at(total, columns, product)
                squares += float(product.trace()) if square is None else square
        return squares

    def r_factors(self, column: Ints) -> Iterator[tuple[Ints, Floats]]:
        """Columns and R factor of every row's QR decomposition, of shape (rank bound, 3 m).

        Together they have the same J^T J, without ever squaring a singular value.
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
