"""Time and memory against the number of atoms."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from ase_sensitivity import SOAP, analyze
from benchmarks.cases import BASIS, CUTOFF, silicon
from benchmarks.timing import seconds

LONG = (62, 156, 312)
STRUCTURE = (64, 216, 512, 1000, 2000)
ATOM = (64, 512, 2000, 8000, 32000, 100_000)
SIZES = {
    "environment": (64, 216, 512),
    "structure, long cell": LONG,
    "structure": STRUCTURE,
    "atom": ATOM,
}


def long(length: int) -> Atoms:
    """A cell of silicon that repeats only along one direction."""
    atoms = bulk("Si", cubic=True).repeat((2, 2, length))
    atoms.rattle(0.05, seed=1)
    return atoms


def measure() -> list[dict[str, Any]]:
    """A row for each scope and size, and the exponent fitted to the last three sizes."""
    rows: list[dict[str, Any]] = []
    for name, sizes in SIZES.items():
        scope = name.split(",")[0]
        times = []
        for size in sizes:
            atoms = long(size) if "long" in name else silicon(size)
            n = len(atoms)
            soap = SOAP(["Si"], CUTOFF, *BASIS, threads=1)
            repeats = 3 if n <= 2000 else 1
            times.append(
                min(seconds(lambda: analyze(atoms, soap, scope=scope)) for _ in range(repeats))  # noqa: B023
            )
            rows.append(
                {
                    "scope": name,
                    "atoms": n,
                    "s": round(times[-1], 3),
                    "exponent": "",
                    "peak memory of the process so far / MB": resource.getrusage(
                        resource.RUSAGE_SELF
                    ).ru_maxrss
                    // 1024,
                }
            )
        numbers = [row["atoms"] for row in rows[-3:]]
        slope = np.polyfit(np.log(numbers), np.log(times[-3:]), 1)[0]
        rows[-1]["exponent"] = round(float(slope), 2)
    return rows
