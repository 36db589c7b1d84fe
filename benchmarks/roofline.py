"""Where the time of Si512 goes, against what the machine's arithmetic and memory allow."""

from __future__ import annotations

from typing import Any

import numpy as np

from ase_sensitivity import SOAP
from ase_sensitivity.descriptors.soap.environments import Environments
from ase_sensitivity.geometry.fragments import fragments
from ase_sensitivity.spectrum.scopes import structure_view
from ase_sensitivity.spectrum.solvers import spectrum
from benchmarks.cases import BASIS, CUTOFF, silicon
from benchmarks.timing import median

FLOPS_PER_PAIR = 7e3
"""Of the contraction at n_max 8, l_max 6 (docs/performance)."""


def dgemm_rate(n: int = 87, k: int = 253) -> float:
    """Flop/s of the products that make the Gram matrix, counted as full products."""
    block = np.random.default_rng(0).normal(size=(n, k))
    return 2 * n * n * k / (median(lambda: [block @ block.T for _ in range(100)]) / 100)


def bandwidth(size: int = 2**24) -> float:
    """Bytes/s written and read by a copy of arrays that fit no cache."""
    source = np.ones(size)
    target = np.empty_like(source)
    return 2 * source.nbytes / median(lambda: np.copyto(target, source))


def measure() -> list[dict[str, Any]]:
    """Stages of one analysis, and the estimate for kernel and Gram matrix."""
    atoms = silicon(512)
    soap = SOAP(["Si"], CUTOFF, *BASIS, threads=1)
    jacobian = soap.jacobian(atoms)
    view = structure_view(soap.stream(atoms), atoms)
    previous = spectrum(view, 6)
    neighbors = median(lambda: Environments.of(atoms, CUTOFF, ["Si"], ["Si"]))
    whole = median(lambda: soap.jacobian(atoms))
    features = median(lambda: soap.features(atoms))
    both = median(lambda: view.gram())
    graph = median(lambda: fragments(atoms, jacobian.ranges))
    total = median(lambda: spectrum(view, 6, start=previous.modes))
    n_pairs = len(jacobian.row) - len(atoms)
    per_row = 3.0 * np.bincount(jacobian.row)
    gram_flops = float(2 * (per_row**2).sum() * jacobian.features.shape[1])
    rate, memory = dgemm_rate(), bandwidth()
    # Blocks are written once and read twice: by the sum of squares and by the product.
    kernel_bound = n_pairs * FLOPS_PER_PAIR / rate + jacobian.blocks.nbytes / (memory / 2)
    gram_bound = gram_flops / rate + jacobian.blocks.nbytes / (memory / 2)
    stages = {
        "neighbors and environments": neighbors,
        "features (radial, harmonics, density, power spectrum)": features - neighbors,
        "contraction and output of blocks": whole - features,
        "Jacobian and Gram matrix, in pieces": both,
        "graph of neighbors, rigid motions": graph,
        "singular values": total - both,
        f"bound: kernel ({rate / 1e9:.0f} Gflop/s, {memory / 1e9:.0f} GB/s)": kernel_bound,
        "bound: Gram matrix": gram_bound,
        "bound: kernel and Gram matrix": kernel_bound + gram_bound,
    }
    return [{"stage": stage, "ms": round(1e3 * value, 1)} for stage, value in stages.items()]
