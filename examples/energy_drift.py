"""How well a bias conserves the energy: NVE dynamics of ammonia through planarity."""

import argparse

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, Attract, Repel, SensitivityCalculator

threadpool_limits(1)  # threads of the force engine would only wait for each other

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--time", type=float, default=250.0, help="of each run, in fs")
length = parser.parse_args().time

soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
print("   dt    bias energy   total energy: ripple      drift   bias")
print("   fs       up to eV                    meV     meV/ps")
for step in (0.5, 0.25):
    for bias in (None, Repel(ratio=0.5, strength=0.5), Attract(ratio=0.5, strength=0.5)):
        atoms = molecule("NH3")
        atoms.positions[0, 2] = atoms.positions[1, 2] + 0.05
        atoms.calc = calc = SensitivityCalculator(
            TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0), soap, bias=bias
        )
        spread = np.sqrt(atoms.get_masses() * units.kB * 1000)
        rng = np.random.default_rng(1)
        atoms.set_momenta(rng.normal(size=(4, 3)) * spread[:, None])
        dyn = VelocityVerlet(atoms, step * units.fs)
        energies, biases = [], []

        def look(atoms=atoms, calc=calc, energies=energies, biases=biases):
            energies.append(1e3 * atoms.get_total_energy())
            biases.append(abs(calc.results.get("bias_energy", 0.0)))

        dyn.attach(look)
        dyn.run(round(length / step))
        times = 1e-3 * step * np.arange(len(energies))
        slope, offset = np.polyfit(times, energies, 1)
        ripple = np.std(energies - slope * times - offset)
        print(f"{step:5.2f} {max(biases):14.2f} {ripple:22.2f} {slope:10.2f}   {bias}")
