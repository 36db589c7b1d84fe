"""Which blocks and which columns of the Jacobian a scope looks at (docs/theory, scopes)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import FeatureJacobian, Floats, Ints, Jacobian
from ase_sensitivity.spectrum.rigid import Fragment, fragments, trivial_modes

SCOPES = ("structure", "environment", "atom")


@dataclass(frozen=True)
class View:
    """A part of a Jacobian whose singular values are wanted.

    Attributes
    ----------
    parts
        The Jacobian's parts.
    columns
        Per part, the column (a point in space that moves) of each block; -1 leaves a block out.
    atoms
        The atom of each column, of shape (n_columns,).
    displacements
        From the centre to each column's point in Å, of shape (n_columns, 3), in environment scope.
    trivial
        Orthonormal trivial modes of shape (3 n_columns, n_trivial).
    center
        The centre (environment scope) or the atom (atom scope).
    """

    parts: tuple[FeatureJacobian, ...]
    columns: tuple[Ints, ...]
    atoms: Ints
    displacements: Floats | None
    trivial: Floats
    center: int | None

    @property
    def n_columns(self) -> int:
        """Number of points that move."""
        return len(self.atoms)

    def gram(self) -> Floats:
        """J^T J of shape (3 n_columns, 3 n_columns)."""
        pairs = zip(self.parts, self.columns, strict=True)
        return sum(
            (part.gram(column, self.n_columns) for part, column in pairs),
            np.zeros((3 * self.n_columns, 3 * self.n_columns)),
        )

    def rounding(self) -> float:
        """What rounding leaves of a singular value that is zero because blocks cancel."""
        squares = (
            float(np.square(part.blocks[column >= 0]).sum())
            for part, column in zip(self.parts, self.columns, strict=True)
        )
        return 1e-14 * math.sqrt(sum(squares))

    def r_factors(self) -> list[tuple[Ints, Floats]]:
        """Columns (m,) and R factor (any, 3 m) of every row."""
        return [
            factor
            for part, column in zip(self.parts, self.columns, strict=True)
            for factor in part.r_factors(column)
        ]

    def dense(self) -> Floats:
        """J itself, of shape (all features, 3 n_columns). For small cases and tests."""
        pairs = zip(self.parts, self.columns, strict=True)
        return np.concatenate([part.dense(column, self.n_columns) for part, column in pairs])


def structure_view(jacobian: Jacobian, atoms: Atoms, fixed: Ints) -> View:
    """All rows against the coordinates of all atoms that are not ``fixed``."""
    trivial = trivial_modes(fragments(atoms, jacobian.parts), len(atoms), fixed)
    free = np.setdiff1d(np.arange(len(atoms)), fixed)
    column_of = np.full(len(atoms), -1, dtype=np.intp)
    column_of[free] = np.arange(len(free))
    return View(
        parts=jacobian.parts,
        columns=tuple(column_of[part.atom] for part in jacobian.parts),
        atoms=free,
        displacements=None,
        trivial=trivial.reshape(len(atoms), 3, -1)[free].reshape(3 * len(free), -1),
        center=None,
    )


def atom_view(jacobian: Jacobian, atom: int) -> View:
    """All rows against the three coordinates of one atom, all others frozen."""
    return View(
        parts=jacobian.parts,
        columns=tuple(np.where(part.atom == atom, 0, -1) for part in jacobian.parts),
        atoms=np.array([atom]),
        displacements=None,
        trivial=np.empty((3, 0)),
        center=atom,
    )


def environment_view(jacobian: Jacobian, center: int) -> View:
    """The rows of one centre against it and every neighbour image as an independent point."""
    chosen = [np.flatnonzero(part.center == center) for part in jacobian.parts]
    atom = np.concatenate([part.atom[c] for part, c in zip(jacobian.parts, chosen, strict=True)])
    displacement = np.concatenate(
        [part.displacement[c] for part, c in zip(jacobian.parts, chosen, strict=True)]
    )
    # Rounding tells images apart: those of one atom are a lattice vector from each other.
    keys = np.column_stack([atom, np.rint(displacement / 1e-3)]).astype(np.int64)
    _, index, where = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    columns = []
    start = 0
    for part, c in zip(jacobian.parts, chosen, strict=True):
        column = np.full(len(part.row), -1, dtype=np.intp)
        column[c] = where.reshape(-1)[start : start + len(c)]
        columns.append(column)
        start += len(c)
    points = displacement[index]
    piece = Fragment(np.arange(len(points)), points, np.empty((0, 3)))
    return View(
        parts=jacobian.parts,
        columns=tuple(columns),
        atoms=atom[index],
        displacements=points,
        trivial=trivial_modes([piece], len(points)),
        center=center,
    )


def check_environments(jacobian: Jacobian, atoms: Atoms) -> None:
    """Raise ValueError if the rows cannot be told apart by centre and image."""
    for part in jacobian.parts:
        if (part.centers < 0).any():
            raise ValueError(
                "these features belong to the whole structure, not to centres; "
                'use scope="structure" or scope="atom"'
            )
        if atoms.pbc.any() and not np.isfinite(part.cutoff):
            raise ValueError(
                "environment scope needs periodic images kept apart, which a Jacobian by finite "
                'differences of a periodic structure does not; use scope="structure" or "atom"'
            )
