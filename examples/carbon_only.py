"""A run past a configuration that SOAP on the carbon atom is blind to, and no symmetry explains.

In CH2FCl, springs swing fluorine through the plane of carbon and the hydrogen atoms, with chlorine
at right angles. There a turn of the hydrogen atoms against the others is invisible from carbon,
whatever the basis. Features of all atoms see it.
"""

import argparse
import io
import warnings

import numpy as np
from ase import Atoms, units
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.md.verlet import VelocityVerlet

from ase_sensitivity import SOAP, SensitivityObserver, SingularWarning, read_log

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=100, help="of 0.5 fs; half way after about 50")
parser.add_argument("--rattle", type=float, default=0.02, help="of the first geometry, in Å")
arguments = parser.parse_args()

singular = Atoms(
    "CH2FCl",
    [(0, 0, 0), (0.97, 0, 0.49), (-0.97, 0, 0.49), (1.07, 0, -0.84), (0, 1.72, 0.43)],
)
basis = {"species": ["C", "H", "F", "Cl"], "cutoff": 4.0, "n_max": 8, "l_max": 6}
runs = {"SOAP on carbon only": SOAP(**basis, centers=["C"]), "SOAP on all atoms": SOAP(**basis)}
for name, soap in runs.items():
    atoms = singular.copy()
    atoms.positions[3, 1] = 0.6
    atoms.rattle(arguments.rattle, seed=0)
    springs = HarmonicForceField(singular, 8 * np.eye(15))  # eV/Å²
    atoms.calc = HarmonicCalculator(springs)
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    heights: list[float] = []
    written = io.StringIO()
    observer = SensitivityObserver(dyn, soap, logfile=written)  # as it is by default
    dyn.attach(observer, interval=10)
    dyn.attach(lambda atoms=atoms, heights=heights: heights.append(atoms.positions[3, 1]), 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SingularWarning)
        dyn.run(arguments.steps)

    written.seek(0)
    log = read_log(written)
    print(f"{name}\n  time   F at y    ratio   distance   arrival   cause")
    print("    fs        Å                   Å        fs")
    for i, height in enumerate(heights):
        print(
            f"{log.time[i]:6.1f} {height:8.2f} {log.ratio[i]:8.4f} {log.distance[i]:10.3f} "
            f"{log.arrival[i]:9.1f}   {log.cause[i]:15}"
            + ("<- matters" if log.state[i] == "singular" else "")
        )
    print("\n".join(f"{one.category.__name__}: {one.message}" for one in caught) or "No warning.")
    causes = ", ".join(sorted(set(log.cause[log.state == "singular"].tolist())))
    print(f"Calls that matter: {observer.n_singular} of {observer.n_calls} {causes}\n")
