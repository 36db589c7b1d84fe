"""Run by other tests in a process of its own: a scan of random molecules into a database.

Usage: python -m tests.scanning RESULTS N_FRAMES [BYTES]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP
from ase_sensitivity.dataset import chunks
from ase_sensitivity.dataset import scan as module
from ase_sensitivity.dataset.result import ScanResult


def stream(n_frames: int) -> Iterator[Atoms]:
    for seed in range(n_frames):
        atoms = molecule("H2O")
        atoms.rattle(0.1, seed=seed)
        if seed % 7 == 3:
            atoms.positions[0] = np.nan
        atoms.arrays["f"] = np.random.default_rng(seed).normal(size=(3, 3))
        yield atoms


def run(results: str | None, n_frames: int) -> ScanResult:
    soap = SOAP(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)
    return module.scan(stream(n_frames), soap, forces_key="f", store=results)


def but_progress(said: str) -> str:
    """What a command says on the standard error, besides how far it is: slow machines hear more."""
    return re.sub(r"^\w+: \d+ s, \d+ of .*\n", "", said, flags=re.MULTILINE)


if __name__ == "__main__":
    if len(sys.argv) > 3:  # the disk is full after so many bytes
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    # Many small transactions: more places to be killed at.
    module.WRITTEN_AFTER, chunks.SECONDS, chunks.MOST_FRAMES = 0.0, 0.0, 3
    run(sys.argv[1], int(sys.argv[2]))
