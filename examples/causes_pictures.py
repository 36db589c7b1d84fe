"""The pictures of docs/causes: for each cause a molecule, the motion it hides, and its numbers."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from ase_sensitivity import SOAP, analyze

COLORS = {"H": "white", "C": "0.6", "N": "#8fa8f0", "O": "#f08a80"}
HEAVY, HYDROGEN = 0.24, 0.17  # radii of the balls, in Å
SEEN, HIDDEN = "C0", "C3"
ZERO = 1e-4  # where zero is on a logarithmic axis
RATIO = r"$\sigma_\mathrm{min}\,/\,\sigma_\mathrm{max}$"


def view_from(azimuth: float, elevation: float) -> np.ndarray:
    """Axes to the right, up, and towards the viewer, of shape (3, 3), from angles in degrees."""
    a, e = np.radians([azimuth, elevation])
    right = np.array([-np.sin(a), np.cos(a), 0])
    viewer = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    return np.array([right, np.cross(viewer, right), viewer])


class Drawing:
    """Balls and sticks, parallel projection, with arrows and distances.

    Parameters
    ----------
    axes
        Where to draw.
    atoms, bonds
        What to draw.
    view
        From where, of shape (3, 3).
    names
        One character for each atom, instead of its symbol.
    """

    def __init__(
        self,
        axes: Axes,
        atoms: Atoms,
        bonds: list[tuple[int, int]],
        view: np.ndarray,
        names: str | None = None,
    ) -> None:
        self.axes, self.atoms, self.view = axes, atoms, view
        self.points = atoms.positions @ view.T
        self.radii = np.where(atoms.symbols == "H", HYDROGEN, HEAVY)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.margins(0.1)
        for pair in bonds:
            ends = self.between(*pair)
            axes.plot(*ends.T[:2], color="0.5", lw=4, zorder=ends[:, 2].mean())
        for i, (symbol, (x, y, depth)) in enumerate(zip(atoms.symbols, self.points, strict=True)):
            ball = Circle((x, y), self.radii[i], fc=COLORS[symbol], ec="black", zorder=depth)
            axes.add_patch(ball)
            name = names[i] if names else symbol
            axes.text(x, y, name, ha="center", va="center_baseline", zorder=6)

    def between(self, i: int, j: int) -> np.ndarray:
        """The line from the surface of one ball to that of another, as seen, of shape (2, 3)."""
        ends = self.points[[i, j]]
        along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
        return ends + 0.9 * np.outer([self.radii[i], -self.radii[j]], along)

    def distance(self, i: int, j: int, shift: tuple[float, float]) -> None:
        """A dotted line between two atoms with their distance beside it."""
        ends = self.between(i, j)
        self.axes.plot(*ends.T[:2], ":", color="black", lw=1.3, zorder=5)
        x, y = ends.mean(axis=0)[:2] + shift
        text = f"{self.atoms.get_distance(i, j):.2f} Å"
        self.axes.text(x, y, text, ha="center", va="center", fontsize=9)

    def arrows(self, mode: np.ndarray) -> None:
        """A displacement of the atoms, of shape (n_atoms, 3)."""
        for start, radius, arrow in zip(self.points, self.radii, mode @ self.view.T, strict=True):
            length = np.linalg.norm(arrow)
            if length < 0.1:
                continue
            start = start + radius / length * arrow
            end = start + arrow
            style = {"arrowstyle": "-|>", "mutation_scale": 14, "lw": 2, "shrinkA": 0, "shrinkB": 0}
            shape = FancyArrowPatch(start[:2], end[:2], color=HIDDEN, zorder=9, **style)
            self.axes.add_patch(shape)
            self.axes.plot(*end[:2], alpha=0)  # for the limits


def ratios(atoms: Atoms, soap: SOAP) -> np.ndarray:
    """All singular values but those of rigid motions, over the largest one, ascending."""
    found = analyze(atoms, soap, k=3 * len(atoms))
    values = found.singular_values / found.sigma_max
    values[: found.n_null] = 0
    return values


def logarithmic(axes: Axes) -> None:
    """A logarithmic vertical axis whose lowest tick stands for zero."""
    axes.set_yscale("log")
    axes.set_ylim(ZERO / 2, 2)
    axes.set_yticks([ZERO, 1e-3, 1e-2, 1e-1, 1], ["0", "0.001", "0.01", "0.1", "1"])
    axes.minorticks_off()


def symmetry() -> Figure:
    """Planar ammonia and its umbrella mode."""
    soap = SOAP(["N", "H"], cutoff=4.0, n_max=8, l_max=6)
    atoms = molecule("NH3")
    atoms.positions[0, 2] = atoms.positions[1, 2]
    mode = analyze(atoms, soap).modes[0]
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.2))
    drawing = Drawing(left, atoms, [(0, 1), (0, 2), (0, 3)], view_from(8, 25))
    drawing.arrows(0.8 * mode * np.sign(mode[0, 2]))
    left.set_title("planar NH$_3$", fontsize="medium")
    heights = np.linspace(-0.5, 0.5, 101)
    values = []
    for height in heights:
        atoms.positions[0, 2] = atoms.positions[1, 2] + height
        values.append(ratios(atoms, soap)[:3])
    right.plot(heights, values, color="0.75", lw=1)
    right.plot(heights, np.min(values, axis=1), color=SEEN, lw=2)
    right.plot(0, 0, "o", color=HIDDEN, zorder=5)
    right.text(0.09, 0.08, f"{min(values[51]) / heights[51]:.1f} per Å")
    right.set_xlabel("height of N over the plane of H (Å)")
    right.set_ylabel(RATIO)
    right.set_ylim(-0.02, None)
    return figure


def rotated(angle: float) -> Atoms:
    """Four hydrogen atoms about carbon, two turned about the axis between the other two."""
    c, s = np.cos(angle), np.sin(angle)
    hydrogens = [(1, 0, 0.5), (-1, 0, 0.5), (0.9 * c, 0.9 * s, -0.7), (-1.2 * s, 1.2 * c, 0.3)]
    return Atoms("CH4", [(0, 0, 0), *hydrogens])


def incompleteness() -> Figure:
    """A singular environment, and two on either side of it that have the same features."""
    basis = {"cutoff": 3.0, "n_max": 8, "l_max": 8, "atom_sigma": 0.3}
    carbon = SOAP(["H"], **basis, centers=["C"])
    angle, bonds, view = 0.3, [(0, i) for i in (1, 2, 3, 4)], view_from(-97, 42)
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 0.85))
    panels = upper.subplots(1, 3)
    for axes, sign, near in ((panels[0], 1, 2), (panels[2], -1, 1)):
        drawing = Drawing(axes, rotated(sign * angle), bonds, view, "C1234")
        drawing.distance(1, 3, (0.42, -0.02))
        drawing.distance(4, near, (-0.42 * sign, 0.12))
        axes.set_title(f"turned by {'+−'[sign < 0]}{angle}", fontsize="medium")
    drawing = Drawing(panels[1], rotated(0), bonds, view, "C1234")
    mode = analyze(rotated(0), carbon).modes[0]
    # As 3 and 4 are turned, against 1 and 2.
    drawing.arrows(0.8 * (mode - mode[0]) * np.sign(mode[3, 1]))
    panels[1].set_title("singular", fontsize="medium")
    for axes in panels:
        axes.set(xlim=(-1.5, 1.4), ylim=(-0.9, 1.2))
    axes = lower.subplots()
    angles = np.linspace(-0.5, 0.5, 101)
    for soap, color, label, where in (
        (carbon, HIDDEN, "SOAP on carbon", (0, 0.79)),
        (SOAP(["C", "H"], **basis), SEEN, "SOAP on all atoms", (-0.21, 0.92)),
    ):
        here = soap.features(rotated(angle))
        changes = np.array([np.linalg.norm(soap.features(rotated(a)) - here) for a in angles])
        axes.plot(angles, changes / changes.max(), color=color, lw=2)
        axes.text(*where, label, color=color, ha="center")
    axes.plot([-angle, angle], [0, 0], "o", color=HIDDEN)
    axes.set_xlabel("turn of atoms 3 and 4 against 1 and 2 (rad)")
    axes.set_ylabel(f"features: distance from\nthose at {angle:+.1f} / largest")
    return figure


def truncation() -> Figure:
    """All singular values of one environment, in larger and larger bases."""
    neighbors = [(1, 0, 0), (0.28, 0.96, 0), (-0.48, 0.6, 0.64), (-0.36, -0.48, -0.8)]
    atoms = Atoms("CH4", [(0, 0, 0), *neighbors])
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    Drawing(left, atoms, [(0, i) for i in (1, 2, 3, 4)], view_from(-60, 30))
    left.set_title("four H at 1 Å from C", fontsize="medium")
    for l_max in range(1, 9):
        soap = SOAP(["H"], 3.0, 8, l_max, atom_sigma=0.3, normalise=False, centers=["C"])
        values = ratios(atoms, soap)
        rank = np.count_nonzero(values)
        right.plot([l_max] * rank, values[values > 0], "o", color=SEEN, ms=5)
        side_by_side = l_max + 0.13 * (np.arange(9 - rank) - (8 - rank) / 2)
        right.plot(side_by_side, [ZERO] * (9 - rank), "o", color=HIDDEN, ms=5)
        right.annotate(f"{rank}", (l_max, 2.6), ha="center", annotation_clip=False)
    right.set_title("directions seen, of 9:", fontsize="medium", pad=18)
    right.set_xlabel("l_max")
    right.set_ylabel(r"$\sigma_i\,/\,\sigma_\mathrm{max}$")
    logarithmic(right)
    return figure


def fragment() -> Figure:
    """Hydrogen peroxide, whose halves turn unseen if the cutoff is short."""
    atoms = molecule("H2O2")
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    basis = {"n_max": 8, "l_max": 6, "normalise": False}
    mode = analyze(atoms, SOAP(["O", "H"], cutoff=1.6, **basis)).modes[0]
    drawing = Drawing(left, atoms, [(0, 1), (0, 2), (1, 3)], view_from(-35, 30))
    drawing.arrows(0.8 * mode)
    drawing.distance(0, 3, (0.1, 0.2))
    left.set_title("H$_2$O$_2$", fontsize="medium")
    cutoffs = np.arange(1.5, 4.01, 0.05)
    values = np.array([ratios(atoms, SOAP(["O", "H"], cutoff, **basis))[0] for cutoff in cutoffs])
    far = atoms.get_distance(0, 3)
    right.axvline(far, ls=":", color="black", lw=1.3)
    right.text(far + 0.15, 3e-4, "the other H comes\ninto reach of O", va="center")
    right.plot(cutoffs[values > 0], values[values > 0], "o-", color=SEEN, ms=3)
    right.plot(cutoffs[values == 0], values[values == 0] + ZERO, "o", color=HIDDEN, ms=4)
    right.set_xlabel("cutoff (Å)")
    right.set_ylabel(RATIO)
    logarithmic(right)
    return figure


def main() -> None:
    """Draw and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder; by default a temporary one")
    folder = parser.parse_args().output or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (symmetry, incompleteness, truncation, fragment):
        path = folder / f"{picture.__name__}.png"
        picture().savefig(path, dpi=100, pil_kwargs={"optimize": True})
        print(path)


if __name__ == "__main__":
    main()
