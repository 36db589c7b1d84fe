"""The charts of the report by matplotlib, for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ase_sensitivity.causes.cause import CAUSES, NULL_CAUSES
from ase_sensitivity.dataset.result import check_result
from ase_sensitivity.sensitivity import NEARLY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ase_sensitivity.dataset.basis.result import Convergence
    from ase_sensitivity.dataset.record import FrameRecord
    from ase_sensitivity.dataset.result import ScanResult

RATIO = r"$\sigma_\mathrm{min} / \sigma_\mathrm{max}$"


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.figure(layout="constrained").add_subplot()


def plot_ratio(
    result: ScanResult, ax: Axes | None = None, *, timestep: float | None = None
) -> Axes:
    """sigma_min / sigma_max of every frame, in the color of its cause.

    Parameters
    ----------
    result
        Of a scan.
    ax
        Where to draw; by default a new figure.
    timestep
        Time between two frames in fs, for an axis of time.

    Returns
    -------
    Axes
        Where it is drawn.
    """
    check_result(result)
    ax = _axes(ax)
    ratio, cause = result.column("ratio"), result.column("cause")
    floor = float(result.parameters["null_tolerance"])
    one_source = len(set(result.column("source"))) == 1
    x = result.column("index") if one_source or timestep else np.arange(len(ratio))
    colors = {"": "0.5"} | {name: CAUSES[name].color for name in reversed(NULL_CAUSES)}
    for name, color in colors.items():
        chosen = (cause == name) & np.isfinite(ratio)
        if chosen.any():
            ax.plot(
                x[chosen] * (timestep or 1),
                np.maximum(ratio[chosen], floor / 10),
                ".",
                color=color,
                label=name or "seen",
            )
    for value in (NEARLY, floor):
        ax.axhline(value, color="0.6", linewidth=0.8, linestyle="--")
    ax.set(yscale="log", ylabel=RATIO, xlabel="time (fs)" if timestep else "frame")
    ax.legend()
    return ax


def plot_spectrum(result: ScanResult, ax: Axes | None = None) -> Axes:
    """Heat map of the smallest singular values of every frame, relative to the largest."""
    check_result(result)
    ax = _axes(ax)
    floor = float(result.parameters["null_tolerance"])
    spectra = [
        np.log10(np.maximum(record.singular_values / (record.scale or 1.0), floor))
        for record in result.records()
    ]
    table = np.full((max((len(s) for s in spectra), default=0), len(spectra)), np.nan)
    for i, values in enumerate(spectra):
        table[: len(values), i] = values
    image = ax.imshow(
        table,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(-0.5, len(spectra) - 0.5, 0.5, len(table) + 0.5),
    )
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(r"$\log_{10} \sigma / \sigma_\mathrm{max}$")
    ax.set(xlabel="frame", ylabel="singular value")
    return ax


def plot_irreducible(result: ScanResult, ax: Axes | None = None) -> Axes:
    """Irreducible force error against the smallest sigma / sigma_max that a model can use.

    Raises
    ------
    ValueError
        If no frame has reference forces.
    """
    check_result(result)
    thresholds, error = result.curve
    if np.isnan(error).all():
        raise ValueError("`result` has no reference forces; scan with `forces_key`")
    ax = _axes(ax)
    ax.step(thresholds, np.maximum(error, 1e-12), where="post", color="C3")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=r"smallest $\sigma / \sigma_\mathrm{max}$ used",
        ylabel="irreducible force error (eV/Å)",
    )
    return ax


def plot_species_loss(result: ScanResult, ax: Axes | None = None) -> Axes:
    """Root mean square of the force components lost, by species.

    Raises
    ------
    ValueError
        If no frame has reference forces.
    """
    check_result(result)
    lost = result.species_loss
    if not lost:
        raise ValueError("`result` has no reference forces; scan with `forces_key`")
    ax = _axes(ax)
    ax.bar(list(lost), list(lost.values()), color="C0", width=0.6)
    ax.set(xlabel="species", ylabel="lost force, rms (eV/Å)")
    return ax


def plot_atom_loss(record: FrameRecord, ax: Axes | None = None) -> Axes:
    """Length of the force that is lost on each atom of a frame.

    Raises
    ------
    ValueError
        If the frame has no reference forces.
    """
    lost = record.force_loss
    if lost is None:
        raise ValueError("`record` has no reference forces; scan with `forces_key`")
    ax = _axes(ax)
    ax.bar(np.arange(len(lost)), lost, color="C0")
    ax.set(xlabel="atom", ylabel="lost force (eV/Å)")
    return ax


def plot_convergence(
    found: Convergence, ax: Axes | None = None, *, against: Literal["cost", "n_features"] = "cost"
) -> Axes:
    """Required slope of every candidate of a sweep against what it costs, with the Pareto front.

    Bars are 95 % intervals of a bootstrap over frames; those of differences between candidates are
    narrower, as these have the same frames. Candidates that truncate or lose more of the
    forces than others are gray, as their slopes cannot be compared.

    Parameters
    ----------
    found
        Of :func:`~ase_sensitivity.converge`.
    ax
        Where to draw; by default a new figure.
    against
        The processor time per frame, or the number of features.

    Raises
    ------
    ValueError
        If no frame has reference forces.
    """
    labels = {"cost": ("cost (ms per frame)", 1e3), "n_features": ("features", 1)}
    if against not in labels:
        raise ValueError(f'`against` is {against!r} but must be "cost" or "n_features"')
    rows = [r for r in found.rows if r["required_slope"] is not None and r[against] is not None]
    if not rows:
        raise ValueError("`found` has no reference forces; sweep with `forces_key`")
    from matplotlib.ticker import LogFormatter

    ax = _axes(ax)
    text, factor = labels[against]
    compared = {*found.compared}
    for row in rows:
        key = tuple(row[name] for name in found.varied)
        x, slope = factor * row[against], row["required_slope"]
        color = "C0" if key in compared else "0.7"
        bars = None
        if row["slope_low"] is not None:
            bars = [[max(slope - row["slope_low"], 0)], [max(row["slope_high"] - slope, 0)]]
        ax.errorbar(x, slope, bars, fmt="o", color=color, markersize=4, linewidth=0.8)
    front = [row for row in rows if against in row["front"]]
    front.sort(key=lambda row: row[against])
    x = [factor * row[against] for row in front]
    ax.plot(x, [row["required_slope"] for row in front], "-", color="C3", label="Pareto front")
    for place, row in zip(x, front, strict=True):
        values = [str(row[name])[:40] for name in found.varied]
        ax.annotate(
            ", ".join(values),
            (place, row["required_slope"]),
            xytext=(3, 4),
            textcoords="offset points",
            fontsize="x-small",
        )
    ax.set(xscale="log", yscale="log", xlabel=text, ylabel="required slope (eV/Å)")
    for axis in (ax.xaxis, ax.yaxis):  # numbers that are less than a decade apart, without powers
        axis.set_major_formatter(LogFormatter())
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    ax.set_title(", ".join(found.varied), fontsize="small")
    if front:
        ax.legend()
    return ax
