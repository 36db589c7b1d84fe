"""How far centers see: directly, and by messages that are passed on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ase import Atoms

from ase_sensitivity.geometry.neighbors import NeighborPairs, neighbor_pairs
from ase_sensitivity.types import Ints
from ase_sensitivity.validation import is_number


@dataclass(frozen=True, eq=False)
class Range:
    """How far which centers see: what makes the graph of neighbors.

    Attributes
    ----------
    cutoff
        In Å, up to which an atom hears another one directly; infinite if unknown.
    centers
        The atoms that are centers, of shape (n_centers,).
    pairs
        All pairs of atoms within the cutoff, if the descriptor has listed them.
    whole
        Whether a row belongs to the whole structure. It may combine what different centers see
        before it becomes invariant, as QUIP's ``average=T`` does: a fragment turned against the
        others changes it then, and only all of them turned alike do not.
    reach
        In Å, up to which an atom can matter to a center: the cutoff, or where messages are passed
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


def as_reach(reach: float, cutoff: float) -> float:
    """The reach in Å, no less than the cutoff.

    Raises
    ------
    ValueError
        If it is no such number.
    """
    if not (is_number(reach) and reach >= 0):
        raise ValueError(f"`reach` is {reach!r} but must be a number of Å, the cutoff or more")
    return max(float(reach), float(cutoff))
