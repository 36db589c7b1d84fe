"""
Where is a descriptor itself blind?
===================================

Environments are known that a descriptor of a given body order cannot tell apart, whatever its
basis. :func:`~ase_sensitivity.audit` looks at these and more; ``ase-sensitivity audit -d chgnet``
does the same for a trained model. Here are three descriptors of different body order in these
environments alone.
"""

import matplotlib.pyplot as plt
import numpy as np

from ase_sensitivity import SOAP, analyze
from ase_sensitivity.auditing.reference import ENVIRONMENTS

descriptors = {
    "distances (body order 2)": SOAP(["C", "H", "O"], 5.0, 8, 0, 0.5, body_order=2),
    "power spectrum (3)": SOAP(["C", "H", "O"], 5.0, 8, 8, 0.5),
    "bispectrum (4)": SOAP(["C", "H", "O"], 4.0, 6, 4, 0.4, body_order=4),
}
counts = {
    name: [
        analyze(atoms, soap, scope="environment", center=0).n_null
        for atoms in ENVIRONMENTS.values()
    ]
    for name, soap in descriptors.items()
}
for name, numbers in counts.items():
    print(f"{name:26}", *numbers)

# %%
# Distances alone leave most motions unseen. The power spectrum of SOAP misses one in most of these
# environments, and the bispectrum only in B3, which was built against it.

places = np.arange(len(ENVIRONMENTS))
fig, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
for shift, (name, numbers) in enumerate(counts.items()):
    axes.bar(places + 0.27 * (shift - 1), numbers, 0.25, label=name)
axes.set_xticks(places, list(ENVIRONMENTS))
axes.set(ylabel="invisible motions of the center's environment")
axes.legend()
plt.show()
