"""
Has my run left what the model was trained on?
==============================================

:class:`~ase_sensitivity.ReferenceSet` has the environments of a training set. A run is compared
with it: *novelty* is the distance to the nearest one in feature space, relative to the spread of
the set. A *twin* has nearly the same features and another structure, so that a model cannot tell
the two apart.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.build import molecule
from ase.md.langevin import Langevin
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, ReferenceSet

threadpool_limits(1)  # threads of the force engine would only wait for each other

atoms = molecule("CH3OH")
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
rng = np.random.default_rng(0)


def frames_at(temperature: float, steps: int) -> list:
    """Every fourth frame of a run."""
    frames = []
    settings = {"temperature_K": temperature, "friction": 0.02, "fixcm": False, "rng": rng}
    dyn = Langevin(atoms, 1 * units.fs, **settings)
    dyn.attach(lambda: frames.append(atoms.copy()), interval=4)
    dyn.run(steps)
    return frames


reference = ReferenceSet(frames_at(300, 400), SOAP(["C", "H", "O"], 4.0, n_max=6, l_max=4))
print(reference)

# %%
# Then the molecule is heated.

run = frames_at(300, 100) + frames_at(2000, 300)
found = [reference.compare(frame) for frame in run]
print("twins:", sum(comparison.twin is not None for comparison in found))

fig, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
axes.plot([comparison.novelty for comparison in found])
axes.axhline(1, color="0.6", ls=":")
axes.axvline(25, color="k", ls=":")
axes.set(xlabel="frame (300 K, then 2000 K)", ylabel="novelty")
plt.show()
