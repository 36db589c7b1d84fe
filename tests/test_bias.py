"""The energy of small singular values and its derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list
from scipy.stats import special_ortho_group

from ase_sensitivity import SOAP, QUIPDescriptor, analyze
from ase_sensitivity.md import bias as module
from ase_sensitivity.md.bias import Attract, Repel
from tests.conftest import CountingSOAP, SlowSOAP
from tests.structures import BOUNDARIES, periodic, rattled

POINTS = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
STEP = 1e-3
BIAS = Repel(ratio=0.5, strength=1.3)


def soap(*species: str, cutoff: float = 4.0) -> CountingSOAP:
    return CountingSOAP(species or ["C", "H", "O"], cutoff=cutoff, n_max=4, l_max=3)


def clear_soap(atoms: Atoms) -> CountingSOAP:
    """One whose cutoff no atom crosses: second derivatives of QUIP's features jump there."""
    distances = neighbor_list("d", atoms, 5.0)
    cutoffs = np.linspace(3.2, 4.2, 101)
    ends = np.concatenate(
        [cutoffs[:, None] - distances, cutoffs[:, None] - 0.5 - distances], axis=1
    )
    margin = np.abs(ends).min(axis=1)
    assert margin.max() > 5 * STEP
    return soap(cutoff=float(cutoffs[margin.argmax()]))


def flattened(height: float) -> Atoms:
    """NH3 with the nitrogen so far above the hydrogens, as CH3: planar at zero."""
    atoms = molecule("NH3")
    atoms.symbols = "CH3"
    atoms.positions[0, 2] = atoms.positions[1:, 2].mean() + height
    return atoms


def chain(height: float) -> Atoms:
    return Atoms("CHH", [(0, 0, 0), (1.1, height, 0), (-1.2, height, 0)])


def silicon() -> Atoms:
    atoms = rattled(bulk("Si", cubic=True), 0.1, seed=2)
    atoms.symbols = "C8"
    return atoms


STRUCTURES = {
    "exactly Td": lambda: molecule("CH4"),
    "nearly Td": lambda: rattled(molecule("CH4"), 1e-3),
    "off Td": lambda: rattled(molecule("CH4"), 0.1),
    "planar": lambda: flattened(0.0),
    "nearly planar": lambda: flattened(0.01),
    "nearly linear": lambda: chain(0.05),
    "silicon": silicon,
    **BOUNDARIES,
}


def numeric(atoms: Atoms, moved, descriptor) -> float:
    """Derivative of the energy along ``moved(step)``."""
    energies = {n: BIAS.evaluate(moved(n * STEP), descriptor).energy for n in POINTS}
    return sum(POINTS[n] * energy for n, energy in energies.items()) / STEP


@pytest.mark.parametrize("name", STRUCTURES)
def test_forces_are_the_derivative_of_the_energy(name):
    atoms = STRUCTURES[name]()
    descriptor = clear_soap(atoms)
    forces = BIAS.evaluate(atoms, descriptor).forces
    # One direction that matters for sure, and one that is any.
    for direction in (forces, np.random.default_rng(0).normal(size=forces.shape)):
        direction = direction / np.linalg.norm(direction)

        def moved(step, direction=direction):
            other = atoms.copy()
            other.positions += step * direction
            return other

        expected = -numeric(atoms, moved, descriptor)
        assert abs(expected) > 1e-3
        assert (forces * direction).sum() == pytest.approx(expected, rel=1e-5)


def in_a_cell() -> Atoms:
    atoms = rattled(molecule("CH3OH"))
    atoms.set_cell([4, 5, 6])
    return atoms


@pytest.mark.parametrize("structure", [periodic, silicon, in_a_cell])
def test_stress_is_the_derivative_of_the_energy(structure):
    atoms = structure()
    descriptor = clear_soap(atoms)
    stress = BIAS.evaluate(atoms, descriptor).stress
    assert stress is not None
    for i, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):

        def strained(step, a=a, b=b):
            strain = np.eye(3)
            strain[a, b] += step / 2
            strain[b, a] += step / 2
            other = atoms.copy()
            other.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            return other

        expected = numeric(atoms, strained, descriptor) / atoms.get_volume()
        assert abs(expected) > 1e-3 * np.abs(stress).max()
        assert stress[i] == pytest.approx(expected, rel=1e-5, abs=1e-6 * np.abs(stress).max())


