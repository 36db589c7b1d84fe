"""Runs the power spectrum's kernel, on several threads if asked."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from ase_sensitivity.descriptors.base import Floats
from ase_sensitivity.descriptors.soap import kernels
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.density import scratch
from ase_sensitivity.descriptors.soap.environments import Environments

logger = logging.getLogger(__name__)

WORTHWHILE = 1000
"""Pairs per thread below which starting one costs more than it saves."""


def power_spectrum(
    basis: Basis,
    environments: Environments,
    normalise: bool,
    features: Floats,
    blocks: Floats,
    threads: int | None,
) -> None:
    """Fill ``features`` (n_rows, n_features) and ``blocks`` (n_blocks, 3, n_features).

    Threads of Python rather than numba's: kernels release the interpreter's lock, and there is no
    threading layer that a fork or a second caller could break.
    """
    harmonics = basis.harmonics
    starts = environments.starts
    n_rows, n_pairs = len(environments.centers), len(environments.atom)
    scale = np.zeros(harmonics.l_padded)
    scale[: basis.l_max + 1] = 1.0 / np.sqrt(2.0 * np.arange(basis.l_max + 1) + 1.0)
    arguments = basis.arguments()
    flat = blocks.reshape(-1)

    def run(begin: int, end: int) -> None:
        most = int(np.diff(starts[begin : end + 1]).max(initial=0))
        density = scratch(basis, most)
        kernels.power_spectrum(
            begin,
            end,
            starts,
            environments.vectors,
            environments.species,
            environments.center_species,
            basis.central,
            arguments,
            scale,
            normalise,
            len(blocks) > 0,
            kernels.scratch(density, basis.n_channels, harmonics.l_padded),
            features,
            flat,
        )

    if not kernels.power_spectrum.overloads:
        begin = time.perf_counter()
        run(0, 0)
        logger.info("SOAP's kernels were ready after %.1f s", time.perf_counter() - begin)
    n_threads = threads or numba.config.NUMBA_NUM_THREADS
    n_threads = max(1, min(n_threads, n_rows, n_pairs // WORTHWHILE))
    if n_threads == 1:
        run(0, n_rows)
        return
    shares = np.linspace(0, n_pairs, n_threads + 1)
    bounds = [int(bound) for bound in np.searchsorted(starts, shares[:-1])] + [n_rows]
    bounds[0] = 0
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(run, bounds[:-1], bounds[1:]))
