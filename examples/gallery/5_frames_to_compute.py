"""
Which frames shall I compute next?
==================================

:func:`~ase_sensitivity.select` chooses the frames of a trajectory that teach a model the most. It
needs no energies and no forces.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, select

threadpool_limits(1)  # threads of the force engine would only wait for each other

atoms = molecule("CH3OH")
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
rng = np.random.default_rng(0)
pool = []
for temperature in (100, 600):
    settings = {"temperature_K": temperature, "friction": 0.02, "fixcm": False, "rng": rng}
    dyn = Langevin(atoms, 1 * units.fs, **settings)
    dyn.attach(lambda: pool.append(atoms.copy()), interval=4)
    dyn.run(240)

soap = SOAP(["C", "H", "O"], cutoff=4.0, n_max=6, l_max=4)
chosen = select(pool, soap, 12)
print(chosen)

# %%
# Most of them are of the hot run. The predicted error falls with each frame; where the gain of the
# best frame comes close to that of a usual one, random frames would do.

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
left.plot(range(1, 13), chosen.gain, "o-", label="chosen frame")
left.plot(range(1, 13), chosen.usual_gain, "o-", label="random frame")
left.set(xlabel="frames", ylabel="gain", yscale="log")
left.legend()
stretch = [frame.get_distance(0, 1) for frame in pool]
right.plot(stretch, "0.7")
right.plot(chosen.indices, np.take(stretch, chosen.indices), "C3o", label="chosen")
right.axvline(len(pool) / 2, color="k", ls=":")
right.set(xlabel="frame (100 K, then 600 K)", ylabel="C-O distance (Å)")
right.legend()
plt.show()
