"""
Which labels are wrong?
=======================

:func:`~ase_sensitivity.doubt` lists the frames whose forces do not fit to the others. Here the
forces of one atom have the wrong sign in one frame, and two frames are mixed up.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, doubt

threadpool_limits(1)  # threads of the force engine would only wait for each other

frames, labels = [], []
for seed in range(60):
    atoms = molecule("CH3OH")
    atoms.rattle(0.06, seed=seed)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    labels.append((atoms.get_potential_energy(), atoms.get_forces()))
    frames.append(atoms)
labels[20][1][3] *= -1
labels[30], labels[31] = labels[31], labels[30]
for atoms, (energy, forces) in zip(frames, labels, strict=True):
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)

doubts = doubt(frames, SOAP(["C", "H", "O"], cutoff=4.0, n_max=6, l_max=4))
print(doubts)

# %%
# A score above the threshold makes a frame doubtful.

wrong = np.isin(np.arange(60), [20, 30, 31])
scores = np.array([row["score"] for row in sorted(doubts.rows, key=lambda row: row["index"])])
fig, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
axes.bar(np.arange(60), scores, color=np.where(wrong, "C3", "0.7"))
axes.axhline(4, color="k", ls=":")
axes.set(xlabel="frame (red: with wrong labels)", ylabel="score")
plt.show()
