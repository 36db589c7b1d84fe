"""What the table of a scan amounts to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ase_sensitivity.causes.cause import CAUSES, NULL_CAUSES
from ase_sensitivity.dataset.record import causes_of, is_analyzed, is_blind, rows_alone
from ase_sensitivity.sensitivity import not_among, said_of_pairs

NET = 1e-3
"""Net forces above this, in eV/Å, are no rounding."""


class Totals:
    """Numbers over all rows, one added after the other.

    Attributes
    ----------
    n_frames, n_failed, n_analyzed
        Frames; those with an error; those of which something was found.
    n_blind, n_nearly
        Frames with directions that are not seen; those of them that have none but for small errors
        of the geometry.
    causes
        Number of frames with such directions for each cause. A frame may have several.
    unseen
        Number of frames with elements that the descriptor does not know, by what these are.
    alone
        The same for each of several descriptors by itself, by name.
    masking
        The names of those with a row of features for each pair or triplet.
    n_net
        Frames with a net force.
    first_failure
        The first error and where it is, or None.
    worst, hardest
        The rows with the smallest ratio, and with the largest irreducible force error.
    """

    def __init__(self) -> None:
        self.n_frames = self.n_failed = self.n_analyzed = self.n_net = 0
        self.n_blind = self.n_nearly = 0
        self.causes = Counter[str]()
        self.unseen = Counter[str]()
        self.alone: dict[str, Totals] = {}
        self.masking: list[str] = []
        self.first_failure: str | None = None
        self.worst: Mapping[str, Any] | None = None
        self.hardest: Mapping[str, Any] | None = None
        self._squares: dict[str, float] = {}
        self._n_atoms = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row in."""
        self.n_frames += 1
        if row["error"] is not None:
            self.n_failed += 1
            self.first_failure = self.first_failure or f"{_of(row)}: {row['error']}"
        self.causes.update(causes_of(row))
        rows, masking = rows_alone(row)
        for name, own in rows.items():
            self.alone.setdefault(name, Totals()).add(own)
            self.alone[name].masking = [name] if name in masking else []
        self.masking += [name for name in masking if name not in self.masking]
        if row["unseen"] is not None:
            self.unseen[row["unseen"]] += 1
        if is_analyzed(row):
            self.n_analyzed += 1
            self.n_blind += is_blind(row)
            nearly = row["n_near_null"] and not (row["n_null"] or row["n_fragment"])
            self.n_nearly += bool(nearly)
        if row["ratio"] is not None and (self.worst is None or row["ratio"] < self.worst["ratio"]):
            self.worst = row
        lost = row["irreducible_force_error"]
        if lost is None:
            return
        self._n_atoms += row["n_atoms"]
        for name in ("irreducible_force_error", "rms_force"):
            self._squares[name] = self._squares.get(name, 0.0) + row["n_atoms"] * row[name] ** 2
        self.n_net += row["net_force"] > NET
        if self.hardest is None or lost > self.hardest["irreducible_force_error"]:
            self.hardest = row

    def rms(self, name: str) -> float | None:
        """Root mean square over all force components of what each row has the one of."""
        return math.sqrt(self._squares[name] / self._n_atoms) if self._n_atoms else None

    def summary(self) -> str:
        """What was found, in words."""
        lines = [f"{_frames(self.n_frames)}, {self.n_failed} with an error."]
        lines += [
            f"{_frames(number)} where {not_among(unseen.split(', '))}."
            for unseen, number in self.unseen.most_common()
        ]
        lines += self.findings()
        if self._n_atoms:
            lines.append(
                "Each frame was bounded by itself; `ase-sensitivity pairs` bounds those with the "
                "same features jointly."
            )
        if self.n_net:
            lines.append(
                f"{_frames(self.n_net)} with a net force above {NET:g} eV/Å, which no model can "
                "have and which is not counted above: check the data."
            )
        return "\n".join([*lines, *self.notes()])

    def findings(self) -> list[str]:
        """What is not seen and what that costs, a line for each."""
        lines = []
        if self.n_analyzed:
            nearly = (
                f"; in {self.n_nearly} of these, but for small errors of the geometry"
                if self.n_nearly
                else ""
            )
            lines.append(
                f"{self.n_blind} of {self.n_analyzed} have directions along which, to first order, "
                f"no feature changes{nearly}."
            )
        if self.worst is not None:
            lines.append(
                f"Smallest sigma_min / sigma_max: {self.worst['ratio']:.2e}, in {_of(self.worst)}."
            )
        lines += [
            f"{_frames(number)} because of {cause}: {CAUSES[cause].text}."
            for cause in NULL_CAUSES
            if (number := self.causes[cause])
        ]
        error, forces = self.rms("irreducible_force_error"), self.rms("rms_force")
        if error is not None and forces is not None and self.hardest is not None:
            best = (
                "To first order, no force of a single frame is out of reach of a model on these "
                "features."
            )
            if error:
                best = "No model on these features does better on these frames."
            elif self.masking:
                best = "That is no more than a bound, with a slope for each pair."
            lines.append(
                f"Irreducible force error: {error:.3g} eV/Å (the forces: {forces:.3g} eV/Å, both "
                f"root mean squares over components). {best}"
            )
            if error:
                lines.append(
                    f"Largest: {self.hardest['irreducible_force_error']:.3g} eV/Å, in "
                    f"{_of(self.hardest)}."
                )
        return lines

    def notes(self) -> list[str]:
        """What pair terms hide, and what each of several descriptors alone does not see."""
        lines = [said_of_pairs(self.masking)] if self.masking else []
        for name, own in self.alone.items():
            lines += [f"{name} alone:", *(f"  {line}" for line in own.findings())]
        return lines


def _frames(number: int) -> str:
    return f"{number} frame" if number == 1 else f"{number} frames"


def _of(row: Mapping[str, Any]) -> str:
    return f"{row['source']}@{row['index']}"
