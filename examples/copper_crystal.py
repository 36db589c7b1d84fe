"""Calibrate a threshold on molten copper, then watch a cold crystal and stop when it falls below.

A crystal is nearer to its perfect lattice, where symmetry hides most displacements, than a melt is.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from ase.md.langevin import Langevin

from ase_sensitivity import SOAP, SensitivityObserver, read_log

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=200)
steps = parser.parse_args().steps
rng = np.random.default_rng(0)


def dynamics(atoms: Atoms, temperature: float) -> Langevin:
    atoms.calc = EMT()
    friction = 0.02 / units.fs
    return Langevin(
        atoms, 4 * units.fs, temperature_K=temperature, friction=friction, fixcm=False, rng=rng
    )


melt = bulk("Cu", cubic=True) * 2
melt.rattle(0.4, rng=rng)
hot = dynamics(melt, 3000)
frames: list[Atoms] = []
hot.attach(lambda: frames.append(melt.copy()), interval=10)
hot.run(steps)

crystal = bulk("Cu", cubic=True) * 2
crystal.rattle(0.05, rng=rng)
cold = dynamics(crystal, 300)
soap = SOAP(species=["Cu"], cutoff=4.0, n_max=6, l_max=4)
folder = Path(tempfile.mkdtemp())
with SensitivityObserver(
    cold,
    soap,
    threshold="auto",
    calibration=frames,
    on_singular=["record", "halt"],
    patience=3,
    logfile=folder / "sensitivity.log",
    trajectory=folder / "flagged.xyz",
) as observer:
    cold.attach(observer, interval=10)
    cold.run(steps)

log = read_log(folder / "sensitivity.log")
print(f"threshold {observer.threshold:.4f} from {len(frames)} frames of the melt")
print("crystal:", " ".join(f"{ratio:.4f}" for ratio in log.ratio))
print("stopped at", observer.halted)
frame = read(folder / "flagged.xyz")
print("soft mode recorded, of shape", frame.arrays["sensitivity_mode"].shape)
