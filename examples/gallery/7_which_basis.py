"""
Which basis?
============

:func:`~ase_sensitivity.converge` tries bases on a data set. *truncated* counts structures with a
motion that a basis does not see and a larger one does. The *required slope* tells how steep a model
has to be to have the forces.
"""

import matplotlib.pyplot as plt
from ase.build import molecule
from tblite.ase import TBLite
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, converge

threadpool_limits(1)  # threads of the force engine would only wait for each other

frames = []
for seed in range(12):
    atoms = molecule("CH3OH")
    atoms.rattle(0.06, seed=seed)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    atoms.get_forces()
    frames.append(atoms)

soap = SOAP(["C", "H", "O"], cutoff=4.0, n_max=6, l_max=4, centers=["C", "O"])
found = converge(frames, soap, n_max=[1, 2, 4, 6], l_max=[0, 2, 4])
print(found)

# %%
# With carbon and oxygen as the only centers, the smallest bases have fewer features than the
# structures have motions.

fig, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for row in found.rows:
    truncates = row["frames_truncated"] > 0
    axes.plot(row["n_features"], row["required_slope"], "C3x" if truncates else "C0o")
    axes.annotate(f"{row['n_max']}, {row['l_max']}", (row["n_features"], row["required_slope"]))
axes.set(xlabel="features of a center", ylabel="required slope (eV/Å)", xscale="log", yscale="log")
axes.set_title("n_max, l_max; crosses: truncated", fontsize=10)
plt.show()
