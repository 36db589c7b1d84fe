"""A second process compiles kernels while the first one compiles others, or runs dynamics."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import active_children

import numpy as np

from ase_sensitivity.compiled.njit import is_missing
from ase_sensitivity.dataset.workers import processes
from ase_sensitivity.demonstration.methane import singular_methane, soap_of
from ase_sensitivity.descriptors.soap.squared_jvp import derivatives


@contextmanager
def compile_aside() -> Iterator[Future[None]]:
    """Compile what the demo needs beside the Gram matrix, unless it is on disk or cannot be.

    Yields
    ------
    Future
        Is done when the kernels of observers are; those of fits follow.
    """
    if not is_missing(derivatives):
        kernels: Future[None] = Future()
        kernels.set_result(None)
        yield kernels
        return
    others = set(active_children())
    with processes(1) as pool:
        # The process starts here, and ignores Ctrl-C from its beginning.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            kernels = pool.submit(_kernels_of_observers)
        finally:
            signal.signal(signal.SIGINT, handler)
        pool.submit(_kernels_of_fits)
        try:
            yield kernels
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()) - others:  # it may be busy for a while
                process.terminate()


def _kernels_of_observers() -> None:
    """Blocks of a Jacobian, their products, and gradients."""
    atoms, soap = singular_methane(), soap_of()
    soap.jacobian(atoms).gram()
    soap.squared_jvp_gradient(atoms, np.ones((1, len(atoms), 3)))


def _kernels_of_fits() -> None:
    """Products of a Jacobian and vectors."""
    jacobian = soap_of().stream(singular_methane())
    jacobian.adjoint(jacobian.apply(np.ones((1, jacobian.n_atoms, 3))))
