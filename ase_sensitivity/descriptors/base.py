"""What a descriptor is, and the one thing the rest of the package asks of it: its Jacobian."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import scipy
from ase import Atoms
from numpy.typing import NDArray

from ase_sensitivity.arguments import as_number, is_number
from ase_sensitivity.descriptors.arrays import as_floats, as_indices
from ase_sensitivity.structure import NeighborPairs, neighbor_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Range:
    """How far which centres see: what makes the graph of neighbours.

    Attributes
    ----------
    cutoff
        In Å, up to which an atom hears another one directly; infinite if unknown.
    centers
        The atoms that are centres, of shape (n_centers,).
    pairs
        All pairs of atoms within the cutoff, if the descriptor has listed them.
    whole
        Whether a row belongs to the whole structure. It may combine what different centres see
        before it becomes invariant, as QUIP's ``average=T`` does: a fragment turned against the
        others changes it then, and only all of them turned alike do not.
    reach
        In Å, up to which an atom can matter to a centre: the cutoff, or where messages are passed
        on, the cutoff times the number of hops.
    """

    cutoff: float
    centers: Ints
    pairs: NeighborPairs | None = None
    whole: bool = False
    reach: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reach", max(self.cutoff, self.reach))

    @property
    def n_hops(self) -> int:
        """How many times a message may be passed on, if both cutoff and reach are known."""
        return max(1, math.ceil(self.reach / self.cutoff - 1e-9))

    def within_reach(self, atoms: Atoms) -> NeighborPairs:
        """Atoms (first) and what could matter to them; the reach has to be finite."""
        if self.pairs is not None and self.reach == self.cutoff:
            return self.pairs
        return neighbor_pairs(atoms, self.reach)


@runtime_checkable
class Jacobian(Protocol):
    """What the stages need of a Jacobian J: three products and a few facts.

    Features stand in one vector: those of one row after the other, part by part. A class that has
    the products without ever forming a block, by automatic differentiation, is looked at in
    structure and atom scope; environments, gradients and walks need a :class:`BlockJacobian`.
    """

    @property
    def features(self) -> Floats:
        """The features, of any shape: their norm tells how large rounding can be."""
        ...

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the structure."""
        ...

    @property
    def precision(self) -> float:
        """Relative accuracy of the products, which every tolerance follows."""
        ...

    @property
    def per_image(self) -> bool:
        """Whether periodic images of an atom are kept apart."""
        ...

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Which centres there are, whom they hear directly and how far they see."""
        ...

    def gram(self, atoms: Ints | None = None) -> Floats:
        """J^T J over the coordinates of n atoms, by default all: of shape (3 n, 3 n)."""
        ...

    def apply(self, displacements: Floats) -> Floats:
        """J v for displacements of shape (m, n_atoms, 3): of shape (m, all features)."""
        ...

    def adjoint(self, weights: Floats) -> Floats:
        """J^T w for weights of shape (m, all features): of shape (m, n_atoms, 3)."""
        ...


class BlockJacobian:
    """A Jacobian that consists of blocks, part by part, and has its products from them."""

    if TYPE_CHECKING:  # fields of some subclasses, for which a property has no room

        @property
        def features(self) -> Floats:
            """The features."""

        @property
        def n_atoms(self) -> int:
            """Number of atoms of the structure."""

        @property
        def precision(self) -> float:
            """Relative accuracy of the blocks."""

        @property
        def per_image(self) -> bool:
            """Whether periodic images of an atom are kept apart."""

        @property
        def ranges(self) -> tuple[Range, ...]:
            """How far which centres see."""

        @property
        def parts(self) -> Iterable[FeatureJacobian]:
            """The Jacobian as a sequence of Jacobians of uniform feature length."""

    def gram(self, atoms: Ints | None = None) -> Floats:
        """J^T J over the coordinates of n atoms, by default all: of shape (3 n, 3 n)."""
        from ase_sensitivity.descriptors.accumulate import mirror  # loads numba

        column_of, n = np.arange(self.n_atoms), self.n_atoms
        if atoms is not None:
            chosen = as_indices("atoms", atoms, 0, self.n_atoms)
            n = len(chosen)
            column_of = np.full(self.n_atoms, -1)
            column_of[chosen] = np.arange(n)
        total = np.zeros((3 * n, 3 * n))
        for part in self.parts:
            part.add_gram(column_of[part.atom], total)
        mirror(total)
        return total

    def apply(self, displacements: Floats) -> Floats:
        """J v for displacements of shape (m, n_atoms, 3): of shape (m, all features).

        Raises
        ------
        ValueError
            If the displacements have another shape.
        """
        moved = as_floats("displacements", displacements)[0]
        if moved.ndim != 3 or moved.shape[1:] != (self.n_atoms, 3):
            raise ValueError(
                f"`displacements` has shape {moved.shape} but must be (any, {self.n_atoms}, 3)"
            )
        return np.concatenate(
            [part.changes(moved).reshape(len(moved), part.features.size) for part in self.parts],
            axis=1,
        )

    def adjoint(self, weights: Floats) -> Floats:
        """J^T w for weights of shape (m, all features): of shape (m, n_atoms, 3).

        Raises
        ------
        ValueError
            If there is another number of weights than of features.
        """
        given = as_floats("weights", weights)[0]
        if given.ndim != 2:
            raise ValueError(f"`weights` has shape {given.shape} but must be (any, all features)")
        total = np.zeros((self.n_atoms, len(given), 3))
        start = 0
        for part in self.parts:
            stop = start + part.features.size
            if stop <= given.shape[1]:
                own = given[:, start:stop].reshape(len(given), *part.features.shape)
                np.add.at(total, part.atom, part.forces(own).swapaxes(0, 1))
            start = stop
        if start != given.shape[1]:
            raise ValueError(
                f"`weights` has {given.shape[1]} columns but there are {start} features"
            )
        return total.swapaxes(0, 1)


@dataclass(frozen=True, eq=False)
class FeatureJacobian(BlockJacobian):
    """Derivatives of atom-centred features, a dense block for each row and neighbour image.

    Arrays may have any data type, order, stride and byte order; they are kept as contiguous arrays
    of doubles and of integers, and ``precision`` follows.

    Parameters
    ----------
    features
        Feature vectors, of shape (n_rows, n_features). Most descriptors have one row per centre;
        pair and triplet descriptors have several rows with the same centre.
    centers
        Atom at the centre of each row, of shape (n_rows,); -1 for a row that belongs to the whole
        structure, such as an average.
    row
        The row that each block differentiates, ascending, of shape (n_blocks,).
    atom
        The atom that moves, of shape (n_blocks,). An atom appears once per periodic image that the
        row depends on; the centre itself is one of them.
    displacement
        From the centre to that image of the atom, in Å, of shape (n_blocks, 3); 0 for the centre
        itself and for rows that belong to the whole structure.
    blocks
        d features / d position of that image, in 1/Å, of shape (n_blocks, 3, n_features).
    n_atoms
        Number of atoms of the structure.
    cutoff
        Radius in Å within which an atom is heard directly; infinite if unknown. Fragments are
        atoms that no path of such neighbours connects.
    center_atoms
        All atoms that are centres, where ``centers`` does not tell (rows of the whole structure).
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
        bounds = {
            "centers": (-1, self.n_atoms),
            "row": (0, n_rows),
            "atom": (0, self.n_atoms),
            "center_atoms": (0, self.n_atoms),
        }
        for name, (lowest, end) in bounds.items():
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
        found["reach"] = _as_reach(self.reach, self.cutoff)
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def parts(self) -> tuple[FeatureJacobian, ...]:
        """The Jacobian as a sequence of Jacobians of uniform feature length."""
        return (self,)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """How far which centres see."""
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
        """Atom at the centre of each block's row, of shape (n_blocks,)."""
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
        from ase_sensitivity.descriptors.accumulate import rows_with_repeated, sum_blocks

        bounds = self._bounds
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
    def _bounds(self) -> Ints:
        """First block of each row, of shape (n_rows + 1,)."""
        return np.searchsorted(self.row, np.arange(len(self.features) + 1))

    def _matrices(self) -> Iterator[tuple[int, slice, Floats]]:
        """Each row of features, its blocks, and those as a matrix (3 n_blocks, n_features)."""
        for row, (start, stop) in enumerate(pairwise(self._bounds.tolist())):
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
        from ase_sensitivity.descriptors.accumulate import (
            LARGE,
            add_at,
            add_products,
            rows_with_repeated,
        )

        bounds, length = self._bounds, self.features.shape[1]
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


