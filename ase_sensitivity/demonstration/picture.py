"""The picture of the demonstration: what a model cannot learn where its descriptor is blind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from ase_sensitivity.demonstration.comparison import BLIND, OFF, SEEING, ComparedRun
from ase_sensitivity.demonstration.methane import soap_of, twisted
from ase_sensitivity.types import Floats

COLORS = {BLIND: "tab:red", SEEING: "tab:blue"}
BALLS = {"C": (0.27, "0.35"), "H": (0.2, "0.97")}
VIEW = np.array([(0.8, 0.6, 0.0), (0.24, -0.32, 0.92), (0.55, -0.73, -0.4)])
"""Axes to the right, up, and towards the viewer."""


def draw(
    path: Path | str,
    twists: Floats,
    energies: Mapping[str, Floats],
    runs: Sequence[ComparedRun],
) -> None:
    """Draw energies along the twist, the structures at its ends, and runs that drift off.

    Parameters
    ----------
    path
        A PNG, PDF or SVG.
    twists, energies
        Of :func:`~ase_sensitivity.demonstration.comparison.twisted_energies`: the true ones first.
    runs
        Of :func:`~ase_sensitivity.demonstration.comparison.compared_run`.
    """
    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    left, right, below = figure.subplot_mosaic([["left", "right"], ["below", "below"]]).values()
    _energies(left, twists, energies)
    _pair(right, twists, next(iter(energies.values())))
    _runs(below, runs)
    figure.savefig(path, dpi=110)


def _energies(axes: Axes, twists: Floats, energies: Mapping[str, Floats]) -> None:
    for name, values in energies.items():
        style = "--" if name == SEEING else "-"
        axes.plot(twists, values, style, color=COLORS.get(name, "black"), lw=2.5, label=name)
    axes.axvline(0, color="0.5", ls=":")
    axes.set_xlabel("twist of the hydrogen atoms (Å)")
    axes.set_ylabel("energy (eV)")
    axes.set_title("Along the direction that carbon does not see", fontsize="medium")
    axes.legend(fontsize="small")


def _pair(axes: Axes, twists: Floats, energy: Floats) -> None:
    """The structures at both ends of the twist, which look alike from carbon."""
    ends = [twisted(float(twists[0])), twisted(float(twists[-1]))]
    first, second = (soap_of(["C"]).features(atoms).ravel() for atoms in ends)
    apart = np.linalg.norm(second - first) / np.linalg.norm(first)
    for atoms, shift, twist in zip(ends, (0.0, 3.4), (twists[0], twists[-1]), strict=True):
        _molecule(axes, atoms, shift)
        axes.text(shift, -1.75, f"twist {twist:+.1f} Å", ha="center")
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set(xlim=(-1.7, 5.1), ylim=(-1.9, 1.6))
    axes.set_title(
        f"From carbon the features are {100 * apart:.1g} % apart,\n"
        f"the energies {abs(energy[-1] - energy[0]):.2f} eV",
        fontsize="medium",
    )


def _molecule(axes: Axes, atoms: Atoms, shift: float) -> None:
    points = (atoms.positions - atoms.positions[0]) @ VIEW.T + np.array([shift, 0.0, 0.0])
    for point in points[1:]:
        axes.plot(*np.array([points[0], point]).T[:2], color="0.5", lw=4, zorder=point[2] - 0.3)
    for symbol, (x, y, depth) in zip(atoms.symbols, points, strict=True):
        radius, fill = BALLS[symbol]
        axes.add_patch(Circle((x, y), radius, fc=fill, ec="black", lw=1.5, zorder=depth))


def _runs(axes: Axes, runs: Sequence[ComparedRun]) -> None:
    for number, run in enumerate(runs):
        for name, apart in run.apart.items():
            label = f"{name} ({len(runs)} runs)" if number == 0 else None
            axes.plot(run.time, apart, color=COLORS[name], lw=1, alpha=0.7, label=label)
        label = "first flag of the observer" if number == 0 else None
        axes.plot(
            run.flagged, 0, "^", color="tab:orange", ms=9, clip_on=False, label=label, zorder=5
        )
    off = np.array([run.off(BLIND) for run in runs])
    flagged = np.array([run.flagged for run in runs])
    axes.axhline(OFF, color="0.5", ls=":")
    axes.axvline(45, color="0.5", ls=":")
    axes.set(xlim=(0, 90), ylim=(0, 0.5))
    axes.set_xlabel("time (fs); at 45 the true run is at the singular configuration")
    axes.set_ylabel("distance from the true run (Å)")
    price = np.nanmedian([run.price for run in runs])
    axes.set_title(
        f"Medians: flagged at {np.nanmedian(flagged):.0f} fs, price of the partner there "
        f"{price:.2g} eV, 0.1 Å off at {np.nanmedian(off):.0f} fs",
        fontsize="medium",
    )
    axes.legend(fontsize="small", loc="upper left")
