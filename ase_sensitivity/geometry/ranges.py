"""How far centers see: directly, and by messages that neighbors pass on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ase import Atoms

from ase_sensitivity.geometry.neighbors import NeighborPairs, neighbor_pairs
from ase_sensitivity.types import Ints
from ase_sensitivity.validation import is_number


@dataclass(frozen=True, eq=False)
class Range:
    """The centers and how far they see. This determines the graph of neighbors.

    Attributes
    ----------
    cutoff
        Distance in Å up to which an atom receives messages from another one directly; infinite if
        unknown.
    centers
        The atoms that are centers, of shape (n_centers,).
    pairs
        All pairs of atoms within the cutoff, if the descriptor has listed them.
    whole
        Whether a row belongs to the whole structure. Such a row may combine what different centers
        see before it becomes invariant, as QUIP's ``average=T`` does. Then it changes if one
        fragment rotates against the others, and is invariant only if all rotate together.
    reach
        Distance in Å up to which an atom can affect the features of a center: the cutoff, or with
        message passing, the cutoff times the number of hops.
    rotation_invariant
        Whether rotations change no feature. Some models are invariant only approximately.
    """

    cutoff: float
    centers: Ints
    pairs: NeighborPairs | None = None
    whole: bool = False
    reach: float = 0.0
    rotation_invariant: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "reach", max(self.cutoff, self.reach))

    @property
    def n_hops(self) -> int:
        """Number of hops of a message, if cutoff and reach are known."""
        return max(1, math.ceil(self.reach / self.cutoff - 1e-9))

    def within_reach(self, atoms: Atoms) -> NeighborPairs:
        """Atoms (first) with all atoms within their reach, which has to be finite."""
        if self.pairs is not None and self.reach == self.cutoff:
            return self.pairs
        return neighbor_pairs(atoms, self.reach)


def as_reach(reach: float, cutoff: float) -> float:
    """The reach in Å, at least the cutoff.

    Raises
    ------
    ValueError
        If ``reach`` is not a number, or negative.
    """
    if not (is_number(reach) and reach >= 0):
        raise ValueError(f"`reach` is {reach!r} but must be a number of Å, the cutoff or more")
    return max(float(reach), float(cutoff))
