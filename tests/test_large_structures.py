"""A few singular values of structures of hundreds of atoms, against all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import SOAP
from ase_sensitivity.linalg.davidson import TooSmallError, smallest_eigenpairs
from ase_sensitivity.spectrum import smallest
from ase_sensitivity.spectrum.scopes import View, structure_view
from ase_sensitivity.spectrum.smallest import Smallest, SquareGram
from ase_sensitivity.spectrum.solvers import GRAM_LIMIT, spectrum
from ase_sensitivity.spectrum.sparse import SparseGram
from tests.structures import rattled


def amorphous() -> Atoms:
    """Displacements of a fifth of a bond: no two environments are alike."""
    return rattled(bulk("Si", cubic=True).repeat((4, 4, 3)), 0.45)


def several_species() -> Atoms:
    atoms = rattled(bulk("Cu", cubic=True, a=3.8).repeat(4), 0.1)
    atoms.symbols = np.random.default_rng(0).choice(["Cu", "Ni", "Zn"], len(atoms))
    return atoms


def two_surfaces() -> Atoms:
    atoms = rattled(bulk("Si", cubic=True).repeat((4, 4, 2)), 0.1)
    atoms.center(vacuum=6.0, axis=2)
    atoms.pbc = (True, True, False)
    return atoms


def molecules_in_a_box() -> Atoms:
    """Water, so dilute that every molecule is a fragment of its own."""
    random, box = np.random.default_rng(0), Atoms(pbc=True)
    for corner in np.ndindex(5, 5, 4):
        one = rattled(molecule("H2O"), 0.05, seed=len(box))
        one.rotate(360 * random.random(), random.normal(size=3))
        one.positions += 8.0 * np.array(corner)
        box += one
    box.cell = 8.0 * np.diag([5, 5, 4])
    return box


LARGE = (amorphous, several_species, two_surfaces, molecules_in_a_box)


def view_of(atoms: Atoms, fixed: np.ndarray | None = None, **how: object) -> View:
    arguments = {"cutoff": 4.0, "n_max": 4, "l_max": 3} | how
    soap = SOAP(sorted(set(atoms.symbols)), **arguments)
    return structure_view(soap.stream(atoms), atoms, fixed)


@pytest.fixture(scope="module", params=LARGE, ids=lambda function: function.__name__)
def large(request):
    """A view, and all of its singular values."""
    view = view_of(request.param())
    assert 750 < 3 * view.n_columns < 1500
    return view, spectrum(view)


def use_filter(monkeypatch):
    monkeypatch.setattr(smallest, "FACTORISED", 0)
    monkeypatch.setattr(smallest, "STEPS", 1e-3)  # however much it costs


class Counted(smallest.Factor):
    made: list[type]

    def __init__(self, gram, trivial, dtype, shift):
        self.made.append(dtype)
        super().__init__(gram, trivial, dtype, shift)


@pytest.mark.parametrize("way", ["factor", "filter"])
@pytest.mark.parametrize("k", [1, 6])
def test_none_is_missed(large, way, k, monkeypatch):
    view, expected = large
    monkeypatch.setattr(Counted, "made", [], raising=False)
    monkeypatch.setattr(smallest, "Factor", Counted)
    if way == "filter":
        use_filter(monkeypatch)
    found = spectrum(view, k)
    assert found.method == "krylov"
    assert Counted.made == ([] if way == "filter" else [np.float32])
    np.testing.assert_allclose(found.singular_values, expected.singular_values[:k], rtol=1e-8)
    assert found.sigma_max == pytest.approx(expected.sigma_max, rel=1e-8)
    assert (found.scale, found.n_trivial) == (
        pytest.approx(expected.scale, rel=1e-8),
        expected.n_trivial,
    )
    image = SparseGram.of(view).times(found.modes)
    values = np.einsum("ij,ij->j", found.modes, image)
    np.testing.assert_allclose(np.sqrt(values), found.singular_values, rtol=1e-8)
    residual = np.linalg.norm(image - found.modes * values, axis=0)
    assert (residual < 2e-5 * values).all()
    assert np.abs(view.trivial.T @ found.modes).max() < 1e-10


@pytest.mark.parametrize("way", ["factor", "filter"])
def test_a_start_without_the_smallest_does_not_hide_it(large, way, monkeypatch):
    view, expected = large
    if way == "filter":
        use_filter(monkeypatch)
    found = spectrum(view, 3, start=expected.modes[:, 1:5])
    np.testing.assert_allclose(found.singular_values, expected.singular_values[:3], rtol=1e-8)


@pytest.mark.parametrize("fixed", [[], [0, 7, 200]], ids=["free", "fixed"])
@pytest.mark.parametrize("structure", LARGE, ids=lambda function: function.__name__)
def test_the_sparse_matrix_is_the_square_one(structure, fixed):
    atoms = structure()
    view = view_of(atoms, np.array(fixed, dtype=int))
    sparse, expected = SparseGram.of(view), view.gram()
    size = np.abs(expected.matrix).max()
    np.testing.assert_allclose(sparse.square(), expected.matrix, rtol=0, atol=1e-15 * size)
    np.testing.assert_array_equal(sparse.diagonal(), sparse.square().diagonal())
    assert (sparse.scale, sparse.rounding) == pytest.approx((expected.scale, expected.rounding))
    for x in np.random.default_rng(0).normal(size=(2, len(sparse), 11)):
        np.testing.assert_allclose(sparse.times(x), expected.matrix @ x, atol=1e-13 * size)
        np.testing.assert_allclose(
            sparse.times(x[:, 0]), expected.matrix @ x[:, 0], atol=1e-13 * size
        )


def test_blocks_of_any_descriptor_are_added_to_the_same_matrix():
    atoms = several_species()
    soap = SOAP(["Cu", "Ni", "Zn"], 3.5, 2, 2)
    view = structure_view(soap.jacobian(atoms), atoms)
    found = SparseGram.of(view).square()
    np.testing.assert_allclose(found, view.gram().matrix, rtol=0, atol=1e-15 * found.max())


def test_images_of_an_atom_are_summed():
    """Rows with several blocks of one column take another way to the matrix."""
    wire = rattled(bulk("Si", cubic=True).repeat((1, 1, 32)), 0.05)
    soap = SOAP(["Si"], 5.0, 2, 1)
    for jacobian in soap.jacobian(wire), soap.stream(wire):
        view = structure_view(jacobian, wire)
        found = SparseGram.of(view).square()
        np.testing.assert_allclose(found, view.gram().matrix, rtol=0, atol=1e-14 * found.max())


def test_no_sparse_matrix_for_what_reaches_farther_than_it_says():
    atoms = two_surfaces()
    honest = SOAP(["Si"], 4.0, 2, 1).jacobian(atoms)
    pairs = SOAP(["Si"], 2.6, 2, 1).jacobian(atoms).pairs
    view = structure_view(replace(honest, cutoff=2.6, reach=2.6, pairs=pairs), atoms)
    assert SparseGram.of(structure_view(honest, atoms)) is not None
    assert SparseGram.of(view) is None


def test_no_sparse_matrix_where_atoms_see_each_other():
    atoms = rattled(bulk("Si", cubic=True) * 2)
    assert SparseGram.of(view_of(atoms, cutoff=5.0)) is None


def with_methane() -> Atoms:
    """Two directions of a perfect molecule are invisible, all others are not."""
    atoms = two_surfaces()
    methane = molecule("CH4")
    methane.positions += (0, 0, atoms.positions[:, 2].max() + 6)
    atoms.cell[2, 2] += 20
    return atoms + methane


@pytest.mark.parametrize(
    ("structure", "way", "n_null"),
    [
        (with_methane, "factor", 2),
        (with_methane, "filter", 2),
        (lambda: bulk("Si", cubic=True).repeat((4, 4, 2)), "factor", None),
    ],
    ids=["a molecule", "a molecule, filter", "crystal"],
)
def test_zeros_are_counted_as_for_small_structures(structure, way, n_null, monkeypatch):
    if way == "filter":
        use_filter(monkeypatch)
    view = view_of(structure())
    found, expected = spectrum(view, 3), spectrum(view)
    assert found.method == expected.method == "refined"
    assert found.n_null == expected.n_null > 0
    assert n_null in (None, found.n_null)


def planted(n: int, values: np.ndarray) -> SquareGram:
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    return SquareGram((vectors * values**2) @ vectors.T)


@pytest.mark.parametrize("small", [1e-1, 1e-2, 1e-3, 3e-4])
def test_small_values_down_to_the_limit(small):
    """Each is right to some 1e-15 / ratio^2."""
    values = np.concatenate([small * (1 + 1e-2 * np.arange(40)), np.linspace(0.2, 1, 360)])
    gram = planted(400, values)
    found = Smallest(gram, np.empty((400, 0)), None, GRAM_LIMIT**2).vectors(4)
    squares = np.einsum("ij,ij->j", found, gram.times(found))
    np.testing.assert_allclose(np.sqrt(squares), values[:4], rtol=1e-8)


def test_double_precision_where_single_precision_fails(monkeypatch):
    monkeypatch.setattr(Counted, "made", [], raising=False)
    monkeypatch.setattr(smallest, "Factor", Counted)
    monkeypatch.setattr(smallest, "SINGLE_SHIFT", -0.1)
    values = np.linspace(0.1, 1, 400)
    solver = Smallest(planted(400, values), np.empty((400, 0)), None, GRAM_LIMIT**2)
    for k in (2, 5):  # the factor is kept
        squares = np.sum(solver.vectors(k) * solver._gram.times(solver.vectors(k)), axis=0)
        np.testing.assert_allclose(np.sqrt(squares), values[:k], rtol=1e-8)
    assert Counted.made == [np.float32, np.float64]


def test_a_factor_where_a_polynomial_would_cost_more(monkeypatch):
    view = view_of(two_surfaces())
    expected = spectrum(view, 3)
    monkeypatch.setattr(Counted, "made", [], raising=False)
    monkeypatch.setattr(smallest, "Factor", Counted)
    monkeypatch.setattr(smallest, "FACTORISED", 0)
    np.testing.assert_array_equal(spectrum(view, 3).singular_values, expected.singular_values)
    assert Counted.made == [np.float32]


class TestDavidson:
    n = 300
    values = np.concatenate([np.full(20, 0.1), np.linspace(0.2, 1.0, n - 20)])

    def solve(self, k: int, start: np.ndarray, **how: object):
        arguments = {"outside": np.empty((self.n, 0)), "tolerance": 1e-7} | how

        def times(x: np.ndarray) -> np.ndarray:
            return self.values[:, None] * x

        def correction(residuals, vectors, values):
            return residuals / (self.values * (1 + 0.1 * np.sin(np.arange(self.n))))[:, None]

        return smallest_eigenpairs(times, correction, k, start, **arguments)

    def start(self, width: int) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(self.n, width))

    def test_a_multiplet_that_is_larger_than_the_block(self):
        values, vectors = self.solve(7, self.start(8))
        np.testing.assert_allclose(values, 0.1, rtol=1e-12)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(7), atol=1e-12)
        assert np.abs(vectors[20:]).max() < 1e-6

    def test_vectors_that_are_left_out(self):
        outside = np.eye(self.n)[:, :18]
        values, vectors = self.solve(4, self.start(8), outside=outside)
        np.testing.assert_allclose(values, [0.1, 0.1, *self.values[20:22]], rtol=1e-10)
        assert np.abs(vectors[:18]).max() < 1e-12

    def test_dependent_vectors_to_start_from(self):
        start = self.start(8)
        start[:, 5] = start[:, 2]
        np.testing.assert_allclose(self.solve(4, start)[0], 0.1, rtol=1e-12)

    def test_an_eigenvalue_that_is_too_small(self):
        with pytest.raises(TooSmallError, match=r"below 0\.15"):
            self.solve(4, self.start(8), least=0.15)

    def test_a_correction_that_leads_nowhere(self):
        with pytest.raises(scipy.linalg.LinAlgError, match="no convergence"):
            smallest_eigenpairs(
                lambda x: self.values[:, None] * x,
                lambda residuals, vectors, values: vectors,
                4,
                self.start(8),
                outside=np.empty((self.n, 0)),
                tolerance=1e-7,
            )
