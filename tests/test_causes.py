"""Causes of null vectors: against known groups, constructed degeneracies and measured ranks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.collections import g2, s22
from ase.constraints import FixAtoms
from ase.io.jsonio import read_json, write_json
from ase.spacegroup import crystal
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ase_sensitivity import FiniteDifferenceDescriptor, QUIPDescriptor, Sensitivity, analyze
from ase_sensitivity.auditing.reference import GENERIC, S1, S2, S3, around_carbon
from ase_sensitivity.causes.attribution import _majority, attribute, predicted_nulls
from ase_sensitivity.causes.environments import Environment
from ase_sensitivity.causes.incompleteness import class_sums, resolved_rank
from ase_sensitivity.geometry.clusters import clusters
from ase_sensitivity.geometry.symmetry import point_group
from ase_sensitivity.jacobian.streamed import StreamedJacobian
from ase_sensitivity.spectrum.scopes import environment_views, structure_view
from ase_sensitivity.spectrum.solvers import spectrum
from tests.structures import BOUNDARIES, REFERENCE_SOAP, TD, isolated, rattled

TOLERANCE = 1e-5


def soap(atoms: Atoms, cutoff: float = 5.0, n_max: int = 8, l_max: int = 6, extra: str = ""):
    return QUIPDescriptor(
        f"soap cutoff={cutoff} n_max={n_max} l_max={l_max} atom_sigma=0.5 {extra}",
        species=sorted(set(atoms.get_chemical_symbols())),
    )


def reference(l_max: int = 8, n_max: int = 8, species: str = "1") -> QUIPDescriptor:
    text = REFERENCE_SOAP.format(
        l_max=l_max, n_species=len(species.split()), species_Z=f"{{{species}}}"
    )
    return QUIPDescriptor(text.replace("n_max=8", f"n_max={n_max}"))


def counts(symmetry: int = 0, incompleteness: int = 0, truncation: int = 0, fragment: int = 0):
    return {
        "fragment": fragment,
        "symmetry": symmetry,
        "incompleteness": incompleteness,
        "truncation": truncation,
    }


def about_origin(points, numbers=None) -> Environment:
    points = np.array(points, dtype=float)
    numbers = np.ones(len(points), dtype=int) if numbers is None else np.array(numbers)
    n = len(points)
    return Environment(numbers, points, np.arange(1, n + 1), np.zeros(n, dtype=int))


def rotation(axis, fold: float) -> np.ndarray:
    axis = np.array(axis, dtype=float)
    return Rotation.from_rotvec(2 * np.pi / fold * axis / np.linalg.norm(axis)).as_matrix()


def mirror(normal) -> np.ndarray:
    return -rotation(normal, 2)


INVERSION = -np.eye(3)
PHI = (1 + math.sqrt(5)) / 2
Z, X, DIAGONAL = (0, 0, 1), (1, 0, 0), (1, 1, 1)

# Schoenflies symbol: generators and order.
POINT_GROUPS = {
    "C1": ([], 1),
    "Ci": ([INVERSION], 2),
    "Cs": ([mirror(Z)], 2),
    "S4": ([-rotation(Z, 4)], 4),
    "S6": ([rotation(Z, 3), INVERSION], 6),
    "S8": ([-rotation(Z, 8 / 5)], 8),
    "T": ([rotation(Z, 2), rotation(DIAGONAL, 3)], 12),
    "Td": ([-rotation(Z, 4), rotation(DIAGONAL, 3)], 24),
    "Th": ([rotation(Z, 2), rotation(DIAGONAL, 3), INVERSION], 24),
    "O": ([rotation(Z, 4), rotation(DIAGONAL, 3)], 24),
    "Oh": ([rotation(Z, 4), rotation(DIAGONAL, 3), INVERSION], 48),
    "I": ([rotation((0, 1, PHI), 5), rotation(DIAGONAL, 3)], 60),
    "Ih": ([rotation((0, 1, PHI), 5), rotation(DIAGONAL, 3), INVERSION], 120),
}
for k in (2, 3, 4, 5, 6, 7, 8, 12):
    POINT_GROUPS |= {
        f"C{k}": ([rotation(Z, k)], k),
        f"C{k}v": ([rotation(Z, k), mirror(X)], 2 * k),
        f"C{k}h": ([rotation(Z, k), mirror(Z)], 2 * k),
        f"D{k}": ([rotation(Z, k), rotation(X, 2)], 2 * k),
        f"D{k}h": ([rotation(Z, k), rotation(X, 2), mirror(Z)], 4 * k),
        f"D{k}d": ([mirror(Z) @ rotation(Z, 2 * k), rotation(X, 2)], 4 * k),
    }


def closure(generators) -> np.ndarray:
    """All products of the generators."""
    group = [np.eye(3)]
    for element in group:
        for generator in generators:
            product = generator @ element
            if all(np.abs(product - known).max() > 1e-6 for known in group):
                group.append(product)
    return np.array(group)


class TestPointGroup:
    def test_a_point_is_off_the_center_beyond_the_tolerance(self):
        point = np.array([[2e-5, 0.0, 0.0]])
        for tolerance, axis in ((1e-5, [1, 0, 0]), (3e-5, [0, 0, 1])):
            found = point_group(point, np.array([1]), tolerance)
            np.testing.assert_array_equal(found.axis, axis)

    @pytest.mark.parametrize("name", POINT_GROUPS)
    def test_generic_orbits(self, name):
        """Every group is found from orbits of three generic points, in any orientation."""
        generators, order = POINT_GROUPS[name]
        group = closure(generators)
        assert len(group) == order
        turn = Rotation.random(random_state=3).as_matrix()
        seeds = [(0.31, 0.47, 1.13), (0.93, -0.61, 0.29), (-0.2, 1.4, 0.6)]
        points = np.concatenate([group @ seed for seed in seeds]) @ turn.T
        numbers = np.repeat([1, 8, 9], order)
        found = point_group(points, numbers)
        assert found.order == order
        basis = found.invariants()
        # Each atom of a generic orbit may move anywhere, and the others follow.
        assert basis.shape == (9 * order, 9)
        np.testing.assert_allclose(basis.T @ basis, np.eye(9), atol=1e-12)
        for R, permutation in zip(found.matrices, found.permutations, strict=True):
            moved = np.zeros((3 * order, 3, 9))
            moved[permutation] = np.einsum("ij,njm->nim", R, basis.reshape(-1, 3, 9))
            np.testing.assert_allclose(moved.reshape(basis.shape), basis, atol=1e-12)

    @pytest.mark.parametrize(
        ("points", "order", "n_invariants"),
        [
            (TD, 24, 1),
            (np.concatenate([np.eye(3), -np.eye(3)]), 48, 1),
            (list(itertools.product((-1, 1), repeat=3)), 48, 1),
            ([(np.cos(a), np.sin(a), 0) for a in 2 * np.pi * np.arange(6) / 6], 24, 1),
            ([(np.cos(a), np.sin(a), 0) for a in 2 * np.pi * np.arange(5) / 5], 20, 1),
            ([(np.cos(a), np.sin(a), 0.2) for a in 2 * np.pi * np.arange(5) / 5], 10, 2),
            ([(1, 0, 0), (0.3, 1.2, 0), (-0.7, 0.5, 0)], 2, 6),
            ([(0, 0, 1.0)], math.inf, 1),
            ([(0, 0, 1.0), (0, 0, -1.0)], math.inf, 1),
            ([(0, 0, 1.0), (0, 0, -1.0), (0, 0, 2.0)], math.inf, 3),
            (S1, 1, 12),
            (S2, 1, 12),
            (S3, 1, 12),
            (GENERIC, 1, 12),
        ],
    )
    def test_special_positions(self, points, order, n_invariants):
        points = np.array(points, dtype=float)
        found = point_group(points, np.ones(len(points), dtype=int))
        assert found.order == order
        assert found.invariants().shape[1] == n_invariants

    def test_icosahedral_shells(self):
        vertices = np.array([(0, s, t * PHI) for s in (1, -1) for t in (1, -1)])
        vertices = np.concatenate([np.roll(vertices, shift, axis=1) for shift in range(3)])
        distance = np.linalg.norm(vertices[:, None] - vertices, axis=2)
        i, j = np.nonzero(np.abs(distance - 2) < 1e-9)
        fullerene = (2 * vertices[i] + vertices[j]) / 3
        assert (len(vertices), len(fullerene)) == (12, 60)
        for points, n_invariants in ((vertices, 1), (fullerene, 2)):
            found = point_group(points, np.full(len(points), 6))
            assert found.order == 120
            assert found.invariants().shape[1] == n_invariants

    def test_species_break_symmetry(self):
        assert point_group(TD, np.array([1, 1, 1, 9])).order == 6
        assert point_group(TD, np.array([1, 1, 9, 9])).order == 4
        assert point_group(TD, np.array([1, 1, 9, 17])).order == 2
        assert point_group(TD, np.array([1, 35, 9, 17])).order == 1

    def test_environments_of_crystals(self):
        for atoms, cutoff, order in [
            (bulk("Cu", cubic=True), 6.0, 48),
            (bulk("Fe", cubic=True), 5.5, 48),
            (bulk("Si", cubic=True), 6.5, 24),
            (bulk("Mg"), 5.5, 12),
            (bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382), 5.5, 6),
        ]:
            view = next(environment_views(soap(atoms, cutoff, 1, 1).jacobian(atoms), atoms, 0))
            away = np.linalg.norm(view.displacements, axis=1) > 0.1
            numbers = atoms.numbers[view.atoms[away]]
            assert point_group(view.displacements[away], numbers).order == order

    def test_tolerance(self):
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(4, 3))
        ones = np.ones(4, dtype=int)
        assert point_group(TD + 1e-6 * noise, ones).order == 24
        assert point_group(TD + 1e-3 * noise, ones).order == 1
        assert point_group(TD + 1e-3 * noise, ones, tolerance=1e-2).order == 24

    @settings(max_examples=50, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        n=st.integers(1, 20),
        bend=st.sampled_from([0.0, 1e-7, 1e-4, 1e-2, 1.0]),
        tolerance=st.sampled_from([1e-6, 1e-4, 1e-2]),
    )
    def test_any_points(self, seed, n, bend, tolerance):
        """Nearly collinear points too: a group that holds the identity."""
        rng = np.random.default_rng(seed)
        points = rng.choice([-2.0, -1.0, 1.0, 2.0], size=(n, 3)) * (bend, bend, 1)
        points[:, 2] += 0.1 * rng.permutation(n)
        points += 1e-3 * bend * rng.normal(size=(n, 3))
        assume(distinct(points, 0.05))
        found = point_group(points, rng.choice([1, 8], size=n), tolerance)
        assert (found.permutations == np.arange(n)).all(axis=1).any()
        basis = found.invariants()
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-9)

    def test_no_neighbor(self):
        nothing = point_group(np.empty((0, 3)), np.empty(0, dtype=int))
        assert nothing.order == math.inf
        assert nothing.invariants().shape == (0, 0)

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 100))
    def test_random_points_have_no_symmetry(self, seed, n):
        points = np.random.default_rng(seed).normal(size=(n, 3)) * 3
        assert point_group(points, np.ones(n, dtype=int)).order == (2 if n == 2 else 1)


class TestClassSums:
    @pytest.mark.parametrize(
        ("points", "ranks"),
        [
            (S1, (3, 8, 9)),
            (S2, (2, 8, 9)),
            (S3, (2, 8, 9)),
            (GENERIC, (1, 9, 9)),
            (TD, (1, 1, 1)),
        ],
    )
    def test_reference_environments(self, points, ranks):
        found = [resolved_rank(about_origin(points), nu, TOLERANCE) for nu in (1, 2, 3)]
        assert tuple(found) == ranks

    def test_prism_that_three_neighbors_do_not_resolve(self):
        found = [resolved_rank(prism(S3[:3], 0.4), nu, TOLERANCE) for nu in (2, 3)]
        assert found == [11, 17]

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 5), nu=st.integers(1, 3))
    def test_equal_brute_force(self, seed, n, nu):
        """Against sums over all ordered tuples, compared one by one."""
        rng = np.random.default_rng(seed)
        # Few distances and lattice directions: many equal keys.
        points = rng.choice([-1.0, 0.0, 1.0, 2.0], size=(n, 3))
        points = np.unique(points[np.abs(points).any(axis=1)], axis=0)
        assume(len(points))
        numbers = rng.choice([1, 8], size=len(points))
        expected = np.linalg.matrix_rank(brute_force(points, numbers, nu), tol=1e-8)
        assert resolved_rank(about_origin(points, numbers), nu, TOLERANCE) == expected

    def test_equal_up_to_the_tolerance(self):
        """Whatever the position relative to a grid of that spacing."""
        for shift in np.linspace(0, TOLERANCE, 7):
            labels = clusters(
                np.array([1.0, 1 + 0.6 * TOLERANCE, 1.1]) + shift, TOLERANCE, np.zeros(3, int)
            )
            assert labels.tolist() == [0, 0, 1]

    def test_too_large(self):
        points = np.random.default_rng(0).normal(size=(100, 3))
        assert class_sums(about_origin(points), 2, TOLERANCE).shape[1] == 300
        with pytest.raises(ValueError, match="100 neighbors depend on 1000000 tuples"):
            class_sums(about_origin(points), 3, TOLERANCE)


def prism(ring, z: float) -> Environment:
    ring = np.array(ring, dtype=float)[:, :2]
    rings = [np.column_stack([ring, np.full(3, height)]) for height in (z, -z)]
    points = np.concatenate([*rings, [(0, 0, 1.2)]])
    return about_origin(points, [1] * 6 + [8])


def brute_force(points: np.ndarray, numbers: np.ndarray, nu: int) -> np.ndarray:
    """Class sums by finite differences of distances and cosines, tuple by tuple."""
    n = len(points)

    def values(flat, t):
        x = flat.reshape(n, 3)
        r = np.linalg.norm(x, axis=1)
        cosines = [x[i] @ x[j] / r[i] / r[j] for i, j in itertools.combinations(t, 2)]
        return np.array([*r[list(t)], *cosines])

    h = 1e-5
    steps = h * np.eye(3 * n)
    classes: dict[tuple, np.ndarray] = {}
    for t in itertools.product(range(n), repeat=nu):
        key = (*numbers[list(t)], *np.rint(values(points.ravel(), t) * 1e6).astype(int))
        gradient = [
            (values(points.ravel() + e, t) - values(points.ravel() - e, t)) / (2 * h) for e in steps
        ]
        classes[key] = classes.get(key, 0) + np.array(gradient).T
    return np.concatenate(list(classes.values()))


class TestReferenceEnvironments:
    """The table of docs/causes."""

    @pytest.mark.parametrize(
        ("points", "expected"),
        [
            (TD, counts(symmetry=8)),
            (S1, counts(incompleteness=1)),
            (S2, counts(incompleteness=1)),
            (S3, counts(incompleteness=1)),
        ],
        ids=["Td", "S1", "S2", "S3"],
    )
    def test_counts(self, points, expected):
        found = analyze(around_carbon(points), reference(), scope="environment", causes=True)
        assert found.counts == expected
        assert (found.n_null, found.n_near_null) == (sum(expected.values()), 0)
        name = max(expected, key=lambda cause: expected[cause])
        n = min(6, found.n_null)
        assert found.causes == (name,) * n + (None,) * (6 - n)

    def test_several_species(self):
        atoms = around_carbon(S1, ["H", "H", "F", "Cl"])
        found = analyze(atoms, reference(species="1 9 17"), scope="environment", causes=True)
        assert found.counts == counts(incompleteness=1)

    @pytest.mark.parametrize(("l_max", "rank"), [(1, 3), (2, 5), (3, 7), (4, 8), (5, 9)])
    def test_truncation(self, l_max, rank):
        found = analyze(around_carbon(GENERIC), reference(l_max), scope="environment", causes=True)
        assert found.counts == counts(truncation=9 - rank)

    @pytest.mark.parametrize("off", [1e-3, 1e-2, 0.1])
    def test_a_geometry_near_s1_is_resolved(self, off):
        """A off the plane of B, B' and the centre: distances are as equal as before."""
        b, other, (x, _, z), c = S1
        atoms, descriptor = around_carbon([b, other, (x, off, z), c]), reference()
        view = next(environment_views(descriptor.jacobian(atoms), atoms, 0))
        found = predicted_nulls(view, atoms, descriptor)
        assert found == {"fragment": 0, "symmetry": 0, "incompleteness": 0}

    def test_all_causes_at_once(self):
        """Three environments out of each other's sight, seen with a small basis."""
        atoms = Atoms()
        for number, points in enumerate((GENERIC, S1, TD)):
            one = around_carbon(points)
            one.positions += 20.0 * number
            atoms += one
        found = analyze(atoms, reference(l_max=3), causes=True, k=None)
        assert (found.n_trivial, found.n_apart) == (18, 12)
        assert found.counts == counts(fragment=12, symmetry=8, incompleteness=1, truncation=2)
        causes = ["truncation"] * 2 + ["incompleteness"] + ["symmetry"] * 8 + [None] * 16
        assert list(found.causes) == causes
        # The vector that has a cause moves the atoms that the cause is about.
        weight = np.linalg.norm(found.modes.reshape(27, 3, -1), axis=2)
        np.testing.assert_allclose(weight[:11].argmax(axis=1), [0, 0, 1] + [2] * 8)
        np.testing.assert_allclose(weight[:11].max(axis=1), 1, atol=1e-6)
        flat = found.modes.reshape(27, -1)
        np.testing.assert_allclose(flat @ flat.T, np.eye(27), atol=1e-10)

    def test_pair_of_equal_features_is_not_singular(self):
        ring = [(1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7)]
        pair = [around_carbon([*ring, (s * -0.72, s * 0.96, 0.3)]) for s in (1, -1)]
        features = [reference().features(atoms)[0] for atoms in pair]
        np.testing.assert_allclose(*features, rtol=1e-12, atol=1e-12)
        for atoms in pair:
            found = analyze(atoms, reference(), scope="environment", causes=True)
            assert found.counts == counts()

    def test_fold_of_the_degenerate_line(self):
        def atoms(u):
            angles = [(np.pi, -3 * np.pi / 8), (np.pi / 5, -np.pi / 6), (-np.pi / 5, np.pi / 6)]
            return around_carbon(
                [
                    1.09 * np.array([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)])
                    for a, b in [*angles, (u, 0)]
                ]
            )

        at_fold = analyze(atoms(np.pi), reference(), scope="environment", causes=True)
        assert at_fold.counts == counts(incompleteness=1)
        beside = analyze(atoms(np.pi - 0.3), reference(), scope="environment", causes=True)
        assert beside.counts == counts()

    def test_order_four_does_not_resolve_the_prism(self):
        around = prism(S3[:3], 0.4)
        atoms = around_carbon(around.displacements, ["H"] * 6 + ["O"])
        big = reference(l_max=10, n_max=12, species="1 8")
        found = analyze(atoms, big, scope="environment", causes=True)
        assert found.counts == counts(incompleteness=7)