@dataclass(frozen=True, eq=False)
class StackedJacobian(BlockJacobian):
    """Jacobians of several descriptors of one structure, seen together as one map.

    Their feature vectors differ in length and their rows need not have the same centres, so they
    stay apart in ``parts``. Every method of the spectrum stage loops over ``parts``.
    """

    parts: tuple[FeatureJacobian, ...]

    @property
    def features(self) -> Floats:
        """All features, block-diagonal: each part has its own rows and its own columns."""
        return scipy.linalg.block_diag(*(part.features for part in self.parts))

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the structure."""
        return self.parts[0].n_atoms

    @property
    def precision(self) -> float:
        """Relative accuracy of the least accurate part."""
        return max(part.precision for part in self.parts)

    @property
    def per_image(self) -> bool:
        """Whether all parts keep periodic images apart."""
        return all(part.per_image for part in self.parts)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """How far which centres see, of each part."""
        return tuple(entry for part in self.parts for entry in part.ranges)

    def __repr__(self) -> str:
        return f"StackedJacobian({list(self.parts)!r})"


class StreamedJacobian(BlockJacobian):
    """A Jacobian that never is in memory as a whole: some rows at a time, computed when asked for.

    Parameters
    ----------
    compute
        ``compute(start, stop)`` gives the Jacobian of a range of rows.
    bounds
        Ascending row numbers: the ends of the ranges, the first one 0.
    n_atoms, cutoff, center_atoms, precision, pairs, per_image, reach
        As in :class:`FeatureJacobian`.
    """

    n_atoms: int
    precision: float
    per_image: bool
    ranges: tuple[Range, ...]

    def __init__(
        self,
        compute: Callable[[int, int], FeatureJacobian],
        bounds: Sequence[int],
        *,
        n_atoms: int,
        cutoff: float,
        center_atoms: Ints,
        precision: float = 1e-15,
        pairs: NeighborPairs | None = None,
        per_image: bool = True,
        reach: float = 0.0,
    ) -> None:
        self._compute = compute
        self._bounds = tuple(bounds)
        self.n_atoms = n_atoms
        self.precision = precision
        self.per_image = per_image
        self.ranges = (Range(cutoff, center_atoms, pairs, reach=_as_reach(reach, cutoff)),)

    @property
    def features(self) -> Floats:
        """All features, computed anew each time."""
        return np.concatenate([part.features for part in self.parts])

    @property
    def parts(self) -> Iterator[FeatureJacobian]:
        """The Jacobian, one range of rows after the other; computed anew each time.

        Raises
        ------
        ValueError
            If one is less accurate than the whole is said to be.
        """
        for start, stop in pairwise(self._bounds):
            part = self._compute(start, stop)
            if part.precision > self.precision:
                raise ValueError(
                    f"`precision` is {self.precision:g} but rows {start} to {stop - 1} are good to "
                    f"{part.precision:.2g} only; say so to StreamedJacobian"
                )
            yield part


def _as_reach(reach: float, cutoff: float) -> float:
    if not (is_number(reach) and reach >= 0):
        raise ValueError(f"`reach` is {reach!r} but must be a number of Å, the cutoff or more")
    return max(float(reach), float(cutoff))


WholeJacobian = FeatureJacobian | StackedJacobian


def in_blocks(jacobian: Jacobian, what: str) -> BlockJacobian:
    """The Jacobian; ValueError if it has products only, which do not suffice for ``what``."""
    if isinstance(jacobian, BlockJacobian):
        return jacobian
    raise ValueError(
        f"{what} needs the blocks of a Jacobian, and {type(jacobian).__name__} has products only; "
        "return a FeatureJacobian"
    )


@runtime_checkable
class Descriptor(Protocol):
    """A map from a structure to atom-centred features, with its Jacobian."""

    @property
    def species(self) -> Sequence[str] | None:
        """Chemical symbols of the neighbours that are told apart, or None if they are not."""
        ...

    @property
    def cutoff(self) -> float:
        """Radius in Å beyond which nothing is heard directly."""
        ...

    @property
    def body_order(self) -> int | None:
        """Nu + 1 for features that correlate nu neighbours with the centre; None if unknown."""
        ...

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features)."""
        ...

    def jacobian(self, atoms: Atoms) -> Jacobian:
        """Derivatives of the features with respect to the atoms' positions."""
        ...


