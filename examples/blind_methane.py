"""Methane by two potentials: one sees from all atoms, one from carbon alone, and is blind.

Both are fitted to the same runs of GFN2-xTB through a configuration at which a twist of the
hydrogen atoms is invisible from carbon. The run of the blind one is observed: the observer flags
it, gives the partner, another structure with nearly the same features, and its price, the energy
difference of the two by GFN2-xTB.
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np

from ase_sensitivity import read_log
from ase_sensitivity.demonstration.blindness import Watched, measure, watch
from ase_sensitivity.demonstration.methane import xtb
from ase_sensitivity.demonstration.picture import save_picture

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--training", type=int, default=3, help="runs to fit to, of 46 frames each")
parser.add_argument("--runs", type=int, default=1, help="runs of either potential")
parser.add_argument("--picture", type=Path, help="by default in a temporary folder")
arguments = parser.parse_args()


def silent(_: int) -> None:
    """No progress bar."""


def together(runs: list[Watched]) -> Watched:
    """Several runs as one result."""
    return Watched(
        runs[0].time,
        np.concatenate([run.distance for run in runs]),
        np.concatenate([run.flagged for run in runs]),
    )


true = xtb()
found = measure(true, n_passages=arguments.training, progress=silent)
for name, model in (("carbon only", found.blind), ("all atoms", found.seeing)):
    print(f"{name}: error of held-out forces {model.force_error:.4f} eV/Å")
runs = []
for seed in range(arguments.runs):
    log = io.StringIO()
    models = [found.blind, found.seeing]
    settings = {"logfile": log, "price": xtb(), "on_singular": "log"}
    runs.append(watch(true, models, 1, seed=seed, progress=silent, **settings))
    blind, seeing = runs[-1]
    print(
        f"run {seed}: flagged at {blind.flagged[0]:.0f} fs, 0.1 Å off at {blind.off[0]:.0f} fs; "
        f"all atoms: at most {seeing.distance.max():.4f} Å off"
    )
    for partner in read_log(log.getvalue().splitlines(keepends=True)).partners:
        print(
            f"  partner at step {partner.step} ({partner.cause}): "
            f"{partner.displacement:.3f} Å away, features {partner.feature_distance:.1e} apart, "
            f"price {partner.energy:.4f} eV"
            + ("" if partner.agrees else "; features do not return, no fold")
        )
picture = arguments.picture or Path(tempfile.mkdtemp()) / "blind_methane.png"
save_picture(picture, found, *(together(list(pair)) for pair in zip(*runs, strict=True)))
print(picture)
