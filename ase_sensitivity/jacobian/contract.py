"""The interface of a Jacobian: three products and a few properties."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ase_sensitivity.geometry.ranges import Range
from ase_sensitivity.jacobian.accumulate import mirror
from ase_sensitivity.jacobian.arrays import as_displacements, as_floats, as_indices
from ase_sensitivity.jacobian.scale import ScaleSums
from ase_sensitivity.jacobian.sparsity import SQUARE, Sparsity
from ase_sensitivity.types import Floats, Ints

if TYPE_CHECKING:
    from ase_sensitivity.jacobian.blocks import FeatureJacobian


@runtime_checkable
class Jacobian(Protocol):
    """The interface of a Jacobian J: three products and a few properties.

    Features stand in one vector: those of one row after the other, part by part. A class that has
    the products without ever forming a block, by automatic differentiation, is looked at in
    structure and atom scope; environments, gradients and walks need a
    :class:`~ase_sensitivity.jacobian.contract.BlockJacobian`, or one that becomes one when asked
    (:class:`~ase_sensitivity.jacobian.contract.FormsBlocks`).
    """

    @property
    def features(self) -> Floats:
        """The features, of any shape. Their norm gives the size of rounding errors."""
        ...

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the structure."""
        ...

    @property
    def precision(self) -> float:
        """Relative accuracy of the products; every tolerance depends on it."""
        ...

    @property
    def per_image(self) -> bool:
        """Whether periodic images of an atom have blocks of their own."""
        ...

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The centers and how far they see, directly and by messages."""
        ...

    def gram(self, atoms: Ints | None = None) -> Floats:
        """J^T J over the coordinates of n atoms, by default all, of shape (3 n, 3 n)."""
        ...

    def apply(self, displacements: Floats) -> Floats:
        """J v for displacements of shape (m, n_atoms, 3): of shape (m, all features)."""
        ...

    def adjoint(self, weights: Floats) -> Floats:
        """J^T w for weights of shape (m, all features): of shape (m, n_atoms, 3)."""
        ...


if TYPE_CHECKING:
    _Contract = Jacobian
else:
    _Contract = object  # the properties of a protocol would conflict with fields of subclasses


class BlockJacobian(_Contract):
    """A Jacobian that consists of parts with blocks, and computes its products from them."""

    if TYPE_CHECKING:

        @property
        def parts(self) -> Iterable[FeatureJacobian]:
            """The Jacobian as a sequence of Jacobians of uniform feature length."""

    def gram(self, atoms: Ints | None = None) -> Floats:
        """J^T J over the coordinates of n atoms, by default all, of shape (3 n, 3 n).

        Raises
        ------
        ValueError
            If an atom does not exist, or derivatives are not finite.
        """
        column_of, n = np.arange(self.n_atoms), self.n_atoms
        if atoms is not None:
            chosen = as_indices("atoms", atoms, 0, self.n_atoms)
            n = len(chosen)
            column_of = np.full(self.n_atoms, -1)
            column_of[chosen] = np.arange(n)
        total = np.zeros((3 * n, 3 * n))
        self.fill_gram(column_of, total)
        mirror(total)
        return total

    def fill_gram(
        self,
        column_of: Ints,
        total: Floats,
        *,
        band: int | None = None,
        pattern: Sparsity = SQUARE,
    ) -> ScaleSums | None:
        """Compute the lower triangle of J^T J over some atoms.

        Parameters
        ----------
        column_of
            The column of each atom, of shape (n_atoms,); negative to leave the atom out.
        total
            Zeros of shape (3 n_columns, 3 n_columns), or a matrix of the pattern. Only the lower
            triangle is valid afterwards.
        band
            The largest difference of the columns that one row sees; by default any.
        pattern
            The blocks that are kept, by default all.

        Returns
        -------
        sums
            They give the scale of singular values. None if a row sees columns farther apart.

        Raises
        ------
        ValueError
            If derivatives are not finite.
        """
        sums = ScaleSums()
        for part in self.parts:
            column = column_of[part.atom]
            if band is not None and part.widest(column) > band:
                return None
            sums.include(part.add_gram(column, total, pattern), part.features_of_blocks(column))
        return sums

    def apply(self, displacements: Floats) -> Floats:
        """J v for displacements of shape (m, n_atoms, 3): of shape (m, all features).

        Raises
        ------
        ValueError
            If the displacements have another shape.
        """
        moved = as_displacements(displacements, self.n_atoms)
        return np.concatenate(
            [part.changes(moved).reshape(len(moved), part.features.size) for part in self.parts],
            axis=1,
        )

    def adjoint(self, weights: Floats) -> Floats:
        """J^T w for weights of shape (m, all features): of shape (m, n_atoms, 3).

        Raises
        ------
        ValueError
            If the numbers of weights and of features differ.
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


@runtime_checkable
class FormsBlocks(Protocol):
    """A Jacobian that has its products without blocks, and forms these when they are asked for."""

    def as_blocks(self, per_image: bool = False) -> BlockJacobian:
        """The same Jacobian in blocks; with one for each periodic image of an atom if wanted."""
        ...


def in_blocks(jacobian: Jacobian, what: str, *, per_image: bool = False) -> BlockJacobian:
    """The Jacobian in blocks.

    Parameters
    ----------
    jacobian
        The Jacobian.
    what
        What needs blocks, for the error.
    per_image
        Whether periodic images are wanted apart, if the Jacobian can tell them apart.

    Raises
    ------
    ValueError
        If it has products only and forms no blocks.
    """
    check_blocks(jacobian, what)
    if isinstance(jacobian, FormsBlocks):
        return jacobian.as_blocks(per_image and jacobian.per_image)
    assert isinstance(jacobian, BlockJacobian)
    return jacobian


def check_blocks(jacobian: Jacobian, what: str) -> None:
    """Raise ValueError if a Jacobian has products only, which do not suffice for ``what``."""
    if not isinstance(jacobian, BlockJacobian | FormsBlocks):
        raise ValueError(
            f"{what} needs the blocks of a Jacobian, and {type(jacobian).__name__} has products "
            "only; return a FeatureJacobian"
        )
