"""Time and memory against the number of atoms."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np

from ase_sensitivity import SOAP, analyze
from benchmarks.cases import BASIS, CUTOFF, silicon
from benchmarks.timing import seconds

STRUCTURE = (64, 216, 512, 1000, 2000)
ATOM = (64, 512, 2000, 8000, 32000, 100_000)


def measure() -> list[dict[str, Any]]:
    """A row for each scope and size, and the exponent fitted to the last three sizes."""
    rows: list[dict[str, Any]] = []
    for scope, sizes in (("structure", STRUCTURE), ("atom", ATOM)):
        times = []
        for n in sizes:
            atoms = silicon(n)
            soap = SOAP(["Si"], CUTOFF, *BASIS, threads=1)
            repeats = 3 if n <= 2000 else 1
            times.append(
                min(seconds(lambda: analyze(atoms, soap, scope=scope)) for _ in range(repeats))  # noqa: B023
            )
            rows.append(
                {
                    "scope": scope,
                    "atoms": n,
                    "s": round(times[-1], 3),
                    "exponent": "",
                    "peak memory of the process so far / MB": resource.getrusage(
                        resource.RUSAGE_SELF
                    ).ru_maxrss
                    // 1024,
                }
            )
        slope = np.polyfit(np.log(sizes[-3:]), np.log(times[-3:]), 1)[0]
        rows[-1]["exponent"] = round(float(slope), 2)
    return rows
