"""From measured values of all frames to scores, and reasons in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_sensitivity.dataset.doubt.scores import (
    FEWEST,
    above_expected,
    above_usual,
    expected,
    groups_of,
    medians,
    z_scores,
)
from ase_sensitivity.types import Floats, Ints

THRESHOLD = 4.0
"""Frames with a score above this are doubtful (docs/doubt tells how it was chosen)."""

FITTED = ("residual", "worst_residual")
NET = ("net_force", "net_torque")
SMALL_NET = 0.01
"""Net forces (eV/Å) and torques (eV) well below this are as good as zero."""


@dataclass(frozen=True)
class Ground:
    """One of the grounds for doubt.

    Attributes
    ----------
    name
        Of the value in the table.
    text
        What is said of a frame; ``value``, ``usual`` and ``residual_atom`` are filled in.
    """

    name: str
    text: str


GROUNDS = (
    Ground(
        "worst_residual",
        "a fit to other frames misses the force on atom {residual_atom} by {value:.3g} eV/Å; of "
        "forces of this size, usually the worst is missed by {usual:.2g}",
    ),
    Ground(
        "residual",
        "a fit to other frames misses the forces by {value:.3g} eV/Å (rms), and forces of this "
        "size usually by {usual:.2g}",
    ),
    Ground(
        "required_slope",
        "a model must be steep to have these forces: required slope {value:.3g} eV/Å, usually "
        "{usual:.2g}",
    ),
    Ground("net_force", "the forces add up to {value:.3g} eV/Å, and usually to {usual:.2g}"),
    Ground("net_torque", "the torques add up to {value:.3g} eV, and usually to {usual:.2g}"),
)
"""The grounds that have a value for each frame."""


def _usual(values: Mapping[str, Floats], group: Ints) -> dict[str, Floats]:
    """What is usual for each frame, of residuals for one with forces of its size."""
    found = {name: medians(own, group) for name, own in values.items()}
    for name in FITTED:
        found[name] = expected(values[name], values["rms_force"], group)
    return found


def _scores(
    values: Mapping[str, Floats], usual: Mapping[str, Floats], group: Ints
) -> dict[str, Floats]:
    """The robust z-score of each frame on each ground, nan where it is not known."""
    found = {"required_slope": above_usual(values["required_slope"], group)}
    for name in NET:
        found[name] = z_scores(np.log(values[name] + SMALL_NET), group)
    for name in FITTED:
        found[name] = above_expected(values[name], usual[name], group)
    return found


def judged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Scores and reasons of frames, from their measured values.

    Parameters
    ----------
    rows
        For each frame ``formula``, ``rms_force`` and the values of :data:`GROUNDS`, as far as they
        are known.

    Returns
    -------
    judgements
        For each frame its ``score``, the largest of its z-scores (those of net force and torque
        only above :data:`THRESHOLD`); ``scores`` by ground; and ``reasons``, the strongest first,
        of all scores above :data:`THRESHOLD`.
    """
    names = ("rms_force", *(ground.name for ground in GROUNDS))
    values = {
        name: np.array([_number(row.get(name)) for row in rows], dtype=float) for name in names
    }
    group, _ = groups_of([str(row["formula"]) for row in rows])
    usual = _usual(values, group)
    scores = _scores(values, usual, group)
    found = []
    for n, row in enumerate(rows):
        own = {name: float(z[n]) for name, z in scores.items() if np.isfinite(z[n])}
        reasons = [
            (
                own[ground.name],
                ground.text.format(
                    value=values[ground.name][n],
                    usual=usual[ground.name][n],
                    residual_atom=row.get("residual_atom"),
                ),
            )
            for ground in GROUNDS
            if own.get(ground.name, 0.0) > THRESHOLD
        ]
        # A set may have any net forces; they matter where they are far from what is usual.
        fit = [z for name, z in own.items() if name not in NET or z > THRESHOLD]
        found.append(
            {
                "score": max(fit, default=None),
                "scores": own,
                "reasons": [text for _, text in sorted(reasons, key=lambda one: -one[0])],
            }
        )
    return found


def undecided(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the frames are too few for."""
    few = f"fewer than {FEWEST} frames have"
    if len(rows) < FEWEST:
        return [f"what is usual: {few} forces"]
    _, sizes = groups_of([str(row["formula"]) for row in rows])
    found = []
    small = int(sizes[sizes < FEWEST].sum())
    if small:
        found.append(f"what is usual for {small} of the frames: {few} a composition like theirs")
    alone = Counter(str(row["formula"]) for row in rows)
    mixed = sum(number for number in alone.values() if number < FEWEST)
    if mixed >= FEWEST:
        found.append(
            f"what is usual for each composition with fewer than {FEWEST} frames: these "
            f"{mixed} frames were compared with each other"
        )
    return found


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
