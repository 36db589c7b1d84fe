"""Numbers that sum up a scan, for programs and for the gate."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ase_sensitivity.causes.cause import NULL_CAUSES
from ase_sensitivity.dataset.record import causes_of, is_analyzed
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.sensitivity import not_among

EXTREMES = {
    "ratio": -1,
    "irreducible_force_error": 1,
    "required_slope": 1,
    "net_force": 1,
    "distance": -1,
}
"""Columns of which the worst frame is told, and in which direction worse is."""


def statistics(result: ScanResult) -> dict[str, Any]:
    """Counts, extremes and means over all frames; force errors in eV/Å."""
    causes: Counter[str] = Counter()
    total, seen, failed, first_error = 0, 0, 0, None
    n_unseen, first_unseen = 0, None
    worst: dict[str, dict[str, Any]] = {}
    first: dict[str, str] = {}
    for row in result.rows:
        total += 1
        if row["error"] is not None:
            failed += 1
            first_error = first_error or f"{row['source']}@{row['index']}: {row['error']}"
        if not is_analyzed(row):
            continue
        seen += 1
        if row["unseen"] is not None:
            n_unseen += 1
            where = f"{row['source']}@{row['index']}"
            first_unseen = first_unseen or f"{where}: {not_among(row['unseen'].split(', '))}"
        for cause in causes_of(row):
            causes[cause] += 1
            first.setdefault(cause, f"first in {row['source']}@{row['index']}")
        for name, sign in EXTREMES.items():
            value = row[name]
            if value is None:
                continue
            known = worst.get(name)
            if known is None or sign * value > sign * known["value"]:
                worst[name] = {"value": value, "source": row["source"], "index": row["index"]}
    return {
        "n_frames": total,
        "n_besides": result.n_besides,
        "n_analyzed": seen,
        "n_failed": failed,
        "first_error": first_error,
        "n_unseen": n_unseen,
        "first_unseen": first_unseen,
        "causes": {cause: causes[cause] for cause in NULL_CAUSES},
        "first": first,
        "irreducible_force_error": result.irreducible_force_error,
        "rms_force": result.rms_force,
        "species_loss": result.species_loss,
        "worst": worst,
        "alone": {
            name: {
                "causes": Counter(cause for row in rows for cause in causes_of(row)),
                "irreducible_force_error": result.irreducible_alone[name],
            }
            for name, rows in result.alone.items()
        },
        "masking": result.masking,
    }
