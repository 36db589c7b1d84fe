"""Columns of a Jacobian that one product gives together, as no row depends on two of their atoms.

Where rows see no farther than some radius, the number of products is that of the atoms within twice
this radius, and not that of all (A. R. Curtis, M. J. D. Powell and J. K. Reid, IMA J. Appl. Math.
13, 117 (1974)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.sparse import csgraph, csr_array

from ase_sensitivity.geometry.neighbors import NeighborPairs, neighbor_pairs
from ase_sensitivity.geometry.structure import check_memory
from ase_sensitivity.jacobian.arrays import same_product
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.types import Floats, Ints

AT_ONCE = 1e7
"""Numbers that the products which are made at once may have: 80 MB."""


@dataclass(frozen=True, eq=False)
class Shared:
    """Which atoms are displaced together, and the blocks of the Jacobian that this gives.

    Attributes
    ----------
    centers
        The atom at the center of each row, of shape (n_rows,).
    color
        The product that displaces each atom, of shape (n_atoms,), counted from 0.
    row, atom
        Rows, ascending, and the atoms within their reach, each once; of shape (n_blocks,).
    displacement
        From the center of the row to the nearest image of the atom in Å, of shape (n_blocks, 3).
    connected
        Whether a path of neighbors leads from the one to the other, of shape (n_blocks,). Otherwise
        the block is zero.
    """

    centers: Ints
    color: Ints
    row: Ints
    atom: Ints
    displacement: Floats
    connected: NDArray[np.bool_]

    @property
    def n_colors(self) -> int:
        """Number of sets of atoms; each takes three products."""
        return int(self.color.max()) + 1

    def jacobian(
        self,
        apply: Callable[[Floats], Floats],
        features: Floats,
        *,
        cutoff: float,
        reach: float,
        precision: float,
        per_image: bool,
        rotation_invariant: bool = True,
    ) -> FeatureJacobian:
        """The Jacobian in blocks, from three products for each color and one that checks it.

        Parameters
        ----------
        apply
            J v for displacements of shape (m, n_atoms, 3): of shape (m, all features).
        features
            Of shape (n_rows, n_features).
        cutoff, reach, precision, per_image, rotation_invariant
            As in :class:`FeatureJacobian`.

        Raises
        ------
        ValueError
            If the products are not those of a Jacobian with these blocks.
        """
        found = FeatureJacobian(
            features=features,
            centers=self.centers,
            row=self.row,
            atom=self.atom,
            displacement=self.displacement,
            blocks=self._blocks(apply, features.shape),
            n_atoms=len(self.color),
            cutoff=cutoff,
            reach=reach,
            precision=precision,
            per_image=per_image,
            rotation_invariant=rotation_invariant,
        )
        found.check_finite()
        moved = np.random.default_rng(0).normal(size=(1, len(self.color), 3))
        expected = apply(moved)
        if not same_product(found.apply(moved), expected, precision):
            raise ValueError(
                f"features depend on atoms beyond `reach`, {reach:g} Å, or on atoms that no path "
                f"of neighbors within `cutoff`, {cutoff:g} Å, connects: give the true radii; or "
                "derivatives have fewer digits: give a larger `precision`"
            )
        return found

    def _blocks(self, apply: Callable[[Floats], Floats], shape: tuple[int, ...]) -> Floats:
        n_rows, n_features = shape
        check_memory(len(self.row), n_features)
        blocks = np.zeros((len(self.row), 3, n_features))
        several = max(1, int(AT_ONCE / (3 * n_rows * n_features)))
        for start in range(0, self.n_colors, several):
            n = min(several, self.n_colors - start)
            color = self.color - start
            chosen = np.flatnonzero((color >= 0) & (color < n))
            moved = np.zeros((n, 3, len(color), 3))
            for axis in range(3):
                moved[color[chosen], axis, chosen, axis] = 1.0
            found = apply(moved.reshape(3 * n, -1, 3)).reshape(n, 3, n_rows, n_features)
            own = np.flatnonzero(self.connected & np.isin(self.atom, chosen))
            blocks[own] = found[color[self.atom[own]], :, self.row[own]]
        return blocks


def shared(atoms: Atoms, centers: Ints, cutoff: float, reach: float) -> Shared | None:
    """The atoms that can be displaced together; None if that are not half of all, or not known.

    Parameters
    ----------
    atoms
        The structure.
    centers
        The atom at the center of each row, of shape (n_rows,); -1 for the whole structure.
    cutoff, reach
        Radii in Å within which atoms are heard directly and by messages.
    """
    if not np.isfinite(reach) or (centers < 0).any():
        return None
    n = len(atoms)
    near = neighbor_pairs(atoms, cutoff)
    n_fragments, fragment = csgraph.connected_components(_matrix(near.first, near.second, n))
    if n_fragments == 1 and not _is_long(atoms, 2 * reach):
        return None
    center, atom, displacement = _nearest_images(atoms, neighbor_pairs(atoms, reach))
    connected = fragment[center] == fragment[atom]
    is_center = np.zeros(n, dtype=bool)
    is_center[centers] = True
    seen = connected & is_center[center]
    sees = _matrix(center[seen], atom[seen], n)
    color = _colors(sees.T @ sees)
    if 2 * (color.max() + 1) > n:
        return None
    row, pair = _rows(centers, center, n)
    return Shared(centers, color, row, atom[pair], displacement[pair], connected[pair])


def _matrix(first: Ints, second: Ints, n: int) -> csr_array:
    return csr_array((np.ones(len(first), dtype=np.int32), (first, second)), shape=(n, n))


def _is_long(atoms: Atoms, radius: float) -> bool:
    """Whether two atoms may be farther apart than a radius (Å), all their images included."""
    spans = np.ptp(atoms.positions, axis=0)
    if not atoms.pbc.any():
        return bool(np.linalg.norm(spans) > radius)
    if not atoms.pbc.all():
        return True
    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    return bool(heights.max() > 2 * radius)


def _nearest_images(atoms: Atoms, pairs: NeighborPairs) -> tuple[Ints, Ints, Floats]:
    """Centers, ascending, each atom that they see once, themselves included, and displacements."""
    n = len(atoms)
    itself = np.arange(n)
    first, second = (np.concatenate([itself, part]) for part in (pairs.first, pairs.second))
    vectors = np.concatenate([np.zeros((n, 3)), pairs.vectors(atoms)])
    order = np.lexsort((np.linalg.norm(vectors, axis=1), first * n + second))
    key = (first * n + second)[order]
    nearest = order[np.concatenate([[True], key[1:] != key[:-1]])]
    return first[nearest], second[nearest], vectors[nearest]


def _rows(centers: Ints, center: Ints, n: int) -> tuple[Ints, Ints]:
    """For rows with centers, given pairs by ascending center: each row, and its pairs."""
    counts = np.bincount(center, minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)])
    row = np.repeat(np.arange(len(centers)), counts[centers])
    pair = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in centers])
    return row, pair


def _colors(conflicts: csr_array) -> Ints:
    """The least color that no earlier atom in conflict has, from one end of the structure on."""
    color = np.full(conflicts.shape[0], -1)
    for i in csgraph.reverse_cuthill_mckee(conflicts, symmetric_mode=True):
        others = color[conflicts.indices[conflicts.indptr[i] : conflicts.indptr[i + 1]]]
        taken = np.zeros(len(others) + 1, dtype=bool)
        taken[others[(others >= 0) & (others <= len(others))]] = True
        color[i] = int(taken.argmin())
    return color