@runtime_checkable
class Reaches(Protocol):
    """A descriptor that sees farther than its cutoff, because messages are passed on."""

    @property
    def reach(self) -> float:
        """Radius in Å beyond which nothing matters to a row of features."""
        ...


def reach_of(descriptor: Descriptor) -> float:
    """Radius in Å beyond which nothing matters to a row: the cutoff, unless a descriptor says."""
    if isinstance(descriptor, Reaches):
        return max(descriptor.reach, descriptor.cutoff)
    return descriptor.cutoff


def jacobian_of(descriptor: Descriptor, atoms: Atoms) -> Jacobian:
    """The Jacobian, in pieces computed when needed if the descriptor has a method ``stream``."""
    stream: Callable[[Atoms], Jacobian] = _shortcut(descriptor, "stream", "jacobian")
    return descriptor.jacobian(atoms) if stream is None else stream(atoms)


def _shortcut(descriptor: Descriptor, name: str, instead_of: str) -> Any:
    """A method that does what another does in less time; None if there is none.

    Where a subclass has changed the other, the shortcut of its parent leads astray: None as well.
    """
    for kind in type(descriptor).__mro__:
        if name in vars(kind):
            break
        if instead_of in vars(kind):
            return None
    return getattr(descriptor, name, None)


def restricted(descriptor: Descriptor, atoms: Atoms) -> Descriptor:
    """The descriptor without features that are zero for every structure of these species.

    Itself, unless it has a method of this name. Everything but the number of features is the same.
    """
    method: Callable[[Atoms], Descriptor] | None = _shortcut(descriptor, "restricted", "jacobian")
    return descriptor if method is None else method(atoms)