angle = st.floats(0.3, 2.8)
radius = st.floats(0.8, 1.6)
generic = st.tuples(radius, angle, st.floats(0, 2 * np.pi))


def spherical(r: float, theta: float, phi: float) -> np.ndarray:
    return r * np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])


def distinct(points, far: float = 0.5) -> bool:
    points = np.array(points)
    distance = np.linalg.norm(points[:, None] - points, axis=2) + 10 * np.eye(len(points))
    return distance.min() > far


class TestFamilies:
    """Degeneracies by construction, in any orientation: the three counts are known."""

    @staticmethod
    def check(points, expected, seed, symbols=None):
        turn = Rotation.random(random_state=seed).as_matrix()
        atoms = around_carbon(np.array(points) @ turn.T, symbols or "H" * len(points))
        found = analyze(atoms, reference(10, 12), scope="environment", center=0, causes=True)
        assert found.counts == expected
        assert found.n_null == sum(expected.values())

    @settings(max_examples=15, deadline=None)
    @given(
        half=st.floats(0.4, 1.2),
        r=radius,
        a=angle,
        ra=radius,
        c=angle,
        rc=radius,
        seed=st.integers(0, 99),
    )
    def test_s1(self, half, r, a, ra, c, rc, seed):
        """A in the plane of B, B' and the center; C in the plane across it."""
        b = [spherical(r, half, phi) for phi in (0, np.pi)]
        points = [*b, spherical(ra, a, 0), spherical(rc, c, np.pi / 2)]
        # Nearer coincidences than this would be degeneracies of their own.
        assume(distinct(points))
        assume(min(abs(ra - r), abs(rc - r), abs(rc - ra)) > 0.05)
        self.check(points, counts(incompleteness=1), seed)

    @settings(max_examples=15, deadline=None)
    @given(half=st.floats(0.4, 1.2), r=radius, a=generic, rc=radius, seed=st.integers(0, 99))
    def test_s2(self, half, r, a, rc, seed):
        """C on the axis of the pair B, B'; A anywhere else."""
        b = [spherical(r, half, phi) for phi in (0, np.pi)]
        points = [*b, spherical(*a), spherical(rc, 0, 0)]
        assume(distinct(points))
        assume(min(abs(rc - r), abs(a[0] - r), abs(a[0] - rc)) > 0.05)
        assume(min(abs(np.sin(a[2])), abs(np.cos(a[2]))) > 0.2)
        self.check(points, counts(incompleteness=1), seed)

    @settings(max_examples=15, deadline=None)
    @given(
        theta=st.floats(0.6, 1.3),
        r=st.floats(1.0, 1.6),
        gaps=st.lists(st.floats(1.0, 2.0), min_size=3, max_size=3),
        rc=radius,
        seed=st.integers(0, 99),
    )
    def test_s3(self, theta, r, gaps, rc, seed):
        """C on the axis of a scalene ring of three like neighbors."""
        assume(abs(rc - r) > 0.05)
        sides = sorted(gaps)
        assume(min(np.diff(sides)) > 0.1)
        phi = 2 * np.pi * np.cumsum(gaps) / np.sum(gaps)
        points = [*(spherical(r, theta, p) for p in phi), spherical(rc, 0, 0)]
        assume(distinct(points))
        self.check(points, counts(incompleteness=1), seed)

    @settings(max_examples=15, deadline=None)
    @given(points=st.lists(generic, min_size=2, max_size=5), seed=st.integers(0, 99))
    def test_generic(self, points, seed):
        radii = sorted(p[0] for p in points)
        assume(np.diff(radii).min() > 0.05)
        points = [spherical(*p) for p in points]
        assume(distinct(points))
        n = np.linalg.matrix_rank(points, tol=0.05)
        assume(n == min(3, len(points)))
        self.check(points, counts(), seed)

    @settings(max_examples=15, deadline=None)
    @given(
        k=st.integers(3, 7),
        r=st.floats(1.1, 1.6),
        z=st.sampled_from([0.0, 0.5]),
        seed=st.integers(0, 99),
    )
    def test_ring(self, k, r, z, seed):
        """D_kh or C_kv: all that breaks the symmetry is invisible."""
        points = [(r * np.cos(p), r * np.sin(p), z) for p in 2 * np.pi * np.arange(k) / k]
        n_invariant = 1 if z == 0 else 2
        self.check(points, counts(symmetry=3 * k - 3 - n_invariant), seed)

    @settings(max_examples=10, deadline=None)
    @given(
        k=st.integers(3, 5),
        r=st.floats(1.1, 1.4),
        z=st.floats(0.4, 0.9),
        twist=st.sampled_from([0.0, 0.5]),
        seed=st.integers(0, 99),
    )
    def test_prism(self, k, r, z, twist, seed):
        """D_kh, or D_kd with a twist; a cube or an octahedron would be Oh."""
        assume(k > 3 or abs(z * np.sqrt(2) - r) > 0.1)
        assume(k != 4 or abs(z * np.sqrt(2) - r) > 0.1)
        points = [
            (r * np.cos(p + t), r * np.sin(p + t), s * z)
            for s, t in ((1, 0.0), (-1, twist * 2 * np.pi / k))
            for p in 2 * np.pi * np.arange(k) / k
        ]
        self.check(points, counts(symmetry=6 * k - 3 - 2), seed)

    @settings(max_examples=10, deadline=None)
    @given(
        theta=st.floats(0.7, 1.2),
        gaps=st.permutations([1.0, 1.3, 1.75]),
        rc=st.floats(0.8, 1.2),
        seed=st.integers(0, 99),
    )
    def test_scalene_prism(self, theta, gaps, rc, seed):
        """B3: seven null vectors at nu = 2, one of them at nu = 3 too."""
        phi = 2 * np.pi * np.cumsum(gaps) / np.sum(gaps)
        rings = [spherical(1.4, t, p) for t in (theta, np.pi - theta) for p in phi]
        points = np.array([*rings, (0, 0, rc)])
        turn = Rotation.random(random_state=seed).as_matrix()
        points = points @ turn.T
        around = about_origin(points, [1] * 6 + [8])
        assert [resolved_rank(around, nu, TOLERANCE) for nu in (2, 3)] == [11, 17]
        atoms = around_carbon(points, ["H"] * 6 + ["O"])
        found = analyze(atoms, reference(10, 12, "1 8"), scope="environment", center=0, causes=True)
        assert found.counts == counts(incompleteness=7)


