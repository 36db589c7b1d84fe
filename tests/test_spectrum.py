"""Singular values, trivial modes and null counts against dense algebra and known structures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2
from ase.constraints import FixAtoms, FixBondLength
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.stats import ortho_group

from ase_sensitivity import (
    SOAP,
    ConstraintWarning,
    FeatureJacobian,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    Sensitivity,
    analyze,
)
from ase_sensitivity.auditing.reference import GENERIC, S1, S2, S3, around_carbon
from ase_sensitivity.geometry.fragments import fragments
from ase_sensitivity.geometry.paths import connect
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.linalg.krylov import POWERS, largest_eigenpairs
from ase_sensitivity.spectrum.banded import BandedGram
from ase_sensitivity.spectrum.rigid import trivial_modes
from ase_sensitivity.spectrum.scopes import (
    View,
    atom_ratios,
    atom_view,
    environment_views,
    structure_view,
)
from ase_sensitivity.spectrum.screening import bounds_of, softest_environments
from ase_sensitivity.spectrum.solvers import _deflate, spectrum
from tests.structures import BOUNDARIES, REFERENCE_SOAP, TD, isolated, rattled


def soap(atoms: Atoms, cutoff: float = 4.0, n_max: int = 6, l_max: int = 4) -> QUIPDescriptor:
    return QUIPDescriptor(
        f"soap cutoff={cutoff} n_max={n_max} l_max={l_max} atom_sigma=0.5",
        species=sorted(set(atoms.get_chemical_symbols())),
    )


def dense_null_count(view: View) -> int:
    """Null vectors by a full singular value decomposition of J as it is, nothing projected out."""
    J = view.dense()
    values = np.linalg.svd(J, compute_uv=False)
    return int((values < 1e-10 * values[0]).sum()) + max(0, J.shape[1] - len(values))


class TestNullCounts:
    @pytest.mark.slow
    def test_g2(self):
        names = [name for name in g2.names if len(molecule(name)) >= 3]
        assert len(names) == 120
        for name in names:
            atoms = molecule(name)
            descriptor = soap(atoms, cutoff=8, n_max=8, l_max=8)
            found = analyze(atoms, descriptor)
            view = structure_view(
                descriptor.jacobian(atoms), atoms, fixed=np.empty(0, dtype=np.intp)
            )
            assert found.n_trivial + found.n_null == dense_null_count(view), name

    @pytest.mark.parametrize(
        ("name", "expected"), [("CH4", 8), ("C2H4", 9), ("NH3", 6), ("CO2", 7)]
    )
    def test_molecules(self, name, expected):
        found = analyze(molecule(name), soap(molecule(name), cutoff=8, n_max=8, l_max=8))
        assert found.n_trivial + found.n_null == expected
        assert found.n_trivial == (5 if name == "CO2" else 6)

    @pytest.mark.parametrize(
        ("neighbors", "n_null", "following"),
        [(TD, 8, None), (S1, 1, 0.072), (S2, 1, 0.051), (S3, 1, 0.018)],
        ids=["Td", "S1", "S2", "S3"],
    )
    def test_reference_environments(self, neighbors, n_null, following):
        descriptor = QUIPDescriptor(REFERENCE_SOAP.format(l_max=8, n_species=1, species_Z=1))
        found = analyze(around_carbon(neighbors), descriptor, scope="environment", k=None)
        assert (found.n_trivial, found.n_null, found.center) == (6, n_null, 0)
        if following is not None:
            assert found.singular_values[1] / found.sigma_max == pytest.approx(following, rel=0.02)

    def test_reference_environment_of_several_species(self):
        descriptor = QUIPDescriptor(
            REFERENCE_SOAP.format(l_max=8, n_species=3, species_Z="{1 9 17}")
        )
        atoms = around_carbon(S1, ["H", "H", "F", "Cl"])
        assert analyze(atoms, descriptor, scope="environment").n_null == 1

    @pytest.mark.parametrize(("l_max", "rank"), [(1, 3), (2, 5), (3, 7), (4, 8), (5, 9)])
    def test_truncation(self, l_max, rank):
        descriptor = QUIPDescriptor(REFERENCE_SOAP.format(l_max=l_max, n_species=1, species_Z=1))
        found = analyze(around_carbon(GENERIC), descriptor, scope="environment")
        assert 9 - found.n_null == rank

    def test_sigma_is_linear_along_the_null_vector_of_s1(self):
        descriptor = QUIPDescriptor(REFERENCE_SOAP.format(l_max=8, n_species=1, species_Z=1))
        atoms = around_carbon(S1)
        null = analyze(atoms, descriptor, scope="environment").mode_of_atoms(5)
        for size in (0.003, 0.01):
            moved = atoms.copy()
            moved.positions += size * null
            ratio = analyze(moved, descriptor, scope="environment").ratio
            # 0.648 with the center's coordinates among the columns, as everywhere in this scope;
            # 0.67 with the center held in place, which changes sigma_max and the mode's length.
            assert ratio == pytest.approx(0.648 * size, rel=0.01)

    def test_all_centers_lift_the_null_of_s1(self):
        descriptor = QUIPDescriptor(
            "soap cutoff=3 n_max=8 l_max=8 atom_sigma=0.3", species=["C", "H"]
        )
        assert analyze(around_carbon(S1), descriptor).n_null == 0

    def test_diamond(self):
        silicon = bulk("Si", cubic=True) * 2
        found = analyze(silicon, soap(silicon, cutoff=5, n_max=8, l_max=6))
        assert (found.n_trivial, found.n_null, found.method) == (3, 103, "refined")

    @pytest.mark.parametrize("scope", ["structure", "atom"])
    def test_every_block_cancels(self, scope):
        """Each atom of fcc is a center of inversion, and its images move with it."""
        copper = bulk("Cu", cubic=True)
        found = analyze(copper, soap(copper), scope=scope)
        assert found.n_null == found.n_coordinates - found.n_trivial
        assert found.ratio == 0

    def test_nothing_is_seen_at_all(self):
        blind = FiniteDifferenceDescriptor(lambda atoms: np.ones((len(atoms), 2)))
        found = analyze(isolated(), blind)
        assert (found.n_null, found.sigma_max, found.ratio) == (12, 0, 0)
        modes = found.modes.reshape(len(found.modes), -1)
        np.testing.assert_allclose(modes @ modes.T, np.eye(6), atol=1e-12)

    def test_more_coordinates_than_features(self):
        """One feature cannot resolve more than one direction."""
        atoms = isolated()
        found = analyze(atoms, QUIPDescriptor("distance_2b cutoff=3 Z1=6 Z2=8"), k=None)
        # The pair (C, O) is seen twice with the same distance.
        assert found.n_null == 3 * len(atoms) - 6 - 1
        assert len(found.singular_values) == 3 * len(atoms) - 6


class TestValues:
    @pytest.mark.parametrize("boundary", BOUNDARIES)
    @pytest.mark.parametrize("scope", ["structure", "environment", "atom"])
    def test_equal_full_svd(self, boundary, scope):
        """Against the singular values of the dense J restricted to what is not rigid."""
        atoms = BOUNDARIES[boundary]()
        descriptor = soap(atoms, cutoff=3.2, n_max=4, l_max=4)
        center = None if scope == "structure" else 1
        found = analyze(atoms, descriptor, scope=scope, center=center, k=None)
        jacobian = descriptor.jacobian(atoms)
        if scope == "atom":
            J = jacobian.dense(np.where(jacobian.atom == 1, 0, -1), 1)
            trivial = np.empty((3, 0))
        else:
            view = (
                structure_view(jacobian, atoms, np.empty(0, dtype=np.intp))
                if scope == "structure"
                else next(environment_views(jacobian, atoms, 1))
            )
            J, trivial = view.dense(), view.trivial
            assert np.abs(J @ trivial).max() < 1e-12 * np.abs(J).max()
        expected = np.linalg.svd(J, compute_uv=False)
        expected = np.sort(expected)[trivial.shape[1] :]
        assert len(found.singular_values) == len(expected)
        error = np.abs(found.singular_values - expected)
        # Two backward stable decompositions differ by rounding relative to the largest value.
        assert (error <= 1e-6 * expected + 1e-14 * expected[-1]).all()
        assert found.ratio == pytest.approx(expected[0] / expected[-1], rel=1e-6)

    @pytest.mark.parametrize("left", [1e-3, 1.0])
    def test_what_cancels_is_small_relative_to_its_parts(self, left):
        """A tenth of the root mean square of the values that images alone had."""
        part = ortho_group.rvs(3, random_state=0)  # three values of one
        images = FeatureJacobian(
            features=np.zeros((1, 3)),
            centers=np.zeros(1, dtype=np.intp),
            row=np.zeros(2, dtype=np.intp),
            atom=np.zeros(2, dtype=np.intp),
            displacement=np.zeros((2, 3)),
            blocks=np.array([part, -(1 - left) * part]),
            n_atoms=1,
            cutoff=np.inf,
            center_atoms=np.arange(1),
        )
        found = spectrum(atom_view(images, 0))
        scale = 0.1 * np.sqrt(1 + (1 - left) ** 2)
        assert found.sigma_max == pytest.approx(left, rel=1e-9)
        assert found.ratio == pytest.approx(left / max(scale, left), rel=1e-9)
        assert atom_ratios(images) == pytest.approx([found.ratio], rel=1e-9)

    def test_modes_are_singular_vectors(self):
        atoms = isolated()
        found = analyze(atoms, soap(atoms), k=None)
        J = structure_view(soap(atoms).jacobian(atoms), atoms, np.empty(0, dtype=np.intp)).dense()
        modes = found.modes.reshape(len(found.modes), -1)
        np.testing.assert_allclose(modes @ modes.T, np.eye(len(modes)), atol=1e-12)
        np.testing.assert_allclose(
            np.linalg.norm(J @ modes.T, axis=0), found.singular_values, rtol=1e-9
        )

    def test_invariance(self):
        atoms = isolated()
        before = analyze(atoms, soap(atoms), k=None).singular_values
        atoms.rotate(57, (1, 2, 3))
        atoms.positions += 3.0
        after = analyze(atoms[::-1], soap(atoms), k=None).singular_values
        np.testing.assert_allclose(after, before, rtol=1e-9)

    @settings(max_examples=60, deadline=None)
    @given(
        exponents=st.lists(st.floats(-18, 0), min_size=1, max_size=8),
        zeros=st.integers(0, 3),
        cluster=st.integers(0, 3),
        many=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_planted_spectrum(self, exponents, zeros, cluster, many, seed):
        """J = U diag(sigma) V^T with clusters, exact zeros and ratios down to 1e-14."""
        rng = np.random.default_rng(seed)
        planted = np.concatenate(
            [[1.0], 10.0 ** np.array(exponents), [10.0 ** exponents[0]] * cluster, [0.0] * zeros]
        )
        n_atoms = -(-len(planted) // 3) + 1
        n_trivial = 3 * n_atoms - len(planted)
        V = ortho_group.rvs(3 * n_atoms, random_state=rng)
        n_features = 3 * n_atoms + 2 if many else len(planted) - zeros
        not_zero = planted[: len(planted) - zeros]
        U = ortho_group.rvs(n_features, random_state=rng)[:, : len(not_zero)]
        J = (U * not_zero) @ V[:, n_trivial : 3 * n_atoms - zeros].T
        jacobian = _one_row(J, n_atoms)
        view = View(
            jacobian=jacobian,
            column=lambda part: part.atom,
            atoms=np.arange(n_atoms),
            displacements=None,
            trivial=V[:, :n_trivial],
            center=None,
        )
        found = spectrum(view)
        expected = np.sort(planted)
        assert found.n_trivial == n_trivial
        assert (np.abs(found.singular_values - expected) <= 1e-6 * expected + 3e-15).all()
        clear = (expected < 5e-11) | (expected > 2e-10)
        if clear.all():
            assert found.n_null == (expected < 1e-10).sum()
        every = np.column_stack([view.trivial, found.modes])
        np.testing.assert_allclose(every.T @ every, np.eye(3 * n_atoms), atol=1e-12)
        # Null vectors are any basis of their space.
        images = np.linalg.norm(J @ found.modes, axis=0)
        tolerance = np.where(expected < 1e-10, 1e-10, 1e-6 * expected + 3e-15)
        assert (np.abs(images - expected) <= tolerance).all()

    def test_trivial_modes_are_taken_out_of_a_gram_matrix(self):
        """Of rounding there may be any entry: P G P is symmetric and has none of them."""
        rng = np.random.default_rng(0)
        gram = rng.normal(size=(12, 12))
        gram += gram.T
        trivial = ortho_group.rvs(12, random_state=rng)[:, :5]
        P = np.eye(12) - trivial @ trivial.T
        expected = P @ gram @ P
        _deflate(gram, trivial)
        np.testing.assert_allclose(gram, expected, atol=1e-13)

    @pytest.mark.parametrize("n_atoms", [24, 260])
    @pytest.mark.parametrize(("low", "high"), [(0.02, 0.1), (0.5, 1.0)], ids=["one above", "flat"])
    def test_a_quarter_of_a_planted_spectrum(self, n_atoms, low, high):
        """The few smallest and the largest, whether or not it is far above all others."""
        rng = np.random.default_rng(0)
        n = 3 * n_atoms
        planted = np.sort(np.concatenate([rng.uniform(low, high, n - 7), [1.0]]))
        V = np.linalg.qr(rng.normal(size=(n, n)))[0]
        J = planted[:, None] * V[:, 6:].T
        view = View(
            jacobian=_one_row(J, n_atoms),
            column=lambda part: part.atom,
            atoms=np.arange(n_atoms),
            displacements=None,
            trivial=V[:, :6],
            center=None,
        )
        k = (n - 6) // 4 if n_atoms == 24 else 6
        found = spectrum(view, k)
        assert found.method == ("gram" if n_atoms == 24 else "krylov")
        np.testing.assert_allclose(found.singular_values, planted[:k], rtol=1e-7)
        assert found.sigma_max == pytest.approx(1.0, rel=1e-5)
        np.testing.assert_allclose(
            np.linalg.norm(J @ found.modes, axis=0), found.singular_values, rtol=1e-7
        )
        assert np.abs(view.trivial.T @ found.modes).max() < 1e-7

    def test_long_structures_have_a_band(self, monkeypatch):
        """The routes to a few values agree: all by eigh, Krylov with a dense factor and a band."""
        tube = rattled(bulk("Si", cubic=True).repeat((1, 1, 32)), 0.05)
        view = structure_view(SOAP(["Si"], 4.0, 4, 3).jacobian(tube), tube)
        banded = BandedGram.of(view)
        gram = view.gram().matrix
        assert banded is not None
        assert banded.band.size < gram.size / 5
        x = np.random.default_rng(0).normal(size=(len(gram), 3))
        expected = gram[np.ix_(banded.order, banded.order)] @ x
        np.testing.assert_allclose(banded.times(x), expected, atol=1e-12 * abs(expected).max())
        expected = spectrum(view)
        assert expected.method == "gram"
        for long in (10**6, 100):
            monkeypatch.setattr("ase_sensitivity.spectrum.solvers.LONG", long)
            found = spectrum(view, 6)
            assert found.method == "krylov"
            np.testing.assert_allclose(
                found.singular_values, expected.singular_values[:6], rtol=1e-9
            )
            assert found.sigma_max == pytest.approx(expected.sigma_max, rel=1e-9)

    def test_band_without_fixed_atoms(self):
        """Centers without coordinates of their own, images of one atom: against the square."""
        tube = rattled(bulk("Si", cubic=True).repeat((1, 1, 44)), 0.05)
        view = structure_view(SOAP(["Si"], 5.0, 2, 1).jacobian(tube), tube, np.arange(5, 60, 3))
        banded, dense = BandedGram.of(view), view.gram()
        gram = dense.matrix
        assert banded is not None
        n, square = len(gram), np.zeros_like(gram)
        for k, diagonal in enumerate(banded.band):
            square[np.arange(k, n), np.arange(n - k)] = diagonal[: n - k]
            square[np.arange(n - k), np.arange(k, n)] = diagonal[: n - k]
        expected = gram[np.ix_(banded.order, banded.order)]
        np.testing.assert_allclose(square, expected, rtol=0, atol=1e-14 * gram.max())
        assert (banded.scale, banded.rounding) == pytest.approx((dense.scale, dense.rounding))

    def test_no_band_for_what_reaches_farther_than_it_says(self):
        tube = rattled(bulk("Si", cubic=True).repeat((1, 1, 32)), 0.05)
        honest = SOAP(["Si"], 4.0, 2, 1).jacobian(tube)
        pairs = SOAP(["Si"], 2.6, 2, 1).jacobian(tube).pairs
        view = structure_view(replace(honest, cutoff=2.6, reach=2.6, pairs=pairs), tube)
        assert BandedGram.of(structure_view(honest, tube)) is not None
        assert BandedGram.of(view) is None

    def test_a_crystal_has_none(self):
        silicon = rattled(bulk("Si", cubic=True) * 2)
        view = structure_view(SOAP(["Si"], 4.0, 4, 3).jacobian(silicon), silicon)
        assert BandedGram.of(view) is None

    def test_environments_that_are_larger_than_a_stack(self, monkeypatch):
        atoms = rattled(bulk("Cu", cubic=True), 0.1)
        descriptor = SOAP(["Cu"], 5.0, 3, 2)
        expected = analyze(atoms, descriptor, scope="environment")
        monkeypatch.setattr("ase_sensitivity.spectrum.screening.STACK", 1000)
        found = analyze(atoms, descriptor, scope="environment")
        assert (found.center, found.ratio) == (expected.center, expected.ratio)

    @pytest.mark.parametrize("null_tolerance", [1e-2, 1e-3, 1e-5, 1e-7])
    def test_the_tolerance_counts(self, null_tolerance):
        """Also above the limit of the Gram matrix."""
        atoms = molecule("NH3")
        atoms.positions[0, 2] = atoms.positions[1, 2] + 3e-4
        found = analyze(atoms, soap(atoms), k=None, null_tolerance=null_tolerance)
        assert 1e-5 < found.ratio < 1e-3
        expected = (found.singular_values <= null_tolerance * found.scale).sum()
        assert found.n_null == expected == int(found.ratio <= null_tolerance)

    def test_route_changes_at_the_limit_of_the_gram_matrix(self):
        assert analyze(isolated(), soap(isolated())).method == "gram"
        assert analyze(molecule("CH4"), soap(molecule("CH4"))).method == "refined"

    def test_blas_threads(self):
        from threadpoolctl import threadpool_limits

        atoms = rattled(bulk("Si", cubic=True), 0.1)
        results = []
        for threads in (1, 2):
            with threadpool_limits(threads):
                results.append(analyze(atoms, soap(atoms), k=None))
        np.testing.assert_allclose(
            results[0].singular_values, results[1].singular_values, rtol=1e-9
        )
        assert results[0].n_null == results[1].n_null


def test_no_iteration_for_values_that_would_not_be_trusted():
    """All 200 vectors of a null space of the inverse are alike: no iteration tells them apart."""
    calls = []

    def inverse(x: np.ndarray) -> np.ndarray:
        calls.append(x)
        noise = 1 + 1e-3 * np.sin(np.arange(400))
        return np.where(np.arange(400) < 200, 1e14 * noise, 1.0)[:, None] * x

    with pytest.raises(scipy.linalg.LinAlgError, match="above"):
        largest_eigenpairs(inverse, 400, 2, limit=1e8)
    assert len(calls) == 1 + POWERS


def _one_row(J: np.ndarray, n_atoms: int) -> FeatureJacobian:
    """A Jacobian with one row of features and given dense matrix."""
    return FeatureJacobian(
        features=np.zeros((1, len(J))),
        centers=np.array([0]),
        row=np.zeros(n_atoms, dtype=np.intp),
        atom=np.arange(n_atoms),
        displacement=np.zeros((n_atoms, 3)),
        blocks=np.ascontiguousarray(J.T.reshape(n_atoms, 3, -1)),
        n_atoms=n_atoms,
        cutoff=np.inf,
    )


@pytest.mark.parametrize(
    ("name", "number", "k"), [("NH3", 2, 3), ("H2O", 3, 1), ("CH4", 2, 3), ("H2O", 4, 3)]
)
def test_a_few_values_of_like_fragments(name, number, k):
    """Rigid motions of many fragments leave few values, all of them degenerate."""
    atoms = Atoms()
    for n in range(number):
        other = rattled(molecule(name), 0.05, 0)
        other.positions += [20.0 * n, 0, 0]
        atoms += other
    every, few = (analyze(atoms, soap(atoms), k=each) for each in (None, k))
    assert few.n_null == every.n_null == 0
    np.testing.assert_allclose(few.singular_values, every.singular_values[:k], rtol=1e-9)


class TestTrivialModes:
    @staticmethod
    def count(atoms: Atoms, cutoff: float = 3.0, fixed: list[int] | None = None) -> int:
        jacobian = soap(atoms, cutoff).jacobian(atoms)
        held = None if fixed is None else np.array(fixed)
        return trivial_modes(fragments(atoms, jacobian.ranges), len(atoms), held).shape[1]

    def test_bent_linear_single(self):
        assert self.count(molecule("H2O")) == 6
        assert self.count(molecule("CO2")) == 5
        assert self.count(Atoms("H")) == 3

    @pytest.mark.parametrize("name", ["CO2", "C2H2", "HCN"])
    def test_linear_with_two_fixed_atoms(self, name):
        """The rotation about the axis moves nothing, whatever rounding makes of it."""
        for seed in range(3):
            atoms = molecule(name)
            rng = np.random.default_rng(seed)
            atoms.rotate(rng.uniform(0, 180), rng.normal(size=3))
            assert self.count(atoms, fixed=[0, 1]) == 0
            atoms.set_constraint(FixAtoms([0, 1]))
            assert analyze(atoms, soap(atoms), apply_constraints=True).n_trivial == 0

    def test_almost_linear(self):
        atoms = molecule("CO2")
        atoms.positions[0, 0] += 1e-3
        assert self.count(atoms) == 6

    @pytest.mark.parametrize(
        ("pbc", "cell", "expected"),
        [
            ((0, 0, 0), (2.5, 2.5, 2.5), 6),
            ((1, 0, 0), (2.5, 9, 9), 4),
            ((1, 1, 0), (2.5, 2.5, 9), 3),
            ((1, 1, 1), (2.5, 2.5, 2.5), 3),
            ((1, 1, 1), (9, 9, 9), 6),
            ((1, 1, 1), (2.5, 9, 9), 4),
            ((1, 1, 1), (9, 2.5, 2.5), 3),
        ],
    )
    def test_periodicity_is_that_of_the_bonds(self, pbc, cell, expected):
        atoms = Atoms("HCN", [(0, 0, 0), (0.8, 0.6, 0), (1.0, 1.2, 0.9)], cell=cell, pbc=pbc)
        assert self.count(atoms) == expected
        found = analyze(atoms, soap(atoms, cutoff=3.0))
        view = structure_view(
            soap(atoms, cutoff=3.0).jacobian(atoms), atoms, np.empty(0, dtype=np.intp)
        )
        assert found.n_trivial + found.n_null == dense_null_count(view)

    def test_chain_on_its_axis_does_not_rotate(self):
        chain = Atoms("CH", [(0, 0, 0), (1.2, 0, 0)], cell=(2.4, 0, 0), pbc=(1, 0, 0))
        assert self.count(chain) == 3

    def test_paths(self):
        """Random pairs: the classes are those of SciPy, and a tree of pairs has no cycles."""
        rng = np.random.default_rng(0)
        first, second = rng.integers(0, 60, (2, 45))
        shift = rng.integers(-2, 3, (45, 3))
        # Trees of SciPy 1.13 take short integers only.
        short = first.astype(np.int32), second.astype(np.int32)
        root, offset = connect(first, second, shift, 60)
        graph = coo_array((np.ones(45), short), shape=(60, 60))
        n_classes, expected = connected_components(graph, directed=False)
        assert 1 < len(np.unique(root)) == n_classes
        assert len(set(zip(root.tolist(), expected.tolist(), strict=True))) == n_classes
        tree = minimum_spanning_tree(graph).tocoo()
        taken = {(i, j): s for i, j, s in zip(first, second, shift.tolist(), strict=True)}
        pairs = np.array(list(zip(*tree.coords, strict=True)), dtype=np.intp)
        steps = np.array([taken[tuple(pair)] for pair in pairs])
        root, offset = connect(*pairs.T, steps, 60)
        assert len(np.unique(root)) == n_classes
        np.testing.assert_array_equal(offset[pairs[:, 0]] + steps, offset[pairs[:, 1]])
        assert not offset[root].any()

    def test_molecule_across_the_boundary_of_its_cell(self):
        atoms = molecule("CH3OH", vacuum=5)
        atoms.pbc = True
        atoms.positions += 5.0
        atoms.wrap()
        assert self.count(atoms) == 6
        assert analyze(atoms, soap(atoms, 3.0)).n_trivial == 6

    def test_one_set_for_each_fragment(self):
        water, other = molecule("H2O"), molecule("CO2")
        other.positions += (0, 0, 12)
        atoms = water + other
        assert self.count(atoms) == 11
        found = analyze(atoms, soap(atoms, 4.0))
        view = structure_view(soap(atoms, 4.0).jacobian(atoms), atoms, np.empty(0, dtype=np.intp))
        assert found.n_trivial == 11
        assert found.n_trivial + found.n_null == dense_null_count(view)

    def test_an_atom_that_is_not_told_apart_is_no_fragment(self):
        """The descriptor is blind to it: three null vectors, not three trivial ones."""
        atoms = isolated()
        blind = QUIPDescriptor("soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5", species=["C", "H"])
        found = analyze(atoms, blind)
        assert found.n_trivial == 6
        assert found.n_null == 3
        assert found.worst_atom == atoms.get_chemical_symbols().index("O")

    def test_fixed_atoms_leave_the_motions_about_them(self):
        atoms = molecule("CH3OH")
        assert self.count(atoms, fixed=[0]) == 3
        assert self.count(atoms, fixed=[0, 1]) == 1
        assert self.count(atoms, fixed=[0, 1, 2]) == 0


class TestConstraints:
    def test_fixed_atoms_are_left_out(self):
        atoms = isolated()
        atoms.set_constraint(FixAtoms([0, 1, 2]))
        kept = analyze(atoms, soap(atoms), k=None)
        removed = analyze(atoms, soap(atoms), k=None, apply_constraints=True)
        assert (kept.n_coordinates, removed.n_coordinates) == (18, 9)
        assert removed.n_trivial == 0
        assert (removed.modes[:, :3] == 0).all()
        jacobian = soap(atoms).jacobian(atoms)
        J = jacobian.dense(jacobian.atom, 6)[:, 9:]
        np.testing.assert_allclose(
            removed.singular_values, np.linalg.svd(J, compute_uv=False)[::-1], rtol=1e-9
        )

    def test_others_are_ignored_with_a_warning(self):
        atoms = isolated()
        atoms.set_constraint([FixBondLength(0, 1), FixAtoms([2])])
        with pytest.warns(ConstraintWarning, match="only FixAtoms") as caught:
            found = analyze(atoms, soap(atoms), apply_constraints=True)
        assert caught[0].filename == __file__
        assert found.n_coordinates == 15

    def test_everything_fixed(self):
        atoms = isolated()
        atoms.set_constraint(FixAtoms(range(6)))
        with pytest.raises(ValueError, match="no atoms that could move"):
            analyze(atoms, soap(atoms), apply_constraints=True)


class TestAnalyze:
    def test_worst_environment_is_reported(self):
        atoms = isolated()
        ratios = [
            analyze(atoms, soap(atoms), scope="environment", center=i).ratio
            for i in range(len(atoms))
        ]
        found = analyze(atoms, soap(atoms), scope="environment")
        assert found.center == np.argmin(ratios)
        assert found.ratio == min(ratios)

    @pytest.mark.parametrize("boundary", ["isolated", "periodic", "wire", "chain", "single"])
    def test_environments_that_need_no_closer_look(self, boundary):
        """Bounds from stacked matrices hold the ratio of every environment, linear ones as well."""
        if boundary == "chain":
            atoms = Atoms("OCOCHe", [(0, 0, z) for z in (0, 1.2, 2.3, 3.7, 30.0)])
        elif boundary == "single":
            atoms = rattled(bulk("Si", cubic=True), 0.1)
        else:
            atoms = BOUNDARIES[boundary]()
        descriptor = soap(atoms, 3.2)
        jacobian = descriptor.jacobian(atoms)
        low, high = bounds_of(jacobian)
        exact = np.array(
            [spectrum(view, 1).ratio for view in environment_views(jacobian, atoms, None)]
        )
        assert np.isinf(low[np.isnan(exact)]).all()
        known = ~np.isnan(exact)
        assert known.any()
        assert (low[known] <= exact[known] ** 2).all()
        assert (exact[known] ** 2 <= high[known] + 1e-9 * exact[known] ** 2).all()
        assert (high[known] - low[known]).max() < 1e-12
        wanted = softest_environments(jacobian)
        assert np.nanargmin(exact) in wanted
        if high[known].min() > 1e-11:  # not all of them zero
            assert len(wanted) < len(atoms)
        assert analyze(atoms, descriptor, scope="environment").center == np.nanargmin(exact)

    def test_one_neighbor_has_one_value(self):
        """Its distance: the smallest is the largest, or nothing is seen of it at all."""
        pair = soap(Atoms("CH"), 3.0).jacobian(Atoms("CH", [(0, 0, 0), (0, 0.6, 0.9)]))
        low, high = bounds_of(pair)
        assert low == pytest.approx([1, 1], abs=1e-12)
        assert high == pytest.approx([1, 1], abs=1e-12)
        two = Atoms("CHOHH", [(0, 0, 0), (0, 0.6, 0.9), (9, 0, 0), (9, 0.9, 0.2), (9, -0.1, 1)])
        both = soap(two, 3.0).jacobian(two)
        unseen = both.centers[both.row] == 0
        blind = replace(both, blocks=np.where(unseen[:, None, None], 0.0, both.blocks))
        assert softest_environments(blind).tolist() == [0]

    def test_environments_of_several_rows_are_not_screened(self):
        atoms = isolated()
        pairs = QUIPDescriptor("distance_2b cutoff=3 Z1=6 Z2=1").jacobian(atoms)
        assert softest_environments(pairs) is None

    def test_environments_of_several_descriptors(self):
        """What they see of a center belongs together."""
        atoms = isolated()
        each = [soap(atoms, l_max=l_max).jacobian(atoms) for l_max in (2, 4)]
        views = list(environment_views(StackedJacobian(tuple(each)), atoms, None))
        assert [view.center for view in views] == list(range(len(atoms)))
        alone = zip(*(environment_views(part, atoms, None) for part in each), strict=True)
        for view, single in zip(views, alone, strict=True):
            expected = np.concatenate([one.dense() for one in single])
            np.testing.assert_array_equal(view.dense(), expected)

    def test_environment_moves_images_apart(self):
        atoms = BOUNDARIES["periodic"]()
        found = analyze(atoms, soap(atoms, 3.2), scope="environment", center=0)
        assert len(found.atoms) > len(atoms)
        assert found.modes.shape[1:] == (len(found.atoms), 3)
        assert found.displacements is not None
        assert np.linalg.norm(found.displacements, axis=1).max() < 3.2

    def test_atom_scope(self):
        atoms = isolated()
        found = analyze(atoms, soap(atoms), scope="atom", center=3)
        assert (found.n_trivial, found.center, len(found.singular_values)) == (0, 3, 3)
        assert (np.delete(found.modes, 3, axis=1) == 0).all()

    def test_k(self):
        everything = analyze(isolated(), soap(isolated()), k=None)
        two = analyze(isolated(), soap(isolated()), k=2)
        np.testing.assert_array_equal(two.singular_values, everything.singular_values[:2])
        assert two.modes.shape == (2, 6, 3)

    def test_diatomic_has_one_value(self):
        found = analyze(molecule("CO"), soap(molecule("CO")))
        assert (found.n_trivial, len(found.singular_values)) == (5, 1)

    def test_nothing_to_resolve(self):
        found = analyze(Atoms("C"), soap(Atoms("C")))
        assert np.isnan(found.ratio)
        assert found.worst_atom == -1
        assert "nothing to resolve" in found.summary()

    def test_averaged_features(self):
        atoms = isolated()
        averaged = QUIPDescriptor(
            "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5 average=T", species=["C", "H", "O"]
        )
        assert analyze(atoms, averaged).n_trivial == 6
        with pytest.raises(ValueError, match="whole structure"):
            analyze(atoms, averaged, scope="environment")

    @pytest.mark.parametrize("pbc", [False, True])
    def test_averaged_features_of_several_fragments(self, pbc):
        """QUIP averages densities: fragments turned against each other change the features."""
        other = rattled(molecule("CH4"), seed=2)
        other.positions += (0, 0, 12)
        atoms = isolated() + other
        atoms.set_cell([24, 24, 24])
        atoms.pbc = pbc
        averaged = QUIPDescriptor(
            "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5 average=T", species=["C", "H", "O"]
        )
        found = analyze(atoms, averaged, k=None)
        view = structure_view(averaged.jacobian(atoms), atoms)
        assert np.abs(view.dense() @ view.trivial).max() < 1e-12 * found.sigma_max
        assert found.n_trivial == 9
        assert found.n_trivial + found.n_null == dense_null_count(view)

    @pytest.mark.parametrize(
        ("wires", "n_turns"), [("z", 1), ("zz", 1), ("xz", 0)], ids=["one", "parallel", "crossed"]
    )
    def test_averaged_features_of_wires(self, wires, n_turns):
        """All turn together, about an axis that every wire has."""
        atoms = isolated()
        zigzag = [(0.3, 0, 0.2), (-0.4, 0.5, 1.4), (0.1, -0.6, 2.5)]
        for n, axis in enumerate(wires, 1):
            wire = Atoms("H3", np.roll(zigzag, 1 if axis == "x" else 0, axis=1))
            repeats = np.where(np.array(list("xyz")) == axis, 5, 1)
            wire.set_cell([4.0, 4.0, 4.0])
            wire = wire.repeat(repeats)
            wire.positions += (0, 12.0 * n, 0)
            atoms += wire
        atoms.set_cell([20, 60, 20])
        atoms.pbc = [axis in wires for axis in "xyz"]
        averaged = QUIPDescriptor(
            "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5 average=T", species=["C", "H", "O"]
        )
        view = structure_view(averaged.jacobian(atoms), atoms)
        assert view.trivial.shape[1] == 3 * (1 + len(wires)) + n_turns
        J = view.dense()
        assert np.abs(J @ view.trivial).max() < 1e-12 * np.abs(J).max()

    def test_averaged_features_of_a_crystal(self):
        silicon = bulk("Si")
        averaged = QUIPDescriptor(
            "soap cutoff=5 n_max=4 l_max=3 atom_sigma=0.5 average=T", species=["Si"]
        )
        assert analyze(silicon, averaged).n_null == 3

    def test_concatenation_resolves_no_less(self):
        atoms = molecule("CH4")
        pairs = "distance_2b cutoff=4 Z1=1 Z2=1"
        alone = analyze(atoms, QUIPDescriptor(pairs))
        both = analyze(
            atoms,
            QUIPDescriptor(
                [
                    pairs,
                    "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5 "
                    "n_species=2 species_Z={1 6} n_Z=2 Z={1 6}",
                ]
            ),
        )
        # H-H distances fix the tetrahedron; C is not seen by them, and is by SOAP.
        assert (alone.n_trivial, alone.n_null) == (6, 3)
        assert both.n_null == 0

    def test_round_trip(self, tmp_path):
        from ase.io.jsonio import read_json, write_json

        for scope in ("structure", "environment"):
            found = analyze(isolated(), soap(isolated()), scope=scope)
            write_json(tmp_path / "found.json", found)
            again = Sensitivity.fromdict(read_json(tmp_path / "found.json"))
            assert str(again) == str(found)
            np.testing.assert_array_equal(again.modes, found.modes)
            np.testing.assert_array_equal(again.atoms, found.atoms)
