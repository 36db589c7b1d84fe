"""The blocks and the columns of the Jacobian that belong to a scope (docs/theory, scopes)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from ase import Atoms

from ase_sensitivity.geometry.fragments import Fragment, fragments, pairs_within_reach
from ase_sensitivity.geometry.neighbors import NeighborPairs
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.jacobian.accumulate import mirror, sum_blocks
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import BlockJacobian, Jacobian, check_blocks, in_blocks
from ase_sensitivity.jacobian.scale import CANCELLED, ScaleSums
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.spectrum.rigid import trivial_modes
from ase_sensitivity.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Gram:
    """J^T J over the columns of a view.

    Attributes
    ----------
    matrix
        Of shape (3 n_columns, 3 n_columns).
    scale, rounding
        See :class:`ScaleSums`.
    """

    matrix: Floats
    scale: float
    rounding: float


@dataclass(frozen=True, eq=False)
class Factor:
    """A linear map of modes. The results of all maps of a view, stacked, are J times a rotation.

    Attributes
    ----------
    n_rows
        The number of results for one mode.
    times
        Maps modes (3 n_columns, m) to results (n_rows, m).
    """

    n_rows: int
    times: Callable[[Floats], Floats]


def _times(columns: Ints, factor: Floats, modes: Floats) -> Floats:
    """A factor (any, 3 n) of n columns times modes of all columns (3 n_columns, m)."""
    return factor @ modes[coordinates_of(columns)]


@dataclass(frozen=True, eq=False)
class View:
    """The part of a Jacobian that is decomposed: its rows and its columns.

    Attributes
    ----------
    jacobian
        The Jacobian.
    column
        ``column(part)`` gives the column of each block of a part of the Jacobian; -1 leaves a block
        out. A column is a point that moves.
    atoms
        The atom of each column, of shape (n_columns,).
    displacements
        From the center to each column's point in Å, of shape (n_columns, 3), in environment scope.
    trivial
        Orthonormal trivial modes of shape (3 n_columns, n_trivial).
    center
        The center (environment scope) or the atom (atom scope); None in structure scope.
    pairs_within_reach
        Lists centers with the atoms within their reach; None outside of structure scope, and if
        rows belong to the whole structure.
    whole
        Orthonormal rigid motions of the structure as a whole, of shape (3 n_columns, any), if it
        consists of several fragments. The trivial modes span them too.
    of
        The descriptor and the structure, which errors name.
    column_of
        The column of each atom, -1 without one, of shape (n_atoms,), if columns are atoms.
    """

    jacobian: Jacobian
    column: Callable[[FeatureJacobian], Ints]
    atoms: Ints
    displacements: Floats | None
    trivial: Floats
    center: int | None
    pairs_within_reach: Callable[[], NeighborPairs] | None = None
    whole: Floats | None = None
    of: tuple[object, Atoms] | None = None
    column_of: Ints | None = None

    @property
    def parts(self) -> Iterable[FeatureJacobian]:
        """The parts of the Jacobian; ValueError if it has products only."""
        return in_blocks(self.jacobian, "a derivative").parts

    @property
    def n_columns(self) -> int:
        """Number of points that move."""
        return len(self.atoms)

    @property
    def n_apart(self) -> int:
        """Number of trivial modes that move fragments against each other."""
        return 0 if self.whole is None else self.trivial.shape[1] - self.whole.shape[1]

    def gram(self) -> Gram:
        """J^T J with the scale of its singular values."""
        n = self.n_columns
        if isinstance(self.jacobian, BlockJacobian):
            total = np.zeros((3 * n, 3 * n))
            sums = self._filled(total, self.jacobian)
            mirror(total)
        else:
            sums = ScaleSums()
            total = np.array(self.jacobian.gram(self.atoms), dtype=float)  # is changed in place
            sums.include(float(total.trace()), n * (self.jacobian.features**2).sum())
        return Gram(total, sums.scale(n), sums.rounding(n, self.jacobian.precision))

    def _filled(self, total: Floats, jacobian: BlockJacobian) -> ScaleSums:
        """Compute the lower triangle of J^T J in ``total``, which is zero before."""
        if self.column_of is not None:
            found = jacobian.fill_gram(self.column_of, total)
            assert found is not None, "columns may be any distance apart"
            return found
        sums = ScaleSums()
        for part in jacobian.parts:
            column = self.column(part)
            sums.include(part.add_gram(column, total), part.features_of_blocks(column))
        return sums

    def factors(self) -> list[Factor]:
        """J as a sequence of maps.

        For blocks, every row is replaced by its R factor. That is smaller if the row has more
        features than coordinates, and the refinement of small values takes many products.
        """
        if not isinstance(self.jacobian, BlockJacobian):
            still = np.zeros((3 * self.n_columns, 1))
            return [Factor(len(self._applied(still)), self._applied)]
        return [
            Factor(len(factor), partial(_times, columns, factor))
            for part in self.jacobian.parts
            for columns, factor in part.r_factors(self.column(part))
        ]

    def _applied(self, modes: Floats) -> Floats:
        """J times modes (3 n_columns, m), of shape (all features, m)."""
        moved = np.zeros((modes.shape[1], self.jacobian.n_atoms, 3))
        moved[:, self.atoms] = modes.T.reshape(-1, self.n_columns, 3)
        return np.asarray(self.jacobian.apply(moved), dtype=float).T

    def dense(self) -> Floats:
        """J as a matrix, of shape (all features, 3 n_columns). For small cases and tests."""
        if not isinstance(self.jacobian, BlockJacobian):
            return self._applied(np.eye(3 * self.n_columns))
        parts = self.jacobian.parts
        return np.concatenate([part.dense(self.column(part), self.n_columns) for part in parts])


def structure_view(
    jacobian: Jacobian,
    atoms: Atoms,
    fixed: Ints | None = None,
    descriptor: object | None = None,
) -> View:
    """All rows against the coordinates of all atoms that are not ``fixed``.

    Errors name the descriptor if it is given.
    """
    jointly = any(known.whole for known in jacobian.ranges)
    pieces = fragments(atoms, jacobian.ranges)
    trivial = trivial_modes(pieces, len(atoms), fixed, jointly=jointly)
    whole = None
    if len(pieces) > 1:
        everything = replace(
            pieces[0],
            atoms=np.arange(len(atoms)),
            positions=atoms.positions,
            axes=atoms.cell.array[atoms.pbc],
        )
        whole = trivial_modes([everything], len(atoms), fixed)
    free = column_of = np.arange(len(atoms))
    if fixed is not None and len(fixed):
        column_of = np.zeros(len(atoms), dtype=np.intp)
        column_of[fixed] = -1
        free = np.flatnonzero(column_of == 0)
        column_of[free] = np.arange(len(free))
        trivial = trivial[coordinates_of(free)]
        whole = None if whole is None else whole[coordinates_of(free)]

    return View(
        jacobian=jacobian,
        column=lambda part: column_of[part.atom],
        atoms=free,
        displacements=None,
        trivial=trivial,
        center=None,
        pairs_within_reach=(
            None if jointly else lambda: pairs_within_reach(atoms, jacobian.ranges)
        ),
        whole=whole,
        of=None if descriptor is None else (descriptor, atoms),
        column_of=column_of,
    )


def atom_view(jacobian: Jacobian, atom: int) -> View:
    """All rows against the three coordinates of one atom, all others frozen."""
    column_of = np.full(jacobian.n_atoms, -1, dtype=np.intp)
    column_of[atom] = 0
    return View(
        jacobian=jacobian,
        column=lambda part: column_of[part.atom],
        atoms=np.array([atom]),
        displacements=None,
        trivial=np.empty((3, 0)),
        center=atom,
        column_of=column_of,
    )


def atom_ratios(jacobian: Jacobian) -> Floats:
    """sigma_min / sigma_max of every atom in atom scope, from 3 x 3 matrices; accurate to 1e-4.

    Cost and memory are linear in the number of atoms.
    """
    squares, scales = np.zeros((jacobian.n_atoms, 3, 3)), np.zeros(jacobian.n_atoms)
    if not isinstance(jacobian, BlockJacobian):
        squares = np.array([jacobian.gram(np.array([n])) for n in range(jacobian.n_atoms)])
        return _least_ratios(squares, scales)
    for part in jacobian.parts:
        # Images of an atom in a row move together.
        key = part.row * part.n_atoms + part.atom
        pairs, where = np.unique(key, return_inverse=True)
        blocks, atom = part.blocks, part.atom
        own = np.einsum("bif,bif->b", blocks, blocks)
        if len(pairs) < len(key):
            summed = np.zeros((len(pairs), blocks[:1].size))
            sum_blocks(blocks.reshape(len(key), -1), where, summed)
            blocks, atom = summed.reshape(-1, *blocks.shape[1:]), pairs % part.n_atoms
        np.add.at(squares, atom, np.matmul(blocks, blocks.transpose(0, 2, 1)))
        np.add.at(scales, part.atom, CANCELLED**2 * own / 3)
    return _least_ratios(squares, scales)


def _least_ratios(squares: Floats, scales: Floats) -> Floats:
    """Square roots of the ratios smallest / max(largest, scale) of eigenvalues of (n, 3, 3)."""
    if not (np.isfinite(scales).all() and np.isfinite(squares).all()):
        raise ValueError("the descriptor gave derivatives that are not finite")
    values = np.linalg.eigvalsh(squares).clip(0.0)
    largest = np.maximum(values[:, -1], scales)
    return np.sqrt(np.divide(values[:, 0], largest, out=np.zeros_like(largest), where=largest > 0))


def environment_views(
    jacobian: Jacobian, atoms: Atoms, center: int | Ints | None
) -> Iterator[View]:
    """For each center, its rows against itself and every neighbor image as independent points.

    Parameters
    ----------
    jacobian
        The Jacobian.
    atoms
        The structure.
    center
        The center or centers wanted, by default all.

    Raises
    ------
    ValueError
        If blocks of periodic images are summed, or rows belong to the whole structure.
    """
    blocks = check_images(jacobian, atoms)
    if isinstance(jacobian, StackedJacobian):
        # Rows of all parts that have the same center belong together.
        centers = np.unique(np.concatenate([known.centers for known in jacobian.ranges]))
        for i in (centers if center is None else np.atleast_1d(center)).tolist():
            pieces = tuple(rows_of_center(part, i) for part in jacobian.parts)
            yield _environment_view(StackedJacobian(pieces), atoms, i)
        return
    for part in blocks.parts:
        present = np.unique(part.centers)
        for i in (present if center is None else np.intersect1d(present, center)).tolist():
            yield _environment_view(rows_of_center(part, i), atoms, i)


def check_images(jacobian: Jacobian, atoms: Atoms) -> BlockJacobian:
    """The Jacobian; ValueError if images of an atom that a center sees are not kept apart."""
    check_blocks(jacobian, "environment scope")
    endless = not all(math.isfinite(known.reach) for known in jacobian.ranges)
    if not jacobian.per_image or (endless and atoms.pbc.any()):
        raise ValueError(
            "environment scope needs periodic images kept apart, and this Jacobian sums those that "
            'a center sees; use scope="structure" or scope="atom", a cell in which every center '
            "sees each atom once, or a descriptor with a block for each image"
        )
    return in_blocks(jacobian, "environment scope", per_image=True)


def rows_of_center(part: FeatureJacobian, center: int) -> FeatureJacobian:
    """The rows of a center. They need not be adjacent."""
    rows = np.flatnonzero(part.centers == center)
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return part.of_rows(int(rows[0]), int(rows[-1]) + 1)
    chosen = np.isin(part.row, rows)
    return replace(
        part,
        features=part.features[rows],
        centers=part.centers[rows],
        row=np.searchsorted(rows, part.row[chosen]),
        atom=part.atom[chosen],
        displacement=part.displacement[chosen],
        blocks=part.blocks[chosen],
    )


def _environment_view(
    jacobian: FeatureJacobian | StackedJacobian, atoms: Atoms, center: int
) -> View:
    parts = jacobian.parts
    for part in parts:
        if (part.centers < 0).any():
            raise ValueError(
                "these features belong to the whole structure, not to centers; "
                'use scope="structure" or scope="atom"'
            )
    keys = np.concatenate([part.keys for part in parts])
    points, index = np.unique(keys, axis=0, return_index=True)
    atom = np.concatenate([part.atom for part in parts])[index]
    displacement = np.concatenate([part.displacement for part in parts])[index]
    number = {tuple(point): n for n, point in enumerate(points.tolist())}

    def column(part: FeatureJacobian) -> Ints:
        return np.array([number[tuple(key)] for key in part.keys.tolist()], dtype=np.intp)

    rotates = all(known.rotation_invariant for known in jacobian.ranges)
    piece = Fragment(np.arange(len(points)), displacement, np.empty((0, 3)), rotates)
    return View(
        jacobian=jacobian,
        column=column,
        atoms=atom,
        displacements=displacement,
        trivial=trivial_modes([piece], len(points)),
        center=center,
    )
