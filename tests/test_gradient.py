"""Derivatives of singular values by positions and strain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import SOAP, QUIPDescriptor, analyze, gradient
from ase_sensitivity.descriptors.base import rows_of
from ase_sensitivity.descriptors.soap.soap import AT_ONCE
from ase_sensitivity.singular.system import system_of
from ase_sensitivity.spectrum.solvers import spectrum
from ase_sensitivity.testing import check_descriptor
from tests.conftest import SlowSOAP
from tests.structures import BOUNDARIES, rattled

SPECIES = ["C", "H", "O"]
SOAP_3 = SOAP(species=SPECIES, cutoff=3.2, n_max=4, l_max=4)
H = 1e-4


def values_of(atoms, descriptor, scope, center):
    return analyze(atoms, descriptor, scope=scope, center=center, k=None).singular_values


def numeric(evaluate):
    """Derivative of ``evaluate(size)`` by central differences of fourth order."""
    near = evaluate(H) - evaluate(-H)
    far = evaluate(2 * H) - evaluate(-2 * H)
    return (8 * near - far) / (12 * H)


@pytest.mark.parametrize("scope", ["structure", "atom", "environment"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("index", [0, 2])
def test_gradient_is_that_of_the_singular_value(boundary, index, scope):
    atoms = BOUNDARIES[boundary]()
    center = None if scope == "structure" else 1
    sigma = values_of(atoms, SOAP_3, scope, center)
    index += int(np.searchsorted(sigma, 1e-3 * sigma[-1]))  # neighbors at the cutoff have no weight
    index = min(index, len(sigma) - 1)
    found = gradient(atoms, SOAP_3, scope=scope, center=center, index=index)
    assert found.members == (index,)
    direction = np.random.default_rng(0).normal(size=(len(atoms), 3))
    direction /= np.linalg.norm(direction)
    strain = np.random.default_rng(1).normal(size=(3, 3)) / 3

    def moved(size):
        shifted = atoms.copy()
        shifted.positions += size * direction
        return values_of(shifted, SOAP_3, scope, center)[index]

    def strained(size):
        deformed = atoms.copy()
        deformed.set_cell(atoms.cell.array @ (np.eye(3) + size * strain).T)
        deformed.positions = atoms.positions @ (np.eye(3) + size * strain).T
        return values_of(deformed, SOAP_3, scope, center)[index]

    analytic = (found.positions * direction[found.points]).sum()
    assert abs(analytic) > 1e-5 * np.linalg.norm(found.positions)
    assert analytic == pytest.approx(numeric(moved), rel=1e-5)
    analytic = (found.strain * strain).sum()
    assert abs(analytic) > 1e-4 * np.linalg.norm(found.strain)
    assert analytic == pytest.approx(numeric(strained), rel=1e-5)
    assert found.value == pytest.approx(values_of(atoms, SOAP_3, scope, center)[index], rel=1e-9)
    size = np.abs(found.positions).max()
    np.testing.assert_allclose(found.positions.sum(axis=0), 0, atol=1e-8 * size)


@pytest.mark.parametrize("name", ["CH4", "NH3", "C2H6"])
def test_values_that_meet_are_differentiated_together(name):
    """Their root mean square is smooth where each has a kink."""
    atoms = molecule(name)
    soap = SOAP(species=["C", "N", "H"], cutoff=3.5, n_max=5, l_max=4)
    sigma = values_of(atoms, soap, "structure", None)
    checked = 0
    for index in range(len(sigma)):
        if sigma[index] < 1e-3 * sigma[-1]:
            continue
        found = gradient(atoms, soap, index=index, tolerance=1e-3)
        members = list(found.members)
        assert index in members
        assert sigma[members] == pytest.approx(found.value, rel=1e-2)
        if len(members) == 1:
            continue
        checked += 1
        direction = found.positions / np.linalg.norm(found.positions)
        if np.linalg.norm(found.positions) < 1e-6 * sigma[-1]:
            direction = rattled(atoms, 1.0).positions - atoms.positions

        def mean_square(size, members=members, direction=direction):
            moved = atoms.copy()
            moved.positions += size * direction
            return np.sqrt((values_of(moved, soap, "structure", None)[members] ** 2).mean())

        analytic = (found.positions * direction).sum()
        assert analytic == pytest.approx(numeric(mean_square), rel=1e-5, abs=1e-7 * sigma[-1])
    assert checked


def test_printed_digits_do_not_part_values():
    """The bends of ammonia meet, up to the six digits of its geometry."""
    soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
    assert gradient(molecule("NH3"), soap).members == (0, 1)
    assert gradient(rattled(molecule("NH3"), 0.01), soap).members == (0,)


def test_images_move_together_or_apart():
    """Environment scope gives every image its own derivative, structure scope none."""
    copper = rattled(bulk("Cu", cubic=True), 0.1)
    soap = SOAP(species=["Cu"], cutoff=3.2, n_max=5, l_max=4)
    apart = gradient(copper, soap, scope="environment", center=0)
    assert len(apart.points) > len(copper)
    assert apart.points[0] == 0
    together = gradient(copper, soap)
    assert together.positions.shape == (4, 3)
    assert together.strain == pytest.approx(together.strain.T)


def test_many_modes_are_done_a_few_at_a_time():
    atoms = rattled(bulk("Cu", cubic=True), 0.1)
    modes = np.random.default_rng(0).normal(size=(AT_ONCE + 3, 4, 3))
    soap = SOAP(species=["Cu"], cutoff=3.2, n_max=4, l_max=4)
    found = soap.squared_jvp_gradient(atoms, modes, 1e-4)
    one_by_one = [soap.squared_jvp_gradient(atoms, mode[None], 1e-4) for mode in modes]
    for part, alone in zip(found, zip(*one_by_one, strict=True), strict=True):
        assert np.abs(part).min() > 0
        np.testing.assert_array_equal(part, np.concatenate(alone))


def assert_first_gradient(atoms, descriptor):
    found = gradient(atoms, descriptor)
    system = system_of(
        atoms, descriptor, "structure", None
    )  # has the weights of several descriptors
    direction = np.random.default_rng(0).normal(size=(len(atoms), 3))
    strain = np.random.default_rng(1).normal(size=(3, 3)) / 3

    def moved(size):
        shifted = atoms.copy()
        shifted.positions += size * direction
        return first_value(shifted)

    def first_value(there):
        return spectrum(system.view(system.jacobian(there), there)).singular_values[0]

    def strained(size):
        deformed = atoms.copy()
        deformed.set_cell(atoms.cell.array @ (np.eye(3) + size * strain).T)
        deformed.positions = atoms.positions @ (np.eye(3) + size * strain).T
        return first_value(deformed)

    assert (found.positions * direction).sum() == pytest.approx(numeric(moved), rel=1e-5)
    assert (found.strain * strain).sum() == pytest.approx(numeric(strained), rel=1e-5)


class HeavyCarbon(SOAP):
    """What carbon sees counts more: the shortcuts of SOAP are not for it."""

    def jacobian(self, atoms):
        jacobian = super().jacobian(atoms)
        weights = np.where(atoms.numbers[jacobian.centers] == 6, 10.0, 1.0)
        return replace(
            jacobian,
            features=jacobian.features * weights[:, None],
            blocks=jacobian.blocks * weights[jacobian.row, None, None],
        )

    def features(self, atoms):
        return self.jacobian(atoms).features


def test_shortcuts_of_a_changed_descriptor_are_not_taken():
    atoms = rattled(molecule("CH3OH"))
    heavy = HeavyCarbon(SPECIES, 3.2, 4, 4)
    check_descriptor(heavy, atoms)
    np.testing.assert_array_equal(rows_of(heavy, atoms)[0][0], heavy.features(atoms))
    values = analyze(atoms, heavy, k=3).singular_values
    assert abs(values[0] / analyze(atoms, SOAP_3).singular_values[0] - 1) > 0.1
    assert_first_gradient(atoms, heavy)


@pytest.mark.parametrize(
    ("modes", "step", "message"),
    [
        (
            np.zeros((1, 4, 3)),
            1e-4,
            r"`displacements` has shape \(1, 4, 3\) but must be \(any, 3, 3\)",
        ),
        (np.zeros((3, 3)), 1e-4, "`displacements` has shape"),
        (np.zeros((1, 3, 3)), 0, "`step` is 0 but must be positive"),
    ],
)
def test_bad_displacements(modes, step, message):
    with pytest.raises(ValueError, match=message):
        SOAP_3.squared_jvp_gradient(molecule("H2O"), modes, step)


def test_displacements_of_any_type():
    modes = np.eye(9).reshape(9, 3, 3)
    exact = SOAP_3.squared_jvp_gradient(rattled(molecule("H2O")), modes)
    found = SOAP_3.squared_jvp_gradient(rattled(molecule("H2O")), modes.astype(int).tolist())
    np.testing.assert_array_equal(found[0], exact[0])


def test_stacked_descriptors():
    atoms = rattled(molecule("CH3OH"))
    pair = QUIPDescriptor(
        ["soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.5", "distance_2b cutoff=3"], species=SPECIES
    )
    assert_first_gradient(atoms, pair)


@pytest.mark.parametrize("boundary", ["isolated", "periodic", "slab"])
def test_gradient_by_jacobians_of_quip(boundary):
    """A descriptor without shortcuts: strain moves positions and mode apart."""
    quip = QUIPDescriptor("soap cutoff=3.2 n_max=4 l_max=3 atom_sigma=0.5", species=["C", "H", "O"])
    assert_first_gradient(BOUNDARIES[boundary](), quip)


@pytest.mark.parametrize("scope", ["structure", "atom", "environment"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradient_by_jacobians_is_that_of_the_shortcut(boundary, scope):
    atoms = BOUNDARIES[boundary]()
    center = None if scope == "structure" else 1
    sigma = values_of(atoms, SOAP_3, scope, center)
    index = int(np.searchsorted(sigma, 1e-3 * sigma[-1]))
    settings = {"scope": scope, "center": center, "index": index}
    quick = gradient(atoms, SOAP_3, **settings)
    slow = gradient(atoms, SlowSOAP(SPECIES, cutoff=3.2, n_max=4, l_max=4), **settings)
    size = np.abs(quick.positions).max()
    np.testing.assert_allclose(slow.positions, quick.positions, atol=1e-5 * size)
    np.testing.assert_allclose(slow.strain, quick.strain, atol=1e-5 * np.abs(quick.strain).max())


def test_gradient_where_there_is_none():
    with pytest.raises(ValueError, match="is zero, where it has no gradient"):
        gradient(molecule("CH4"), SOAP_3)
    with pytest.raises(ValueError, match="there are 3 singular values"):
        gradient(rattled(molecule("H2O")), SOAP_3, index=3)
    with pytest.raises(ValueError, match="`index` is -1"):
        gradient(rattled(molecule("H2O")), SOAP_3, index=-1)
    with pytest.raises(ValueError, match="`tolerance` is 1"):
        gradient(rattled(molecule("H2O")), SOAP_3, tolerance=1)
    with pytest.raises(ValueError, match="`step` is 0"):
        gradient(rattled(molecule("H2O")), SOAP_3, step=0)
    with pytest.raises(TypeError, match="Descriptor"):
        gradient(Atoms("H2O"), 3)
