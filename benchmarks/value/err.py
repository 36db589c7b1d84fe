"""Whether anything tells where a model errs: rank correlations with the errors of held-out frames.

Half of a set trains the model. "Distance" is that to the nearest singular configuration, to first
order. Last-layer uncertainty is that of the linear model, and an ensemble has eight models of
bootstrap samples of the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ase_sensitivity.types import Floats, Ints
from benchmarks.value.data import Fitted, Set
from benchmarks.value.doubt import area
from benchmarks.value.intervals import mean
from benchmarks.value.plots import compared
from benchmarks.value.teach import ratios_and_distances, read

QUESTION = "Where will the model err?"

N_MODELS = 8
WORST = 0.1
"""Part of the frames that has the largest errors, which a flag should find."""


def variances(data: Set, model: Fitted, frames: Ints) -> list[Floats]:
    """Last-layer variances of the forces of frames in (eV/Å)², each of shape (3 n_atoms,)."""
    factor = np.linalg.inv(np.linalg.cholesky(model.precision)).T * model.noise
    return [((data.force_rows[i] @ factor) ** 2).sum(axis=1) for i in frames]


def ensemble(data: Set, model: Fitted, train: Ints, rng: np.random.Generator) -> Floats:
    """Weights of models of bootstrap samples with the same ridge, of shape (n, N_MODELS)."""
    lefts = {i: data.force_rows[i].T @ data.force_rows[i] for i in train}
    ridge = model.precision - sum(lefts.values())  # with the part of the energies
    found = []
    for _ in range(N_MODELS):
        some = rng.choice(train, len(train))
        left = ridge + sum(lefts[i] for i in some)
        right = sum(data.force_rows[i].T @ data.forces[i] for i in some)
        found.append(np.linalg.solve(left, right))
    return np.array(found).T


def measure(folder: Path, sets: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Correlations for each set and what should predict the error."""
    rows = []
    for name in sets:
        data = read(folder, name)
        known = {f"1 / {what}": 1 / v.clip(1e-9) for what, v in ratios_and_distances(data).items()}
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(data.frames))
            train, test = np.split(order, [len(order) // 2])
            model = data.fitted(train)
            errors = np.array([np.sqrt((data.missed(model, i) ** 2).mean()) for i in test])
            several = ensemble(data, model, train, rng)
            predicted = {what: values[test] for what, values in known.items()}
            predicted["last layer"] = np.array([v.mean() for v in variances(data, model, test)])
            predicted["ensemble"] = np.array(
                [(data.force_rows[i] @ several).var(axis=1).mean() for i in test]
            )
            predicted["size of the forces"] = np.array([(data.forces[i] ** 2).mean() for i in test])
            worst = errors >= np.quantile(errors, 1 - WORST)
            for what, values in predicted.items():
                own = float(spearmanr(values, errors).statistic), area(values, worst)
                found.setdefault(what, []).append(own)
        rows += [
            {
                "set": name,
                "predictor": what,
                "rank correlation with the error": mean(np.array(own)[:, 0]),
                "area for the worst tenth": mean(np.array(own)[:, 1]),
            }
            for what, own in found.items()
        ]
    return rows


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Rank correlations."""
    series: dict[str, dict[str, Any]] = {}
    for row in rows:
        own = series.setdefault(row["predictor"], {})
        own[row["set"]] = row["rank correlation with the error"]
    compared(axes, series, "rank correlation with the force error of a frame", 0.0)
