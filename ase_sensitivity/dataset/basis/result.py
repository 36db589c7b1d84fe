"""What bases of different sizes resolve, and which of them are sufficient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ase_sensitivity.causes.cause import NULL_CAUSES
from ase_sensitivity.dataset.record import FrameRecord, is_analyzed
from ase_sensitivity.dataset.summary import Summary
from ase_sensitivity.sensitivity import pair_terms_text

FALLS = 0.1
"""The required slope still decreases if a larger basis has one that is lower by this fraction."""

COUNTED = ("null", *NULL_CAUSES)

BasisSize = tuple[int, int]


@dataclass(frozen=True)
class Convergence:
    """What bases of a family resolve in a set of structures.

    Attributes
    ----------
    rows
        One dictionary per basis, in the order of its size: ``n_max``, ``l_max``, ``n_features``,
        ``n_frames``, ``n_failed``; ``n_null``, ``n_symmetry``, ``n_incompleteness``,
        ``n_truncation``, ``n_fragment``, ``n_unknown`` and ``n_species``, summed over all
        structures; ``frames_truncated``, the number of structures with null directions that a
        larger basis would see; ``smallest_ratio`` and ``median_ratio`` of sigma_min / sigma_max;
        and with forces
        ``irreducible_force_error``, the root mean square over all components in eV/Å,
        ``required_slope``, the median over structures in eV/Å, and ``largest_slope``.
    resolving
        n_max and l_max of the smallest basis without a null direction caused by truncation; None if
        no basis of the sweep is large enough.
    flat
        The smallest of these bases after which the required slope does not decrease: by less than
        10 % in any larger basis of the sweep. There must be a larger one. None without forces.
    recommended
        ``flat``, or ``resolving`` if there are no forces.
    masking
        Names of further descriptors that have a row of features for each pair or triplet. They see
        nearly everything, whatever the basis.
    """

    rows: list[dict[str, Any]]
    resolving: BasisSize | None
    flat: BasisSize | None
    recommended: BasisSize | None
    masking: tuple[str, ...] = ()

    def summary(self) -> str:
        """A table, and sentences about the sizes that are sufficient."""
        forces = any(row["required_slope"] is not None for row in self.rows)
        lines = ["n_max  l_max  features  truncated  median ratio"]
        lines[0] += "  irreducible  slope   (eV/Å)" if forces else ""
        for row in self.rows:
            line = (
                f"{row['n_max']:5d}  {row['l_max']:5d}  {row['n_features']:8d}  "
                f"{row['frames_truncated']:9d}  {_number(row['median_ratio'], '.2e'):>12s}"
            )
            if forces:
                line += f"  {_number(row['irreducible_force_error'], '.2e'):>11s}"
                line += f"  {_number(row['required_slope'], '.3g'):>6s}"
            lines.append(line)
        failed = max(row["n_failed"] for row in self.rows)
        if failed:
            lines.append(f"{failed} of {self.rows[0]['n_frames']} structures had an error.")
        lines.append(_sentence(self.resolving, "is the smallest basis that truncates nothing"))
        if forces and self.resolving is not None:
            lines.append(_sentence(self.flat, "is where the required slope stops falling"))
        if self.masking:
            lines.append(pair_terms_text(self.masking))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"Convergence({len(self.rows)} bases, recommended={self.recommended})"


@dataclass
class BasisTotals:
    """Sums over structures for one basis."""

    n_features: int = 0
    found: Summary = field(default_factory=Summary)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    unseen: list[tuple[int, int]] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def add(self, record: FrameRecord, n_features: int) -> None:
        """Add the record of a structure."""
        row = record.row
        self.found.add(row)
        if not is_analyzed(row):
            self.unseen.append((0, 0))
            return
        self.n_features = n_features
        counts = {name: row[f"n_{name}"] or 0 for name in COUNTED}
        if row["n_truncation"] is None:  # the causes could not be found
            counts["unknown"] = counts["null"]
        for name, number in counts.items():
            self.counts[name] += number
        self.unseen.append((counts["truncation"], counts["unknown"]))
        if row["ratio"] is not None:
            self.ratios.append(row["ratio"])

    def row(self, basis: BasisSize, least: Sequence[int]) -> dict[str, Any]:
        """The row of a table.

        ``least`` is the number of null directions of unknown cause in each structure that no basis
        sees.
        """
        truncated = sum(t > 0 or u > m for (t, u), m in zip(self.unseen, least, strict=True))
        steepest = self.found.worst.get("required_slope")
        return {
            "n_max": basis[0],
            "l_max": basis[1],
            "n_features": self.n_features,
            "n_frames": self.found.n_frames,
            "n_failed": self.found.n_failed,
            **{f"n_{name}": number for name, number in self.counts.items()},
            "frames_truncated": truncated,
            "smallest_ratio": min(self.ratios, default=None),
            "median_ratio": float(np.median(self.ratios)) if self.ratios else None,
            "irreducible_force_error": self.found.rms("irreducible_force_error"),
            "required_slope": self.found.median_slope,
            "largest_slope": None if steepest is None else steepest["required_slope"],
        }


def convergence_of(totals: dict[BasisSize, BasisTotals]) -> Convergence:
    """The rows of all bases, and the sizes that are sufficient."""
    unknown = np.array([[u for _, u in total.unseen] for total in totals.values()])
    least = unknown.min(axis=0).tolist()
    rows = {basis: total.row(basis, least) for basis, total in totals.items()}
    order = sorted(rows, key=lambda basis: (rows[basis]["n_features"], basis))
    resolving = [basis for basis in order if rows[basis]["frames_truncated"] == 0]
    # Truncated features lose forces, and the rest of the forces may need lower slopes.
    flat = [basis for basis in resolving if _is_flat(basis, rows)]
    forces = any(row["required_slope"] is not None for row in rows.values())
    return Convergence(
        rows=[rows[basis] for basis in order],
        resolving=next(iter(resolving), None),
        flat=next(iter(flat), None),
        recommended=next(iter(flat if forces else resolving), None),
        masking=tuple(
            dict.fromkeys(name for total in totals.values() for name in total.found.masking)
        ),
    )


def _is_flat(basis: BasisSize, rows: dict[BasisSize, dict[str, Any]]) -> bool:
    """Whether there are larger bases, and none of them has a lower slope."""
    slope = rows[basis]["required_slope"]
    larger = [
        row["required_slope"]
        for other, row in rows.items()
        if other != basis and other[0] >= basis[0] and other[1] >= basis[1]
    ]
    if slope is None or not larger or None in larger:
        return False
    return bool(min(larger) >= (1 - FALLS) * slope)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _sentence(basis: BasisSize | None, words: str) -> str:
    if basis is None:
        return f"No basis of the sweep {words}."
    return f"n_max={basis[0]}, l_max={basis[1]} {words}."
