"""Null directions that symmetry enforces, and others."""

from __future__ import annotations

from collections import Counter

from ase import Atoms

from ase_sensitivity.analysis import analyze
from ase_sensitivity.auditing.check import FINDING, OK, Check, skipped
from ase_sensitivity.causes.attribution import predicted_nulls
from ase_sensitivity.descriptors.base import Descriptor, jacobian_of, restricted
from ase_sensitivity.spectrum.scopes import structure_view

GROUP = "null directions by symmetry"
SHOWN = 3
"""Structures named in a note."""


def symmetry_checks(descriptor: Descriptor, name: str, structures: dict[str, Atoms]) -> list[Check]:
    """Count null directions in perfect structures, and compare with what symmetry predicts."""
    if not structures:
        return [skipped(GROUP, name, "it does not know the elements")]
    counted: Counter[str] = Counter()
    others: Counter[str] = Counter()
    predicted = 0
    missing, besides = [], []
    left_out: dict[str, str] = {}
    for formula, atoms in structures.items():
        try:
            wanted = _predicted(descriptor, atoms)
        except ValueError as error:  # too many atoms within reach
            left_out[formula] = str(error)
            continue
        found = analyze(atoms, descriptor, causes=True, each=False)
        counts = Counter(found.counts or {})
        predicted += wanted
        counted["symmetry"] += counts["symmetry"]
        if counts["symmetry"] < wanted:
            missing.append(f"{formula} has {counts['symmetry']} of {wanted}")
        rest = counts - Counter({name: counts[name] for name in ("symmetry", "fragment")})
        others += rest
        if rest:
            besides.append(f"{formula} {sum(rest.values())}")
    n_looked_at = len(structures) - len(left_out)
    if n_looked_at == 0:
        return [skipped(GROUP, name, next(iter(left_out.values())))]
    notes = []
    if missing:
        notes.append(f"not all are there: {_some(missing)}")
    if others:
        by = ", ".join(f"{n} {cause}" for cause, n in sorted(others.items()))
        notes.append(f"others, by cause: {by} ({_some(besides)})")
    return [
        Check(
            GROUP,
            name,
            f"{counted['symmetry']}, and {sum(others.values())} others",
            f"{predicted} in {n_looked_at} structures",
            FINDING if notes else OK,
            "; ".join(notes + [f"{one} left out: {why}" for one, why in left_out.items()]),
            {
                "symmetry": counted["symmetry"],
                "predicted": predicted,
                "structures": n_looked_at,
                **{f"n_{cause}": n for cause, n in sorted(others.items())},
            },
        )
    ]


def _predicted(descriptor: Descriptor, atoms: Atoms) -> int:
    seen = restricted(descriptor, atoms)
    view = structure_view(jacobian_of(seen, atoms), atoms)
    return predicted_nulls(view, atoms, seen).get("symmetry", 0)


def _some(texts: list[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")
