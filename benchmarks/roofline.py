"""Where the time of Si512 goes, against what the machine's arithmetic allows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ase_sensitivity import SOAP
from ase_sensitivity.descriptors.soap.environments import Environments
from ase_sensitivity.geometry.fragments import fragments
from ase_sensitivity.spectrum.scopes import structure_view
from ase_sensitivity.spectrum.solvers import spectrum
from ase_sensitivity.spectrum.sparse import SparseGram
from benchmarks.cases import BASIS, CUTOFF, silicon
from benchmarks.timing import median

FLOPS_PER_PRODUCT = 2 * 1.4e3
"""Of two neighbors of one species, at n_max 8, l_max 6 (descriptors/soap/local_gram.py)."""


def dgemm_rate(n: int = 87, k: int = 253) -> float:
    """Flop/s of the products that make the Gram matrix, counted as full products."""
    block = np.random.default_rng(0).normal(size=(n, k))
    return 2 * n * n * k / (median(lambda: [block @ block.T for _ in range(100)]) / 100)


def measure() -> list[dict[str, Any]]:
    """Stages of one analysis, and the estimate for the Gram matrix."""
    atoms = silicon(512)
    soap = SOAP(["Si"], CUTOFF, *BASIS, threads=1)
    jacobian = soap.stream(atoms)
    view = structure_view(jacobian, atoms)
    previous = spectrum(view, 6)
    neighbors = median(lambda: Environments.of(atoms, CUTOFF, ["Si"], ["Si"]))
    gram = median(lambda: SparseGram.of(view))
    graph = median(lambda: fragments(atoms, jacobian.ranges))
    total = median(lambda: spectrum(view, 6, start=previous.modes))
    n = np.diff(Environments.of(atoms, CUTOFF, ["Si"], ["Si"]).starts)
    rate = dgemm_rate()
    bound = float((n * (n + 1) / 2).sum()) * FLOPS_PER_PRODUCT / rate
    stages = {
        "neighbors and environments": neighbors,
        "Gram matrix": gram,
        "graph of neighbors, rigid motions": graph,
        "singular values": total - gram,
        f"bound: products of neighbors ({rate / 1e9:.0f} Gflop/s)": bound,
    }
    return [{"stage": stage, "ms": round(1e3 * value, 1)} for stage, value in stages.items()]
