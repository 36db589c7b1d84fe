"""How well planted label faults are found, and how many right labels are doubted.

Faults are planted in a tenth of the frames: Gaussian noise on all components, the forces of another
frame of the same composition, or one atom's force reversed. Net force, and the torque of isolated
molecules, stay what they were: a change of them would give most faults away. The fit has the wrong
labels as well. A number is the probability that a wrong frame has a higher score than a right one
(area under the ROC curve), with the interval over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ase_sensitivity import Sensitivity, analyze
from ase_sensitivity.dataset.doubt.fit import N_FOLDS, RobustFit
from ase_sensitivity.dataset.doubt.judgement import judged
from ase_sensitivity.dataset.doubt.residuals import model_of_forces
from ase_sensitivity.dataset.evaluation import SCAN_NULL_TOLERANCE
from ase_sensitivity.dataset.forces import force_loss, internal_forces
from ase_sensitivity.dataset.select.model import directions_of
from ase_sensitivity.types import Floats, Ints
from benchmarks.value.data import Set
from benchmarks.value.intervals import mean
from benchmarks.value.plots import compared

QUESTION = "Which labels to doubt?"

KINDS = (
    "noise .05 eV/Å",
    "noise .1 eV/Å",
    "noise .3 eV/Å",
    "another frame's forces",
    "one reversed",
)
SHARE = 0.1
"""Part of the frames that have wrong forces."""

MOST_SAMPLED = 300
SMALL = ("carbon", "ethanol")
"""Sets of which all frames are taken; of the others every third one."""

GROUNDS = {
    "size of the forces": "rms_force",
    "slope": "required_slope",
    "without a fit": "without",
    "with a fit": "with",
}
"""What is compared: a value, or the score of ``doubt`` without or with its fit."""


@dataclass(frozen=True, eq=False)
class Cached:
    """What does not depend on the labels: singular values, and rows of the fit."""

    data: Set
    found: list[Sensitivity]
    rows: list[NDArray[np.float32]]
    forces: list[Floats] = field(default_factory=list)
    losses: list[dict[str, Any]] = field(default_factory=list)

    def loss(self, n: int, forces: Floats) -> dict[str, Any]:
        """What a scan says of these forces of a frame."""
        atoms = self.data.frames[n]
        loss = force_loss(atoms, forces, self.found[n])
        names = ("rms_force", "required_slope", "net_force", "net_torque")
        formula = {"formula": atoms.get_chemical_formula()}
        return formula | {name: getattr(loss, name) for name in names}

    @classmethod
    def of(cls, data: Set) -> Cached:
        """Compute it."""
        found = [
            analyze(atoms, data.soap, k=None, null_tolerance=SCAN_NULL_TOLERANCE)
            for atoms in data.frames
        ]
        some = np.linspace(0, len(data.frames), min(len(data.frames), MOST_SAMPLED), endpoint=False)
        sample = [data.frames[n] for n in some.astype(int)]
        model = model_of_forces(data.soap, sample, 0)
        rows = []
        for atoms in data.frames:
            all_of = np.eye(3 * len(atoms)).reshape(-1, len(atoms), 3)
            rows.append(model.rows(atoms, all_of).forces.astype(np.float32))
        cached = cls(data, found, rows)
        for n, own in enumerate(data.forces):
            cached.forces.append(own.reshape(-1, 3))
            cached.losses.append(cached.loss(n, cached.forces[n]))
        return cached

    def scores(self, forces: Sequence[Floats], seed: int) -> dict[str, Floats]:
        """The scores of all frames with these labels, and whether ``doubt`` lists them."""
        rows = [
            dict(self.losses[n]) if own is self.forces[n] else self.loss(n, own)
            for n, own in enumerate(forces)
        ]
        without = judged(rows)
        for row, missed in zip(rows, self._missed(forces, seed), strict=True):
            row["residual"] = float(np.sqrt((missed**2).mean()))
            row["worst_residual"] = float(np.linalg.norm(missed, axis=1).max())
        fitted = judged(rows)
        return {
            "rms_force": np.array([row["rms_force"] for row in rows]),
            "required_slope": np.array([row["required_slope"] for row in rows]),
            "without": _numbers(without),
            "with": _numbers(fitted),
            "listed": np.array([bool(one["reasons"]) for one in fitted]),
        }

    def _missed(self, forces: Sequence[Floats], seed: int) -> list[Floats]:
        """The residuals of each frame, of shape (n_atoms, 3)."""
        fold = np.random.default_rng(seed).permutation(len(forces)) % N_FOLDS
        rows, along = [], []
        for atoms, own, force in zip(self.data.frames, self.rows, forces, strict=True):
            axes = directions_of(atoms).reshape(-1, 3 * len(atoms))
            rows.append(axes.astype(np.float32) @ own)
            along.append(axes @ force.ravel())
        weights = RobustFit.of(rows, along, fold).weights
        return [
            force - (own @ weights[k]).reshape(-1, 3)
            for own, force, k in zip(self.rows, forces, fold, strict=True)
        ]


def _numbers(judgements: Sequence[dict[str, Any]]) -> Floats:
    """The scores; 0 of frames with a rare composition, about which nothing was decided."""
    return np.array([one["score"] or 0.0 for one in judgements])


def planted(cached: Cached, kind: str, chosen: Ints, rng: np.random.Generator) -> list[Floats]:
    """The forces of all frames, of shape (n_atoms, 3), wrong in those that were chosen."""
    data, forces = cached.data, cached.forces
    wrong = list(forces)
    formulas = np.array([atoms.get_chemical_formula() for atoms in data.frames])
    for n in chosen:
        own = forces[n].copy()
        if kind.startswith("noise"):
            own += rng.normal(scale=float(kind.split()[1]), size=own.shape)
        elif kind == "one reversed":
            own[rng.integers(len(own))] *= -1.0
        else:
            others = np.flatnonzero(formulas == formulas[n])
            own = forces[rng.choice(others[others != n])]
        rigid = forces[n] - internal_forces(data.frames[n], forces[n])
        wrong[n] = internal_forces(data.frames[n], own) + rigid
    return wrong


def area(scores: Floats, wrong: NDArray[np.bool_]) -> float:
    """The area under the ROC curve."""
    ranks = rankdata(scores)
    n = int(wrong.sum())
    return float((ranks[wrong].sum() - n * (n + 1) / 2) / (n * (~wrong).sum()))


def measure(folder: Path, sets: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """Areas for each set and kind of fault, and what part of the frames is listed."""
    table = []
    for name in sets:
        data = Set.read(folder, name, every=1 if name in SMALL else 3, rows=False)
        cached = Cached.of(data)
        formulas = [atoms.get_chemical_formula() for atoms in data.frames]
        can = np.array([n for n, own in enumerate(formulas) if formulas.count(own) > 1])
        for kind in ("none", *KINDS):
            found: dict[str, list[float]] = {}
            for seed in range(seeds if kind != "none" else 1):
                rng = np.random.default_rng(seed)
                wrong = np.zeros(len(data.frames), dtype=bool)
                if kind != "none":
                    wrong[rng.choice(can, round(SHARE * len(can)), replace=False)] = True
                scores = cached.scores(planted(cached, kind, np.flatnonzero(wrong), rng), seed)
                listed = scores["listed"]
                found.setdefault("right, listed", []).append(listed[~wrong].mean())
                if kind == "none":
                    continue
                for text, key in GROUNDS.items():
                    found.setdefault(text, []).append(area(scores[key], wrong))
                first = np.argsort(-scores["with"])[: int(wrong.sum())]
                found.setdefault("wrong, among the first tenth", []).append(wrong[first].mean())
                found.setdefault("wrong, listed", []).append(listed[wrong].mean())
            row: dict[str, Any] = {"set": name, "fault": kind}
            columns = [*GROUNDS, "wrong, among the first tenth", "wrong, listed", "right, listed"]
            table.append(
                row | {key: mean(np.array(found[key])) if key in found else "" for key in columns}
            )
    return table


def plot(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """Areas with a fit by kind of fault and set."""
    compared(
        axes,
        {
            name: {
                row["fault"].replace(" ", "\n", 1): row["with a fit"]
                for row in rows
                if row["set"] == name and row["fault"] != "none"
            }
            for name in dict.fromkeys(row["set"] for row in rows)
        },
        "area under the ROC curve, with a fit",
        level=0.5,
    )
