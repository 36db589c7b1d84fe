"""Neighbors of atoms within a cutoff, in cells of any shape and period."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from ase import Atoms
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from ase_sensitivity.geometry.structure import CLOSEST, check_atoms, check_fits, is_periodic
from ase_sensitivity.types import Floats, Ints

SMALL = 60
"""Up to this number of atoms of a molecule, all pairs are computed without a search."""


MAX_BINS = 3e7
"""Limit of the boxes that a neighbor search divides a cell into: 1 GB of memory, a few seconds."""


MAX_NEIGHBORS = 1e5
"""Limit of the images within the cutoff of one atom. Usual cutoffs have up to a few thousand."""


PAIR = 160
"""Bytes of memory for each pair: in the search, in the list that is kept and as a vector."""


SAFE_PAIRS = 1e7
"""Number of pairs that any machine can list (1.6 GB): below it, memory is not checked."""


SAMPLE = 32
"""Number of atoms with neighbors that are counted to estimate the number of all pairs."""


@dataclass(frozen=True, eq=False)
class NeighborPairs:
    """Ordered pairs of a center and a neighbor image within a cutoff, self-images included.

    Attributes
    ----------
    first, second
        Atom indices of shape (n_pairs,).
    shift
        Lattice vectors to add to the second atom, of shape (n_pairs, 3).
    """

    first: Ints
    second: Ints
    shift: Ints

    def vectors(self, atoms: Atoms) -> Floats:
        """From each first atom to its neighbor in Å, of shape (n_pairs, 3)."""
        positions = atoms.positions
        vectors: Floats = positions.take(self.second, axis=0)
        vectors -= positions.take(self.first, axis=0)
        if is_periodic(atoms):
            vectors += self.shift @ atoms.cell.array
        return vectors


@dataclass(frozen=True, eq=False)
class Neighborhoods:
    """The neighbors of every atom, in compressed rows.

    Attributes
    ----------
    center, atom
        Each pair of a center and a neighbor image, by ascending center; of shape (n_pairs,).
    vectors
        From the center to that image in Å, of shape (n_pairs, 3).
    starts
        The first pair of each center, of shape (n_atoms + 1,).
    """

    center: Ints
    atom: Ints
    vectors: Floats
    starts: Ints

    @classmethod
    def of(cls, atoms: Atoms, pairs: NeighborPairs | None) -> Neighborhoods:
        """Those of ``pairs`` in any order; None: all atoms of an isolated structure."""
        if pairs is None:
            first, second = np.array(np.nonzero(~np.eye(len(atoms), dtype=bool)))
            pairs = NeighborPairs(first, second, np.zeros((len(first), 3), dtype=np.intp))
        return cls._sorted(len(atoms), pairs.first, pairs.second, pairs.vectors(atoms))

    @classmethod
    def _sorted(cls, n_atoms: int, center: Ints, atom: Ints, vectors: Floats) -> Neighborhoods:
        if (center[1:] < center[:-1]).any():
            order = np.argsort(center, kind="stable")
            center, atom, vectors = center[order], atom[order], vectors[order]
        starts = np.concatenate(([0], np.cumsum(np.bincount(center, minlength=n_atoms))))
        return cls(center, atom, vectors, starts.astype(np.intp))

    def where(self, chosen: NDArray[np.bool_]) -> Neighborhoods:
        """Some of the pairs."""
        kept = self.center[chosen], self.atom[chosen], self.vectors[chosen]
        return self._sorted(len(self.starts) - 1, *kept)

    def by_distance(self) -> Neighborhoods:
        """The same, the nearest neighbor of each center first."""
        order = np.lexsort((np.linalg.norm(self.vectors, axis=1), self.center))
        return Neighborhoods(self.center, self.atom[order], self.vectors[order], self.starts)

    def by_center(self, center: int) -> slice:
        """The pairs of one center."""
        return slice(int(self.starts[center]), int(self.starts[center + 1]))


def neighbor_pairs(atoms: Atoms, cutoff: float) -> NeighborPairs:
    """All ordered pairs within ``cutoff`` (Å), sorted by the first atom.

    Raises
    ------
    ValueError
        If two atoms are closer than :data:`CLOSEST`, or the list would not fit into memory.
    """
    if len(atoms) <= SMALL and not is_periodic(atoms):
        # For a small molecule, searching in bins takes longer than everything else.
        apart = atoms.positions.T[:, :, None] - atoms.positions.T[:, None]
        apart *= apart
        squares = apart[0] + apart[1]
        squares += apart[2]
        squares.reshape(-1)[:: len(atoms) + 1] = np.inf
        if squares.min() > CLOSEST**2:
            first, second = np.array((squares < cutoff**2).nonzero())
            return NeighborPairs(first, second, np.zeros((len(first), 3), dtype=np.intp))
    (first, second, distance, shift), moved = _listed("ijdS", atoms, cutoff)
    if len(distance) and distance.min() < CLOSEST:
        pair = int(distance.argmin())
        i, j = int(first[pair]), int(second[pair])
        raise ValueError(
            f"atoms {i} and {j} are {distance[pair]:.2g} Å apart, on top of each other"
        )
    # The box has wrapped atoms; the shifts returned are those between the atoms as given.
    shift = shift.astype(np.intp)
    if moved.any():
        shift += moved[second] - moved[first]
    return NeighborPairs(first.astype(np.intp), second.astype(np.intp), shift)


def shortest_distance(atoms: Atoms, cutoff: float = 3.0) -> float:
    """The shortest distance between two atoms or their images in Å; infinite beyond ``cutoff``.

    Raises
    ------
    ValueError
        If the cell is too large or too small to search.
    """
    if not is_periodic(atoms):
        return float(scipy.spatial.distance.pdist(atoms.positions).min(initial=np.inf))
    return float(_listed("d", atoms, cutoff)[0].min(initial=np.inf))


def check_apart(atoms: Atoms) -> None:
    """Raise unless ``atoms`` is a usable structure in which no two atoms are at one place.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_atoms`, and if two atoms or images are closer than `CLOSEST`.
    """
    check_atoms(atoms)
    if (distance := shortest_distance(atoms)) < CLOSEST:
        raise ValueError(f"two atoms are {distance:.2g} Å apart, on top of each other")


def boxed(atoms: Atoms, cutoff: float) -> Atoms:
    """A bare copy with a regular cell: non-periodic directions get a vector that spans the atoms.

    Neighbor searches divide space along the cell vectors. A missing, tiny or huge vector along a
    direction that is not periodic has no meaning, but costs memory or makes the search fail. So
    does empty space between the atoms: gaps beyond ``cutoff`` (Å) are shortened. Atoms are wrapped
    along periodic directions, as the search could lose far ones otherwise.
    """
    cell, positions, _ = _box(atoms, cutoff)
    return Atoms(atoms.numbers, positions, cell=cell, pbc=atoms.pbc)


def _box(atoms: Atoms, cutoff: float) -> tuple[Floats, Floats, Ints]:
    """Cell and positions of :func:`boxed`, and the lattice vectors by which atoms were moved."""
    free = ~atoms.pbc
    cell: Floats = atoms.cell.array
    if free.any():
        cell = complete_cell(np.where(free[:, None], 0.0, cell))
        cell[free] /= np.linalg.norm(cell[free], axis=1)[:, None]
    positions = atoms.positions
    fractional = positions @ np.linalg.inv(cell)
    if free.any():
        closer = _gaps_closed(fractional[:, free], cutoff + 1.0)
        positions = positions + (closer - fractional[:, free]) @ cell[free]
        cell[free] *= np.clip(np.ptp(closer, axis=0) + 1.0, 1.0, 1e3)[:, None]
        fractional[:, free] = 0.0
    moved = -np.floor(fractional)
    return cell, positions + moved @ cell, moved.astype(np.intp)


def _gaps_closed(coordinates: Floats, gap: float) -> Floats:
    """Coordinates (n, m) with gaps along each direction shortened to at most ``gap``."""
    closer = coordinates.copy()
    for own in closer.T:
        order = own.argsort()
        own[order[1:]] -= np.cumsum((np.diff(own[order]) - gap).clip(0.0))
    return closer


def _check_size(cell: Floats, pbc: NDArray[np.bool_], positions: Floats, cutoff: float) -> None:
    """Raise ValueError if there are more neighbors within ``cutoff`` than a machine can list."""
    n_atoms = len(positions)
    volume = abs(np.linalg.det(cell))
    if volume / min(cutoff + 1.0, 50.0) ** 3 > MAX_BINS:
        raise ValueError(
            f"the cell has a volume of {volume:.3g} Å^3, too large to search for neighbors within "
            f"{cutoff:g} Å; make the vacuum smaller, or set `pbc = False` along it"
        )
    # Images of the cell within the cutoff; the heights of the cell are 1 / the norms of its
    # reciprocal vectors.
    per_height = np.linalg.norm(np.linalg.inv(cell), axis=0)
    per_atom = n_atoms * float(np.where(pbc, 2 * cutoff * per_height + 1, 1.0).prod())
    if per_atom > MAX_NEIGHBORS and per_atom > 50 * n_atoms:
        raise ValueError(
            f"a cutoff of {cutoff:g} Å in this cell gives every atom up to {per_atom:.1e} "
            "neighbors; reduce the cutoff, or check the cell"
        )
    if n_atoms * per_atom > SAFE_PAIRS:
        n_pairs = _estimated_pairs(cell, pbc, positions, cutoff, per_height)
        check_fits(
            n_pairs * PAIR,
            f"a list of about {n_pairs:.1e} pairs of neighbors within {cutoff:g} Å",
            "reduce the cutoff, or check the cell",
        )


def _estimated_pairs(
    cell: Floats, pbc: NDArray[np.bool_], positions: Floats, cutoff: float, per_height: Floats
) -> float:
    """Number of pairs within ``cutoff``, estimated from the neighbors of some atoms."""
    reach = np.where(pbc, np.ceil(cutoff * per_height), 0.0)
    shape = tuple((2 * reach + 1).astype(int).tolist())
    shifts = (np.indices(shape).reshape(3, -1).T - reach) @ cell
    chosen = np.unique(np.linspace(0, len(positions) - 1, SAMPLE).astype(int))
    centers = (positions[chosen, None] + shifts).reshape(-1, 3)
    counts = scipy.spatial.KDTree(positions).query_ball_point(centers, cutoff, return_length=True)
    return len(positions) * (float(np.sum(counts)) / len(chosen) - 1)


def _listed(quantities: str, atoms: Atoms, cutoff: float) -> tuple[Any, Ints]:
    """Quantities of all pairs from matscipy, and the lattice vectors that wrapped the atoms."""
    cell, positions, moved = _box(atoms, cutoff)
    _check_size(cell, atoms.pbc, positions, cutoff)
    found = neighbour_list(
        quantities, cutoff=float(cutoff), positions=positions, cell=cell, pbc=atoms.pbc
    )
    return found, moved
