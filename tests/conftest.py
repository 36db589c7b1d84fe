"""Descriptors and structures of the tests of the observer."""

from __future__ import annotations

import math
import signal
import warnings
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from ase_sensitivity import SOAP, FeatureJacobian, QUIPDescriptor, SensitivityWarning

SMALL_SOAP = "soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.5"


class Told:
    """A descriptor whose ratio sigma_min / sigma_max is told beforehand, call by call.

    Its features are the distances between the atoms, stretched so that the smallest non-trivial
    singular value is the ratio and all others are one. An exception among the ratios is raised.
    After the last ratio it starts again with the first.
    """

    species = None
    cutoff = math.inf
    body_order = 2

    def __init__(self, ratios: Iterable[float | BaseException] = (0.5,)) -> None:
        self.ratios = list(ratios)
        self.n_calls = 0

    def __repr__(self) -> str:
        return "Told"

    def features(self, atoms: Atoms) -> np.ndarray:
        return atoms.get_all_distances()[np.triu_indices(len(atoms), 1)][None]

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        ratio = self.ratios[self.n_calls % len(self.ratios)]
        self.n_calls += 1
        if isinstance(ratio, BaseException):
            raise ratio
        n = len(atoms)
        first, second = np.triu_indices(n, 1)
        vectors = atoms.positions[second] - atoms.positions[first]
        vectors /= np.linalg.norm(vectors, axis=1)[:, None]
        dense = np.zeros((len(first), n, 3))
        dense[np.arange(len(first)), first] = -vectors
        dense[np.arange(len(first)), second] = vectors
        u, s, vt = np.linalg.svd(dense.reshape(len(first), 3 * n), full_matrices=False)
        rank = int((s > 1e-8 * s[0]).sum())
        told = np.ones(rank)
        told[-1] = ratio
        dense = (u[:, :rank] * told) @ vt[:rank]
        return FeatureJacobian(
            features=self.features(atoms),
            centers=np.array([-1]),
            row=np.zeros(n, dtype=np.intp),
            atom=np.arange(n),
            displacement=np.zeros((n, 3)),
            blocks=dense.reshape(-1, n, 3).transpose(1, 2, 0),
            n_atoms=n,
            cutoff=self.cutoff,
            center_atoms=np.arange(n),
        )


class CountingEMT(EMT):
    """Counts what it computes; without a cache, everything asked for is computed anew."""

    def __init__(self, cache: bool = True) -> None:
        super().__init__()
        self.cache = cache
        self.n_calculations = 0

    def calculate(self, *arguments, **settings):
        self.n_calculations += 1
        super().calculate(*arguments, **settings)

    def get_property(self, *arguments, **settings):
        if not self.cache:
            self.results = {}
        return super().get_property(*arguments, **settings)


class CountingSOAP(SOAP):
    """Counts the Jacobians that it gives."""

    n_calls = 0
    squared_jvp_gradient = SOAP.squared_jvp_gradient  # of this Jacobian, too

    def jacobian(self, atoms):
        self.n_calls += 1
        return super().jacobian(atoms)


class SlowSOAP(CountingSOAP):
    """Has to give one for everything."""

    squared_jvp_gradient = None


class Still:
    """Looks like a dynamics but does only what the test says."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.nsteps = 0
        self.max_steps = 100

    def play(self, observer: Callable[[], None], calls: int) -> None:
        """Call ``observer`` as often as a run of ``calls`` steps would, or until it is halted."""
        self.max_steps = self.nsteps + calls
        while self.nsteps < self.max_steps:
            self.nsteps += 1
            observer()


def hears_interrupts() -> None:
    """For a new process: a shell that runs the tests in the background lets it ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ammonia() -> Atoms:
    atoms = molecule("NH3")
    atoms.rattle(0.05, seed=3)
    atoms.calc = EMT()
    return atoms


def copper() -> Atoms:
    """Four atoms in a distorted box that every barostat of ASE takes."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.08, seed=1)
    atoms.calc = EMT()
    return atoms


def warm(atoms: Atoms, temperature: float, seed: int = 0) -> None:
    """Thermal momenta; ASE renamed its own function for that."""
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(len(atoms), 3)) * spread)


@pytest.fixture
def nh3() -> Atoms:
    return ammonia()


@pytest.fixture
def still(nh3: Atoms) -> Still:
    return Still(nh3)


@pytest.fixture(scope="session")
def soap() -> QUIPDescriptor:
    return QUIPDescriptor(SMALL_SOAP, species=["N", "H"])


@pytest.fixture(scope="session")
def copper_soap() -> QUIPDescriptor:
    return QUIPDescriptor(SMALL_SOAP, species=["Cu"])


def ours(caught: Iterable[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    """Those of the package: others warn of each other's deprecations."""
    return [warning for warning in caught if issubclass(warning.category, SensitivityWarning)]
