"""The summary of the table of a scan, for commands, reports and sweeps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from ase_sensitivity.causes.cause import CAUSES, NULL_CAUSES, SPURIOUS
from ase_sensitivity.dataset.record import causes_of, is_analyzed, is_blind, rows_alone
from ase_sensitivity.environments.comparison import not_in_reference_text
from ase_sensitivity.plain_text import many
from ase_sensitivity.sensitivity import NEARLY, pair_terms_text, unseen_text

NET_FORCE = 1e-3
"""Net forces of a frame above this, in eV/Å, are not rounding errors and are reported."""

LARGE_LOSS = 0.01
"""An irreducible force error of the set is a main result if it is at least this, in eV/Å."""

UNUSUAL_FORCE = 15.0
"""Root mean square forces above this, in eV/Å, are probably in other units."""

EXTREMES = {
    "ratio": -1,
    "irreducible_force_error": 1,
    "required_slope": 1,
    "net_force": 1,
    "distance": -1,
    "novelty": 1,
    "twin_forces": 1,
}
"""Columns for which the worst frame is reported: 1 if larger values are worse, -1 if smaller."""


class Summary:
    """Numbers over all rows, which are added one after the other.

    Forces are lost if the irreducible force error is not zero: rounding errors are already zero in
    the rows (:func:`~ase_sensitivity.dataset.forces.force_loss`).

    Attributes
    ----------
    n_frames, n_failed, n_analyzed
        Number of frames; of those with an error; and of those with results. All numbers below are
        of frames with results.
    n_blind, n_nearly, n_unexplained
        Frames with invisible directions; those of them where the directions would be visible
        without small errors of the geometry (near-null only); and those without a known cause.
    n_spurious
        Frames with invisible directions that are, or may be, a fault of the descriptor.
    n_soft
        Frames without such directions, but with a ratio below
        :data:`~ase_sensitivity.sensitivity.NEARLY`.
    n_net
        Frames with a net force above :data:`NET_FORCE`.
    causes, first
        Number of frames with such directions for each cause, and the first of these frames. A frame
        counts for each cause that it has.
    unseen, first_unseen
        Number of frames with elements that the descriptor does not know, by these elements, and the
        first of these frames.
    errors, first_error
        Number of frames with each error; the first error with its frame, or None.
    worst
        The worst row for each of :data:`EXTREMES`, if any row has a value.
    alone
        The summary for each of several descriptors by itself, by name.
    n_compared, n_twins, first_twin
        Frames compared with a reference, those with a twin in it, and the first of these.
    n_not_in_reference, first_not_in_reference
        Frames of infinite novelty, with elements that the reference does not have, and the first.
    masking
        The names of descriptors with a row of features for each pair or triplet.
    sources
        Where the frames are from, each once, in their order.
    """

    def __init__(self) -> None:
        self.n_frames = self.n_failed = self.n_analyzed = self.n_net = 0
        self.n_blind = self.n_nearly = self.n_unexplained = self.n_spurious = self.n_soft = 0
        self.causes = Counter[str]()
        self.first: dict[str, str] = {}
        self.n_compared = self.n_twins = self.n_not_in_reference = 0
        self.first_twin: str | None = None
        self.first_not_in_reference: str | None = None
        self.unseen = Counter[str]()
        self.first_unseen: str | None = None
        self.errors = Counter[str]()
        self.first_error: str | None = None
        self.worst: dict[str, Mapping[str, Any]] = {}
        self.alone: dict[str, Summary] = {}
        self.masking: list[str] = []
        self.sources: dict[str, None] = {}
        self._squares: dict[str, float] = {}
        self._slopes: list[float] = []
        self._n_atoms = 0

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Summary:
        """The summary of some rows."""
        found = cls()
        for row in rows:
            found.add(row)
        return found

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self.n_frames += 1
        self.sources[row["source"]] = None
        where = _of(row)
        if row["error"] is not None:
            self.n_failed += 1
            self.errors[row["error"]] += 1
            self.first_error = self.first_error or f"{where}: {row['error']}"
        if not is_analyzed(row):
            return
        self.n_analyzed += 1
        self._add_causes(row, where)
        self._add_comparison(row, where)
        rows, masking = rows_alone(row)
        for name, own in rows.items():
            self.alone.setdefault(name, Summary()).add(own)
            self.alone[name].masking = [name] if name in masking else []
        self.masking += [name for name in masking if name not in self.masking]
        for name, sign in EXTREMES.items():
            if row[name] is None:
                continue
            if name not in self.worst or sign * row[name] > sign * self.worst[name][name]:
                self.worst[name] = row
        if row["irreducible_force_error"] is not None:
            self._n_atoms += row["n_atoms"]
            for name in ("irreducible_force_error", "rms_force"):
                self._squares[name] = self._squares.get(name, 0.0) + row["n_atoms"] * row[name] ** 2
            self.n_net += row["net_force"] > NET_FORCE
        if row["required_slope"] is not None:
            self._slopes.append(row["required_slope"])

    def _add_comparison(self, row: Mapping[str, Any], where: str) -> None:
        new = row["not_in_reference"] is not None
        self.n_compared += new or row["novelty"] is not None
        if new:
            self.n_not_in_reference += 1
            self.first_not_in_reference = self.first_not_in_reference or where
        if row["twin_frame"] is not None:
            self.n_twins += 1
            self.first_twin = self.first_twin or where

    def _add_causes(self, row: Mapping[str, Any], where: str) -> None:
        causes = causes_of(row)
        self.causes.update(causes)
        for cause in causes:
            self.first.setdefault(cause, where)
        if row["unseen"] is not None:
            self.unseen[row["unseen"]] += 1
            text = unseen_text(row["unseen"].split(", "))
            self.first_unseen = self.first_unseen or f"{where}: {text}"
        blind = is_blind(row)
        self.n_blind += blind
        self.n_nearly += bool(row["n_near_null"] and not (row["n_null"] or row["n_fragment"]))
        self.n_unexplained += blind and not causes
        spurious = row["unseen"] or {*causes} & {*SPURIOUS} or (blind and not causes)
        self.n_spurious += bool(spurious)
        self.n_soft += row["ratio"] is not None and row["ratio"] < NEARLY and not blind

    def rms(self, name: str) -> float | None:
        """Root mean square over all force components, from the column with that of each frame."""
        return math.sqrt(self._squares[name] / self._n_atoms) if self._n_atoms else None

    @property
    def median_slope(self) -> float | None:
        """The median required slope in eV/Å; None without forces."""
        return median(self._slopes) if self._slopes else None

    def todict(self) -> dict[str, Any]:
        """The numbers as a dictionary, for programs; force errors in eV/Å."""
        return {
            "n_frames": self.n_frames,
            "n_analyzed": self.n_analyzed,
            "n_failed": self.n_failed,
            "first_error": self.first_error,
            "n_unseen": self.unseen.total(),
            "first_unseen": self.first_unseen,
            "n_blind": self.n_blind,
            "n_nearly": self.n_nearly,
            "n_soft": self.n_soft,
            "n_net": self.n_net,
            "causes": {cause: self.causes[cause] for cause in NULL_CAUSES},
            "first": {cause: f"first in {where}" for cause, where in self.first.items()},
            "irreducible_force_error": self.rms("irreducible_force_error"),
            "rms_force": self.rms("rms_force"),
            "median_slope": self.median_slope,
            "worst": {
                name: {"value": row[name], "source": row["source"], "index": row["index"]}
                for name, row in self.worst.items()
            },
            "alone": {
                name: {
                    "causes": own.causes,
                    "irreducible_force_error": own.rms("irreducible_force_error"),
                }
                for name, own in self.alone.items()
            },
            "masking": self.masking,
            "n_compared": self.n_compared,
            "n_not_in_reference": self.n_not_in_reference,
            "first_not_in_reference": self.first_not_in_reference
            and f"first in {self.first_not_in_reference}",
            "n_twins": self.n_twins,
            "first_twin": None if self.first_twin is None else f"first in {self.first_twin}",
        }

    def summary(self) -> str:
        """What was found, in words."""
        lines = [f"{many(self.n_frames, 'frame')}, {self.n_failed} with an error."]
        lines += [
            f"{many(number, 'frame')} where {unseen_text(unseen.split(', '))}."
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
                f"{many(self.n_net, 'frame')} with a net force above {NET_FORCE:g} eV/Å, which no "
                "model can have and which is not counted above: check the data."
            )
        return "\n".join([*lines, *self.notes()])

    def findings(self) -> list[str]:
        """Lines about invisible directions and lost forces."""
        lines = []
        if self.n_analyzed:
            nearly = (
                f"; in {self.n_nearly} of these, if small errors of the geometry are neglected"
                if self.n_nearly
                else ""
            )
            lines.append(
                f"{self.n_blind} of {self.n_analyzed} have directions along which, to first order, "
                f"no feature changes{nearly}."
            )
        if worst := self.worst.get("ratio"):
            lines.append(f"Smallest sigma_min / sigma_max: {worst['ratio']:.2e}, in {_of(worst)}.")
        lines += [
            f"{many(self.causes[cause], 'frame')} because of {cause}: {CAUSES[cause].text}."
            for cause in NULL_CAUSES
            if self.causes[cause]
        ]
        return lines + self._comparisons() + self._costs()

    def _comparisons(self) -> list[str]:
        lines = []
        if self.n_not_in_reference:
            lines.append(
                not_in_reference_text(
                    self.n_not_in_reference, f"first in {self.first_not_in_reference}"
                )
            )
        if worst := self.worst.get("novelty"):
            lines.append(f"Largest novelty: {worst['novelty']:.3g}, in {_of(worst)}.")
        if self.n_twins:
            lines.append(
                f"{many(self.n_twins, 'frame')} with a twin in the reference, nearly the same "
                f"features and another structure; first in {self.first_twin}."
            )
        if worst := self.worst.get("twin_forces"):
            lines.append(
                f"Largest spread of forces of twins: {worst['twin_forces']:.3g} eV/Å, in "
                f"{_of(worst)}."
            )
        return lines

    def _costs(self) -> list[str]:
        error, forces = self.rms("irreducible_force_error"), self.rms("rms_force")
        if error is None or forces is None:
            return []
        best = "To first order, no force of a single frame is out of reach of a model on these "
        best += "features."
        if error:
            best = "No model on these features does better on these frames."
        elif self.masking:
            best = "That is no more than a bound, with a slope for each pair."
        lines = [
            f"Irreducible force error: {error:.3g} eV/Å (the forces: {forces:.3g} eV/Å, both "
            f"root mean squares over components). {best}"
        ]
        if error:
            worst = self.worst["irreducible_force_error"]
            lines.append(f"Largest: {worst['irreducible_force_error']:.3g} eV/Å, in {_of(worst)}.")
        return lines

    def notes(self) -> list[str]:
        """What pair terms mask, and what each of several descriptors by itself does not see."""
        lines = [pair_terms_text(self.masking)] if self.masking else []
        for name, own in self.alone.items():
            lines += [f"{name} alone:", *(f"  {line}" for line in own.findings())]
        return lines


def _of(row: Mapping[str, Any]) -> str:
    return f"{row['source']}@{row['index']}"
