"""How the features change along three paths, against random displacements of the same length.

With body order 2 and one center, angles are free: the features do not change at all. Near a
singular configuration of the power spectrum they hardly change over a good part of an Å. In
methanol, with all atoms as centers, the softest direction is only soft.
"""

import argparse

from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP, trace_manifold

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--length", type=float, default=0.3, help="of the paths, in Å")
parser.add_argument("--plot", metavar="FILE", help="for instance manifolds.svg")
arguments = parser.parse_args()

bent = Atoms("CH4", [(0, 0, 0), (0.9, 0.1, 0), (0.3, 1, 0.2), (-0.5, 0.7, 0.8), (-0.4, -0.5, -1.1)])
ring = Atoms(
    "CH4", [(0, 0, 0), (1, 0, 0.4), (-0.6, 0.8, 0.4), (5 / 13, -12 / 13, 0.4), (0, 0, 1.2)]
)
ring.rattle(0.05, seed=1)
methanol = molecule("CH3OH")
methanol.rattle(0.1, seed=0)
carbon = {"cutoff": 3.0, "n_max": 8, "atom_sigma": 0.3, "centers": ["C"]}
cases = {
    "body order 2, carbon only": (bent, SOAP(["H"], l_max=0, body_order=2, **carbon)),
    "body order 3, carbon only": (ring, SOAP(["H"], l_max=8, **carbon)),
    "body order 3, all atoms": (methanol, SOAP(["C", "O", "H"], 4.0, n_max=6, l_max=4)),
}
paths = {}
for name, (atoms, soap) in cases.items():
    path = paths[name] = trace_manifold(atoms, soap, length=arguments.length)
    print(
        f"{name}: {path.verdict}; over {path.length[-1]:.2f} Å the features change by at most "
        f"{path.feature_change.max():.1e}, by random displacements "
        f"{path.random_feature_change[-1]:.1e} ({path.n_evaluations} Jacobians)"
    )

if arguments.plot:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "manifolds"
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 4.2), sharex=True, layout="constrained")
    for axes, scale in zip(panels, ("linear", "log"), strict=True):
        for color, (name, path) in zip(("C0", "C1", "C2"), paths.items(), strict=True):
            label = f"{name}: {path.verdict}"
            axes.plot(path.rmsd[1:], path.feature_change[1:], "o-", color=color, label=label)
            random = path.random_rmsd[1:], path.random_feature_change[1:]
            axes.plot(*random, "--", color=color, alpha=0.6)
        axes.set_yscale(scale)
        axes.set_xlabel("geometric change: rmsd of the best match (Å)")
    panels[0].set_ylabel("change of the features / their norm")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=1)
    svg = arguments.plot.endswith("svg")
    figure.savefig(arguments.plot, metadata={"Date": None} if svg else {})
