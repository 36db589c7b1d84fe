"""What the candidates of a sweep cost, in processor time per frame."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms

from ase_sensitivity.dataset.basis.candidates import Key
from ase_sensitivity.descriptors.base import Descriptor, jacobian_of
from ase_sensitivity.jacobian.contract import Jacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian

logger = logging.getLogger(__name__)

N_TIMED = 3
"""Number of frames that are timed."""

LEAST, MOST = 3, 20
"""The smallest of so many times counts."""

ENOUGH = 0.05
"""After so many seconds in all it is not taken again."""


def costs(descriptors: Mapping[Key, Descriptor], frames: Sequence[Atoms]) -> dict[Key, float]:
    """Processor time of the forces of a model, in s per frame; without candidates that fail.

    Parameters
    ----------
    descriptors
        The candidates.
    frames
        The structures to take the time of.

    Notes
    -----
    The forces of a linear model are one product J^T w. The time is that of all threads of this
    process. What another program or an accelerator takes may differ.
    """
    found: dict[Key, float] = {}
    for key, descriptor in descriptors.items():
        try:
            found[key] = float(np.mean([_seconds(descriptor, atoms) for atoms in frames]))
        except Exception:  # its rows have the error
            logger.info("the time of %r was not taken", descriptor, exc_info=True)
    return found


def _seconds(descriptor: Descriptor, atoms: Atoms) -> float:
    weights = np.ones((1, _n_weights(jacobian_of(descriptor, atoms))))
    jacobian_of(descriptor, atoms).adjoint(weights)  # compiles, and loads
    times: list[float] = []
    while len(times) < LEAST or (len(times) < MOST and sum(times) < ENOUGH):
        start = time.process_time()
        jacobian_of(descriptor, atoms).adjoint(weights)
        times.append(time.process_time() - start)
    return min(times)


def _n_weights(jacobian: Jacobian) -> int:
    if isinstance(jacobian, StackedJacobian):
        return sum(part.features.size for part in jacobian.parts)
    return jacobian.features.size
