"""Models with and without a blind spot on the same passages: energies, runs, warnings, prices."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.md.verlet import VelocityVerlet

from ase_sensitivity.demonstration.methane import (
    BEFORE,
    TIMESTEP,
    run,
    soap_of,
    start,
    twisted,
)
from ase_sensitivity.demonstration.model import FourierPotential
from ase_sensitivity.errors import SingularWarning
from ase_sensitivity.md.log import SensitivityLog, read_log
from ase_sensitivity.md.observer import SensitivityObserver
from ase_sensitivity.types import Floats

BLIND, SEEING = "carbon the only center", "all atoms as centers"
"""The two models."""

LOOK_EVERY = 4
"""Steps between two calls of the observer."""

OFF = 0.1
"""A run is off when its atoms are this far from the true ones, in Å (root mean square)."""


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One passage by the true potential and by the models, from the same start.

    Attributes
    ----------
    time
        Of the frames in fs, of shape (n,).
    apart
        For each model the distance from the true run in Å, root mean square over the atoms, (n,).
    log
        Of the observer of the blind model's run.
    """

    time: Floats
    apart: Mapping[str, Floats]
    log: SensitivityLog

    @property
    def flagged(self) -> float:
        """When the observer first called the blind run singular, in fs; nan if never."""
        return _first(self.log.time, self.log.state == "singular")

    @property
    def price(self) -> float:
        """The price of the first partner in eV; nan without one."""
        return self.log.partners[0].energy if self.log.partners else float("nan")

    def off(self, model: str) -> float:
        """When a model's run is 0.1 Å off, in fs; nan if never."""
        return _first(self.time, self.apart[model] > OFF)


def fitted(frames: Sequence[Atoms]) -> dict[str, FourierPotential]:
    """The two models, fitted to frames with energies and forces."""
    return {
        BLIND: FourierPotential.fit(soap_of(["C"]), frames),
        SEEING: FourierPotential.fit(soap_of(), frames),
    }


def twisted_energies(calculators: Mapping[str, Any], twists: Floats) -> dict[str, Floats]:
    """Energies in eV of methane along the invisible direction, relative to the first calculator's.

    Parameters
    ----------
    calculators
        By name; zero is the energy of the singular configuration by the first one.
    twists
        Displacements in Å.
    """
    energies: dict[str, Floats] = {}
    zero = None
    for name, calculator in calculators.items():
        values = []
        for twist in [0.0, *twists]:
            atoms = twisted(twist)
            atoms.calc = calculator
            values.append(atoms.get_potential_energy())
        zero = values[0] if zero is None else zero
        energies[name] = np.array(values[1:]) - zero
    return energies


def compared_run(
    true: Any,
    models: Mapping[str, FourierPotential],
    seed: int,
    *,
    price: Any = None,
    before: float = BEFORE,
) -> ComparedRun:
    """Run the same passage by the true potential and by the models.

    Parameters
    ----------
    true
        Calculator of the true potential.
    models
        Of :func:`fitted`. The run of the blind one is observed.
    seed
        Of the passage.
    price
        A calculator, another one than ``true``, for the price of the partner.
    before
        When the true run is at the singular configuration, in fs: half of its length.
    """
    first = start(true, seed, before)
    expected = run(first.copy(), true, 2 * before)
    apart: dict[str, Floats] = {}
    written = io.StringIO()

    def observe(dyn: VelocityVerlet) -> None:
        seen = models[BLIND].descriptor
        observer = SensitivityObserver(dyn, seen, logfile=written, price=price)
        dyn.attach(observer, interval=LOOK_EVERY)

    for name, model in models.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SingularWarning)  # the log has it
            frames = run(first.copy(), model, 2 * before, observe if name == BLIND else None)
        moved = np.array([a.positions - b.positions for a, b in zip(frames, expected, strict=True)])
        apart[name] = np.sqrt((moved**2).sum(axis=2).mean(axis=1))
    time: Floats = TIMESTEP * np.arange(len(expected), dtype=float)
    return ComparedRun(time, apart, read_log(written.getvalue().splitlines(keepends=True)))


def _first(time: Floats, holds: Any) -> float:
    found = np.flatnonzero(holds)
    return float(time[found[0]]) if len(found) else float("nan")
