"""Methane by two potentials: one sees from all atoms, one from carbon alone, and is blind.

Both are fitted to the same runs of GFN2-xTB through a configuration at which a twist of the
hydrogen atoms is invisible from carbon. The observer flags the run of the blind one. It gives the
partner, another structure with nearly the same features, and its price, the energy difference of
the two by GFN2-xTB.
"""

import argparse
import tempfile
from pathlib import Path

from ase_sensitivity import read_log
from ase_sensitivity.demonstration.blindness import measure, watch
from ase_sensitivity.demonstration.methane import xtb
from ase_sensitivity.demonstration.picture import save_picture

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--training", type=int, default=3, help="runs to fit to, of 46 frames each")
parser.add_argument("--runs", type=int, default=2, help="runs to watch")
parser.add_argument("--picture", type=Path, help="by default in a temporary folder")
arguments = parser.parse_args()

true = xtb()
found = measure(true, n_passages=arguments.training, progress=lambda done: None)
models = {"carbon the only center": found.blind, "all atoms as centers": found.seeing}
for name, model in models.items():
    print(f"{name}: held-out force error {model.force_error:.4f} eV/Å")
with tempfile.TemporaryDirectory() as folder:
    log = Path(folder) / "methane.log"
    blind, seeing = watch(
        true,
        list(models.values()),
        arguments.runs,
        progress=lambda done: None,
        on_singular="log",
        logfile=log,
        price=xtb(),
    )
    partners = read_log(log).partners
for flagged, off, other in zip(blind.flagged, blind.off, seeing.distance, strict=True):
    print(
        f"flagged at {flagged:.0f} fs, 0.1 Å off at {off:.0f} fs; "
        f"all atoms at most {other.max():.4f} Å off"
    )
for partner in partners:
    print(
        f"partner at step {partner.step} ({partner.cause}): {partner.displacement:.3f} Å away, "
        f"features {partner.feature_distance:.1e} apart, price {partner.energy:.4f} eV"
        + ("" if partner.agrees else "; features do not return, no fold")
    )
picture = arguments.picture or Path(tempfile.mkdtemp()) / "blind_methane.png"
save_picture(picture, found, blind, seeing)
print(picture)
