"""No fit gets below the irreducible force error, and some get there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_sensitivity import SOAP
from ase_sensitivity.dataset.scan import scan
from tests.structures import SHARED, isolated, rattled


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = Path(__file__).parent.parent / "examples" / "bound.py"
    spec = importlib.util.spec_from_file_location("bound", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bound"] = module
    spec.loader.exec_module(module)
    return module


def methanol(n: int) -> list[Atoms]:
    """Rattled molecules with forces of a simple potential."""
    frames = []
    for seed in range(n):
        atoms = rattled(isolated(), 0.1, seed)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def heavy(n_max: int, l_max: int) -> SOAP:
    return SOAP(["C", "H", "O"], 4.0, n_max, l_max, atom_sigma=0.4, centers=["C", "O"])


def test_forces_of_the_models_are_derivatives_of_their_energies(example: ModuleType) -> None:
    (frame,), soap = methanol(1), heavy(2, 2)
    (sample,) = example.samples([frame], soap)
    h = 1e-4
    for name, functions, _, _ in example.models(example.samples(methanol(5), soap), 8):
        _, forces = example.design([sample], functions, 3)
        for coordinate in (0, 7):
            energies = []
            for sign in (1, -1):
                moved = frame.copy()
                moved.positions.flat[coordinate] += sign * h
                moved.calc = SinglePointCalculator(
                    moved, energy=0.0, forces=np.zeros((len(moved), 3))
                )
                energies.append(example.design(example.samples([moved], soap), functions, 3)[0][0])
            slope = -(energies[0] - energies[1]) / (2 * h)
            assert np.abs(slope).max() > 0
            np.testing.assert_allclose(
                forces[coordinate], slope, atol=2e-6 * np.abs(slope).max(), err_msg=name
            )


@pytest.mark.parametrize("basis", [(1, 0), (2, 1)])
def test_no_model_gets_below_the_bound(example: ModuleType, basis: tuple[int, int]) -> None:
    data = example.samples(methanol(8), heavy(*basis))
    result = example.Result.of("methanol", str(basis), data)
    assert len(result.errors) >= 10
    assert result.bounds.min() > 0.001
    for name, each in result.errors.items():
        assert (each >= result.bounds * (1 - 1e-6)).all(), name
        assert result.error[name] >= result.bound * (1 - 1e-6), name
    assert result.usual >= result.bound * (1 - 1e-6)
    if basis == (1, 0):
        assert result.closest < 1.01  # it is not only a bound, it is the bound


def test_a_model_reaches_the_bound(example: ModuleType) -> None:
    """One frame, functions of their own for each center, no regularisation.

    It does so with slopes of any size: what counts as null says what a model may use.
    """
    for basis in ((1, 0), (2, 0), (2, 1)):
        data = example.samples(methanol(1), heavy(*basis))
        error = example.fitted(data, example.linear, 0.0, 0.0)
        assert data[0].bound > 0.01
        assert np.sqrt((error**2).mean()) == pytest.approx(data[0].bound, rel=1e-6)
    # Singular values of 1e-13 and 6e-11 sigma_max are not null, but of no use to a sane model.
    assert scan(methanol(1), heavy(2, 1)).irreducible_force_error > 1.1 * data[0].bound


@pytest.mark.parametrize("basis", [(1, 0), (2, 1)])
def test_carbon(example: ModuleType, basis: tuple[int, int]) -> None:
    path = SHARED / "carbon_reduced_100.xyz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    soap = SOAP(["C"], 4.0, *basis, atom_sigma=0.4, normalise=False)
    data = example.samples(f"{path}@::5", soap, forces_key="force")
    result = example.Result.of("carbon", str(basis), data)
    assert result.bound > 1e-4
    assert min(result.error.values()) > result.bound
    assert result.closest > 1 - 1e-6
