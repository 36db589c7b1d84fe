"""Ammonia at 2000 K with a bias that keeps it from planarity, where SOAP cannot see it move."""

import argparse

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, Repel, SensitivityCalculator

threadpool_limits(1)  # threads of the force engine would only wait for each other

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=2500)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--ratio", type=float, default=0.2)
parser.add_argument("--strength", type=float, default=2.0, help="in eV")
arguments = parser.parse_args()


def height(atoms):
    p = atoms.positions
    normal = np.cross(p[2] - p[1], p[3] - p[1])
    return normal @ (p[0] - p[1]) / np.linalg.norm(normal)


soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
for bias in (None, Repel(ratio=arguments.ratio, strength=arguments.strength)):
    rng = np.random.default_rng(arguments.seed)
    atoms = molecule("NH3")
    inner = TBLite(method="GFN2-xTB", verbosity=0)
    atoms.calc = calc = SensitivityCalculator(inner, soap, bias=bias)
    spread = np.sqrt(atoms.get_masses() * units.kB * 2000)
    atoms.set_momenta(rng.normal(size=(4, 3)) * spread[:, None])
    friction = 0.01 / units.fs
    dyn = Langevin(
        atoms, 0.5 * units.fs, temperature_K=2000, friction=friction, fixcm=False, rng=rng
    )
    heights, ratios, energies = [], [], []

    def look(atoms=atoms, calc=calc, heights=heights, ratios=ratios, energies=energies):
        heights.append(height(atoms))
        ratios.append(calc.results["sigma_ratio"])
        energies.append(calc.results.get("bias_energy", 0.0))

    dyn.attach(look)
    dyn.run(arguments.steps)
    crossings = np.count_nonzero(np.diff(np.sign(heights)))
    print(
        f"{bias}: {crossings} passages through the plane in {arguments.steps} steps, "
        f"smallest height {np.abs(heights).min():.3f} Å, smallest ratio {min(ratios):.4f}, "
        f"bias acting in {np.count_nonzero(energies)} steps with at most {max(energies):.2f} eV"
    )
