"""Plots of measured numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.value.intervals import Measured


def compared(
    axes: Any, series: Mapping[str, Mapping[str, Measured]], label: str, level: float | None = None
) -> None:
    """Points with intervals: one color for each series, one place for each name.

    Parameters
    ----------
    axes
        Of matplotlib.
    series
        For each entry of the legend the numbers by the name of their place.
    label
        Of the vertical axis.
    level
        Where to draw a line: the value that says nothing.
    """
    names = list(dict.fromkeys(name for numbers in series.values() for name in numbers))
    shifts = (np.arange(len(series)) - (len(series) - 1) / 2) * 0.7 / max(len(series), 1)
    for shift, (legend, numbers) in zip(shifts, series.items(), strict=True):
        x = [names.index(name) + shift for name in numbers]
        y = np.array([tuple(value) for value in numbers.values()]).reshape(-1, 3)
        bars = [y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]]
        axes.errorbar(x, y[:, 0], np.clip(bars, 0, None), fmt="o", ms=3, lw=1, label=legend)
    if level is not None:
        axes.axhline(level, color="0.6", lw=0.8, zorder=0)
    axes.set_xticks(range(len(names)), names, fontsize="small")
    axes.set_ylabel(label, fontsize="small")
    axes.legend(fontsize="x-small", ncols=min(3, len(series)), frameon=False)
