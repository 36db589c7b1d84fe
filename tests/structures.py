"""Structures and descriptors that several test files use."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import write

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"

REFERENCE_SOAP = (
    "soap cutoff=3.0 cutoff_transition_width=0.5 n_max=8 l_max={l_max} atom_sigma=0.3 n_Z=1 Z=6 "
    "n_species={n_species} species_Z={species_Z} normalise=F central_weight=0"
)

# docs/theory: neighbors of a carbon atom at the origin, in Å.
TD = 1.09 / np.sqrt(3) * np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])


def fit_gap(path: Path, gap: str, *more: str) -> None:
    """Fit a GAP by QUIP's own program on a few EMT frames; skip the test where it does not run."""
    version = importlib.metadata.version("quippy-ase")
    if tuple(int(word) for word in version.split(".")[:3]) < (0, 10, 3):
        pytest.skip("gap_fit of quippy-ase does not run before 0.10.3")
    frames = []
    for seed in range(4):
        atoms = rattled(molecule("CH3OH"), 0.1, seed)
        atoms.center(vacuum=6)
        atoms.pbc = True
        atoms.calc = EMT()
        atoms.info["e"] = atoms.get_potential_energy()
        atoms.arrays["f"] = atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    write(path.with_name("train.xyz"), frames)
    subprocess.run(
        [
            Path(sys.executable).with_name("gap_fit"),
            "at_file=train.xyz",
            "energy_parameter_name=e",
            "force_parameter_name=f",
            "default_sigma={0.01 0.1 0 0}",
            "e0_method=average",
            f"gp_file={path.name}",
            f"gap={{{gap}}}",
            *more,
        ],
        cwd=path.parent,
        check=True,
        capture_output=True,
    )


def rattled(atoms: Atoms, size: float = 0.15, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    atoms.rattle(size, seed=seed)
    return atoms


def isolated() -> Atoms:
    return rattled(molecule("CH3OH"))


def periodic() -> Atoms:
    """A cell far smaller than the cutoffs used, so that atoms see their own images."""
    atoms = bulk("NaCl", "rocksalt", a=3.3)
    atoms.symbols = "CH"
    return rattled(atoms, 0.1)


def slab() -> Atoms:
    atoms = fcc111("Al", (1, 1, 2), a=3.0, vacuum=None)
    atoms.symbols = "CH"
    atoms.pbc = (True, True, False)
    return rattled(atoms, 0.1)


def wire() -> Atoms:
    return Atoms(
        "CHH", [(0, 0, 0), (0.8, 0.5, 1.1), (-0.3, 0.9, -0.4)], cell=[0, 0, 2.6], pbc=[0, 0, 1]
    )


def outside() -> Atoms:
    """Atoms outside a triclinic cell, by several lattice vectors."""
    atoms = periodic()
    atoms.positions += np.array([(3, -2, 1), (0, 5, -4)]) @ atoms.cell.array
    return atoms


def small_cell_isolated() -> Atoms:
    """Not periodic, with a meaningless cell smaller than the molecule."""
    atoms = isolated()
    atoms.set_cell([1.0, 1.0, 1.0])
    return atoms


BOUNDARIES = {
    function.__name__: function
    for function in (isolated, small_cell_isolated, periodic, outside, slab, wire)
}


def dscribe_columns(theirs, symbols, n_max: int, l_max: int):
    """Which feature of SOAP(symbols, radial_basis="dscribe") DScribe's are, and its factors."""
    order, factor = np.empty(theirs.get_number_of_features(), dtype=int), np.pi * np.sqrt(8)
    weight = np.full(len(order), factor / np.sqrt(2))
    for i, first in enumerate(symbols):
        for j, second in enumerate(symbols[: i + 1]):
            place = theirs.get_location((second, first))
            where = [
                ((i * n_max + a) * (i * n_max + a + 1) // 2 + j * n_max + b) * (l_max + 1) + l
                for l in range(l_max + 1)  # noqa: E741
                for b in range(n_max)
                for a in range(b if i == j else 0, n_max)
            ]
            order[place] = where
            if i == j:
                same = [a == b for b in range(n_max) for a in range(b, n_max)] * (l_max + 1)
                weight[place] = np.where(same, factor, weight[place])
    return order, weight
