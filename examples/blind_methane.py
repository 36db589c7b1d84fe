"""Methane by two potentials: one sees from all atoms, one from carbon alone, and is blind.

Both are fitted to the same runs of GFN2-xTB through a configuration at which a twist of the
hydrogen atoms is invisible from carbon. The run of the blind one is observed: the observer flags
it, gives the partner, another structure with nearly the same features, and its price, the energy
difference of the two by GFN2-xTB.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from ase_sensitivity.demonstration.comparison import (
    BLIND,
    SEEING,
    compared_run,
    fitted,
    twisted_energies,
)
from ase_sensitivity.demonstration.methane import passages, xtb
from ase_sensitivity.demonstration.model import force_error
from ase_sensitivity.demonstration.picture import draw

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--training", type=int, default=3, help="runs to fit to, of 46 frames each")
parser.add_argument("--runs", type=int, default=2, help="runs to compare")
parser.add_argument("--picture", type=Path, help="by default in a temporary folder")
arguments = parser.parse_args()

true = xtb()
models = fitted(passages(true, arguments.training))
held_out = passages(true, 1, seed=500)
for name, model in models.items():
    print(f"{name}: held-out force error {force_error(model, held_out):.4f} eV/Å")
runs = []
for seed in range(1000, 1000 + arguments.runs):
    run = compared_run(true, models, seed, price=xtb())
    runs.append(run)
    print(
        f"run {seed}: flagged at {run.flagged:.0f} fs, 0.1 Å off at {run.off(BLIND):.0f} fs, "
        f"all atoms at most {run.apart[SEEING].max():.4f} Å off"
    )
    for found in run.log.partners:
        print(
            f"  partner at step {found.step} ({found.cause}): {found.displacement:.3f} Å away, "
            f"features {found.feature_distance:.1e} apart, price {found.energy:.4f} eV"
            + ("" if found.agrees else "; features do not return, no fold")
        )
twists = np.linspace(-0.4, 0.4, 33)
energies = twisted_energies({"GFN2-xTB": true} | models, twists)
picture = arguments.picture or Path(tempfile.mkdtemp()) / "blind_methane.png"
draw(picture, twists, energies, runs)
print(picture)
