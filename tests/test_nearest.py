"""The walk to the nearest singular configuration, its distance and its cause."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.optimize import minimize

from ase_sensitivity import (
    SOAP,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    analyze,
    nearest_singular,
    replay,
    singularity_distance,
)
from ase_sensitivity.auditing.reference import GENERIC, S1, S2, S3, around_carbon
from ase_sensitivity.singular.point import point_at
from ase_sensitivity.singular.system import STEP, aligned, difference, system_of
from ase_sensitivity.singular.walk import _add_products
from tests.conftest import CountingSOAP, SlowSOAP
from tests.structures import rattled

AMMONIA = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)


def on_carbon(l_max=8):
    return SOAP(
        species=["H"],
        cutoff=3.0,
        n_max=8,
        l_max=l_max,
        atom_sigma=0.3,
        normalise=False,
        central_weight=0,
        centers=["C"],
    )


def pyramid(name, height):
    """An XY3 molecule with X at a height over the plane of Y."""
    atoms = molecule(name)
    center, others = atoms.positions[0], atoms.positions[1:]
    center[:] = others.mean(axis=0)
    center[2] += height
    return atoms


@pytest.mark.parametrize(("name", "species"), [("NH3", ["N", "H"]), ("BF3", ["B", "F"])])
@pytest.mark.parametrize("height", [0.01, 0.03, 0.05])
def test_distance_to_planarity(name, species, height):
    """The least displacement that makes it flat moves X by 3/4 and each Y by 1/4 of the height."""
    atoms = pyramid(name, height)
    soap = SOAP(species=species, cutoff=4.0, n_max=8, l_max=6)
    found = nearest_singular(atoms, soap)
    assert found.found
    assert found.cause == "symmetry"
    true = height * np.sqrt(3) / 2
    assert found.distance == pytest.approx(true, rel=0.01)
    assert found.estimate == pytest.approx(true, rel=0.05)
    x, y = found.atoms.positions[0], found.atoms.positions[1:]
    normal = np.cross(y[1] - y[0], y[2] - y[0])
    assert abs(normal @ (x - y[0])) / np.linalg.norm(normal) < 1e-3 * height
    assert found.ratio == pytest.approx(analyze(found.atoms, soap).ratio, rel=1e-3, abs=1e-12)


def distance_to_s1(positions):
    """To the nearest geometry of its kind.

    B and B' are equally far, A is in their plane, and the parts of A and C that are perpendicular
    to the bisector e of B and B' are perpendicular to each other.
    """
    start = positions.ravel()

    def conditions(x):
        b, other, a, c = x.reshape(5, 3)[1:] - x.reshape(5, 3)[0]
        e = (b + other) / np.linalg.norm(b + other)
        equal = np.linalg.norm(b) - np.linalg.norm(other)
        return [equal, np.linalg.det([a, b, other]), a @ c - (a @ e) * (c @ e)]

    found = minimize(
        lambda x: ((x - start) ** 2).sum(),
        start,
        jac=lambda x: 2 * (x - start),
        constraints={"type": "eq", "fun": conditions},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert found.success
    return np.sqrt(found.fun)


@pytest.mark.parametrize("size", [0.01, 0.02, 0.05])
def test_distance_along_a_null_vector(size):
    soap = on_carbon()
    at = around_carbon(S1)
    null = analyze(at, soap, k=1)
    assert null.n_null == 1
    at.positions += size * null.modes[0]
    true = distance_to_s1(at.positions)
    assert 0.8 * size < true < size
    found = nearest_singular(at, soap)
    assert found.cause == "incompleteness"
    assert found.distance == pytest.approx(true, rel=0.02)
    assert 0.5 * true < found.estimate < true  # three conditions, of which it knows one


@pytest.mark.parametrize("seed", range(5))
def test_distance_from_anywhere_near(seed):
    at = around_carbon(S1)
    shift = np.random.default_rng(seed).normal(size=(5, 3))
    at.positions += 0.05 * shift / np.linalg.norm(shift)
    found = nearest_singular(at, on_carbon())
    assert found.distance == pytest.approx(distance_to_s1(at.positions), rel=0.05)


@pytest.mark.parametrize("scope", ["structure", "environment"])
@pytest.mark.parametrize("points", [S1, S2], ids=["S1", "S2"])
@pytest.mark.parametrize("seed", range(5))
def test_incompleteness_is_found_and_named(points, seed, scope):
    at = around_carbon(points)
    shift = np.random.default_rng(seed).normal(size=(5, 3))
    at.positions += 0.1 * shift / np.linalg.norm(shift)
    center = 0 if scope == "environment" else None
    found = nearest_singular(at, on_carbon(), scope=scope, center=center)
    assert found.found
    assert found.cause == "incompleteness"
    assert 0 < found.distance < 0.12
    assert sorted(found.points) == list(range(5))
    end = analyze(found.atoms, on_carbon(), scope=scope, center=center, k=1)
    assert end.ratio < 1e-4
    overlap = (end.mode_of_atoms(5) * found.mode).sum()
    assert abs(overlap) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_truncation_is_found_and_named(seed):
    """A small basis is singular somewhere that a larger one is not."""
    at = around_carbon(GENERIC)
    shift = np.random.default_rng(seed).normal(size=(5, 3))
    at.positions += 0.05 * shift / np.linalg.norm(shift)
    found = nearest_singular(at, on_carbon(l_max=3))
    assert found.cause == "truncation"
    if not analyze(at, on_carbon(l_max=3)).n_null:
        assert analyze(found.atoms, on_carbon(l_max=8), k=1).ratio > 10 * found.ratio


def test_the_end_of_a_walk_may_be_nearly_singular():
    """Of a small basis on all atoms: nothing near is blind exactly, and no text says so."""
    atoms = Atoms("CHCH", np.random.default_rng(5).permutation(GENERIC))
    found = nearest_singular(atoms, SOAP(["C", "H"], 4.0, 2, 0), max_distance=1.0)
    assert (found.found, found.cause) == (True, "truncation")
    assert found.ratio > 1e-5
    assert f"is nearly singular (ratio {found.ratio:.1e}): truncation" in found.summary()


@pytest.mark.parametrize(("points", "seed"), [(S1, 0), (S2, 0), (S2, 1)])
def test_what_no_basis_sees_is_incompleteness(points, seed):
    """Where the walk ends the geometry is exact to a few digits only."""
    found = nearest_singular(rattled(around_carbon(points), 0.04, seed), on_carbon())
    assert analyze(found.atoms, on_carbon(l_max=10), k=1).ratio < 1e-3
    assert found.cause == "incompleteness"


@pytest.mark.parametrize(("seed", "cause"), [(0, "truncation"), (1, "incompleteness")])
def test_what_a_larger_basis_sees_is_truncation(seed, cause):
    """Distances that differ by less than 0.1 Å are different, unless they equal each other nearby.

    From the second start an incomplete geometry is 0.074 Å away, and a truncated one 0.091 Å.
    """
    found = nearest_singular(rattled(around_carbon(GENERIC), 0.04, seed), on_carbon(l_max=3))
    assert (found.found, found.cause) == (True, cause)
    seen = analyze(found.atoms, on_carbon(l_max=8), k=1).ratio
    assert seen > 1e-3 if cause == "truncation" else seen < 1e-9


@pytest.mark.parametrize(("seed", "basis"), [(0, (2, 1)), (1, (2, 1)), (2, (1, 1))])
def test_a_poor_basis_on_all_atoms_is_truncation(seed, basis):
    """Nothing is symmetric in rattled methanol, and no fragment."""
    found = nearest_singular(
        rattled(molecule("CH3OH"), 0.1, seed), SOAP(["C", "H", "O"], 3.5, *basis)
    )
    assert (found.found, found.cause) == (True, "truncation")


def test_rows_that_vanish():
    """Of pairs of atoms, where one is at the cutoff."""
    pairs = QUIPDescriptor("distance_2b cutoff=1.5 Z1=8 Z2=1")
    near, far = (Atoms("OH", [(0, 0, 0), (0, 0, r)]) for r in (1.4, 1.6))
    before, after = (pairs.jacobian(atoms) for atoms in (near, far))
    with pytest.raises(ValueError, match="appear or vanish"):
        difference(after, before)
    assert difference(before, before).blocks == pytest.approx(0)


@pytest.mark.parametrize("crossing", [False, True])
def test_products_of_the_normal_equations(crossing):
    """J^T H and H^T H of the dense matrices, where a neighbor leaves as well."""
    soap = SOAP(["N", "H"], cutoff=2.0, n_max=4, l_max=3)
    atoms = rattled(molecule("NH3"), 0.05)
    atoms += Atoms("H", [atoms.positions[1] + (0, 2.0 - STEP / 4 if crossing else 1.5, 0)])
    system = system_of(atoms, soap, "structure", None)
    here = point_at(system, atoms)
    mode = np.zeros((5, 3))
    mode[4, 1] = 1.0
    (before,), (after,) = here.jacobian.parts, system.ahead(atoms, mode.ravel()).parts
    assert aligned(after, before) != crossing
    change = difference(after, before)
    j, h = (part.dense(here.view.column(part), 5) for part in (before, change))
    cross, square = np.zeros((2, 15, 15))
    _add_products(before, change, here.view, cross, square)
    scale = np.linalg.norm(h)
    np.testing.assert_allclose(cross, j.T @ h, atol=1e-10 * scale * np.linalg.norm(j))
    np.testing.assert_allclose(square, h.T @ h, atol=1e-10 * scale**2)
    assert np.abs(square).max() > 0


def test_near_symmetric():
    """Next to a tetrahedral center there are singular configurations of every kind."""
    at = rattled(molecule("CH4"), 0.03)
    found = nearest_singular(at, on_carbon())
    assert found.cause in ("symmetry", "incompleteness")
    assert found.distance < 0.03 * np.sqrt(15)


def test_what_is_singular_already():
    soap = SOAP(species=["C", "H"], cutoff=4.0, n_max=6, l_max=5)
    found = nearest_singular(molecule("CH4"), soap)
    assert (found.distance, found.cause, found.n_steps) == (0.0, "symmetry", 0)
    found = nearest_singular(around_carbon(S1), on_carbon())
    assert (found.distance, found.cause) == (0.0, "incompleteness")
    found = nearest_singular(around_carbon(GENERIC), on_carbon(l_max=3))
    assert (found.distance, found.cause) == (0.0, "truncation")


def test_invariance():
    at = pyramid("NH3", 0.07)
    at.rattle(0.01, seed=0)
    expected = nearest_singular(at, AMMONIA)
    rotated = at.copy()
    rotated.rotate(40, (1, 2, 3))
    rotated.positions += (3, -2, 1)
    rotated = rotated[[2, 0, 3, 1]]
    found = nearest_singular(rotated, AMMONIA)
    assert found.distance == pytest.approx(expected.distance, rel=1e-3)
    assert found.cause == expected.cause


def test_giving_up():
    """Atoms that would have to come too close, or to go too far."""
    water = molecule("H2O")
    soap = SOAP(species=["H", "O"], cutoff=4.0, n_max=8, l_max=6)
    far = nearest_singular(water, soap, max_distance=0.05)
    assert not far.found
    assert far.cause is None
    assert "within 0.05 Å" in far.message
    one = nearest_singular(pyramid("NH3", 0.3), AMMONIA, max_steps=1)
    assert not one.found
    assert one.message == "not there after 1 steps"
    assert one.n_steps == 1


@pytest.mark.parametrize(("points", "seed"), [(S1, 9), (S2, 7), (S3, 2), (S3, 11)])
@pytest.mark.parametrize("closest", [0.5, 3.0])
def test_atoms_do_not_collide(points, seed, closest):
    """Two atoms on top of each other are one, which is singular: the walk must not end there."""
    at = rattled(around_carbon(points), 0.35, seed)

    def shortest(atoms):
        return atoms.get_all_distances()[np.triu_indices(len(atoms), 1)].min()

    found = nearest_singular(at, on_carbon(l_max=3), max_distance=3.0, closest=closest)
    assert shortest(found.atoms) >= min(closest, 0.9 * shortest(at)) - 1e-9


@pytest.mark.parametrize("kind", [CountingSOAP, SlowSOAP])
def test_jacobians_are_counted(kind):
    soap = kind(["N", "H"], cutoff=4.0, n_max=6, l_max=4)
    for atoms in (pyramid("NH3", 0.1), pyramid("NH3", 0.0)):
        soap.n_calls = 0
        assert nearest_singular(atoms, soap).n_jacobians == soap.n_calls > 0


def test_body_order_may_be_unknown():
    soap = on_carbon()
    wrapped = FiniteDifferenceDescriptor(
        soap.features, species=["H"], cutoff=3.0, centers=soap.jacobian(around_carbon(S1)).centers
    )
    at = around_carbon(S1)
    at.positions += 0.02 * np.random.default_rng(0).normal(size=(5, 3))
    assert nearest_singular(at, wrapped).cause == "unknown"


@pytest.mark.parametrize(
    ("argument", "value"),
    [("max_distance", 0), ("closest", -1), ("max_steps", 0), ("max_steps", 1.5)],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` is {value}"):
        nearest_singular(molecule("NH3"), AMMONIA, **{argument: value})


def test_nothing_to_move():
    with pytest.raises(ValueError, match="nothing but rigid motions"):
        nearest_singular(Atoms("N"), AMMONIA)


def test_one_string_for_each_species_of_the_center():
    """As in every GAP of several species: parts without rows of a center do not see it."""
    atoms = around_carbon([(1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7), (-0.72, 0.96, 0.3)])
    text = "soap cutoff=3 n_max=4 l_max=4 atom_sigma=0.3 n_species=2 species_Z={6 1}"
    several = QUIPDescriptor([f"{text} Z=6", f"{text} Z=1"])
    one = QUIPDescriptor(f"{text} n_Z=2 Z={{6 1}}")
    for center in (0, 2):
        found, expected = (
            nearest_singular(atoms, descriptor, scope="environment", center=center)
            for descriptor in (several, one)
        )
        assert (found.cause, found.found) == (expected.cause, expected.found)
        assert found.distance == pytest.approx(expected.distance, rel=1e-6)
    several_log, one_log = (replay([atoms], d, scope="environment") for d in (several, one))
    assert several_log.cause.tolist() == one_log.cause.tolist()
    np.testing.assert_allclose(several_log.distance, one_log.distance, rtol=1e-6)


def test_distance_of_a_diatomic_from_its_one_value():
    """Both atoms move, so that the slope by their distance counts with the square root of two."""
    soap = SOAP(["O", "H"], cutoff=4.0, n_max=6, l_max=4)

    def sigma(length: float) -> float:
        (value,) = analyze(Atoms("OH", [(0, 0, 0), (0, 0, length)]), soap, k=None).singular_values
        return value

    slope = (sigma(1.1 + 1e-4) - sigma(1.1 - 1e-4)) / 2e-4
    found = singularity_distance(Atoms("OH", [(0, 0, 0), (0, 0, 1.1)]), soap)
    assert found == pytest.approx(sigma(1.1) / (np.sqrt(2) * abs(slope)), rel=1e-4)
    assert np.isnan(singularity_distance(Atoms("O"), soap))


def test_what_is_singular_already_needs_no_walk():
    atoms = pyramid("NH3", 0.0)
    found = nearest_singular(atoms, AMMONIA)
    assert (found.found, found.cause) == (True, "symmetry")
    assert found.message == "the configuration is singular already"
    assert (found.distance, found.estimate, found.n_steps, found.n_jacobians) == (0, 0, 0, 1)
    assert singularity_distance(atoms, AMMONIA) == 0