class TestTruncationFormula:
    @pytest.mark.parametrize("n", [3, 4, 5, 6])
    @pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
    def test_one_shell(self, n, seed):
        """rank = min(l_max, 2n - 3) + min(l_max + 1, n) for n like neighbors in one shell."""
        rng = np.random.default_rng(seed)
        while True:
            points = rng.normal(size=(n, 3))
            points /= np.linalg.norm(points, axis=1)[:, None]
            if distinct(points, 0.8):
                break
        for l_max in range(1, 11):
            found = analyze(
                around_carbon(points, "H" * n),
                reference(l_max, 10),
                scope="environment",
                center=0,
                causes=True,
            )
            rank = min(l_max, 2 * n - 3) + min(l_max + 1, n)
            assert found.counts == counts(truncation=3 * n - 3 - rank), (n, l_max)


def unexplained(atoms: Atoms, descriptor: QUIPDescriptor) -> tuple[dict[str, int], int]:
    """The counts, and how many values below 1e-6 of the largest have none of the harmless causes.

    The measured counts must be the predicted ones.
    """
    jacobian = descriptor.jacobian(atoms)
    view = structure_view(jacobian, atoms)
    found = spectrum(view)
    why = attribute(view, found, atoms, descriptor)
    small = found.singular_values <= 1e-6 * found.sigma_max
    left = sum(
        cause not in ("symmetry", "fragment")
        for cause, is_small in zip(why.causes, small, strict=True)
        if is_small
    )
    assert sum(why.counts.values()) == found.n_null + why.n_near_null
    predicted = predicted_nulls(view, atoms, descriptor)
    assert {cause: why.counts[cause] for cause in predicted} == predicted
    return why.counts, left


