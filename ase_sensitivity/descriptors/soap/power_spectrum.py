"""Runs the kernels of the power spectrum on one or several threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np

from ase_sensitivity.descriptors.soap import kernels, squared_jvp
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.density import scratch
from ase_sensitivity.descriptors.soap.environments import Environments
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

LOADING = 1.0
"""Seconds that loading a kernel may take; compiling it takes longer."""

WORTHWHILE = 1000
"""Number of pairs per thread below which another thread costs more than it saves."""


def power_spectrum(
    basis: Basis,
    environments: Environments,
    normalise: bool,
    features: Floats,
    blocks: Floats,
    threads: int | None,
) -> None:
    """Fill ``features`` (n_rows, n_features) and ``blocks`` (n_blocks, 3, n_features)."""
    flat = blocks.reshape(-1)

    def run(begin: int, end: int) -> None:
        density = scratch(basis, environments.most(begin, end))
        kernels.power_spectrum(
            *common(basis, environments, normalise, begin, end),
            len(blocks) > 0,
            kernels.scratch(density, basis.n_channels, basis.harmonics.l_padded),
            features,
            flat,
        )

    in_shares(run, kernels.power_spectrum, environments.starts, threads)


def squared_jvp_gradient(
    basis: Basis,
    environments: Environments,
    normalise: bool,
    changes: Floats,
    step: float,
    central_difference: bool,
    threads: int | None,
) -> Floats:
    """Derivatives of |J v|² for the power spectrum by the vectors of pairs, (m, n_pairs, 3).

    Parameters
    ----------
    basis, environments, normalise, threads
        As for the power spectrum.
    changes
        Change of the vectors by each v, of shape (m, n_pairs, 3).
    step, central_difference
        As in :meth:`SOAP.squared_jvp_gradient`.
    """
    changes = np.ascontiguousarray(changes)  # other layouts would be compiled again
    forces = np.zeros_like(changes)
    n_power = basis.n_channels * (basis.n_channels + 1) // 2 * basis.harmonics.l_padded

    def run(begin: int, end: int) -> None:
        most = environments.most(begin, end)
        squared_jvp.derivatives(
            *common(basis, environments, normalise, begin, end),
            changes,
            step,
            central_difference,
            squared_jvp.scratch(scratch(basis, most), n_power, len(changes), most),
            forces,
        )

    in_shares(run, squared_jvp.derivatives, environments.starts, threads)
    return forces


def common(
    basis: Basis, environments: Environments, normalise: bool, begin: int, end: int
) -> tuple[Any, ...]:
    """The first arguments of kernels that read the environments of a range of rows."""
    scale = np.zeros(basis.harmonics.l_padded)
    scale[: basis.l_max + 1] = 1.0 / np.sqrt(2.0 * np.arange(basis.l_max + 1) + 1.0)
    return (
        begin,
        end,
        environments.starts,
        environments.vectors,
        environments.species,
        environments.center_species,
        basis.central,
        basis.arguments(),
        scale,
        normalise,
    )


def in_shares(
    run: Callable[[int, int], None], kernel: Any, starts: Ints, threads: int | None
) -> None:
    """Run a kernel on several threads, each for a range of rows with about as many pairs.

    These are Python's threads and not numba's: kernels release the interpreter's lock, and numba's
    threading layer could be broken by a fork or a second caller.

    Parameters
    ----------
    run
        Called with the first row of a range and the one after the last.
    kernel
        The kernel that ``run`` calls; it is compiled before threads start.
    starts
        First pair of each row, of shape (n_rows + 1,).
    threads
        The largest number of threads; None for numba's default.
    """
    if not kernel.overloads:
        begin = time.perf_counter()
        run(0, 0)
        took = time.perf_counter() - begin
        if took > LOADING:
            logger.info("a kernel of SOAP was compiled in %.1f s; later runs will load it", took)
    n_rows, several = len(starts) - 1, n_threads(starts, threads)
    if several == 1:
        run(0, n_rows)
        return
    shares = np.linspace(0, int(starts[-1]), several + 1)
    bounds = [int(bound) for bound in np.searchsorted(starts, shares[:-1])] + [n_rows]
    bounds[0] = 0
    with ThreadPoolExecutor(several) as pool:
        list(pool.map(run, bounds[:-1], bounds[1:]))


def n_threads(starts: Ints, threads: int | None) -> int:
    """The number of threads that share some rows; arguments as in :func:`in_shares`."""
    most = int(threads or numba.config.NUMBA_NUM_THREADS)
    return max(1, min(most, len(starts) - 1, int(starts[-1]) // WORTHWHILE))
