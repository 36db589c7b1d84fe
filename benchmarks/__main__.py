"""Run all benchmarks in one process on one core and print tables: python -m benchmarks."""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
for name in THREADS:
    os.environ[name] = "1"  # before anybody loads a library that reads it

from benchmarks import (  # noqa: E402
    gram,
    jacobian,
    large,
    overhead,
    peers,
    pipeline,
    roofline,
    scaling,
    scan,
)
from benchmarks.small_molecules import analyses  # noqa: E402
from benchmarks.tables import markdown  # noqa: E402

PACKAGES = ("ase-sensitivity", "ase", "numpy", "scipy", "numba")
PACKAGES += ("quippy-ase", "featomic", "dscribe", "mace-torch", "torch")


def versions() -> dict[str, str]:
    """Versions of what is installed."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Any] = {
        "jacobian": lambda: jacobian.measure(arguments.seconds),
        "peers": lambda: peers.measure(arguments.seconds),
        "gram": lambda: gram.measure(arguments.seconds),
        "pipeline": lambda: pipeline.measure(arguments.seconds),
        "roofline": roofline.measure,
        "scaling": scaling.measure,
        "large": large.measure,
        "overhead": lambda: overhead.measure(arguments.seconds),
        "trained": overhead.trained,
        "scan": lambda: scan.measure(arguments.seconds),
        "small": analyses,
        "molecules": lambda: scan.molecules(arguments.frames, arguments.at_once),
        "workers": scan.workers,
    }
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(parts)}; all by default")
    parser.add_argument("--seconds", type=float, default=4.0, help="per pair of peers")
    parser.add_argument("--frames", type=int, default=20_000, help="number of molecules")
    parser.add_argument("--at-once", type=int, default=1000, help="molecules of one file")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - parts.keys()
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    results: dict[str, Any] = {"versions": versions(), "threads": 1}
    print(markdown([results["versions"]]))
    for part, run in parts.items():
        if not arguments.parts or part in arguments.parts:
            results[part] = run()
            print(f"## {part}\n\n{markdown(results[part])}", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
