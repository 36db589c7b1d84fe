"""Held-out errors of models trained on frames that ``select`` chose, over those of random frames.

Each set is split at random: 30 % test, 70 % pool. The models are linear in random Fourier features
that ``select`` does not know, and their ridge is chosen inside the training set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity import select
from ase_sensitivity.dataset.select.design import DESIGNS
from ase_sensitivity.types import SELECTION_METHODS, Floats, Ints
from benchmarks.value.data import Set
from benchmarks.value.intervals import ratio
from benchmarks.value.plots import compared

QUESTION = "Which frames to compute?"

SIZES = (8, 24)
N_RANDOM = 10
"""Number of random choices in each split. The logarithms of their errors are averaged."""

N_STARTS = 4
"""Number of random first frames of farthest points, averaged as well."""

OTHERS = [method for method in SELECTION_METHODS if method != "random"]
KINDS = ("forces", "energies")


def orders(data: Set, pool: Ints, seed: int) -> dict[str, list[Ints]]:
    """The frames of a pool in the order in which each method chooses them, from several starts."""
    frames = [data.frames[i] for i in pool]
    found: dict[str, list[Ints]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in OTHERS:
            store = Path(folder) / "rows" if method in DESIGNS else None  # one for all designs
            for start in range(N_STARTS if method == "farthest-points" else 1):
                chosen = select(
                    frames,
                    data.soap,
                    max(SIZES),
                    method=method,
                    seed=N_STARTS * seed + start,
                    store=store,
                )
                found.setdefault(method, []).append(pool[chosen.indices])
    return found


def logarithms(data: Set, seeds: int) -> dict[tuple[str, int], Floats]:
    """Logarithms of the errors of each method and size, of shape (n_seeds, 2)."""
    found: dict[tuple[str, int], list[Floats]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(data.frames))
        cut = len(order) * 3 // 10
        test, pool = order[:cut], order[cut:]
        chosen = orders(data, pool, seed)
        chosen["random"] = [rng.permutation(pool) for _ in range(N_RANDOM)]
        for size in SIZES:
            for method, several in chosen.items():
                own = [np.log(data.errors(numbers[:size], test)) for numbers in several]
                found.setdefault((method, size), []).append(np.mean(own, axis=0))
    return {key: np.array(values) for key, values in found.items()}


def measure(folder: Path, sets: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Ratios of errors for each set, size and method."""
    rows: list[dict[str, Any]] = []
    for name in sets:
        logs = logarithms(Set.read(folder, name), seeds)
        for size in SIZES:
            for method in OTHERS:
                row: dict[str, Any] = {"set": name, "n": size, "method": method}
                for other in ("random", "farthest-points"):
                    one, two = logs[method, size], logs[other, size]
                    row |= {
                        f"{kind} / {other}": ratio(one[:, k], two[:, k])
                        for k, kind in enumerate(KINDS)
                    }
                rows.append(row)
    return rows


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Errors of forces with the fewest frames over those of random choice."""
    shown = [row for row in rows if row["n"] == SIZES[0]]
    compared(
        axes,
        {
            method: {row["set"]: row["forces / random"] for row in shown if row["method"] == method}
            for method in OTHERS
        },
        f"error of forces, {SIZES[0]} frames\nover that of random choice",
        level=1.0,
    )
