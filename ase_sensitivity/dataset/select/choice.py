"""Ways to choose frames: greedily by a design, or by their average features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ase_sensitivity.dataset.select.design import Design
from ase_sensitivity.dataset.select.row_store import BLOCK
from ase_sensitivity.types import Floats, Ints

FEW = 32
"""Number of gains that are computed first while the best frame is sought; then twice as many."""

N_USUAL = 100
"""Number of random frames whose mean gain is that of a random choice."""

Progress = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Choice:
    """Frames in the order in which they were chosen.

    Attributes
    ----------
    chosen
        Their numbers, of shape (n,).
    gains, usual_gains
        What each gained, and what random frames would have gained on average, of shape (n,); nan if
        that is not known.
    others, gains_of_others
        The candidates that were not chosen, and what each would gain now; empty without a design.
    variances
        Mean variances of forces and energies before the first and after each step, of shape
        (n + 1, 2), perhaps after those without any data; empty without a design.
    """

    chosen: Ints
    gains: Floats
    usual_gains: Floats
    others: Ints = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    gains_of_others: Floats = field(default_factory=lambda: np.empty(0))
    variances: Floats = field(default_factory=lambda: np.empty((0, 2)))


def by_design(
    design: Design,
    rows: Callable[[Ints], Floats],
    candidates: Ints,
    n: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
    *,
    lazy: bool = True,
) -> Choice:
    """At each step the frame with the largest gain.

    Parameters
    ----------
    design
        The design; the frames are added to it.
    rows
        Gives the rows of frames, (m, n_rows, n_columns).
    candidates
        Numbers of the frames to choose from.
    n
        How many to choose.
    rng
        Draws the random frames for the usual gain.
    progress
        Called with the number of frames chosen so far.
    lazy
        Compute only the gains of frames that may be the best: those whose earlier falls of the
        variances, at today's variances, are above the best gain so far. Otherwise all of them.

    Notes
    -----
    A fall of the determinant never grows as frames are added, and the lazy choice is exact. A fall
    of a mean variance may grow in principle. It was never seen to change the choice.
    """
    falls = np.empty((len(candidates), 2))
    left = np.ones(len(candidates), dtype=bool)
    places, gains, usual_gains, variances = [], [], [], [design.variances]
    for step in range(min(n, len(candidates))):
        fresh = np.zeros(len(candidates), dtype=bool)
        found = np.full(len(candidates), -np.inf)
        if step == 0 or not lazy:
            todo = np.flatnonzero(left)
            _update(falls, design, rows, candidates, todo)
            fresh[todo] = True
        found[left] = design.gains(falls[left])
        usual = rng.choice(np.flatnonzero(left), min(N_USUAL, int(left.sum())), replace=False)
        todo, size = usual[~fresh[usual]], FEW
        while True:
            _update(falls, design, rows, candidates, todo)
            fresh[todo] = True
            found[todo] = design.gains(falls[todo])
            best = int(np.argmax(np.where(fresh, found, -np.inf)))
            above = np.flatnonzero(~fresh & (found > found[best]))
            if len(above) == 0:
                break
            size = min(size, len(above))
            todo = above[np.argpartition(-found[above], size - 1)[:size]]
            size = min(2 * size, BLOCK)
        design.add(rows(candidates[[best]])[0])
        left[best] = False
        places.append(best)
        gains.append(float(found[best]))
        usual_gains.append(float(found[usual].mean()))
        variances.append(design.variances)
        if progress is not None:
            progress(step + 1)
    rest = np.flatnonzero(left)
    _update(falls, design, rows, candidates, rest)
    return Choice(
        chosen=candidates[places],
        gains=np.array(gains),
        usual_gains=np.array(usual_gains),
        others=candidates[rest],
        gains_of_others=design.gains(falls[rest]),
        variances=np.array(variances),
    )


def _update(
    falls: Floats,
    design: Design,
    rows: Callable[[Ints], Floats],
    candidates: Ints,
    places: Ints,
) -> None:
    for start in range(0, len(places), BLOCK):
        some = places[start : start + BLOCK]
        falls[some] = design.falls(rows(candidates[some]))


def farthest_points(
    averages: Floats, candidates: Ints, n: int, given: Floats, rng: np.random.Generator
) -> Choice:
    """At each step the frame whose average features are farthest from all chosen ones.

    Parameters
    ----------
    averages
        Average features of all frames, of shape (n_frames, n_axes).
    candidates, n
        As in :func:`by_design`.
    given
        Average features of frames that are there already, of shape (any, n_axes). Without any, the
        first frame is random.
    rng
        Draws it.
    """
    own = averages[candidates].astype(float)
    distances = np.full(len(own), np.inf)
    for point in given:
        distances = np.minimum(distances, np.linalg.norm(own - point, axis=1))
    places: list[int] = []
    gains = []
    for _ in range(min(n, len(own))):
        first = not places and len(given) == 0
        best = int(rng.integers(len(own))) if first else int(np.argmax(distances))
        places.append(best)
        gains.append(float(distances[best]))
        distances = np.minimum(distances, np.linalg.norm(own - own[best], axis=1))
        distances[places] = -np.inf
    return Choice(candidates[places], np.array(gains), np.full(len(places), np.nan))


def cur(averages: Floats, candidates: Ints, n: int, given: Floats) -> Choice:
    """At each step the frame with the largest weight in the first left singular vector.

    Then the features of all frames are made orthogonal to its own. This is CUR decomposition as in
    scikit-matter. The gain is the squared weight. Parameters as in :func:`farthest_points`.
    """
    own = averages[candidates].astype(float)
    if len(given):
        _, values, axes = np.linalg.svd(given, full_matrices=False)
        axes = axes[values > np.finfo(np.float32).eps * values.max(initial=0.0)]
        own -= own @ axes.T @ axes
    places: list[int] = []
    gains = []
    for _ in range(min(n, len(own))):
        weights = (own @ np.linalg.eigh(own.T @ own)[1][:, -1]) ** 2
        weights[places] = -1.0
        best = int(np.argmax(weights))
        gains.append(float(weights[best] / max(weights.clip(0).sum(), np.finfo(float).tiny)))
        places.append(best)
        axis = own[best] / max(float(np.linalg.norm(own[best])), np.finfo(float).tiny)
        own -= np.outer(own @ axis, axis)
    return Choice(candidates[places], np.array(gains), np.full(len(places), np.nan))


def at_random(candidates: Ints, n: int, rng: np.random.Generator) -> Choice:
    """A random choice."""
    chosen = rng.choice(candidates, min(n, len(candidates)), replace=False)
    return Choice(chosen, np.full(len(chosen), np.nan), np.full(len(chosen), np.nan))