class TestStructures:
    @pytest.mark.slow
    def test_g2(self):
        total = 0
        for name in g2.names:
            atoms = molecule(name)
            if len(atoms) < 3:
                continue
            total += 1
            found, left = unexplained(atoms, soap(atoms, 8, 8, 8))
            assert left == found["incompleteness"] == found["truncation"] == 0, name
        assert total == 120

    @pytest.mark.slow
    def test_environments_of_g2(self):
        """Every center: the infinite basis is predicted, and 12 and 10 are nearly infinite."""
        for name in g2.names:
            atoms = molecule(name)
            if len(atoms) < 3:
                continue
            descriptor = soap(atoms, 4, 12, 10, "normalise=F")
            for view in environment_views(descriptor.jacobian(atoms), atoms, None):
                found = spectrum(view)
                why = attribute(view, found, atoms, descriptor)
                assert why.counts["truncation"] == 0
                predicted = predicted_nulls(view, atoms, descriptor)
                assert {cause: why.counts[cause] for cause in predicted} == predicted, name

    @pytest.mark.parametrize(
        "name", [name for name in s22.names if len(s22[name]) < 18], ids=lambda name: name[:20]
    )
    def test_s22(self, name):
        """Geometries with few decimals: near-null vectors are found with a larger tolerance."""
        atoms = s22[name]
        found = analyze(atoms, soap(atoms, 5, 8, 6), causes=True, k=None)
        assert found.counts["incompleteness"] == found.counts["truncation"] == 0
        assert sum(found.counts.values()) == found.n_null + found.n_near_null
        small = (found.singular_values < 1e-4 * found.sigma_max).sum()
        assert small == found.n_null + found.n_near_null

    @pytest.mark.parametrize(
        ("atoms", "n_symmetry"),
        [
            (bulk("Si", cubic=True) * 2, 103),
            (bulk("Cu", cubic=True) * 2, 75),
            (bulk("Fe", cubic=True) * 2, 39),
            (bulk("Mg") * 2, 25),
            (
                crystal(
                    ["Sr", "Ti", "O"],
                    [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
                    spacegroup=221,
                    cellpar=[3.905] * 3 + [90] * 3,
                ),
                12,
            ),
            (bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.382) * (2, 2, 1), 18),
        ],
        ids=["diamond", "fcc", "bcc", "hcp", "perovskite", "wurtzite"],
    )
    def test_crystals(self, atoms, n_symmetry):
        found, left = unexplained(atoms, soap(atoms))
        assert (found, left) == (counts(symmetry=n_symmetry), 0)

    def test_adsorbates(self):
        slab = fcc111("Cu", (2, 2, 2), vacuum=6)
        carbonyl, hydrogen = slab.copy(), slab.copy()
        add_adsorbate(carbonyl, molecule("CO"), 1.8, "ontop")
        add_adsorbate(hydrogen, "H", 1.2, "fcc")
        for atoms in (carbonyl, hydrogen):
            found, left = unexplained(atoms, soap(atoms))
            assert left == found["incompleteness"] == found["truncation"] == 0

    def test_neighbors_at_the_cutoff(self):
        """Rounding decides which of six equivalent neighbors are inside."""
        copper = bulk("Cu", cubic=True)
        found, left = unexplained(copper, soap(copper, copper.cell[0, 0]))
        assert (found, left) == (counts(symmetry=9), 0)


