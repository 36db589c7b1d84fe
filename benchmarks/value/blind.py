"""Methane seen from carbon alone or from all atoms: errors of forces by mode, softest first.

Models are fitted to runs through a configuration with a direction that is invisible from carbon
(:mod:`ase_sensitivity.demonstration`), with GFN2-xTB. The error of their forces along each mode of
the carbon-only Jacobian, over the true forces along it, is measured on the frames of other runs
(root mean squares). It needs tblite and no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity import analyze
from ase_sensitivity.demonstration.methane import passages, soap_of, xtb
from ase_sensitivity.demonstration.model import FourierPotential
from ase_sensitivity.types import Floats
from benchmarks.value.intervals import mean
from benchmarks.value.plots import compared

QUESTION = "Is this descriptor blind where my runs go?"

N_TRAIN, N_TEST = 5, 2
"""Number of runs."""

NEAR = 6
"""Frames of a run on each side of its middle, the passage, where errors are measured."""

CENTERS: dict[str, list[str] | None] = {"carbon only": ["C"], "all atoms": None}


def measure(folder: Path, sets: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Errors over forces for each mode; ``folder`` and ``sets`` are not used."""
    found: dict[str, list[Floats]] = {name: [] for name in CENTERS}
    for seed in range(seeds):
        first = seed * (N_TRAIN + N_TEST)
        train = passages(xtb(), N_TRAIN, seed=first)
        test = []
        for number in range(N_TEST):
            run = passages(xtb(), 1, seed=first + N_TRAIN + number)
            middle = len(run) // 2
            test += run[middle - NEAR : middle + NEAR + 1]
        for name, centers in CENTERS.items():
            model = FourierPotential.fit(soap_of(centers), train)
            wrong, true = [], []
            for atoms in test:
                modes = analyze(atoms, soap_of(["C"]), k=None).modes.reshape(-1, 15)
                copy = atoms.copy()
                copy.calc = model
                wrong.append(modes @ (copy.get_forces() - atoms.get_forces()).ravel())
                true.append(modes @ atoms.get_forces().ravel())
            squares = (np.array(wrong) ** 2).mean(axis=0) / (np.array(true) ** 2).mean(axis=0)
            found[name].append(np.sqrt(squares))
    n_modes = len(found["all atoms"][0])
    return [
        {"mode, softest first": str(mode + 1)}
        | {f"error / force, {name}": mean(np.array(own)[:, mode]) for name, own in found.items()}
        for mode in range(n_modes)
    ]


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Errors over forces by mode."""
    series = {
        name: {row["mode, softest first"]: row[f"error / force, {name}"] for row in rows}
        for name in CENTERS
    }
    compared(axes, series, "error of the forces over the forces")
    axes.set_yscale("log")
    axes.set_xlabel("mode of the carbon-only Jacobian, softest first")
