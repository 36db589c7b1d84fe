"""How often the observer's rule is wrong: python -m benchmarks.warnings --data DIR --frames N."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity import SOAP, analyze
from ase_sensitivity.singular.monitor import Monitor
from benchmarks.frames import MOLECULES, SYSTEMS, frames
from benchmarks.planted import KINDS, Planted, planted
from benchmarks.tables import markdown

SPURIOUS = ("incompleteness", "truncation")
WITHIN = 0.1

AWAY, STEPS = 0.6, 30
"""Approaches begin this far away, in Å, and take so many steps."""


def soap_of(system: str, atoms: Atoms) -> SOAP:
    """All atoms as centers, with a basis of the usual size."""
    cutoff = 4.5 if system in MOLECULES else 4.0
    return SOAP(sorted(set(atoms.get_chemical_symbols())), cutoff, 8, 6)


def look(images: Iterable[Atoms], soap: Any, *, one_run: bool) -> list[dict[str, Any]]:
    """Diagnose images, as frames of one run or each for itself."""
    watch = Monitor(soap, scope="structure", within=WITHIN)
    found = []
    for number, atoms in enumerate(images):
        if not one_run:
            watch = Monitor(soap, scope="structure", within=WITHIN)
        sensitivity = analyze(atoms, soap, k=3)
        begin = time.perf_counter()
        diagnosis = watch.diagnose(atoms, sensitivity)
        found.append(
            {
                "frame": number,
                "ratio": sensitivity.ratio,
                "how": diagnosis.how,
                "cause": diagnosis.cause,
                "distance": diagnosis.distance,
                "seconds": time.perf_counter() - begin,
            }
        )
    return found


def warns(entry: dict[str, Any]) -> bool:
    """Whether the observer would warn by default."""
    return entry["cause"] in SPURIOUS and entry["distance"] <= WITHIN


def false_warnings(system: str, n: int, folder: Path) -> dict[str, Any]:
    """What becomes of frames none of which deserves a warning."""
    images = frames(system, n, folder)
    soap = soap_of(system, images[0])
    alone, run = (look(images, soap, one_run=one_run) for one_run in (False, True))
    (folder / f"{system}_{n}.json").write_text(json.dumps({"alone": alone, "run": run}))
    causes = Counter(str(entry["cause"]) for entry in alone if entry["how"] != "ratio")
    how = Counter(entry["how"] for entry in alone)
    return {
        "system": system,
        "frames": n,
        "ratio < .01": sum(entry["ratio"] < 0.01 for entry in alone),
        "suspicious": n - how["ratio"],
        "near": how["filter"] + how["walk"],
        "walked": how["walk"],
        **{cause: causes[cause] for cause in ("symmetry", "near-symmetric", "fragment", *SPURIOUS)},
        "warnings": sum(map(warns, alone)),
        "warnings in one run": sum(map(warns, run)),
    }


def detected(entries: list[tuple[Planted, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each family of planted configurations."""
    rows = []
    for kind in dict.fromkeys(plant.kind for plant, _ in entries):
        families = {plant.family for plant, _ in entries if plant.kind == kind}
        for family in (*sorted(families), "all"):
            chosen = [
                (plant, entry)
                for plant, entry in entries
                if plant.kind == kind and family in (plant.family, "all")
            ]
            causes = Counter(str(entry["cause"]) for _, entry in chosen)
            how = Counter(entry["how"] for _, entry in chosen)
            hits = sum(warns(entry) for _, entry in chosen)
            rows.append(
                {
                    "kind": kind,
                    "family": family,
                    "planted": len(chosen),
                    "detected": hits,
                    "rate / %": round(100 * hits / len(chosen), 1),
                    **{c: causes[c] for c in (*SPURIOUS, "symmetry", "near-symmetric", "fragment")},
                    "no cause": causes["None"],
                    "not suspicious": how["ratio"],
                    "largest ratio": f"{max(entry['ratio'] for _, entry in chosen):.3f}",
                }
            )
    return rows


def approached(plants: list[Planted]) -> dict[str, Any]:
    """What an observer notices of runs that come to planted configurations from AWAY."""
    random = np.random.default_rng(1)
    noticed, at_last = 0, 0
    for plant in plants:
        shift = random.normal(size=plant.atoms.positions.shape)
        shift *= AWAY / np.linalg.norm(shift)
        images = []
        for fraction in np.linspace(1, 0, STEPS + 1):
            images.append(plant.atoms.copy())
            images[-1].positions += fraction * shift
        warned = [warns(entry) for entry in look(images, plant.descriptor, one_run=True)]
        noticed, at_last = noticed + any(warned), at_last + warned[-1]
    return {
        "kind": plants[0].kind,
        "approaches": len(plants),
        "noticed": noticed,
        "at the last step": at_last,
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder for frames and results")
    parser.add_argument("--frames", type=int, default=450, help="for each system")
    parser.add_argument("--planted", type=int, default=250, help="for each kind")
    parser.add_argument("--approaches", type=int, default=100, help="to those of each kind")
    parser.add_argument("--systems", nargs="*", default=SYSTEMS, choices=SYSTEMS)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    arguments = parser.parse_args()
    entries = []
    for kind in arguments.kinds:
        for plant in planted(kind, arguments.planted):
            entries.append((plant, look([plant.atoms], plant.descriptor, one_run=False)[0]))
    if entries:
        print(markdown(detected(entries)), flush=True)
    if arguments.approaches:
        runs = []
        for kind in arguments.kinds:
            plants = [plant for plant, _ in entries if plant.kind == kind]
            runs.append(approached(plants[: arguments.approaches]))
        print(markdown(runs), flush=True)
    rows = []
    for system in arguments.systems:
        rows.append(false_warnings(system, arguments.frames, arguments.data))
        print(rows[-1], flush=True)
    if rows:
        total = {
            "system": "all",
            **{key: sum(row[key] for row in rows) for key in list(rows[0])[1:]},
        }
        print(markdown([*rows, total]))


if __name__ == "__main__":
    main()
