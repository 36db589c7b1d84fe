"""
Is my run where the model is blind?
===================================

:class:`~ase_sensitivity.SensitivityObserver` is attached to any dynamics of ASE. It writes a log,
and warns where the descriptor is blind without a harmless reason. Here ammonia turns inside out
time and again. Symmetry hides the motion through the plane, so that there is no warning.
"""

from collections import Counter

import numpy as np
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from matplotlib import pyplot as plt
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, SensitivityObserver, read_log

threadpool_limits(1)  # threads of the force engine would only wait for each other

atoms = molecule("NH3")
atoms.positions[0, 2] = atoms.positions[1, 2] + 0.2
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
velocities = np.random.default_rng(0).normal(scale=0.05, size=(4, 3))
velocities[0, 2] -= 0.7  # nitrogen towards the plane, with half an eV
atoms.set_velocities(velocities - atoms.get_masses() @ velocities / atoms.get_masses().sum())
dyn = VelocityVerlet(atoms, 0.5 * units.fs)
soap = SOAP(["N", "H"], cutoff=4.0, n_max=8, l_max=6)
heights = []


def height() -> None:
    """Of nitrogen over the plane of the hydrogen atoms."""
    n, a, b, c = atoms.positions
    normal = np.cross(b - a, c - a)
    heights.append(normal @ (n - a) / np.linalg.norm(normal))


with SensitivityObserver(dyn, soap, logfile="ammonia.log") as observer:
    dyn.attach(observer, interval=2)
    dyn.attach(height, interval=2)
    dyn.run(400)
print(observer)

# %%
# The log has the ratio of the smallest and the largest singular value, the distance to the nearest
# singular configuration where that was worth an estimate, and the cause.

log = read_log("ammonia.log")
print(Counter(map(str, log.cause)))

fig, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
upper.semilogy(log.time, log.ratio)
upper.set(ylabel="smallest / largest\nsingular value")
lower.plot(log.time, heights, "0.6", label="height of N over the plane of H")
lower.plot(log.time, log.distance, "C3.", label="distance to the singular configuration")
lower.set(xlabel="time (fs)", ylabel="Å")
lower.legend()
plt.show()
