"""The descriptor of the potential that runs, found by its calculator."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from ase.md import VelocityVerlet

from ase_sensitivity import (
    SOAP,
    SensitivityCalculator,
    SensitivityObserver,
    analyze,
    descriptor_of,
)
from tests.structures import rattled

SEEN = SOAP(["N", "H"], 3.0, 3, 2)


def ammonia() -> Atoms:
    return rattled(molecule("NH3"), 0.05, 0)


def test_a_calculator_that_says_so():
    calculator = SensitivityCalculator(EMT(), SEEN)
    assert descriptor_of(calculator) is SEEN
    assert descriptor_of(SumCalculator([EMT(), calculator])) is SEEN


def test_none_is_needed_then():
    atoms = ammonia()
    expected = analyze(atoms, SEEN)
    atoms.calc = SensitivityCalculator(EMT(), SEEN)
    np.testing.assert_array_equal(analyze(atoms).singular_values, expected.singular_values)
    dyn = VelocityVerlet(atoms, 1.0)
    observer = SensitivityObserver(dyn)
    dyn.attach(observer)
    dyn.run(1)
    assert observer.sensitivity is not None
    assert 0 < observer.sensitivity.ratio < 1


@pytest.mark.parametrize("calculator", [None, EMT(), SumCalculator([EMT(), EMT()])])
def test_what_is_not_known(calculator):
    known = "CHGNetCalculator, MACECalculator, MetatomicCalculator, SevenNetCalculator"
    what = "atoms without a calculator" if calculator is None else type(calculator).__name__
    with pytest.raises(TypeError, match=f"descriptor of {what} is not known.*of {known}"):
        descriptor_of(calculator)
    atoms = ammonia()
    atoms.calc = calculator
    with pytest.raises(TypeError, match="is not known; give one"):
        analyze(atoms)


def test_chgnet():
    pytest.importorskip("chgnet")
    from chgnet.model.dynamics import CHGNetCalculator

    from ase_sensitivity import CHGNetDescriptor

    found = descriptor_of(SumCalculator([EMT(), CHGNetCalculator(use_device="cpu")]))
    assert isinstance(found, CHGNetDescriptor)
    atoms = ammonia()
    np.testing.assert_array_equal(found.features(atoms), CHGNetDescriptor().features(atoms))


@pytest.mark.filterwarnings("default")
def test_sevennet():
    pytest.importorskip("sevenn")
    from sevenn.calculator import SevenNetCalculator

    from ase_sensitivity import SevenNetDescriptor

    assert isinstance(descriptor_of(SevenNetCalculator(device="cpu")), SevenNetDescriptor)


@pytest.mark.filterwarnings("default")
def test_metatomic():
    pytest.importorskip("metatomic.torch")
    from ase_sensitivity import MetatomicDescriptor
    from tests.metatomic_models import exported

    class MetatomicCalculator:
        """What is asked of that of metatomic_ase, which the models of these tests do not need."""

        def model(self):
            return exported()

    MetatomicCalculator.__module__ = "metatomic_ase._calculator"
    found = descriptor_of(MetatomicCalculator())
    assert isinstance(found, MetatomicDescriptor)
    atoms = rattled(molecule("CH4"), 0.05, 0)
    expected = MetatomicDescriptor(exported()).features(atoms)
    np.testing.assert_allclose(found.features(atoms), expected)
