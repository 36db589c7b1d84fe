"""What would take all memory, or for ever: a clear error, or done at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor, QUIPDescriptor, analyze
from ase_sensitivity.descriptors.soap.radial import (
    RadialTable,
    _quadrature,
    gto_basis,
    projected_gaussians,
    scaled_bessel,
)
from ase_sensitivity.geometry import neighbors, structure
from ase_sensitivity.geometry.neighbors import neighbor_pairs, shortest_distance
from ase_sensitivity.geometry.structure import check_points

water = SOAP(["H", "O"], 4.0, 3, 2)


def boxed_water(vectors: object, pbc: object = True) -> Atoms:
    atoms = molecule("H2O")
    atoms.cell[:] = vectors
    atoms.pbc = pbc
    return atoms


def along(direction: int, value: float) -> np.ndarray:
    vectors = 5.0 * np.eye(3)
    vectors[direction, direction] = value
    return vectors


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("periodic", [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
def test_a_cell_that_is_not_finite(periodic, value):
    for causes in (False, True):
        with pytest.raises(ValueError, match=r"cell .* is not finite; set `atoms.cell`"):
            analyze(boxed_water(along(2, value), periodic), water, causes=causes)


def test_dependent_vectors_however_the_determinant_is_rounded():
    rng = np.random.default_rng(0)
    negative = 0
    for _ in range(300):
        vectors = 10.0 ** rng.uniform(-1, 3) * rng.normal(size=(3, 3))
        vectors[2] = rng.normal() * vectors[0] + rng.normal() * vectors[1]
        negative += np.linalg.det(vectors @ vectors.T) < 0
        with pytest.raises(ValueError, match="linearly dependent"):
            analyze(boxed_water(vectors), water)
    assert negative > 20


@pytest.mark.parametrize("length", [2e9, 1e100, 1e200, 1e300])
@pytest.mark.parametrize("periodic", [[0, 0, 1], [0, 1, 1], [1, 1, 1]])
def test_a_vector_of_astronomic_length(periodic, length):
    with pytest.raises(ValueError, match=r"longer than 1e\+09 Å; set `atoms.cell`, or `atoms.pbc"):
        analyze(boxed_water(along(2, length), periodic), water)


@pytest.mark.parametrize("length", [1e-300, 1e-9, 1e200, 1e300])
def test_a_vector_without_period_has_no_meaning(length):
    expected = analyze(boxed_water(along(2, 0.0), [1, 1, 0]), water)
    found = analyze(boxed_water(along(2, length), [1, 1, 0]), water)
    np.testing.assert_allclose(found.singular_values, expected.singular_values, atol=1e-12)


def test_a_vector_that_puts_images_on_top_of_each_other():
    with pytest.raises(ValueError, match=r"1e-100 Å long.*on top of each other"):
        analyze(boxed_water(along(0, 1e-100)), water)
    with pytest.raises(ValueError, match="zero or linearly dependent"):
        analyze(boxed_water(along(0, 1e-200)), water)


@pytest.mark.parametrize("value", [1e10, -1e300])
def test_an_atom_at_the_other_end_of_the_world(value):
    atoms = molecule("H2O")
    atoms.positions[1, 2] = value
    with pytest.raises(ValueError, match=r"position of atom 1 .* more than 1e\+09 Å away"):
        analyze(atoms, water)


@pytest.mark.parametrize("scope", ["structure", "environment"])
@pytest.mark.parametrize("length", [0.02, 0.03])
def test_causes_where_all_is_too_near_to_tell(scope, length):
    atoms = Atoms("O2", [(0, 0, 0), (0.003, 0.31, 0.17)], cell=[length, 1, 1], pbc=True)
    with pytest.raises(ValueError, match=r"reduce the cutoff, (or )?check the cell"):
        analyze(atoms, SOAP(["O"], 2.0, 1, 0, normalise=False), causes=True, scope=scope)


def test_causes_of_a_dense_crystal_are_still_told():
    """The bound is on points that could be each other, not on how many there are."""
    found = analyze(bulk("Cu", cubic=True), SOAP(["Cu"], 7.0, 2, 1), causes=True)
    assert found.counts["symmetry"] == found.n_null > 0


def test_too_many_points_that_move_independently():
    check_points(1000)
    with pytest.raises(ValueError, match=r'1001 points.*scope="structure"'):
        check_points(1001)
    dense = Atoms("O", cell=[0.1, 1, 1], pbc=True)
    with pytest.raises(ValueError, match=r"points that move independently"):
        analyze(dense, SOAP(["O"], 4.0, 1, 0), scope="environment")


@pytest.mark.parametrize("atoms", [bulk("Cu", cubic=True) * (6, 6, 6), bulk("Si") * (1, 1, 400)])
def test_pairs_are_estimated_before_they_are_listed(atoms, monkeypatch):
    cell, positions, _ = neighbors._box(atoms, 8.0)
    per_height = np.linalg.norm(np.linalg.inv(cell), axis=0)
    expected = len(neighbor_pairs(atoms, 8.0).first)
    found = neighbors._estimated_pairs(cell, atoms.pbc, positions, 8.0, per_height)
    assert found == pytest.approx(expected, rel=1e-6)
    monkeypatch.setattr(structure, "SHARE", 1e-9)
    monkeypatch.setattr(neighbors, "SAFE_PAIRS", 0.9 * expected)
    with pytest.raises(ValueError, match=r"pairs of neighbors within 8 Å needs .* reduce the cut"):
        neighbor_pairs(atoms, 8.0)


def test_pairs_of_a_clump(monkeypatch):
    positions = np.random.default_rng(0).uniform(0, 100, size=(2000, 3))
    positions[::4] = positions[::4] / 50 + 40.0
    atoms = Atoms("H2000", positions)
    expected = len(neighbor_pairs(atoms, 4.0).first)
    cell, positions, _ = neighbors._box(atoms, 4.0)
    found = neighbors._estimated_pairs(cell, atoms.pbc, positions, 4.0, np.ones(3))
    assert found == pytest.approx(expected, rel=0.3)


def test_what_does_not_fit_into_memory(monkeypatch):
    atoms = molecule("CH3CH2OH")
    soap = SOAP(["H", "C", "O"], 4.0, 8, 6)
    soap.features(atoms)
    monkeypatch.setattr(structure, "SHARE", 1e-7)

    def blocks(atoms: Atoms) -> None:
        list(soap.stream(atoms).parts)

    for method in (soap.features, soap.jacobian, soap.rows, blocks):
        with pytest.raises(ValueError, match=r"needs .* GB, more than this machine has; reduce"):
            method(atoms)


def test_null_directions_of_what_is_too_large(monkeypatch):
    """The few values of a disordered crystal need no square matrix, those of a perfect one do."""
    crystal = bulk("Si", cubic=True).repeat((4, 4, 2))
    soap = SOAP(["Si"], 4.0, 4, 3)
    disordered = crystal.copy()
    disordered.rattle(0.1, seed=0)
    monkeypatch.setattr(
        "ase_sensitivity.spectrum.solvers.check_fits",
        lambda n_bytes, what, remedy: structure.check_fits(1e12 * n_bytes, what, remedy),
    )
    assert analyze(disordered, soap, k=3).n_null == 0
    for atoms, k in (crystal, 3), (disordered, None):
        with pytest.raises(ValueError, match=r"768 coordinates needs .* analyze a smaller"):
            analyze(atoms, soap, k=k)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"atom_sigma": 1e-3}, "`atom_sigma` is 0.001 but must be from 0.001 to 1000 times"),
        ({"atom_sigma": 1e-300}, "`atom_sigma` is 1e-300"),
        ({"atom_sigma": 1e300}, r"`atom_sigma` is 1e\+300"),
        ({"cutoff": 1e-3}, "`cutoff` is 0.001 but must be from 0.01"),
        ({"cutoff": 1e300}, r"`cutoff` is 1e\+300 but must be from 0.01"),
        ({"cutoff": 1000.0}, r"`atom_sigma` is 0.5 .* `cutoff`, which is 1000"),
        ({"atom_sigma": 0.02, "n_max": 100, "l_max": 200}, "need a table of .* reduce the basis"),
        (
            {"body_order": 4, "l_max": 17},
            "`l_max` is 17 but must be at most 16 with `body_order` 4",
        ),
        ({"body_order": 4, "n_max": 60, "l_max": 8}, "triple products of 120 channels"),
    ],
)
def test_settings_of_soap(settings, words):
    with pytest.raises(ValueError, match=words):
        SOAP(["H", "O"], **{"cutoff": 4.0, "n_max": 3, "l_max": 2} | settings)


def test_a_larger_basis_has_the_same_bounds():
    with pytest.raises(ValueError, match="need a table"):
        SOAP(["H"], 4.0, 3, 2, atom_sigma=0.02).with_basis(100, 200)


def test_narrow_gaussians_are_left_to_quip_where_soap_refuses():
    assert QUIPDescriptor("soap cutoff=4 n_max=2 l_max=1 atom_sigma=0.001", species=["H"]).cutoff


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_narrow_gaussians_with_gto(sigma):
    """A table whose intervals look at the points near them only is that of all points."""
    table = RadialTable.build("gto", 4.0, 3, 2, sigma, 4)
    points, weights = gto_basis(4.0, 3, sigma)
    r = np.random.default_rng(0).uniform(0, 4, size=20)
    exact = projected_gaussians(r, points, sigma, 2) @ weights
    interval = (r * table.per_length).astype(int)
    x = 2 * (r * table.per_length - interval) - 1
    powers = x[:, None] ** np.arange(table.coefficients.shape[1])
    found = np.einsum("rp,rpnl->lrn", powers, table.coefficients[interval, :, :, :3])
    np.testing.assert_allclose(found, exact, atol=1e-13 * np.abs(exact).max())


@pytest.mark.parametrize("count", [60, 500, 501, 4321])
def test_quadrature_in_panels(count):
    points, weights = _quadrature(3.0, count)
    assert count <= len(points) == len(weights) < count + 10
    assert (np.diff(points, prepend=0.0, append=3.0) > 0).all()
    for power in (0, 1, 9, 40):
        assert weights @ points**power == pytest.approx(3.0 ** (power + 1) / (power + 1), rel=1e-13)


@pytest.mark.parametrize("l_max", [0, 1, 5, 14])
def test_bessel_functions_on_both_sides_of_the_change_of_recursion(l_max):
    mpmath = pytest.importorskip("mpmath")
    edge = 100.0 + 10.0 * l_max**2
    z = np.array([0.9 * edge, edge, np.nextafter(edge, np.inf), 1.1 * edge, 1e4, 1e6])
    found = scaled_bessel(l_max, z)
    with mpmath.workdps(40):
        for order in range(l_max + 1):
            for value, x in zip(found[order], z, strict=True):
                exact = mpmath.sqrt(mpmath.pi / (2 * mpmath.mpf(x))) * mpmath.exp(-mpmath.mpf(x))
                exact *= mpmath.besseli(order + mpmath.mpf(1) / 2, mpmath.mpf(x))
                assert value == pytest.approx(float(exact), rel=2e-15)


@pytest.mark.parametrize("distance", [20.0, 1e4, 4.2e8, 9e8])
@pytest.mark.parametrize("pbc", [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
@pytest.mark.parametrize("native", [True, False])
def test_emptiness_between_atoms_costs_nothing(distance, pbc, native):
    """QUIP did not come back from four atoms with 4e8 Å between them."""
    near = Atoms("HO2", [(0, 0, 0), (0.97, 0.1, 0), (0.4, 0.9, 1.0)], cell=[7, 7, 0], pbc=pbc)
    far = near.copy()
    far.positions[:, ~near.pbc] += distance
    quip = QUIPDescriptor(
        "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5", species=["H", "O"], native=native
    )
    expected, found = quip.features(near), quip.features(near + far)
    np.testing.assert_allclose(found[:3], expected, rtol=0, atol=1e-12)
    # Where coordinates are rounded to 1e-7 Å.
    np.testing.assert_allclose(found[3:], expected, rtol=0, atol=1e-6)


def test_the_shortest_distance_in_a_vast_or_flat_box():
    atoms = Atoms("H2", [(0, 0, 0), (0, 0, 0.8)], pbc=[1, 0, 0])
    for vectors in ([5, 0, 0], [5, 1e300, 1e-300], [5, 1e9, 1e9]):
        atoms.cell[:] = np.diag(vectors)
        assert shortest_distance(atoms) == pytest.approx(0.8)
    atoms.cell[0, 0] = 0.5
    assert shortest_distance(atoms) == pytest.approx(0.5)
    assert shortest_distance(atoms[:1]) == pytest.approx(0.5)
    atoms.pbc = False
    assert shortest_distance(atoms[:1]) == math.inf


@pytest.mark.parametrize("distance", [0.0, 1e-209, 0.009])
def test_atoms_on_top_of_each_other_by_finite_differences(distance):
    descriptor = FiniteDifferenceDescriptor(lambda atoms: np.exp(-atoms.get_all_distances()))
    atoms = Atoms("CH", [(0, 0, 0), (0, 0, distance)])
    for scope in ("structure", "environment"):
        with pytest.raises(ValueError, match=r"two atoms are .* Å apart, on top of each other"):
            analyze(atoms, descriptor, scope=scope)
