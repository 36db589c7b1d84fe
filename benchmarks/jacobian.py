"""SOAP's Jacobian against quippy's, in one process on one core: medians of paired runs.

Run as ``OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/jacobian.py``.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import ase
import numba
import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers
from quippy.descriptors import Descriptor

from ase_sensitivity import SOAP

CUTOFF = 5.0
"""In Å."""


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
    """Build a 2 x 2 x 2 cell of SrTiO3."""
    scaled = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    cell = Atoms("SrTiO3", scaled_positions=scaled, cell=[3.905] * 3, pbc=True)
    return cell.repeat(2)


def cases() -> dict[str, tuple[Atoms, list[str]]]:
    """Structures, slightly disordered, and their species."""
    silicon = bulk("Si", cubic=True)
    found = {
        "CH4": (molecule("CH4"), ["C", "H"]),
        "ethanol": (molecule("CH3CH2OH"), ["C", "H", "O"]),
        "Si64": (silicon.repeat(2), ["Si"]),
        "Si216": (silicon.repeat(3), ["Si"]),
        "Si512": (silicon.repeat(4), ["Si"]),
        "water, 64 molecules": (water(4), ["O", "H"]),
        "SrTiO3, 40 atoms": (oxide(), ["Sr", "Ti", "O"]),
    }
    for atoms, _ in found.values():
        atoms.rattle(0.05, seed=1)
    return found


def quip(species: list[str], n_max: int, l_max: int) -> Descriptor:
    """Give the same features to quippy."""
    listed = "{" + " ".join(str(atomic_numbers[symbol]) for symbol in species) + "}"
    n = len(species)
    return Descriptor(
        f"soap cutoff={CUTOFF} n_max={n_max} l_max={l_max} atom_sigma=0.5 "
        f"n_species={n} species_Z={listed} n_Z={n} Z={listed}"
    )


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float) -> list[list[float]]:
    """Time alternating runs (s), so that both meet the same company on the machine."""
    ours(), theirs()
    times: list[list[float]] = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < seconds:
        t0 = time.perf_counter()
        ours()
        t1 = time.perf_counter()
        theirs()
        times.append([t1 - t0, time.perf_counter() - t1])
    return times


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="per case")
    parser.add_argument("--n-max", type=int, default=8)
    parser.add_argument("--l-max", type=int, default=6)
    given = parser.parse_args()
    n_max, l_max, seconds = given.n_max, given.l_max, given.seconds
    print(
        f"n_max {n_max}, l_max {l_max}, cutoff {CUTOFF:g} Å; {platform.machine()}, one core; "
        f"ASE {ase.__version__}, numba {numba.__version__}, quippy {version('quippy-ase')}\n"
    )
    print("| case | features | blocks | ours / ms | quippy / ms | ratio |")
    print("|---|---|---|---|---|---|")
    for name, (atoms, species) in cases().items():
        soap, theirs = SOAP(species, CUTOFF, n_max, l_max, threads=1), quip(species, n_max, l_max)
        begin = time.perf_counter()
        blocks = soap.jacobian(atoms).blocks
        if name == "CH4":
            print(f"| (first call in this process: {time.perf_counter() - begin:.2f} s) ||||||")
        times = paired(
            lambda soap=soap, atoms=atoms: soap.jacobian(atoms),
            lambda theirs=theirs, atoms=atoms: theirs.calc(atoms, grad=True),
            seconds,
        )
        mine, other = (1e3 * statistics.median(part) for part in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(
            f"| {name} | {blocks.shape[2]} | {len(blocks)} | {mine:.2f} | {other:.1f} "
            f"| {ratio:.1f} |"
        )


if __name__ == "__main__":
    main()
