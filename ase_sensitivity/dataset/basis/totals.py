"""Sums over structures for each candidate of a sweep, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ase_sensitivity.causes.cause import NULL_CAUSES
from ase_sensitivity.dataset.basis.candidates import Candidates, Key
from ase_sensitivity.dataset.basis.evaluation import Tried
from ase_sensitivity.dataset.basis.evidence import FALLS, Evidence, front
from ase_sensitivity.dataset.basis.result import BASIS, SIZES, Convergence
from ase_sensitivity.dataset.record import is_analyzed
from ase_sensitivity.dataset.summary import Summary

COUNTED = ("null", *NULL_CAUSES)

LOSES = 0.01
"""Slopes are compared between candidates that lose no more of the forces than the one that loses
least, up to this fraction of the forces: what is lost needs no slope."""


@dataclass
class Totals:
    """Sums over structures for one candidate."""

    n_features: int = 0
    found: Summary = field(default_factory=Summary)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    unseen: list[tuple[int, int]] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)

    def add(self, tried: Tried) -> None:
        """Add what the candidate has in a structure."""
        row = tried.row
        self.found.add(row)
        slope = row["required_slope"] if is_analyzed(row) else None
        self.slopes.append(np.nan if slope is None else slope)
        if not is_analyzed(row):
            self.unseen.append((0, 0))
            return
        self.n_features = max(self.n_features, tried.n_features)
        counts = {name: row[f"n_{name}"] or 0 for name in COUNTED}
        if row["n_truncation"] is None:  # the causes could not be found
            counts["unknown"] = counts["null"]
        for name, number in counts.items():
            self.counts[name] += number
        self.unseen.append((counts["truncation"], counts["unknown"]))
        if row["ratio"] is not None:
            self.ratios.append(row["ratio"])

    def row(self, options: Mapping[str, Any], least: Sequence[int]) -> dict[str, Any]:
        """The row of a table.

        ``least`` is the number of null directions of unknown cause in each structure that no basis
        sees.
        """
        truncated = sum(t > 0 or u > m for (t, u), m in zip(self.unseen, least, strict=True))
        steepest = self.found.worst.get("required_slope")
        return {
            **options,
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


def convergence_of(
    candidates: Candidates, totals: Mapping[Key, Totals], cost: Mapping[Key, float]
) -> Convergence:
    """The rows of all candidates, and which of them are sufficient."""
    varied = candidates.varied
    rows: dict[Key, dict[str, Any]] = {}
    for group in candidates.groups(*BASIS):
        unknown = np.array([[u for _, u in totals[key].unseen] for key in group])
        least = unknown.min(axis=0).tolist()
        for key in group:
            rows[key] = totals[key].row(dict(zip(varied, key, strict=True)), least)
            rows[key]["cost"] = cost.get(key)
    order = sorted(rows, key=lambda key: rows[key]["n_features"])
    compared = _comparable(rows, totals)
    evidence = Evidence({key: totals[key].slopes for key in compared})
    slopes = {key: rows[key]["required_slope"] for key in compared}
    fronts = {
        name: front(slopes, {key: rows[key][name] for key in compared if rows[key][name]})
        for name in SIZES
    }
    for key, row in rows.items():
        low, high = evidence.interval(key) or (None, None)
        row |= {"slope_low": low, "slope_high": high}
        row["front"] = [name for name in SIZES if key in fronts[name]]
    resolving = [key for key in order if rows[key]["frames_truncated"] == 0]
    # Truncated features lose forces, and the rest of the forces may need lower slopes.
    flat = [key for key in resolving if {*varied} <= {*BASIS} and _is_flat(key, rows)]
    best = min(slopes, key=lambda key: slopes[key], default=())
    alike = [key for key in order if key in slopes and not evidence.lower(best, key)]
    choice = min(alike, key=lambda key: rows[key]["cost"] or np.inf, default=None)
    forces = any(row["required_slope"] is not None for row in rows.values())
    recommended: Key | None = next(iter(resolving if not forces else flat), None)
    return Convergence(
        rows=[rows[key] for key in order],
        resolving=next(iter(resolving), None),
        flat=next(iter(flat), None),
        recommended=recommended,
        masking=tuple(
            dict.fromkeys(name for total in totals.values() for name in total.found.masking)
        ),
        varied=varied,
        compared=tuple(key for key in order if key in slopes),
        alike=tuple(alike),
        cheapest=choice,
        n_compared=evidence.n_frames,
    )


def _comparable(rows: Mapping[Key, dict[str, Any]], totals: Mapping[Key, Totals]) -> list[Key]:
    """Candidates that truncate in as few frames as any, and lose no more of the forces."""
    known = [key for key, row in rows.items() if row["required_slope"] is not None]
    if not known:
        return []
    fewest = min(rows[key]["frames_truncated"] for key in known)
    least = min(rows[key]["irreducible_force_error"] for key in known)
    return [
        key
        for key in known
        if rows[key]["frames_truncated"] == fewest
        and rows[key]["irreducible_force_error"]
        <= least + LOSES * (totals[key].found.rms("rms_force") or 0.0)
    ]


def _is_flat(key: Key, rows: Mapping[Key, dict[str, Any]]) -> bool:
    """Whether there are larger bases, and none of them has a lower slope."""
    slope = rows[key]["required_slope"]
    larger = [
        row["required_slope"]
        for other, row in rows.items()
        if other != key and all(a >= b for a, b in zip(other, key, strict=True))
    ]
    if slope is None or not larger or None in larger:
        return False
    return bool(min(larger) >= (1 - FALLS) * slope)
