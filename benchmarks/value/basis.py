"""Required slopes of bases, cutoffs and widths against held-out errors of models with these.

Each set is split at random: 30 % test, 70 % training. The slope of a candidate is the median over
the training frames. The models are linear in random Fourier features, with the same number for all
candidates, and their ridge is chosen inside the training set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ase_sensitivity import SOAP, scan
from ase_sensitivity.types import Floats
from benchmarks.value.data import BASIS, SETS, Set
from benchmarks.value.intervals import Measured, mean, ratio
from benchmarks.value.plots import compared

QUESTION = "Which basis, which cutoff?"

MOST_ATOMS = 900
"""Of frames that are used, at even distances over the set."""

SIGMA = 0.5
STRETCHES = (0.8, 1.0, 1.2)
"""Cutoffs that are tried, relative to that of the set."""

SIGMAS = (0.3, 0.5, 0.7)
BASES = tuple(itertools.product((2, 4, 6), (1, 3, 5)))
SWEEPS = ("n_max, l_max", "cutoff, atom_sigma")


def candidates(name: str, sweep: str) -> list[SOAP]:
    """The descriptors of a sweep; those over cutoff and width all have as many features."""
    _, species, cutoff, _, _ = SETS[name]
    if sweep == SWEEPS[0]:
        return [SOAP(species, cutoff, *basis, atom_sigma=SIGMA, threads=1) for basis in BASES]
    return [
        SOAP(species, stretch * cutoff, *BASIS, atom_sigma=sigma, threads=1)
        for stretch, sigma in itertools.product(STRETCHES, SIGMAS)
    ]


def numbers(folder: Path, name: str, soaps: Sequence[SOAP], seeds: int) -> tuple[Floats, Floats]:
    """Slopes, and logarithms of held-out force errors, of shape (n_seeds, n_candidates)."""
    slopes, errors = np.empty((2, seeds, len(soaps)))
    for k, soap in enumerate(soaps):
        data = Set.read(folder, name, soap, most=MOST_ATOMS)
        own = scan(data.frames, soap, causes=False).column("required_slope")
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(data.frames))
            cut = len(order) * 3 // 10
            test, train = order[:cut], order[cut:]
            slopes[seed, k] = np.median(own[train])
            errors[seed, k] = np.log(data.errors(train, test)[0])
    return slopes, errors


def _rank_correlation(one: Floats, other: Floats) -> Measured | str:
    """Spearman's coefficient over candidates, the mean over splits."""
    if np.ptp(one) == 0:
        return "all equal"
    found = [spearmanr(a, b).statistic for a, b in zip(one, other, strict=True)]
    return mean(np.array(found))


def measure(folder: Path, sets: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Rank correlations with the error for each set and sweep, and what a choice costs."""
    rows: list[dict[str, Any]] = []
    for name, sweep in itertools.product(sets, SWEEPS):
        soaps = candidates(name, sweep)
        slopes, errors = numbers(folder, name, soaps, seeds)
        sizes = np.tile([float(soap.n_features) for soap in soaps], (seeds, 1))
        chosen = errors[np.arange(seeds), slopes.argmin(axis=1)]
        rows.append(
            {
                "set": name,
                "tried": sweep,
                "candidates": len(soaps),
                "Spearman of slope": _rank_correlation(slopes, errors),
                "of number of features": _rank_correlation(sizes, errors),
                "error of lowest slope / best": ratio(chosen, errors.min(axis=1)),
                "error of median / best": ratio(np.median(errors, axis=1), errors.min(axis=1)),
            }
        )
    return rows


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Rank correlation of the slope with the error."""
    series: dict[str, dict[str, Measured]] = {}
    for row in rows:
        value = row["Spearman of slope"]
        if isinstance(value, Measured):
            series.setdefault(row["tried"], {})[row["set"]] = value
    compared(axes, series, "Spearman of required slope\nand held-out force error", 0.0)
