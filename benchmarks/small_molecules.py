"""Analyses of molecules, and frames like those of QM9: up to nine heavy atoms, random forces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.collections import g2
from ase.geometry import get_distances
from ase.io import write

from ase_sensitivity import SOAP, analyze
from benchmarks.cases import BASIS, aspirin, small
from benchmarks.gram import CLOSE
from benchmarks.jacobian import Row
from benchmarks.timing import seconds

ELEMENTS = ("H", "C", "N", "O", "F")
HEAVY = 9
GROUPS = ("CH4", "CH4", "CH4", "NH3", "H2O", "HF")
"""A hydrogen atom is replaced by one of these without one of theirs."""

CLEAR = 1.5
"""Distance in Å that other atoms keep from those of a new group."""


def grown(atoms: Atoms, random: np.random.Generator) -> Atoms | None:
    """A molecule with a group in the place of a hydrogen atom; None if there is no room."""
    hydrogen = int(random.choice(np.flatnonzero(atoms.numbers == 1)))
    heavy = np.flatnonzero(atoms.numbers > 1)
    lengths = atoms.get_distances(hydrogen, heavy)
    partner = int(heavy[lengths.argmin()])
    direction = (atoms.positions[hydrogen] - atoms.positions[partner]) / lengths.min()
    group = molecule(str(random.choice(GROUPS)))
    center = int(np.flatnonzero(group.numbers > 1)[0])
    own = int(np.flatnonzero(group.numbers == 1)[0])
    group.positions -= group.positions[center]
    group.rotate(group.positions[own], -direction)
    group.rotate(360 * random.random(), direction)
    group.positions += atoms.positions[partner] + 1.45 * direction
    del group[own], atoms[hydrogen]
    others = np.delete(atoms.positions, partner - (partner > hydrogen), axis=0)
    if get_distances(group.positions, others)[1].min(initial=np.inf) < CLEAR:
        return None
    return atoms + group


def molecules(number: int, seed: int = 0) -> Iterator[Atoms]:
    """Molecules with displacements of 0.05 Å, an energy and forces."""
    random = np.random.default_rng(seed)
    seeds = [g2[name] for name in g2.names]
    seeds = [one for one in seeds if {*one.symbols} <= {*ELEMENTS} and len(one) > 4]
    seeds = [one for one in seeds if (one.numbers == 1).sum() > 1 and (one.numbers > 1).any()]
    for _ in range(number):
        atoms = seeds[random.integers(len(seeds))].copy()
        for _ in range(20):
            if (atoms.numbers > 1).sum() >= HEAVY or not (atoms.numbers == 1).any():
                break
            atoms = grown(atoms.copy(), random) or atoms
        atoms.positions += 0.05 * random.normal(size=(len(atoms), 3))
        forces = random.normal(size=(len(atoms), 3))
        bare = Atoms(atoms.numbers, atoms.positions)
        bare.calc = SinglePointCalculator(bare, energy=random.normal(), forces=forces)
        yield bare


def file_of(number: int, folder: Path, seed: int = 0) -> Path:
    """A file with so many molecules, made unless it is there."""
    file = folder / f"molecules_{number}_{seed}.extxyz"
    if not file.exists():
        part = file.with_suffix(".part")
        write(part, molecules(number, seed), format="extxyz")
        part.rename(file)
    return file


def analyses(number: int = 1000) -> list[Row]:
    """`analyze` of two structures of a molecule in turn: nothing is known from the last call."""
    rows: list[Row] = []
    for name in ("CH4", "CH3CH2OH", "C6H6", "aspirin"):
        atoms = aspirin() if name == "aspirin" else small(name)
        other = atoms.copy()
        other.rattle(0.01, seed=2)
        turns = cycle((atoms, other))
        soap = SOAP(sorted(set(atoms.symbols)), CLOSE, *BASIS, threads=1)
        spent = [seconds(lambda t=turns, s=soap: analyze(next(t), s, k=3)) for _ in range(number)]
        rows.append(
            {
                "case": name,
                "least / ms": round(1e3 * min(spent), 2),
                "median / ms": round(1e3 * median(spent), 2),
            }
        )
    return rows
