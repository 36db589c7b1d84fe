"""Errors relative to the predicted uncertainty, along soft and along stiff directions.

Half of a set trains the model. Errors of held-out forces are projected on the modes of each frame.
For the softest and the stiffest sixth of the modes, the root mean square error over the root mean
square uncertainty is computed. If the first is larger than the second, the uncertainty is too small
along soft directions. With a noise floor, the square of the error of the cross-validation is added
to each variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity import analyze
from benchmarks.value.data import Set
from benchmarks.value.err import ensemble
from benchmarks.value.intervals import ratio
from benchmarks.value.plots import compared
from benchmarks.value.teach import read

QUESTION = "How far to trust the uncertainty of a model?"

PART = 6


def measure(folder: Path, sets: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Soft over stiff ratios for each set and uncertainty."""
    rows = []
    for name in sets:
        data = read(folder, name)
        modes = []
        for atoms in data.frames:
            found = analyze(atoms, data.soap, k=None)
            modes.append(found.modes[found.n_null :].reshape(-1, 3 * len(atoms)))
        logs: dict[str, list[tuple[float, float]]] = {}
        for seed in range(seeds):
            for what, own in _calibration(data, modes, seed).items():
                logs.setdefault(what, []).append(own)
        rows += [
            {
                "set": name,
                "uncertainty": what,
                "error / uncertainty, soft over stiff": ratio(*np.array(own).T),
            }
            for what, own in logs.items()
        ]
    return rows


def _calibration(data: Set, modes: list[Any], seed: int) -> dict[str, tuple[float, float]]:
    """Logarithms of error over uncertainty along soft and stiff modes, of each uncertainty."""
    rng = np.random.default_rng(seed)
    train, test = np.split(rng.permutation(len(modes)), [len(modes) // 2])
    model = data.fitted(train)
    several = ensemble(data, model, train, rng)
    factor = np.linalg.inv(np.linalg.cholesky(model.precision)).T * model.noise
    squares: dict[str, list[list[float]]] = {}
    for i in test:
        if len(modes[i]) < PART:
            continue
        rows = modes[i] @ data.force_rows[i]
        part = max(len(rows) // PART, 1)
        last, spread = ((rows @ factor) ** 2).sum(axis=1), (rows @ several).var(axis=1)
        own = {
            "error": (modes[i] @ data.missed(model, i)) ** 2,
            "last layer": last,
            "last layer with a noise floor": last + model.noise**2,
            "ensemble": spread,
            "ensemble with a noise floor": spread + model.noise**2,
        }
        for what, values in own.items():
            ends = [float(values[:part].mean()), float(values[-part:].mean())]
            squares.setdefault(what, []).append(ends)
    means = {what: np.log(np.mean(values, axis=0)) / 2 for what, values in squares.items()}
    error = means.pop("error")
    return {what: tuple(error - values) for what, values in means.items()}


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Soft over stiff ratios."""
    series: dict[str, dict[str, Any]] = {}
    for row in rows:
        own = series.setdefault(row["uncertainty"], {})
        own[row["set"]] = row["error / uncertainty, soft over stiff"]
    compared(axes, series, "error / uncertainty,\nsoft over stiff directions", 1.0)
    axes.set_yscale("log")
