"""Methane on its way through a configuration that features of the carbon atom alone cannot see.

At this configuration a twist of the hydrogen atoms is invisible from carbon, to features of three
bodies in any basis, while the force along it is 1.04 eV/Å. Features of all atoms see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet

from ase_sensitivity.analysis import analyze
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.types import Floats

BEFORE = 45.0
"""Time in fs before the singular configuration at which runs start."""

TIMESTEP = 0.5
"""In fs."""

TEMPERATURE = 300.0
"""Of the velocities at the singular configuration, in K."""

SPEED = 0.02
"""Speed along the invisible direction there, in Å/fs for the displacement of all atoms."""


class _Verlet(VelocityVerlet):
    """The same dynamics, without asking for forces that are known: each time, atoms are compared.

    Comparisons took as long as GFN2-xTB.
    """

    _forces: Floats | None = None

    def step(self, forces: Floats | None = None) -> Floats:
        known = self._forces if forces is None else forces
        self._forces = super().step(known)  # type: ignore[no-untyped-call]
        return self._forces


def singular_methane() -> Atoms:
    """The configuration: 2.1 eV above the minimum of GFN2-xTB."""
    angle = np.radians(40)
    hydrogens = [
        (0.87, 0, 0.66),
        (-0.87, 0, 0.66),
        (1.08 * np.sin(angle), 0, -1.08 * np.cos(angle)),
        (0, 1.16, 0.05),
    ]
    return Atoms("CH4", [(0, 0, 0), *hydrogens])


def soap_of(centers: Sequence[str] | None = None) -> SOAP:
    """The descriptor of the models: SOAP up to 4 Å, of some centers only or of all atoms."""
    return SOAP(["C", "H"], cutoff=4.0, n_max=8, l_max=6, centers=centers)


def invisible_direction() -> Floats:
    """The normalised displacement of the atoms that carbon does not see, of shape (5, 3)."""
    return _softest().copy()


@cache
def _softest() -> Floats:
    mode: Floats = analyze(singular_methane(), soap_of(["C"])).modes[0]
    return mode * np.sign(mode[4, 0])


def twisted(twist: float) -> Atoms:
    """The configuration after a displacement of a length in Å along the invisible direction."""
    atoms = singular_methane()
    atoms.positions += twist * invisible_direction()
    return atoms


def xtb() -> Any:
    """The true potential, GFN2-xTB: a calculator.

    Raises
    ------
    ImportError
        If tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError:
        raise ImportError('GFN2-xTB needs tblite: pip install "ase-sensitivity[demo]"') from None
    return TBLite(method="GFN2-xTB", verbosity=0)


def start(calculator: Any, seed: int, before: float = BEFORE) -> Atoms:
    """Methane with velocities that take it through the singular configuration.

    Parameters
    ----------
    calculator
        Of the run backwards in time that leads here.
    seed
        Of the velocities.
    before
        When it comes through, in fs.
    """
    rng = np.random.default_rng(seed)
    atoms = singular_methane()
    thermal = np.sqrt(units.kB * TEMPERATURE / atoms.get_masses())[:, None]
    velocities = rng.normal(size=(5, 3)) * thermal
    direction = invisible_direction()
    velocities += (
        rng.choice([-1, 1]) * SPEED / units.fs - np.vdot(velocities, direction)
    ) * direction
    atoms.set_velocities(-velocities)
    atoms.calc = calculator
    with _Verlet(atoms, TIMESTEP * units.fs) as dyn:
        dyn.run(round(before / TIMESTEP))
    atoms.set_velocities(-atoms.get_velocities())
    return atoms


def run(
    atoms: Atoms,
    calculator: Any,
    time: float,
    attached: Callable[[VelocityVerlet], None] | None = None,
) -> list[Atoms]:
    """Dynamics without a thermostat: the frames of every step, with energies and forces.

    Parameters
    ----------
    atoms
        What moves; it is changed.
    calculator
        Gives the forces.
    time
        Length in fs.
    attached
        Is given the dynamics before it runs, for an observer.
    """
    atoms.calc = calculator
    frames: list[Atoms] = []

    def keep() -> None:
        frame = atoms.copy()
        found = calculator.results
        frame.calc = SinglePointCalculator(frame, energy=found["energy"], forces=found["forces"])
        frames.append(frame)

    with _Verlet(atoms, TIMESTEP * units.fs) as dyn:
        dyn.attach(keep)
        if attached is not None:
            attached(dyn)
        dyn.run(round(time / TIMESTEP))
    return frames


def passages(calculator: Any, n: int, *, every: int = 4, seed: int = 0) -> list[Atoms]:
    """Frames of runs through the singular configuration, with energies and forces.

    Parameters
    ----------
    calculator
        Gives them.
    n
        Number of runs, of 90 fs each.
    every
        Of so many frames, half a femtosecond apart, one is taken.
    seed
        Of the first run; the others have the numbers that follow.
    """
    frames = []
    for number in range(n):
        frames += run(start(calculator, seed + number), calculator, 2 * BEFORE)[::every]
    return frames