@pytest.mark.parametrize("name", ["off Td", "nearly planar", "silicon"])
def test_invariance(name):
    atoms, descriptor = STRUCTURES[name](), soap()
    term = BIAS.evaluate(atoms, descriptor)
    rng = np.random.default_rng(3)
    rotation, order = special_ortho_group.rvs(3, random_state=rng), rng.permutation(len(atoms))
    other = atoms[order]
    other.set_cell(other.cell.array @ rotation.T)
    other.positions = other.positions @ rotation.T + (0.3, -0.2, 5)
    rotated = BIAS.evaluate(other, descriptor)
    assert rotated.energy == pytest.approx(term.energy, rel=1e-11)
    largest = np.abs(term.forces).max()
    np.testing.assert_allclose(rotated.forces, term.forces[order] @ rotation.T, atol=1e-6 * largest)
    np.testing.assert_allclose(term.forces.sum(axis=0), 0, atol=1e-12 * largest)
    if not atoms.pbc.any():
        torque = np.cross(atoms.positions, term.forces).sum(axis=0)
        np.testing.assert_allclose(torque, 0, atol=1e-12 * largest)
        assert term.stress is None


def test_energy_by_definition():
    """Where no other value is near the largest, that is the scale."""
    atoms = flattened(0.05)
    values = analyze(atoms, soap(), k=None).singular_values / analyze(atoms, soap()).sigma_max
    meeting = (values > 0.99).sum() ** (1 / 60)  # of the power mean
    inside = (1 - (values / meeting / 0.5) ** 2).clip(0)
    assert 0 < (inside > 0).sum() < len(inside)
    assert BIAS.evaluate(atoms, soap()).energy == pytest.approx(1.3 * (inside**3).sum(), rel=1e-3)


def test_attraction_is_repulsion_with_the_other_sign():
    atoms = silicon()
    one = Repel(0.3, 0.7).evaluate(atoms, soap())
    other = Attract(0.3, 0.7).evaluate(atoms, soap())
    assert one.energy == -other.energy > 0
    np.testing.assert_array_equal(one.forces, -other.forces)
    np.testing.assert_array_equal(one.stress, -other.stress)


@pytest.mark.parametrize("path", [flattened, chain])
def test_no_force_jumps_where_values_vanish_or_meet(path):
    """Nor at the line, where a singular value becomes a rigid motion."""
    change = {}
    for step in (1e-3, 1e-4):
        one, other = (BIAS.evaluate(path(height), soap()) for height in (step, -step))
        change[step] = np.abs(one.forces - other.forces).max()
        at_zero = BIAS.evaluate(path(0.0), soap()).energy
        assert one.energy == pytest.approx(at_zero, abs=50 * step**2)
    assert change[1e-3] > 1e-4
    assert change[1e-4] == pytest.approx(0.1 * change[1e-3], rel=1e-2)


def test_no_force_jumps_at_a_degenerate_pair():
    direction = np.random.default_rng(1).normal(size=(5, 3))

    def forces(step):
        atoms = molecule("CH4")
        atoms.positions += step * direction
        return BIAS.evaluate(atoms, soap()).forces

    change = [np.abs(forces(step) - forces(-step)).max() for step in (1e-3, 1e-4)]
    assert change[1] == pytest.approx(0.1 * change[0], rel=1e-2)
    # The derivative of the single values does jump there: the E bend is zero at Td.
    assert analyze(molecule("CH4"), soap()).n_null == 2


def test_energy_does_not_jump_where_a_molecule_falls_apart():
    def torn(distance):
        atoms = rattled(molecule("CH4"), 0.1, seed=1)
        return atoms + Atoms("H", [(0, 0, distance)])

    def n_rigid(distance):
        return analyze(torn(distance), soap()).n_trivial

    together, apart = 4.0, 5.5
    assert (n_rigid(together), n_rigid(apart)) == (6, 9)
    while apart - together > 1e-4:
        middle = (together + apart) / 2
        together, apart = (middle, apart) if n_rigid(middle) == 6 else (together, middle)
    near, far = (BIAS.evaluate(torn(distance), soap()) for distance in (together, apart))
    assert near.energy == pytest.approx(far.energy, abs=1e-4)
    np.testing.assert_allclose(near.forces, far.forces, atol=0.05)
    assert far.energy > BIAS.evaluate(torn(4.0), soap()).energy + 1.3


