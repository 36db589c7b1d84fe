"""The picture of what blindness costs a model of methane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ase_sensitivity.demonstration.blindness import OFF, Blindness, Watched
from ase_sensitivity.demonstration.methane import twisted
from ase_sensitivity.types import Floats

TRUE, BLIND, SEEING, FLAG = "0.1", "#d62728", "#2a8ee0", "#ff8c00"


def save_picture(path: Path, found: Blindness, blind: Watched, seeing: Watched) -> None:
    """Save it.

    Parameters
    ----------
    path
        The file; its suffix is the format.
    found
        What the models miss.
    blind, seeing
        Runs of the two models.
    """
    figure = Figure(figsize=(10, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("Methane: what a model with features of the carbon atom alone cannot learn")
    (upper_left, upper_right), (lower_left, lower_right) = figure.subplots(2, 2)
    _energies(upper_left, found)
    _forces(upper_right, found)
    _missed(lower_left, found)
    _runs(lower_right, blind, seeing)
    figure.savefig(path, dpi=120)


def _curves(axes: Axes, found: Blindness, true: Floats, blind: Floats, seeing: Floats) -> None:
    axes.plot(found.twists, true, color=TRUE, lw=4, label="quantum chemistry (GFN2-xTB)")
    axes.plot(found.twists, seeing, "--", color=SEEING, lw=2, label="model, all atoms")
    axes.plot(found.twists, blind, color=BLIND, lw=2.5, label="model, carbon only")
    axes.axvline(0, color="0.5", ls=":")
    axes.set_xlabel("twist of the hydrogen atoms, invisible from carbon (Å)")


def _energies(axes: Axes, found: Blindness) -> None:
    lowest = found.energies.min()
    shown = (e - lowest for e in (found.energies, found.blind.energies, found.seeing.energies))
    _curves(axes, found, *shown)
    axes.set_title("Seen from carbon, left and right are alike", fontsize=11)
    axes.set_ylabel("energy (eV)")
    axes.margins(y=0.25)
    axes.legend(loc="upper right", fontsize=9)
    for twist, place in ((-0.4, 0.02), (0.4, 0.74)):
        _molecule(axes.inset_axes((place, 0.02, 0.24, 0.3)), twist)


def _molecule(axes: Axes, twist: float) -> None:
    atoms = twisted(twist)
    atoms.rotate(70, "z")
    atoms.rotate(-70, "x")
    x, y, depth = atoms.positions.T
    axes.set_aspect("equal")
    axes.axis("off")
    axes.margins(0.25)
    for i in range(1, len(atoms)):
        axes.plot(x[[0, i]], y[[0, i]], color="0.5", lw=3, zorder=depth[[0, i]].mean())
    for i in np.argsort(depth):
        size, color = (180, "0.35") if i == 0 else (90, "0.95")
        axes.scatter(x[i], y[i], s=size, c=color, ec="k", zorder=depth[i])


def _forces(axes: Axes, found: Blindness) -> None:
    _curves(axes, found, found.forces, found.blind.forces, found.seeing.forces)
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set_title("Where the twist is invisible, the model has no force along it", fontsize=11)
    axes.set_ylabel("force along the twist (eV/Å)")
    ratio = axes.twinx()
    ratio.semilogy(found.twists, found.ratios.clip(1e-6), color=FLAG, lw=1)
    ratio.set_ylim(1e-6, 1e2)
    ratio.set_yticks([1e-6, 1e-4, 1e-2], ["0", "1e-4", "1e-2"])
    ratio.set_ylabel("smallest / largest singular value", color=FLAG, y=0.3)


def _missed(axes: Axes, found: Blindness) -> None:
    places = np.arange(len(found.soft))
    axes.bar(places - 0.2, found.blind.missed, 0.4, color=BLIND, label="carbon only")
    axes.bar(places + 0.2, found.seeing.missed, 0.4, color=SEEING, label="all atoms")
    axes.axhline(1, color="0.5", ls=":")
    axes.set_yscale("log")
    axes.set_title("It misses the forces along all directions that it hardly sees", fontsize=11)
    axes.set_xticks(places, [f"{ratio:.0e}" for ratio in found.soft], rotation=45, fontsize=8)
    axes.set_xlabel("singular value / largest, median over frames")
    axes.set_ylabel("force error / force, held-out frames")
    axes.legend(fontsize=9)


def _runs(axes: Axes, blind: Watched, seeing: Watched) -> None:
    for runs, color, name in ((blind, BLIND, "carbon only"), (seeing, SEEING, "all atoms")):
        lines = axes.plot(runs.time, runs.distance.T, color=color, lw=1)
        lines[0].set_label(f"{name} ({len(runs.distance)} runs)")
    axes.plot(blind.flagged, np.zeros(len(blind.flagged)), "^", color=FLAG, ms=8, clip_on=False)
    axes.plot([], [], "^", color=FLAG, label="first warning of the observer")
    axes.axhline(OFF, color="0.5", ls=":")
    axes.set_ylim(-0.02, 0.5)  # some runs fall apart
    axes.set_title("Its runs leave the true trajectory; the observer warns before", fontsize=11)
    axes.set_xlabel("time (fs)")
    axes.set_ylabel("distance from the true trajectory (Å)")
    axes.legend(fontsize=9)
