"""A property of i-PI: how sensitive a descriptor is to each bead of a path integral."""

from ase import Atoms
from ipi.utils.units import unit_to_user

from ase_sensitivity import analyze


def least_ratio(descriptor):
    """A custom property of i-PI: the smallest sigma_min / sigma_max of all beads.

    Parameters
    ----------
    descriptor
        What the potential sees.
    """

    def ratio(self):
        length = unit_to_user("length", "ase", 1.0)
        cell = length * self.cell.h.T
        names = [str(name) for name in self.beads.names]
        beads = [Atoms(names, length * q.reshape(-1, 3), cell=cell, pbc=True) for q in self.beads.q]
        return min(analyze(bead, descriptor, k=1).ratio for bead in beads)

    return ratio
