"""What it costs a model of methane that it has features of the carbon atom only, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.md.verlet import VelocityVerlet

from ase_sensitivity.analysis import analyze
from ase_sensitivity.demonstration.methane import (
    BEFORE,
    TIMESTEP,
    invisible_direction,
    passages,
    run,
    soap_of,
    start,
    twisted,
)
from ase_sensitivity.demonstration.model import FourierPotential, force_error
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.md.observer import SensitivityObserver
from ase_sensitivity.types import Floats

N_PASSAGES = 5
"""Runs that the models are fitted to: 230 frames."""

HELD_OUT = 100
"""Seed of the first run that they are not fitted to. Runs that are watched come later."""

WATCHED = 1000

INTERVAL = 8
"""Steps between two calls of the observer."""

OFF = 0.1
"""In Å, root mean square over atoms: a run has left the true trajectory."""

Progress = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Model:
    """A model of methane, and what it misses.

    Attributes
    ----------
    descriptor, potential
        Its features, and what was fitted on them.
    force_error
        Root mean square error in eV/Å of force components of held-out frames.
    missed
        Error over force along each mode of the carbon-only features, the softest first, of shape
        (9,): root mean squares over held-out frames.
    energies, forces
        In eV, and eV/Å along the twist, at the twists.
    """

    descriptor: SOAP
    potential: FourierPotential
    force_error: float
    missed: Floats
    energies: Floats
    forces: Floats


@dataclass(frozen=True, eq=False)
class Watched:
    """Runs of one model that start as true ones do.

    Attributes
    ----------
    time
        In fs, of shape (n_frames,).
    distance
        From the true trajectory in Å, root mean square over atoms, of shape (n_runs, n_frames).
    flagged
        Time in fs at which the observer first found a harmful configuration near, of shape
        (n_runs,); nan if never.
    """

    time: Floats
    distance: Floats
    flagged: Floats

    @property
    def off(self) -> Floats:
        """When each run was farther from the true one than `OFF`, in fs; nan if never."""
        beyond = self.distance > OFF
        return np.where(beyond.any(axis=1), self.time[beyond.argmax(axis=1)], np.nan)


@dataclass(frozen=True, eq=False)
class Blindness:
    """All of it.

    Attributes
    ----------
    twists
        Displacements in Å of the singular configuration along the invisible direction.
    energies, forces
        True ones at the twists, in eV, and eV/Å along the direction.
    ratios
        Of singular values of the carbon-only features at the twists.
    soft
        Typical ratio of the singular value of each mode in held-out frames, of shape (9,).
    blind, seeing
        The model with features of carbon only, and that of all atoms.
    """

    twists: Floats
    energies: Floats
    forces: Floats
    ratios: Floats
    soft: Floats
    blind: Model
    seeing: Model


def measure(
    calculator: Any, *, n_passages: int = N_PASSAGES, n_twists: int = 33, progress: Progress
) -> Blindness:
    """Fit both models, and measure what they miss.

    Parameters
    ----------
    calculator
        The true potential.
    n_passages
        Number of runs to fit to.
    n_twists
        Number of displacements along the invisible direction, from -0.4 to 0.4 Å.
    progress
        Is told the steps done, of three.
    """
    frames = passages(calculator, n_passages)
    held_out = passages(calculator, 1, seed=HELD_OUT)
    progress(1)
    found = [analyze(atoms, soap_of(["C"]), k=9) for atoms in held_out]
    modes = np.array([one.modes for one in found])
    soft = np.median([one.singular_values / one.sigma_max for one in found], axis=0)
    twists = np.linspace(-0.4, 0.4, n_twists)
    energies, forces = _along(calculator, twists)
    models = []
    for centers in (["C"], None):
        soap = soap_of(centers)
        potential = FourierPotential.fit(soap, frames)
        error = force_error(potential, held_out)
        missed = _missed(potential, held_out, modes)
        models.append(Model(soap, potential, error, missed, *_along(potential, twists)))
        progress(len(models) + 1)
    ratios = np.array([analyze(twisted(twist), soap_of(["C"])).ratio for twist in twists.tolist()])
    return Blindness(twists, energies, forces, ratios, soft, *models)


def watch(
    calculator: Any,
    models: Sequence[Model],
    n: int,
    *,
    seed: int = 0,
    before: float = BEFORE,
    progress: Progress,
    **observed: Any,
) -> list[Watched]:
    """Run models from where true runs start, each with an observer of its own.

    Parameters
    ----------
    calculator
        The true potential.
    models
        They run, and are watched by an observer with their descriptor.
    n
        Number of runs of each.
    seed
        Of the first.
    before
        When the true run is at the singular configuration, in fs: half of its length.
    progress
        Is told the number of runs done.
    observed
        What the observer of the first run of the first model is given beside its descriptor.
    """
    n_frames = round(2 * before / TIMESTEP) + 1
    distances = np.empty((len(models), n, n_frames))
    flagged = np.full((len(models), n), np.nan)
    for number in range(n):
        first = start(calculator, WATCHED + seed + number, before)
        true = run(first.copy(), calculator, 2 * before)
        for i, model in enumerate(models):
            given = {"on_singular": "log"} | (observed if number == i == 0 else {})
            seen: list[float] = []
            own = run(first.copy(), model.potential, 2 * before, _observed(model, given, seen))
            distances[i, number] = [_distance(a, b) for a, b in zip(own, true, strict=True)]
            flagged[i, number] = min(seen, default=np.nan)
        progress(number + 1)
    time = np.linspace(0, 2 * before, n_frames)
    return [Watched(time, *pair) for pair in zip(distances, flagged, strict=True)]


def _observed(
    model: Model, given: dict[str, Any], seen: list[float]
) -> Callable[[VelocityVerlet], None]:
    """Attaches an observer to dynamics, and puts the times at which it flags a frame in a list."""

    def attach(dyn: VelocityVerlet) -> None:
        observer = SensitivityObserver(dyn, model.descriptor, **given)

        def note() -> None:
            if observer.n_singular:
                seen.append(dyn.nsteps * TIMESTEP)

        dyn.attach(observer, interval=INTERVAL)
        dyn.attach(note, interval=INTERVAL)

    return attach


def _distance(one: Atoms, other: Atoms) -> float:
    """Root mean square displacement of the atoms."""
    return float(np.sqrt(((one.positions - other.positions) ** 2).sum(axis=1).mean()))


def _along(calculator: Any, twists: Floats) -> tuple[Floats, Floats]:
    """Energies, and forces along the twist."""
    direction = invisible_direction()
    energies, forces = [], []
    for twist in twists.tolist():
        atoms = twisted(twist)
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
        forces.append(float(np.vdot(atoms.get_forces(), direction)))
    return np.array(energies), np.array(forces)


def _missed(calculator: Any, frames: Sequence[Atoms], modes: Floats) -> Floats:
    """Error over force along modes of shape (n_frames, n_modes, n_atoms, 3)."""
    errors, forces = [], []
    for atoms, own in zip(frames, modes, strict=True):
        true = atoms.get_forces()
        copy = atoms.copy()
        copy.calc = calculator
        forces.append(np.einsum("kax,ax->k", own, true))
        errors.append(np.einsum("kax,ax->k", own, copy.get_forces() - true))
    return np.sqrt((np.array(errors) ** 2).mean(axis=0) / (np.array(forces) ** 2).mean(axis=0))
