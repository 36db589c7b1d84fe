"""A Jacobian that is known as a whole, by rows and atoms, as blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell

from ase_sensitivity.geometry.unfolding import one_image_each
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.types import Floats, Ints


def centers_of(centers: Sequence[int] | None, n_rows: int, n_atoms: int) -> Ints:
    """The atom at the center of each row of features that a function gave, of shape (n_rows,).

    Parameters
    ----------
    centers
        What somebody said. By default row i belongs to atom i, and a single row of several atoms to
        the whole structure.
    n_rows, n_atoms
        Numbers of rows and of atoms.

    Raises
    ------
    ValueError
        If that is not known.
    """
    if centers is not None:
        known = np.array(centers, dtype=np.intp)
        if len(known) != n_rows or (known < -1).any() or (known >= n_atoms).any():
            raise ValueError(
                f"`centers` is {list(centers)} but `function` gave {n_rows} rows "
                f"for {n_atoms} atoms"
            )
        return known
    if n_rows == n_atoms:
        return np.arange(n_atoms)
    if n_rows == 1:
        return np.array([-1])
    raise ValueError(
        f"`function` gave {n_rows} rows for {n_atoms} atoms; "
        "say with `centers` which atom each belongs to"
    )


def center_atoms_of(centers: Ints, n_atoms: int) -> Ints:
    """All atoms that are centers: every one, where a row belongs to the whole structure."""
    return np.arange(n_atoms) if (centers < 0).any() else np.unique(centers)


def in_rows(
    atoms: Atoms,
    features: Floats,
    gradient: Floats,
    centers: Ints,
    *,
    cutoff: float,
    reach: float,
    precision: float,
    rotation_invariant: bool = True,
) -> FeatureJacobian:
    """Blocks of a Jacobian in which all images of an atom move together.

    Parameters
    ----------
    atoms
        The structure.
    features
        Of shape (n_rows, n_features).
    gradient
        d features / d position, of shape (n_rows, n_atoms, 3, n_features).
    centers
        As :func:`centers_of` gives them.
    cutoff, reach, precision, rotation_invariant
        As in :class:`FeatureJacobian`. What is farther than the reach from a center has no block,
        as it is no point of an environment, unless the derivative by it is above the precision.
    """
    n_rows, n_atoms = len(features), len(atoms)
    displacement = np.zeros((n_rows, n_atoms, 3))
    # Vectors along directions that are not periodic have no meaning, and may be anything.
    cell = complete_cell(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0))
    bare = Atoms(atoms.numbers, atoms.positions, cell=cell, pbc=atoms.pbc)
    for r in np.flatnonzero(centers >= 0):
        displacement[r] = bare.get_distances(
            centers[r], np.arange(n_atoms), mic=bool(atoms.pbc.any()), vector=True
        )
    row, atom = (index.ravel() for index in np.indices((n_rows, n_atoms)))
    blocks = gradient.reshape(n_rows * n_atoms, 3, -1)
    largest = np.abs(blocks).max(axis=(1, 2), initial=0.0)
    away = np.linalg.norm(displacement, axis=2).ravel() >= reach
    kept = ~away | (largest > precision * largest.max(initial=0.0))
    jacobian = FeatureJacobian(
        features=features,
        centers=centers,
        row=row[kept],
        atom=atom[kept],
        displacement=displacement.reshape(-1, 3)[kept],
        blocks=blocks[kept],
        n_atoms=n_atoms,
        cutoff=cutoff,
        reach=reach,
        center_atoms=center_atoms_of(centers, n_atoms),
        precision=precision,
        rotation_invariant=rotation_invariant,
        per_image=one_image_each(atoms, reach),
    )
    jacobian.check_finite()
    return jacobian


def in_images(
    cluster: Atoms,
    parent: Ints,
    features: Floats,
    row: Ints,
    column: Ints,
    blocks: Floats,
    *,
    cutoff: float,
    precision: float = 1e-15,
    reach: float = 0.0,
    rotation_invariant: bool = True,
) -> FeatureJacobian:
    """A Jacobian with every periodic image apart.

    Parameters
    ----------
    cluster, parent
        As :func:`~ase_sensitivity.geometry.unfolding.unfolded` gives them.
    features
        Of the n_rows first atoms of the cluster, those of the cell: of shape (n_rows, n_features).
    row, column
        The center and the atom of the cluster of each block, of shape (n_blocks,), as
        :func:`~ase_sensitivity.geometry.unfolding.pairs_within` gives them.
    blocks
        Derivatives of the row by the position of the atom, of shape (n_blocks, 3, n_features).
    cutoff, precision, reach, rotation_invariant
        As in :class:`FeatureJacobian`.

    Raises
    ------
    ValueError
        If something is not finite.
    """
    n = len(features)
    jacobian = FeatureJacobian(
        features=features,
        centers=np.arange(n),
        row=row,
        atom=parent[column],
        displacement=cluster.positions[column] - cluster.positions[row],
        blocks=blocks,
        n_atoms=n,
        cutoff=cutoff,
        reach=reach,
        precision=precision,
        rotation_invariant=rotation_invariant,
    )
    jacobian.check_finite()
    return jacobian
