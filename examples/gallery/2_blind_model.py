"""
What does blindness cost?
=========================

Two models of methane are fitted to the same energies and forces of GFN2-xTB. They differ in one
thing: one has features of the carbon atom only, the other of all atoms. The runs that they learn
from pass a configuration at which a twist of the hydrogen atoms is invisible from carbon.
"""

import matplotlib.pyplot as plt
import numpy as np
from threadpoolctl import threadpool_limits

from ase_sensitivity import analyze
from ase_sensitivity.demonstration.methane import (
    invisible_direction,
    passages,
    singular_methane,
    soap_of,
    xtb,
)
from ase_sensitivity.demonstration.model import FourierPotential, force_error

threadpool_limits(1)  # threads of the force engine would only wait for each other

singular, twist = singular_methane(), invisible_direction()
print(analyze(singular, soap_of(["C"]), causes=True))

# %%
# The cause is incompleteness: no basis helps, and the force along the twist does not vanish.

frames = passages(xtb(), 5)
held_out = passages(xtb(), 1, seed=100)
models = {
    "quantum chemistry": xtb(),
    "model, carbon only": FourierPotential.fit(soap_of(["C"]), frames),
    "model, all atoms": FourierPotential.fit(soap_of(), frames),
}
for name, model in models.items():
    print(f"{name}: {force_error(model, held_out):.4f} eV/Å on frames that it was not fitted to")

# %%
# Along the twist, the carbon-only model has the same energy on both sides of the configuration, as
# both look the same from carbon. At the configuration it has no force.

twists = np.linspace(-0.3, 0.3, 31)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for (name, model), style in zip(models.items(), ("k", "C3", "C0--"), strict=True):
    energies, forces = [], []
    for length in twists:
        moved = singular.copy()
        moved.positions += length * twist
        moved.calc = model
        energies.append(moved.get_potential_energy())
        forces.append(np.vdot(moved.get_forces(), twist))
    left.plot(twists, np.array(energies) - energies[15], style, label=name)
    right.plot(twists, forces, style)
left.set(xlabel="twist (Å)", ylabel="energy (eV)")
left.legend()
right.set(xlabel="twist (Å)", ylabel="force along the twist (eV/Å)")
right.axhline(0, color="0.7", lw=0.8)
plt.show()
