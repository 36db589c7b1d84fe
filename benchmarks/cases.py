"""Structures that are timed, slightly disordered, and their species."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

CUTOFF = 5.0
BASIS = (8, 6)
LARGE_BASIS = (12, 9)

# fmt: off
ASPIRIN = [  # in Å
    1.2333, 0.5540, 0.7792, -0.6952, -2.7148, -0.7502, 0.7958, -2.1843, 0.8685,
    1.7813, 0.8105, -1.4821, -0.0857, 0.6088, 0.4403, -0.7927, -0.5515, 0.1244,
    -0.7288, 1.8464, 0.4133, -2.1426, -0.4741, -0.2184, -2.0787, 1.9238, 0.0706,
    -2.7855, 0.7636, -0.2453, -0.1409, -1.8536, 0.1477, 2.1094, 0.6715, -0.3113,
    3.5305, 0.5996, 0.1635, -0.1851, 2.7545, 0.6593, -2.7247, -1.3605, -0.4564,
    -2.5797, 2.8872, 0.0506, -3.8374, 0.8238, -0.5090, 3.7290, 1.4184, 0.8593,
    4.2045, 0.6969, -0.6924, 3.7105, -0.3659, 0.6426, -0.2555, -3.5916, -0.7337,
]
# fmt: on


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


def small(name: str) -> Atoms:
    """A molecule of ASE."""
    atoms = molecule(name)
    atoms.rattle(0.05, seed=1)
    return atoms


def aspirin() -> Atoms:
    """The conformer of PubChem's entry 2244."""
    atoms = Atoms("O4C9H8", np.array(ASPIRIN).reshape(-1, 3))
    atoms.rattle(0.05, seed=1)
    return atoms


def alloy(n_species: int) -> Atoms:
    """A random alloy of 3 x 3 x 3 cubic fcc cells."""
    atoms = bulk("Cu", cubic=True) * 3
    chosen = np.random.default_rng(0).integers(n_species, size=len(atoms))
    atoms.symbols = [("Cu", "Ni", "Co", "Fe", "Cr", "Mn", "Zn", "Ti")[n] for n in chosen]
    atoms.rattle(0.05, seed=1)
    return atoms


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
