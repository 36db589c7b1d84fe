"""Structures that are timed, slightly disordered, and their species."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

CUTOFF = 5.0
BASIS = (8, 6)
LARGE_BASIS = (12, 9)


def water(n: int) -> Atoms:
    """n**3 molecules at the density of water, turned at random."""
    random = np.random.default_rng(0)
    box, edge = Atoms(pbc=True), 3.104
    for corner in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.rotate(360 * random.random(), random.normal(size=3), center="COM")
        one.positions += edge * (np.array(corner) + 0.5) - one.get_center_of_mass()
        box += one
    box.cell = np.eye(3) * n * edge
    return box


def oxide() -> Atoms:
    """A 2 x 2 x 2 cell of SrTiO3."""
    scaled = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    cell = Atoms("SrTiO3", scaled_positions=scaled, cell=[3.905] * 3, pbc=True)
    return cell.repeat(2)


def silicon(n_atoms: int) -> Atoms:
    """A rattled diamond crystal: 8 times the product of three nearly equal numbers."""
    cells = n_atoms // 8
    shape = min(
        (
            (i, j, cells // (i * j))
            for i in range(1, cells + 1)
            for j in range(i, cells + 1)
            if cells % (i * j) == 0 and cells // (i * j) >= j
        ),
        key=max,
    )
    atoms = bulk("Si", cubic=True).repeat(shape)
    atoms.rattle(0.05, seed=1)
    return atoms


def cases() -> dict[str, tuple[Atoms, list[str]]]:
    """Name, structure and species."""
    found = {
        "CH4": (molecule("CH4"), ["C", "H"]),
        "ethanol": (molecule("CH3CH2OH"), ["C", "H", "O"]),
        "water, 64 molecules": (water(4), ["O", "H"]),
        "SrTiO3, 40 atoms": (oxide(), ["Sr", "Ti", "O"]),
    }
    for atoms, _ in found.values():
        atoms.rattle(0.05, seed=1)
    for n in (64, 216, 512, 1000):
        found[f"Si{n}"] = (silicon(n), ["Si"])
    return found
