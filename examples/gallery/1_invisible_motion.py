"""
What is invisible here, and why?
================================

A planar ammonia molecule has one motion that changes none of its features: nitrogen moves out of
the plane of the hydrogen atoms. :func:`~ase_sensitivity.analyze` finds it as a singular value of
zero, and its cause.
"""

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule

from ase_sensitivity import SOAP, analyze

atoms = molecule("NH3")
atoms.positions[0, 2] = atoms.positions[1, 2]  # into the plane
soap = SOAP(["N", "H"], cutoff=4.0, n_max=8, l_max=6)
result = analyze(atoms, soap, k=6, causes=True)
print(result)

# %%
# Symmetry is the cause. The force along this motion vanishes, whatever the potential, as up and
# down are the same. Nothing is lost. A few hundredths of an Å off the plane, the features change:

heights = np.linspace(0, 0.2, 21)
ratios = []
for height in heights:
    moved = atoms.copy()
    moved.positions[0, 2] += height
    ratios.append(analyze(moved, soap).ratio)

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
arrows = result.modes[0]
left.quiver(*atoms.positions[:, 1:].T, *arrows[:, 1:].T, color="C3", angles="xy", scale=3)
left.scatter(*atoms.positions[:, 1:].T, s=[600, 250, 250, 250], c=["C0", *3 * ["0.8"]], ec="k")
left.set(title="the invisible motion, from the side", aspect="equal", ylim=(-0.6, 0.6))
left.set(xlabel="y (Å)", ylabel="z (Å)")
right.plot(heights, ratios, "o-")
right.set(xlabel="height of N over the plane (Å)", ylabel="smallest / largest singular value")
right.set(title="what the features see of it")
plt.show()