def derivatives_of_squares(
    descriptor: Descriptor,
    atoms: Atoms,
    displacements: Floats,
    step: float,
    *,
    center: int | None = None,
    both_sides: bool = True,
) -> tuple[Floats, Floats] | None:
    """Derivatives of |J v|² by positions (m, n_atoms, 3) and strain (m, 3, 3), without Jacobians.

    None if the descriptor has no method of this name, or that gives None. Arguments are those of
    :meth:`SOAP.derivatives_of_squares`.
    """
    method = _shortcut(descriptor, "derivatives_of_squares", "jacobian")
    if method is None:
        return None
    found: tuple[Floats, Floats] | None = method(
        atoms, displacements, step, center=center, both_sides=both_sides
    )
    return found


Rows = tuple[Floats, Ints]
"""Features of shape (n_rows, n_features), and the atom at the centre of each row, (n_rows,)."""


def rows_of(descriptor: Descriptor, atoms: Atoms) -> list[Rows]:
    """Features and whose they are, of each part of the descriptor.

    Descriptors that have a method ``rows`` are spared the derivatives.
    """
    rows: Callable[[Atoms], list[Rows]] | None = _shortcut(descriptor, "rows", "jacobian")
    if rows is not None:
        return [(as_floats("features", features)[0], centers) for features, centers in rows(atoms)]
    whole = in_blocks(descriptor.jacobian(atoms), "a comparison of features")
    return [(part.features, part.centers) for part in whole.parts]