@pytest.mark.parametrize("smooth", [False, True])
def test_forces_jump_at_the_transition_unless_it_is_smooth(smooth):
    descriptor = SOAP(["C", "H"], cutoff=4.0, n_max=4, l_max=3, smooth_cutoff=smooth)

    def forces(distance):
        atoms = rattled(molecule("CH4"), 0.1, seed=1)
        atoms += Atoms("C", [atoms.positions[0] + distance * np.array([0.48, 0.6, 0.64])])
        return BIAS.evaluate(atoms, descriptor).forces

    far, near = (np.abs(forces(3.5 + h) - forces(3.5 - h)).max() for h in (2e-3, 5e-4))
    assert near == pytest.approx(far / 4 if smooth else far, rel=0.1)


def test_blind_crystal():
    """Every atom of perfect copper is a center of inversion: nothing is seen, nothing is pulled."""
    term = Repel(0.1, 2.0).evaluate(bulk("Cu", cubic=True), soap("Cu"))
    assert term.energy == 9 * 2.0
    np.testing.assert_array_equal(term.forces, 0)
    np.testing.assert_array_equal(term.stress, 0)


def test_no_cost_and_no_energy_above_the_ratio():
    atoms, descriptor = rattled(molecule("CH4"), 0.1), soap()
    ratio = analyze(atoms, soap()).ratio
    term = Repel(0.9 * ratio, 1.0).evaluate(atoms, descriptor)
    assert (term.energy, descriptor.n_calls) == (0, 1)
    np.testing.assert_array_equal(term.forces, 0)
    term = Repel(1.1 * ratio, 1.0).evaluate(atoms, descriptor)
    assert term.energy > 0
    # One soft value, and four C-H stretches of which three are near the largest: without Jacobians.
    assert descriptor.n_calls == 2
    by_jacobians = SlowSOAP(["C", "H", "O"], cutoff=4.0, n_max=4, l_max=3)
    slowly = Repel(1.1 * ratio, 1.0).evaluate(atoms, by_jacobians)
    assert 1 + 2 * 2 <= by_jacobians.n_calls <= 1 + 2 * 5
    assert slowly.energy == term.energy
    assert np.abs(term.forces).max() > 0
    np.testing.assert_allclose(slowly.forces, term.forces, atol=1e-9 * np.abs(term.forces).max())


@pytest.mark.parametrize("ratio", [0.02, 0.3])
def test_few_values_are_enough_in_large_systems(ratio, monkeypatch):
    expected = Repel(ratio, 1.0).evaluate(silicon(), soap())
    monkeypatch.setattr(module, "FEW", 0)
    found = Repel(ratio, 1.0).evaluate(silicon(), soap())
    assert found.energy == pytest.approx(expected.energy, rel=1e-12)
    assert (expected.energy > 0) == (ratio == 0.3)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-8)


def test_features_of_the_whole_structure_have_no_stress():
    averaged = QUIPDescriptor(
        "soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5 average=T", species=["C"]
    )
    term = Repel(0.5, 1.0).evaluate(silicon(), averaged)
    assert term.stress is None
    assert np.abs(term.forces).max() > 0


@pytest.mark.parametrize("kind", [Repel, Attract])
def test_refuses(kind):
    with pytest.raises(ValueError, match=r"`ratio` is 1\.0 but must be between 0 and 1"):
        kind(1.0, 1.0)
    with pytest.raises(ValueError, match="`strength` is -1 but must be positive"):
        kind(0.1, -1)
    with pytest.raises(ValueError, match="`strength` is nan"):
        kind(0.1, float("nan"))
    with pytest.raises(TypeError, match="`descriptor` must be a Descriptor"):
        kind(0.1, 1.0).evaluate(molecule("CH4"), 3)