class Streaming:
    """A descriptor that gives its Jacobian in two pieces."""

    def __init__(self, descriptor: QUIPDescriptor) -> None:
        self.descriptor = descriptor
        self.species = descriptor.species
        self.cutoff = descriptor.cutoff
        self.body_order = descriptor.body_order
        self.features = descriptor.features
        self.jacobian = descriptor.jacobian

    def stream(self, atoms: Atoms) -> StreamedJacobian:
        whole = self.jacobian(atoms)
        n = len(whole.centers)
        return StreamedJacobian(
            whole.of_rows,
            [0, n // 2, n],
            n_atoms=len(atoms),
            cutoff=whole.cutoff,
            center_atoms=whole.center_atoms,
        )


class TestCauses:
    def test_halves_out_of_sight_are_fragments(self):
        """No center of hydrogen peroxide sees more than a bond angle: the torsion is free."""
        atoms = molecule("H2O2")
        found = analyze(atoms, soap(atoms, 1.6, 8, 6), causes=True)
        assert (found.n_trivial, found.n_null) == (6, 1)
        assert found.counts == counts(fragment=1)

    def test_rigid_motions_of_fragments_are_set_aside(self):
        atoms = rattled(molecule("CH3OH"))
        other = atoms.copy()
        other.positions += 30.0
        found = analyze(atoms + other, soap(atoms), causes=True)
        assert (found.n_trivial, found.n_null, found.n_apart) == (12, 0, 6)
        assert found.counts == counts(fragment=6)
        assert "6 of these move parts against each other" in str(found)

    def test_species_out_of_sight(self):
        atoms = isolated()
        blind = QUIPDescriptor("soap cutoff=4 n_max=8 l_max=6 atom_sigma=0.5", species=["C", "H"])
        assert analyze(atoms, blind, causes=True).counts == counts() | {"species": 3}

    def test_symmetry_that_only_the_descriptor_sees(self):
        """Not told apart, four species make a tetrahedron: the true force need not vanish."""
        atoms = around_carbon(TD, ["H", "F", "Cl", "Br"])
        blind = QUIPDescriptor("power_so3 cutoff=3 n_max=6 l_max=6")
        found = analyze(atoms, blind, scope="environment", center=0, causes=True)
        assert found.counts["symmetry"] == 0
        assert found.counts["incompleteness"] == found.n_null == 8

    def test_centers_left_out(self):
        atoms = around_carbon(S1)
        assert analyze(atoms, reference(), causes=True).counts == counts(incompleteness=1)
        assert analyze(atoms, soap(atoms, 3, 8, 8), causes=True).counts == counts()

    def test_rows_of_pairs(self):
        """Distances between H fix the tetrahedron and leave C free."""
        found = analyze(
            molecule("CH4"), QUIPDescriptor("distance_2b cutoff=4 Z1=1 Z2=1"), causes=True
        )
        assert found.counts == counts() | {"species": 3}

    def test_each_string_has_its_own_body_order(self):
        """The pair distances add nothing to what SOAP on C misses."""
        pairs = "distance_2b cutoff=3 Z1=6 Z2=1"
        both = QUIPDescriptor([pairs, *reference().specification])
        assert both.correlations == ((2, None), (3, ("H",)))
        found = analyze(around_carbon(S1), both, causes=True)
        assert found.counts == counts(incompleteness=1)

    def test_near_null(self):
        """A methyl rotation that the printed geometry breaks by 1e-6 Å."""
        found = analyze(molecule("C2H6"), soap(molecule("C2H6"), 8, 8, 8), causes=True)
        assert (found.n_null, found.n_near_null) == (0, 1)
        assert found.counts == counts(symmetry=1)
        assert found.causes[:2] == ("symmetry", None)

    @pytest.mark.parametrize("tolerance", [1e-5, 1e-4, 1e-3])
    def test_near_null_is_what_the_tolerance_says(self, tolerance):
        """Below 10 tolerance / Å of the largest; ammonia's value grows with the height of N."""
        atoms = molecule("NH3")
        atoms.positions[0, 2] = atoms.positions[1, 2] + 1e-5
        descriptor = soap(atoms, 4, 8)
        slope = analyze(atoms, descriptor).ratio / 1e-5
        for share, n_near_null in ((0.8, 1), (1.2, 0)):
            atoms.positions[0, 2] = atoms.positions[1, 2] + share * 10 * tolerance / slope
            found = analyze(atoms, descriptor, causes=True, tolerance=tolerance)
            assert found.ratio == pytest.approx(share * 10 * tolerance, rel=1e-2)
            assert (found.n_null, found.n_near_null) == (0, n_near_null)
            assert found.counts == counts(symmetry=n_near_null)

    def test_most_of_a_near_null_vector_decides(self):
        """The cause of more than half of it, and none if there is no such cause."""
        parts = np.eye(4)
        labels = ["fragment", "symmetry", "symmetry", None]
        shares = [(0.4, 0.6, 0, 0), (0.4, 0.3, 0.3, 0), (0.45, 0, 0, 0.55), (0.4, 0.4, 0, 0.2)]
        modes = np.sqrt(shares).T
        assert _majority(modes, parts, labels) == ["symmetry", "symmetry", None, None]

    @pytest.mark.parametrize("tolerance", [1e-4, 1e-2, 0.05])
    def test_a_loose_tolerance_explains_no_more(self, tolerance):
        """The mirror plane of ethanol does, nothing does where it is rattled: at any tolerance."""
        planar = molecule("CH3CH2OH")
        for atoms, symmetry in ((planar, 8), (rattled(planar, 0.1), 0)):
            descriptor = soap(atoms, 8)
            view = next(environment_views(descriptor.jacobian(atoms), atoms, 0))
            found = predicted_nulls(view, atoms, descriptor, tolerance=tolerance)
            assert found == {"fragment": 0, "symmetry": symmetry, "incompleteness": 0}

    @pytest.mark.parametrize("size", [1e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2])
    def test_broken_symmetry_is_no_incompleteness(self, size):
        """Some singular values grow as the square of what breaks the symmetry."""
        for name in ("CH4", "C6H6", "BF3"):
            atoms = rattled(molecule(name), size, seed=5)
            for center in range(len(atoms)):
                found = analyze(
                    atoms, soap(atoms, 8), scope="environment", center=center, causes=True
                )
                assert found.counts["symmetry"] == found.n_null + found.n_near_null

    @pytest.mark.parametrize(
        ("name", "center", "expected"), [("CO2", 0, 2), ("C6H6", 0, 1), ("CH4", 0, 0)]
    )
    def test_atom_scope(self, name, center, expected):
        atoms = molecule(name)
        found = analyze(atoms, soap(atoms, 8, 8, 8), scope="atom", center=center, causes=True)
        assert found.counts == counts(symmetry=expected)

    def test_atom_that_only_rotates_an_environment(self):
        atoms = molecule("CO")
        found = analyze(atoms, soap(atoms), scope="atom", center=0, causes=True)
        assert found.counts == counts(fragment=2)

    @pytest.mark.parametrize(
        ("name", "expected"), [("CH4", 8), ("C2H4", 9), ("CH3OH", 4), ("H2O2", 2), ("CO2", 3)]
    )
    def test_averaged(self, name, expected):
        """The group of the whole molecule counts, here also one with an atom at the centroid."""
        atoms = molecule(name)
        atoms.translate((1.0, 2.0, -3.0))
        found = analyze(atoms, soap(atoms, extra="average=T"), causes=True)
        assert found.counts == counts(symmetry=expected)
        moved = rattled(atoms, 0.1)
        assert analyze(moved, soap(atoms, extra="average=T"), causes=True).counts == counts()

    def test_averaged_over_centers_left_out(self):
        averaged = QUIPDescriptor(f"{reference().specification[0]} average=T")
        assert analyze(around_carbon(S1), averaged, causes=True).counts == counts(incompleteness=1)

    def test_averaged_crystal_has_a_space_group(self):
        """What the environments do not explain is not called incompleteness."""
        atoms = rattled(bulk("Si"), 0.1)
        double = atoms * (2, 1, 1)
        averaged = soap(double, 4, extra="average=T")
        found = analyze(double, averaged, causes=True, k=None)
        # The two copies can move against each other unseen.
        assert found.counts["unknown"] == found.n_null >= 6
        assert found.counts["incompleteness"] == found.counts["truncation"] == 0

    @pytest.mark.parametrize("scope", ["structure", "environment"])
    def test_streamed(self, scope):
        atoms = bulk("Si", cubic=True)
        whole = analyze(atoms, soap(atoms, 4), scope=scope, causes=True)
        pieces = analyze(atoms, Streaming(soap(atoms, 4)), scope=scope, causes=True)
        assert pieces.counts == whole.counts == counts(symmetry=whole.n_null)
        assert whole.n_null > 0

    def test_fixed_atoms(self):
        atoms = molecule("CH4")
        atoms.set_constraint(FixAtoms([0]))
        found = analyze(atoms, soap(atoms), causes=True, apply_constraints=True)
        assert (found.n_trivial, found.counts) == (3, counts(symmetry=2))

    def test_unknown_body_order(self):
        def coordination(atoms: Atoms) -> np.ndarray:
            return np.exp(-atoms.get_all_distances()).sum(axis=1)[:, None]

        descriptor = FiniteDifferenceDescriptor(coordination)
        found = analyze(molecule("CH4"), descriptor, causes=True, k=None)
        assert found.counts["symmetry"] == 2
        assert found.counts["unknown"] == found.n_null - 2 > 0
        assert "unknown" in found.summary()
        periodic = BOUNDARIES["periodic"]()
        with pytest.raises(ValueError, match="a finite cutoff and a finite reach"):
            analyze(
                periodic, FiniteDifferenceDescriptor(lambda a: a.get_positions() ** 0), causes=True
            )

    def test_silent_unless_asked(self):
        found = analyze(molecule("CH4"), soap(molecule("CH4")))
        assert found.counts is found.causes is found.n_near_null is None
        assert "because" not in found.summary()

    def test_summary_says_it(self):
        summary = analyze(molecule("CH4"), soap(molecule("CH4")), causes=True).summary()
        assert "2 because of symmetry: harmless" in summary
        assert "truncation" not in summary

    def test_round_trip(self, tmp_path):
        found = analyze(molecule("C2H6"), soap(molecule("C2H6"), 8), causes=True)
        write_json(tmp_path / "found.json", found)
        again = Sensitivity.fromdict(read_json(tmp_path / "found.json"))
        assert (again.counts, again.causes) == (found.counts, found.causes)
        assert str(again) == str(found)

    def test_values_do_not_change(self):
        atoms = molecule("C2H4")
        plain = analyze(atoms, soap(atoms))
        found = analyze(atoms, soap(atoms), causes=True)
        np.testing.assert_allclose(found.singular_values, plain.singular_values, atol=1e-12)
        assert (found.n_null, found.n_trivial) == (plain.n_null, plain.n_trivial)

    @pytest.mark.parametrize("tolerance", [0, -1e-3, 0.1, float("nan")])
    def test_tolerance_out_of_range(self, tolerance):
        with pytest.raises(ValueError, match="`tolerance`"):
            analyze(molecule("CH4"), soap(molecule("CH4")), causes=True, tolerance=tolerance)
