"""Ammonia turns inside out through planarity, where symmetry hides a motion and does no harm."""

from __future__ import annotations

from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ase_sensitivity.causes.cause import HARMLESS
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.md.log import SensitivityLog, read_log
from ase_sensitivity.md.observer import SensitivityObserver
from ase_sensitivity.progress import progress
from ase_sensitivity.types import Floats, Ints

TEMPERATURE = 2000.0  # K
START_HEIGHT = 0.15  # Å of N above the plane of the hydrogen atoms
THRESHOLD = 0.05  # about 0.03 Å from planarity


def run(
    console: Console,
    calculator: Any,
    directory: Path,
    kernels: Future[None],
    *,
    steps: int,
    seed: int,
) -> None:
    """Run ammonia; save ``ammonia.log``, ``ammonia.xyz`` (flagged frames) and ``ammonia.png``.

    It starts when ``kernels`` are compiled.
    """
    rng = np.random.default_rng(seed)
    atoms = ammonia(rng)
    atoms.calc = calculator
    dyn = Langevin(
        atoms,
        0.5 * units.fs,
        temperature_K=TEMPERATURE,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=rng,
    )
    soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
    console.print("[bold]1. Ammonia: blind, and no harm done[/bold]", highlight=False)
    console.print(f"NH3, GFN2-xTB, {TEMPERATURE:g} K, {steps} steps of 0.5 fs, SOAP up to 4 Å")
    with progress("Compiling SOAP's kernels, the first time only", unit=""):
        soap.stream(atoms).gram()
        wait([kernels])  # after an error there, they are compiled here
        soap.jacobian(atoms)
    heights: list[float] = []
    logfile, frames = directory / "ammonia.log", directory / "ammonia.xyz"
    with (
        progress("Dynamics", steps, "steps") as move,
        SensitivityObserver(
            dyn,
            soap,
            logfile=logfile,
            trajectory=frames,
            threshold=THRESHOLD,
            on_singular={"symmetry": "record", "near-symmetric": "record"},
        ) as observer,
    ):
        dyn.attach(observer)
        dyn.attach(lambda: heights.append(height(atoms)))
        dyn.attach(lambda: move(dyn.nsteps))
        dyn.run(steps)
    log = read_log(logfile)
    plot = directory / "ammonia.png"
    save_plot(plot, log, np.array(heights))
    _report(console, log, np.array(heights))
    saved(console, {"log": logfile, "flagged frames": frames, "plot": plot})


def saved(console: Console, paths: dict[str, Path]) -> None:
    """Say where files are."""
    for what, path in paths.items():
        console.print(f"{what}: {path}", highlight=False, soft_wrap=True)


def ammonia(rng: np.random.Generator) -> Atoms:
    """NH3 close to planarity, with thermal velocities and the umbrella mode on its way through."""
    atoms = molecule("NH3")
    hydrogens = atoms.positions[1:]
    atoms.positions[0] = hydrogens.mean(axis=0)
    atoms.positions[0, 2] += START_HEIGHT
    masses = atoms.get_masses()
    thermal = np.sqrt(units.kB * TEMPERATURE / masses)[:, None]
    velocities = rng.normal(size=(4, 3)) * thermal
    # N against the three H along z: the thermal average of that speed, towards the plane.
    reduced = 1 / (1 / masses[0] + 1 / masses[1:].sum())
    present = velocities[0, 2] - masses[1:] @ velocities[1:, 2] / masses[1:].sum()
    change = -np.sqrt(units.kB * TEMPERATURE / reduced) - present
    velocities[0, 2] += change * reduced / masses[0]
    velocities[1:, 2] -= change * reduced / masses[1:].sum()
    atoms.set_velocities(velocities)
    return atoms


def height(atoms: Atoms) -> float:
    """Signed height in Å of the first atom over the plane of the other three."""
    p = atoms.positions
    normal = np.cross(p[2] - p[1], p[3] - p[1])
    return float(normal @ (p[0] - p[1]) / np.linalg.norm(normal))


def closest_approaches(log: SensitivityLog, most: int = 4) -> Ints:
    """Indices of the deepest local minima of the ratio, in order of time."""
    ratio = np.concatenate([[np.inf], log.ratio, [np.inf]])
    minima = np.flatnonzero((ratio[1:-1] <= ratio[:-2]) & (ratio[1:-1] < ratio[2:]))
    return np.sort(minima[np.argsort(log.ratio[minima])][:most])


def save_plot(path: Path, log: SensitivityLog, heights: Floats) -> None:
    """Ratio and height of N over time."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.semilogy(log.time, log.ratio, color="C0", linewidth=1)
    upper.axhline(THRESHOLD, color="C3", linewidth=0.8, linestyle="--", label="threshold")
    upper.set_ylabel(r"$\sigma_\mathrm{min} / \sigma_\mathrm{max}$")
    upper.legend(loc="lower right")
    lower.plot(log.time, heights, color="C1", linewidth=1)
    lower.axhline(0, color="0.5", linewidth=0.8)
    lower.set_ylabel("height of N over the H plane (Å)")
    lower.set_xlabel("time (fs)")
    upper.set_title("NH3: where N is in the plane of H, its displacement is invisible to SOAP")
    figure.savefig(path, dpi=150)


def _report(console: Console, log: SensitivityLog, heights: Floats) -> None:
    table = Table(title="Closest approaches to a singular configuration")
    for name in ("step", "time (fs)", "ratio", "height of N (Å)", "distance (Å)", "cause"):
        table.add_column(name, justify="left" if name == "cause" else "right")
    for i in closest_approaches(log):
        table.add_row(
            str(log.step[i]),
            f"{log.time[i]:.1f}",
            f"{log.ratio[i]:.2e}",
            f"{heights[i]:+.4f}",
            f"{log.distance[i]:.4f}",
            str(log.cause[i]),
        )
    console.print(table)
    crossings = int((np.diff(np.sign(heights)) != 0).sum())
    console.print(f"Passages of N through the plane: {crossings}.")
    close = log.distance < 0.1
    benign = np.isin(log.cause[close], HARMLESS)
    if close.any():
        console.print(
            f"Symmetry is the cause in {benign.sum()} of the {close.sum()} frames nearer than "
            "0.1 Å: the true force along the mode vanishes as well. By default the observer stays "
            "silent here."
        )
