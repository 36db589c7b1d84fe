"""Warnings, distances and costs on two halves of systems: python -m benchmarks.halves.

Thresholds were chosen with the first half in view; the second half confirms them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2

from ase_sensitivity import SOAP, analyze, nearest_singular
from ase_sensitivity.causes.cause import SPURIOUS
from ase_sensitivity.singular.monitor import Monitor
from benchmarks.planted import KINDS, Planted, planted, ring_and_apex
from benchmarks.tables import markdown

MOLECULES = [name for name in g2.names if 3 <= len(g2[name]) <= 12 and name != "Si2H6"]

CRYSTALS: dict[str, Callable[[], Atoms]] = {
    "SiC 8": lambda: bulk("SiC", "zincblende", a=4.36, cubic=True),
    "Si 8": lambda: bulk("Si", cubic=True),
    "NaCl 8": lambda: bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "Cu 4": lambda: bulk("Cu", cubic=True),
    "GaAs 8": lambda: bulk("GaAs", "zincblende", a=5.65, cubic=True),
    "Ge 8": lambda: bulk("Ge", cubic=True),
    "MgO 8": lambda: bulk("MgO", "rocksalt", a=4.21, cubic=True),
    "Al 4": lambda: bulk("Al", cubic=True),
    "Fe 2": lambda: bulk("Fe", "bcc", a=2.87, cubic=True),
    "CsCl 2": lambda: bulk("CsCl", "cesiumchloride", a=4.12),
    "Mg 2": lambda: bulk("Mg"),
    "ZnO 4": lambda: bulk("ZnO", "wurtzite", a=3.25, c=5.2),
}

FURTHER: dict[str, Callable[[], Atoms]] = {
    "C 8": lambda: bulk("C", cubic=True),
    "BN 8": lambda: bulk("BN", "zincblende", a=3.62, cubic=True),
    "InP 8": lambda: bulk("InP", "zincblende", a=5.87, cubic=True),
    "LiF 8": lambda: bulk("LiF", "rocksalt", a=4.03, cubic=True),
    "PbTe 8": lambda: bulk("PbTe", "rocksalt", a=6.46, cubic=True),
    "CaF2 3": lambda: bulk("CaF2", "fluorite", a=5.46),
    "CsI 2": lambda: bulk("CsI", "cesiumchloride", a=4.57),
    "GaN 4": lambda: bulk("GaN", "wurtzite", a=3.19, c=5.19),
    "Ni 4": lambda: bulk("Ni", cubic=True),
    "W 2": lambda: bulk("W", cubic=True),
    "Ti 2": lambda: bulk("Ti"),
    "Si 2": lambda: bulk("Si"),
}
"""Crystals that no threshold was chosen on and no table had before."""

SINGLE = [
    (name, element)
    for name in MOLECULES
    for element, count in Counter(molecule(name).get_chemical_symbols()).items()
    if count == 1 and len(molecule(name)) > 3
]
"""Molecules with one atom of an element, which is the only center."""


def halves() -> dict[str, dict[str, Callable[[], Atoms]]]:
    """Every other system is in the second half."""
    built: dict[str, Callable[[], Atoms]] = {
        name: lambda name=name: molecule(name) for name in MOLECULES
    }
    names = [*built, *list(CRYSTALS)[:4], *list(CRYSTALS)[4:]]
    built |= CRYSTALS
    first = [*MOLECULES[::2], *list(CRYSTALS)[:4]]
    return {
        "first": {name: built[name] for name in names if name in first},
        "second": {name: built[name] for name in names if name not in first},
    }


def kicked(start: Atoms, seed: int) -> Atoms:
    """Rattled; every other crystal is strained as well."""
    atoms = start.copy()
    atoms.rattle((0.01, 0.02, 0.04, 0.08)[seed % 4], seed=seed)
    if start.pbc.any() and seed % 2:
        strain = 0.02 * np.random.default_rng(seed).normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), True)
    return atoms


def diagnosed(atoms: Atoms, soap: Any, within: float) -> tuple[Any, float, float]:
    """A diagnosis, its cost in calls of analyze (processor time), and in seconds."""
    begin = time.process_time()
    found = analyze(atoms, soap, k=3)
    one = time.process_time() - begin
    begin = time.process_time()
    diagnosis = Monitor(soap, scope="structure", within=within).diagnose(atoms, found)
    seconds = time.process_time() - begin
    return diagnosis, seconds / one, seconds


def harmless(half: str, seeds: range, within: float) -> dict[str, Any]:
    """Rattled molecules and cells, all atoms as centers: no warning is right."""
    cases = []
    for build in (halves() | {"further": FURTHER})[half].values():
        start = build()
        species = sorted(set(start.get_chemical_symbols()))
        soap = SOAP(species, 4.0 if not start.pbc.any() else 5.0, 8, 6)
        cases += [(kicked(start, seed), soap) for seed in seeds]
    return _harmless(half, cases, within)


def single_centers(seeds: range, within: float) -> dict[str, Any]:
    """Molecules with one center: warnings are right where no basis sees what they speak of."""
    cases = []
    for name, element in SINGLE:
        start = molecule(name)
        soap = SOAP(sorted(set(start.get_chemical_symbols())), 4.0, 8, 6, centers=[element])
        cases += [(kicked(start, seed), soap) for seed in seeds]
    return _harmless("one center", cases, within)


def _harmless(name: str, cases: list[tuple[Atoms, SOAP]], within: float) -> dict[str, Any]:
    causes: Counter[str] = Counter()
    costs, looked, seconds, warned, right = [], [], 0.0, 0, 0
    for atoms, soap in cases:
        diagnosis, cost, more = diagnosed(atoms, soap, within)
        costs.append(cost)
        seconds += more
        if diagnosis.worst(within, SPURIOUS) is not None:
            warned += 1
            right += _is_true(atoms, soap, within)
        if diagnosis.how != "ratio":
            looked.append(cost)
            causes[str(diagnosis.cause)] += 1
    deciles = statistics.quantiles(looked, n=10)
    return {
        "systems": name,
        "within / Å": within,
        "frames": len(cases),
        "warnings": warned,
        "of these right": right,
        "suspicious": len(looked),
        **{f"{k}": causes[k] for k in ("symmetry", "near-symmetric", "unresolved", "None")},
        "mean / ms": round(1e3 * seconds / len(cases), 1),
        "cost: mean of all": round(statistics.mean(costs), 1),
        "median": round(statistics.median(looked), 1),
        "90 %": round(deciles[-1], 1),
        "largest": round(max(looked), 1),
    }


def _is_true(atoms: Atoms, soap: SOAP, within: float) -> bool:
    """Whether a much larger basis is blind where incompleteness is found, but not truncation."""
    found = nearest_singular(atoms, soap)
    found = found.harmful or found
    if found.distance > within:
        return False
    ratio = analyze(found.atoms, soap.with_basis(14, 12), k=1).ratio
    return ratio < 1e-8 if found.cause == "incompleteness" else ratio > 10 * found.ratio


def found(half: str, n: int, kinds: Iterable[str]) -> list[dict[str, Any]]:
    """Planted configurations; even and odd ones are the halves."""
    rows = []
    for kind in kinds:
        plants = list(planted(kind, 2 * n, seed=17))[half == "second" :: 2]
        entries = [(plant.family, *_looked_at(plant)) for plant in plants]
        for family in (*sorted({one[0] for one in entries}), "all"):
            rows.append(_row(half, kind, family, [e for e in entries if family in (e[0], "all")]))
    return rows


def rings(half: str, n: int) -> list[dict[str, Any]]:
    """The family of S3, whose halves have seeds of their own."""
    rows = []
    for n_ring in (3, 4):
        for size in (0.02, 0.05, 0.1):
            plants = ring_and_apex(n_ring, size, n, 100 if half == "first" else 7000)
            entries = [(plant.family, *_looked_at(plant)) for plant in plants]
            rows.append(_row(half, "incompleteness", entries[0][0], entries))
    return rows


def _looked_at(plant: Planted) -> tuple[bool, str, float]:
    """Whether it is found, the cause of what is nearest, and the cost."""
    diagnosis, cost, _ = diagnosed(plant.atoms, plant.descriptor, 0.1)
    return diagnosis.worst(0.1, SPURIOUS) is not None, str(diagnosis.cause), cost


def _row(
    half: str, kind: str, family: str, entries: list[tuple[str, bool, str, float]]
) -> dict[str, Any]:
    costs = [cost for *_, cost in entries]
    return {
        "half": half,
        "kind": kind,
        "family": family,
        "planted": len(entries),
        "found": sum(hit for _, hit, _, _ in entries),
        "nearest": dict(Counter(cause for _, _, cause, _ in entries)),
        "cost: median": round(statistics.median(costs), 1),
        "largest": round(max(costs), 1),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=20, help="for each harmless system")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first frame")
    parser.add_argument("--systems", nargs="*", default=[*halves(), "further", "one center"])
    parser.add_argument("--planted", type=int, default=100, help="for each kind and half")
    parser.add_argument("--rings", type=int, default=40, help="for each ring, distance and half")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--within", type=float, nargs="*", default=[0.1, 0.25])
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.frames)
    if arguments.frames:
        rows = []
        for within in arguments.within:
            for name in arguments.systems:
                one = name == "one center"
                row = single_centers(seeds, within) if one else harmless(name, seeds, within)
                print(row, flush=True)
                rows.append(row)
        print(markdown(rows), flush=True)
    for half in ("first", "second"):
        if arguments.rings:
            print(markdown(rings(half, arguments.rings)), flush=True)
        if arguments.planted:
            print(markdown(found(half, arguments.planted, arguments.kinds)), flush=True)


if __name__ == "__main__":
    main()
