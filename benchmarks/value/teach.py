"""Held-out errors of models trained on the frames of smallest ratio or distance, over random ones.

Each set is split at random: 30 % test, 70 % pool, of which some frames are chosen. "Distance" is
that to the nearest singular configuration, to first order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity import analyze, singularity_distance
from ase_sensitivity.types import Floats
from benchmarks.value.data import Set
from benchmarks.value.intervals import ratio
from benchmarks.value.plots import compared

QUESTION = "Which frames teach nothing?"

N_CHOSEN = 16
N_RANDOM = 10
MOST_ATOMS = 16
"""Distances take long in larger structures, and were not computed."""

COARSE = {"Si": 2, "Ge": 2, "Mo": 2}
"""Sets of which only every second frame is taken."""


def read(folder: Path, name: str) -> Set:
    """A set with the rows of the model."""
    return Set.read(folder, name, every=COARSE.get(name, 1))


def ratios_and_distances(data: Set) -> dict[str, Floats]:
    """Of all frames, by what is said of them."""
    found = {"ratio": [analyze(atoms, data.soap, k=1).ratio for atoms in data.frames]}
    if max(map(len, data.frames)) <= MOST_ATOMS:
        found["distance"] = [singularity_distance(atoms, data.soap) for atoms in data.frames]
    return {name: np.array(values) for name, values in found.items()}


def measure(folder: Path, sets: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Ratios of force errors for each set."""
    rows = []
    for name in sets:
        data = read(folder, name)
        logs: dict[str, list[float]] = {}
        known = ratios_and_distances(data)
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            order = rng.permutation(len(data.frames))
            cut = len(order) * 3 // 10
            test, pool = order[:cut], order[cut:]
            chosen = {"random": [rng.permutation(pool)[:N_CHOSEN] for _ in range(N_RANDOM)]}
            for what, values in known.items():
                ascending = pool[np.argsort(values[pool], kind="stable")]
                chosen[f"smallest {what}"] = [ascending[:N_CHOSEN]]
                chosen[f"largest {what}"] = [ascending[-N_CHOSEN:]]
            for what, several in chosen.items():
                own = [np.log(data.errors(some, test)[0]) for some in several]
                logs.setdefault(what, []).append(float(np.mean(own)))
        random = np.array(logs.pop("random"))
        rows += [
            {
                "set": name,
                "frames chosen": what,
                "force error / random": ratio(np.array(own), random),
            }
            for what, own in logs.items()
        ]
    return rows


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Errors over those of random choice."""
    series: dict[str, dict[str, Any]] = {}
    for row in rows:
        series.setdefault(row["frames chosen"], {})[row["set"]] = row["force error / random"]
    compared(axes, series, f"error of forces, {N_CHOSEN} frames\nover that of random choice", 1.0)
