"""Resident memory while many small frames are scanned: python -m benchmarks.memory [N_FRAMES]."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP
from ase_sensitivity.dataset.scan import scan


def frames(number: int) -> Iterator[Atoms]:
    """Water molecules with forces, made one after the other."""
    random = np.random.default_rng(0)
    for _ in range(number):
        atoms = molecule("H2O")
        atoms.positions += 0.1 * random.normal(size=(3, 3))
        atoms.arrays["f"] = random.normal(size=(3, 3))
        yield atoms


def resident() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print a line for every tenth of the frames."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    begin, last = time.perf_counter(), 0

    def progress(n_done: int) -> None:
        nonlocal last
        if 10 * n_done // number > last:
            last = 10 * n_done // number
            seconds = time.perf_counter() - begin
            print(f"{n_done:8d} frames {resident():6.0f} MB {seconds:6.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as directory:
        soap = SOAP(["O", "H"], cutoff=3.0, n_max=4, l_max=3, threads=1)
        store = Path(directory) / "results.db"
        result = scan(frames(number), soap, forces_key="f", store=store, progress=progress)
        print(result.summary())
        table, curve = result.to_numpy(), result.curve[1]
        print(f"table of {table.nbytes / 1e6:.0f} MB and curve, at {curve[0]:.2g} eV/Å:")
        print(f"         afterwards {resident():6.0f} MB {time.perf_counter() - begin:6.0f} s")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"peak {peak:.0f} MB, file {store.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
