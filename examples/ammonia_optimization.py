"""Optimize ammonia from planarity on: the optimizer starts where the descriptor is blind."""

import argparse

from ase.build import molecule
from ase.optimize import BFGS
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, SensitivityObserver

threadpool_limits(1)  # threads of the force engine would only wait for each other

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--fmax", type=float, default=0.01)
fmax = parser.parse_args().fmax

atoms = molecule("NH3")
atoms.positions[0] = atoms.positions[1:].mean(axis=0)
atoms.positions[0, 2] += 1e-3
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
optimizer = BFGS(atoms, logfile=None)
soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
observer = SensitivityObserver(optimizer, soap, logfile="-", threshold=0.01, on_singular="log")
optimizer.attach(observer)
optimizer.run(fmax=fmax)
print(f"{observer.n_singular} of {observer.n_calls} steps were near the planar configuration")
