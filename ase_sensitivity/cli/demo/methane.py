"""Methane: a model with features of carbon only, where they are blind, and one that sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ase_sensitivity.cli.demo.ammonia import saved
from ase_sensitivity.demonstration.blindness import OFF, Blindness, Watched, measure, watch
from ase_sensitivity.demonstration.methane import BEFORE, xtb
from ase_sensitivity.demonstration.picture import save_picture
from ase_sensitivity.md.log import read_log
from ase_sensitivity.progress import progress
from ase_sensitivity.types import Floats

N_RUNS = 4


def run(console: Console, calculator: Any, directory: Path, *, seed: int) -> None:
    """Fit and run; save ``methane.log``, ``methane.xyz`` (flagged frames) and ``methane.png``."""
    console.print("\n[bold]2. Methane: blind, and the model is ruined[/bold]", highlight=False)
    console.print(
        "Two potentials learn the same GFN2-xTB energies and forces. One has SOAP features of the "
        "carbon atom only, the other of all atoms."
    )
    log, frames, picture = (directory / f"methane.{suffix}" for suffix in ("log", "xyz", "png"))
    with progress("Fitting two potentials", 3, "steps") as move:
        found = measure(calculator, progress=move)
    with progress("Running them", N_RUNS, "runs") as move:
        blind, seeing = watch(
            calculator,
            [found.blind, found.seeing],
            N_RUNS,
            seed=seed,
            progress=move,
            logfile=log,
            trajectory=frames,
            on_singular="record",
            price=xtb(),
        )
    save_picture(picture, found, blind, seeing)
    _report(console, found, blind, seeing)
    partners = [partner for partner in read_log(log).partners if np.isfinite(partner.energy)]
    if partners:
        partner = max(partners, key=lambda partner: partner.energy)
        console.print(
            f"Seen from carbon, the flagged structure of step {partner.step} and one that is "
            f"{partner.displacement:.2f} Å away look alike: features are "
            f"{partner.feature_distance:.0e} apart, energies {partner.energy:.3f} eV."
        )
    saved(console, {"log": log, "flagged frames": frames, "picture": picture})


def _report(console: Console, found: Blindness, blind: Watched, seeing: Watched) -> None:
    middle = int(np.argmin(np.abs(found.twists)))
    table = Table()
    for name in ("", "carbon only", "all atoms", "true"):
        table.add_column(name, justify="left" if not name else "right")
    rows = {
        "force error, frames not fitted to (eV/Å)": [
            f"{model.force_error:.4f}" for model in (found.blind, found.seeing)
        ],
        "force along the twist that carbon does not see (eV/Å)": [
            f"{forces[middle]:.3f}"
            for forces in (found.blind.forces, found.seeing.forces, found.forces)
        ],
        f"runs that are {OFF:g} Å off within {2 * BEFORE:g} fs": [
            f"{np.isfinite(runs.off).sum()} of {len(runs.off)}" for runs in (blind, seeing)
        ],
        "off at (fs, median)": [_median(runs.off) for runs in (blind, seeing)],
        "first flag of the observer (fs, median)": [
            _median(runs.flagged) for runs in (blind, seeing)
        ],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console.print(table)
    console.print(
        "The cause is incompleteness: more training data and a larger basis do not help; features "
        "of the hydrogen atoms do. A flag is early and not specific: it says that the descriptor "
        "is blind near here, not how wrong the model is."
    )


def _median(times: Floats) -> str:
    times = times[np.isfinite(times)]
    return f"{np.median(times):.0f}" if len(times) else "-"
