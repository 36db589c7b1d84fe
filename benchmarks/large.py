"""Structure scope of large crystals, each in a process of its own for its peak of memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any

from ase_sensitivity import SOAP, analyze
from benchmarks.cases import BASIS, CUTOFF, silicon
from benchmarks.timing import seconds

SIZES = (512, 1000, 2744, 8000)


def measure() -> list[dict[str, Any]]:
    """A row for each size."""
    command = [sys.executable, "-m", "benchmarks.large"]
    return [
        json.loads(subprocess.run([*command, str(n)], capture_output=True, check=True).stdout)
        for n in SIZES
    ]


def one(n_atoms: int) -> dict[str, Any]:
    """Processor time and peak of memory, kernels being compiled."""
    soap = SOAP(["Si"], CUTOFF, *BASIS, threads=1)
    analyze(silicon(288), soap)
    atoms = silicon(n_atoms)
    times = [seconds(lambda: analyze(atoms, soap)) for _ in range(5 if n_atoms < 2000 else 1)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"atoms": n_atoms, "s": round(min(times), 2), "peak / MB": peak}


if __name__ == "__main__":
    print(json.dumps(one(int(sys.argv[1]))))
