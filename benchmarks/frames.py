"""Frames of systems whose small singular values are benign: MD and rattled crystals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.tip3p import TIP3P, angleHOH, rOH
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS, FIRE
from ase.spacegroup import crystal

TEMPERATURES = (300.0, 600.0, 1000.0, 2000.0)
EVERY = 10


def glycine() -> Atoms:
    """H2N-CH2-COOH, roughly."""
    positions = [
        *[(-1.76, -0.62, 0.0), (-0.62, 0.30, 0.0), (0.70, -0.44, 0.0)],
        *[(0.78, -1.64, 0.0), (1.77, 0.39, 0.0)],
        *[(-1.71, -1.21, 0.82), (-1.71, -1.21, -0.82), (-0.63, 0.95, 0.88)],
        *[(-0.63, 0.95, -0.88), (2.55, -0.18, 0.0)],
    ]
    return Atoms("NCCOOH5", positions)


def zinc_complex() -> Atoms:
    """Zn(NH3)2Cl2, a tetrahedron with ammonia at two corners."""
    corners = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / np.sqrt(3)
    atoms = Atoms("ZnCl2", [(0, 0, 0), *(2.25 * corners[:2])])
    for corner in corners[2:]:
        across = np.cross(corner, (0.3, 0.5, -0.8))
        across /= np.linalg.norm(across)
        ring = [across, np.cross(corner, across)]
        angles = 2 * np.pi * np.arange(3) / 3
        hydrogens = [
            2.40 * corner + 0.95 * (np.cos(a) * ring[0] + np.sin(a) * ring[1]) for a in angles
        ]
        atoms += Atoms("NH3", [2.03 * corner, *hydrogens])
    return atoms


def aluminium_complex() -> Atoms:
    """AlCl3 and NH3, staggered."""
    angles = 2 * np.pi * np.arange(3) / 3
    chlorine = [(2.02 * np.cos(a), 2.02 * np.sin(a), -0.55) for a in angles]
    hydrogen = [(0.95 * np.cos(a), 0.95 * np.sin(a), 2.39) for a in angles + np.pi / 3]
    return Atoms("AlCl3NH3", [(0, 0, 0), *chlorine, (0, 0, 2.02), *hydrogen])


MOLECULES: dict[str, Callable[[], Atoms]] = {
    "H2O": lambda: molecule("H2O"),
    "PH3": lambda: molecule("PH3"),
    "BF3": lambda: molecule("BF3"),
    "cyclobutane": lambda: molecule("cyclobutane"),
    "glycine": glycine,
    "Zn(NH3)2Cl2": zinc_complex,
    "AlCl3NH3": aluminium_complex,
}


def dynamics(
    atoms: Atoms, temperatures: tuple[float, ...], n: int, timestep: float, seed: int = 0
) -> Iterator[Atoms]:
    """Every tenth frame of a run at each of several temperatures, n altogether."""
    for number, temperature in enumerate(temperatures):
        run = atoms.copy()
        run.calc = atoms.calc
        rng = np.random.default_rng(seed + number)
        MaxwellBoltzmannDistribution(run, temperature_K=temperature, rng=rng)
        dyn = Langevin(
            run,
            timestep * units.fs,
            temperature_K=temperature,
            friction=0.02 / units.fs,
            fixcm=False,
            rng=rng,
        )
        dyn.run(20 * EVERY)
        for _ in range(n * (number + 1) // len(temperatures) - n * number // len(temperatures)):
            dyn.run(EVERY)
            frame = run.copy()
            frame.set_momenta(np.zeros((len(run), 3)))
            frame.info["temperature"] = temperature
            yield frame


def of_molecule(name: str, n: int) -> Iterator[Atoms]:
    """MD with GFN2-xTB."""
    from tblite.ase import TBLite

    atoms = MOLECULES[name]()
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    yield from dynamics(atoms, TEMPERATURES, n, 0.5 if "H" in name else 1.0)


def of_crystal(atoms: Atoms, n: int) -> Iterator[Atoms]:
    """Rattled by .005 to .2 Å, a third of them with a strained cell as well."""
    rng = np.random.default_rng(0)
    for number in range(n):
        frame = atoms.copy()
        if number % 3 == 0:
            strain = 0.03 * rng.normal(size=(3, 3))
            frame.set_cell(frame.cell.array @ (np.eye(3) + (strain + strain.T) / 2), True)
        frame.positions += np.geomspace(0.005, 0.2, n)[number] * rng.normal(size=(len(frame), 3))
        yield frame


def of_alloy(n: int) -> Iterator[Atoms]:
    """CuAu, half ordered and half random, with EMT."""
    ordered = bulk("Cu", "fcc", a=3.87, cubic=True) * 2
    ordered.symbols[np.isclose(ordered.positions[:, 2] % 3.87, 0)] = "Au"
    random = ordered.copy()
    random.symbols = np.random.default_rng(0).permutation(ordered.get_chemical_symbols())
    for atoms, share in ((ordered, n // 2), (random, n - n // 2)):
        atoms.calc = EMT()
        yield from dynamics(atoms, (300.0, 700.0, 1200.0), share, 5.0)


class FlexibleWater(TIP3P):
    """TIP3P with harmonic bonds and angles in the place of constraints."""

    def calculate(self, atoms: Atoms, properties: Any, system_changes: Any) -> None:
        """Energy and forces."""
        super().calculate(atoms, properties, system_changes)
        positions = self.atoms.positions.reshape(-1, 3, 3)
        across = 2 * rOH * np.sin(np.radians(angleHOH) / 2)
        for i, j, stiffness, length in ((0, 1, 46.0, rOH), (0, 2, 46.0, rOH), (1, 2, 8.0, across)):
            bond = positions[:, j] - positions[:, i]
            distance = np.linalg.norm(bond, axis=1)
            stretch = distance - length
            force = (stiffness * stretch / distance)[:, None] * bond
            self.results["energy"] += stiffness * float(stretch @ stretch) / 2
            self.results["forces"][i::3] += force
            self.results["forces"][j::3] -= force


def of_water(n: int, seed: int = 0) -> Iterator[Atoms]:
    """MD of 32 flexible molecules at 300 and 400 K."""
    edge = (32 / 0.0334) ** (1 / 3)
    half = np.radians(angleHOH / 2)
    one = [(0, 0, 0), *((rOH * s * np.sin(half), 0, rOH * np.cos(half)) for s in (1, -1))]
    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=[edge] * 3, pbc=True)
    for i, j, k in np.ndindex(4, 4, 2):
        water = Atoms("OH2", one)
        water.euler_rotate(*rng.uniform(0, 360, 3), center=(0, 0, 0))
        water.positions += edge * np.array([i / 4, j / 4, k / 2 + (i + j) % 2 / 4])
        atoms += water
    atoms.calc = FlexibleWater(rc=4.5)
    FIRE(atoms, logfile=None).run(fmax=0.5, steps=200)
    yield from dynamics(atoms, (300.0, 400.0), n, 1.0, seed=10 * seed)


def _rutile() -> Atoms:
    return crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
    ) * (1, 1, 2)


def _anatase() -> Atoms:
    return crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0, 0, 0.208)],
        spacegroup=141,
        cellpar=[3.785, 3.785, 9.514, 90, 90, 90],
    )


OTHERS: dict[str, Callable[[int], Iterator[Atoms]]] = {
    "NaCl": lambda n: of_crystal(bulk("NaCl", "rocksalt", a=5.64, cubic=True), n),
    "rutile": lambda n: of_crystal(_rutile(), n),
    "anatase": lambda n: of_crystal(_anatase(), n),
    "CuAu": of_alloy,
    "water": of_water,
}

SYSTEMS = (*MOLECULES, *OTHERS)


def frames(system: str, n: int, folder: Path) -> list[Atoms]:
    """N frames of a system, from a file in a folder or made anew and put there."""
    file = folder / f"{system}_{n}.extxyz"
    if not file.exists():
        made: Any = OTHERS[system](n) if system in OTHERS else of_molecule(system, n)
        folder.mkdir(parents=True, exist_ok=True)
        write(file.with_suffix(".part"), list(made), format="extxyz")
        file.with_suffix(".part").rename(file)
    return read(file, ":")
