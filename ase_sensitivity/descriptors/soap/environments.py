"""The environments of the centers, in the form that kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ase_sensitivity.geometry.neighbors import NeighborPairs, neighbor_pairs
from ase_sensitivity.geometry.structure import check_atoms
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.types import Floats, Ints

ALL_SPECIES = -2
"""The species index of a center that contributes to the density of every species."""


@cache
def _places(species: tuple[str, ...]) -> Ints:
    """The place of each atomic number in a list of species, -1 where it has none; (119,)."""
    index = np.full(119, -1, dtype=np.intp)
    index[[atomic_numbers[symbol] for symbol in species]] = np.arange(len(species))
    return index


@dataclass(frozen=True, eq=False)
class Environments:
    """Neighbors of all centers, sorted by center.

    Attributes
    ----------
    n_atoms
        Number of atoms of the structure.
    pairs
        All pairs of atoms within the cutoff, also those that the descriptor does not see.
    centers
        Atom at the center of each row, of shape (n_rows,).
    center_species
        Index of the center's species, -1 if it is not one of the species, of shape (n_rows,).
    starts
        First pair of each row, of shape (n_rows + 1,).
    atom
        The neighbor in each pair, of shape (n_pairs,).
    species
        Index of the neighbor's species, of shape (n_pairs,).
    vectors
        From the center to the neighbor, in Å, of shape (n_pairs, 3).
    """

    n_atoms: int
    pairs: NeighborPairs
    centers: Ints
    center_species: Ints
    starts: Ints
    atom: Ints
    species: Ints
    vectors: Floats

    @classmethod
    def of(
        cls, atoms: Atoms, cutoff: float, species: Sequence[str], centers: Sequence[str]
    ) -> Environments:
        """Environments within ``cutoff`` (Å) of the atoms with a species in ``centers``.

        Raises
        ------
        TypeError, ValueError
            If the structure is unusable;
            see :func:`ase_sensitivity.geometry.structure.check_atoms`.
        """
        check_atoms(atoms)
        numbers, n_atoms = atoms.numbers, len(atoms)
        of_atom, of_center = _places(tuple(species))[numbers], _places(tuple(centers))[numbers]
        is_center = of_center >= 0
        chosen = is_center.nonzero()[0]
        pairs = neighbor_pairs(atoms, cutoff)
        first, second, vectors = pairs.first, pairs.second, pairs.vectors(atoms)
        if len(chosen) < n_atoms or of_atom.min() < 0:
            seen = is_center[first] & (of_atom[second] >= 0)
            first, second, vectors = first[seen], second[seen], vectors[seen]
        starts = np.zeros(len(chosen) + 1, dtype=np.intp)
        np.bincount(first, minlength=n_atoms).take(chosen).cumsum(out=starts[1:])
        own, others = of_atom.take(chosen), of_atom.take(second)
        return cls(n_atoms, pairs, chosen, own, starts, second, others, vectors)

    def rows(self, start: int, stop: int) -> Environments:
        """The environments of a range of centers."""
        own = slice(self.starts[start], self.starts[stop])
        return replace(
            self,
            centers=self.centers[start:stop],
            center_species=self.center_species[start:stop],
            starts=self.starts[start : stop + 1] - self.starts[start],
            atom=self.atom[own],
            species=self.species[own],
            vectors=self.vectors[own],
        )

    def bounds(self, most: int) -> list[int]:
        """Row numbers that divide the rows into ranges with about ``most`` blocks each."""
        before = self.starts + np.arange(len(self.starts))
        n_ranges = -(-self.n_blocks // most)
        ends = before.searchsorted(np.arange(1, n_ranges) * (self.n_blocks / n_ranges))
        return sorted({0, *ends.tolist(), len(self.centers)})

    @property
    def row(self) -> Ints:
        """The row of each pair, of shape (n_pairs,)."""
        return np.repeat(np.arange(len(self.centers)), np.diff(self.starts))

    def most(self, start: int, stop: int) -> int:
        """The largest number of neighbors in a range of centers."""
        starts = self.starts[start : stop + 1]
        return int((starts[1:] - starts[:-1]).max(initial=0))

    @property
    def own(self) -> Ints:
        """The block of each row's center, which is the first of its row, of shape (n_rows,)."""
        return self.starts[:-1] + np.arange(len(self.centers))

    @property
    def n_blocks(self) -> int:
        """Number of blocks: one for each pair and one for each center."""
        return len(self.atom) + len(self.centers)

    @cached_property
    def _labels(self) -> tuple[Ints, Ints, Floats]:
        """Row, atom and displacement of each block; the first block of a row is the center's."""
        count = np.diff(self.starts) + 1
        neighbors = np.ones(self.n_blocks, dtype=bool)
        neighbors[self.own] = False
        atom = np.repeat(self.centers, count)
        atom[neighbors] = self.atom
        displacement = np.zeros((self.n_blocks, 3))
        displacement[neighbors] = self.vectors
        return np.repeat(np.arange(len(count)), count), atom, displacement

    def jacobian(
        self, features: Floats, blocks: Floats, cutoff: float, start: int = 0
    ) -> FeatureJacobian:
        """The Jacobian with given features and blocks, of all rows or those from ``start`` on."""
        stop = start + len(features)
        own = slice(self.starts[start] + start, self.starts[stop] + stop)
        row, atom, displacement = self._labels
        return FeatureJacobian(
            features=features,
            centers=self.centers[start:stop],
            row=row[own] - start,
            atom=atom[own],
            displacement=displacement[own],
            blocks=blocks,
            n_atoms=self.n_atoms,
            cutoff=cutoff,
            center_atoms=self.centers,
            pairs=self.pairs,
        )
