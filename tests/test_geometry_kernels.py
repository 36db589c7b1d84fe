"""Kernels behind exact geometries, against SciPy, group theory and finite differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from ase_sensitivity.geometry.operations import add_pull, diagonalize, fit
from ase_sensitivity.singular.averages import average, of_each
from ase_sensitivity.singular.conditions import conditions, gradients
from ase_sensitivity.singular.neighborhood import rotations

SEEDS = st.integers(0, 2**32 - 1)
UNTIMED = settings(deadline=None)  # the first call compiles


def fitted(points, images, near, best=False):
    pull, matrix = np.zeros((3, 3)), near.copy()
    for point, image in zip(points, images, strict=True):
        add_pull(point, image, pull)
    fit(pull, pull if best else matrix, matrix)
    return matrix


def near_to(matrix, rng):
    """A matrix of the same determinant, turned by 10°."""
    axis = rng.normal(size=3)
    return Rotation.from_rotvec(np.radians(10) * axis / np.linalg.norm(axis)).as_matrix() @ matrix


class TestFit:
    @UNTIMED
    @given(SEEDS, st.sampled_from([1.0, -1.0]), st.sampled_from([2, 3]), st.integers(3, 9))
    def test_an_exact_operation_is_found(self, seed, sign, n_dimensions, n):
        """Also from points in a plane, where the determinant decides."""
        rng = np.random.default_rng(seed)
        points = np.zeros((n, 3))
        points[:, :n_dimensions] = rng.normal(size=(n, n_dimensions))
        points = points @ Rotation.random(rng=rng).as_matrix()
        operation = sign * Rotation.random(rng=rng).as_matrix()
        found = fitted(points, points @ operation.T, near_to(operation, rng))
        np.testing.assert_allclose(points @ found.T, points @ operation.T, atol=1e-8)
        np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-13)
        assert np.linalg.det(found) == pytest.approx(sign)

    @UNTIMED
    @given(SEEDS)
    def test_the_best_fit_is_that_of_scipy(self, seed):
        rng = np.random.default_rng(seed)
        points, operation = rng.normal(size=(8, 3)), Rotation.random(rng=rng).as_matrix()
        images = points @ operation.T + 0.05 * rng.normal(size=(8, 3))
        expected = orthogonal_procrustes(images, points)[0]
        for best, start in ((False, near_to(operation, rng)), (True, np.eye(3))):
            np.testing.assert_allclose(fitted(points, images, start, best), expected, atol=1e-8)

    def test_what_points_on_a_line_do_not_tell_stays_as_it_is(self):
        points = np.array([(0, 0, 1.0), (0, 0, -1.3)])
        turned = Rotation.from_rotvec([0, 0, 0.7]).as_matrix()
        np.testing.assert_allclose(fitted(points, points, turned), turned, atol=1e-6)

    @UNTIMED
    @given(SEEDS, st.integers(1, 4))
    def test_eigenvectors_of_small_matrices(self, seed, n):
        rng = np.random.default_rng(seed)
        matrix, vectors = np.zeros((4, 4)), np.empty((4, 4))
        half = rng.normal(size=(n, rng.integers(1, n + 1)))
        matrix[:n, :n] = expected = half @ half.T
        diagonalize(matrix, vectors)
        np.testing.assert_allclose(np.sort(matrix.diagonal()[:n]), np.linalg.eigvalsh(expected),
                                   atol=1e-12)  # fmt: skip
        back = (vectors * matrix.diagonal()) @ vectors.T
        np.testing.assert_allclose(back[:n, :n], expected, atol=1e-12)

    def test_no_division_by_zero_where_numbers_underflow(self):
        matrix, vectors = np.eye(4), np.empty((4, 4))
        matrix[0, 1] = matrix[1, 0] = 1e-200
        matrix[2, 3] = matrix[3, 2] = 0.5
        diagonalize(matrix, vectors)
        np.testing.assert_allclose(sorted(matrix.diagonal()), [0.5, 1, 1, 1.5], rtol=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 6, 12, 5])
def test_averages_are_over_cyclic_groups(order):
    """Five powers do not close in twelve."""
    n, rng = order, np.random.default_rng(0)
    matrix = Rotation.from_rotvec([0, 0, 2 * np.pi / order]).as_matrix()
    taken = (np.arange(n) - 1) % n
    change, found = rng.normal(size=(n, 3)), np.empty((1, 1, n, 3))
    closed = np.empty(1, dtype=bool)
    of_each(matrix[None], taken[None], change[None, None], found, closed)
    assert closed[0] == (order != 5)
    if closed[0]:
        moved, total = change, np.zeros((n, 3))
        for _ in range(order):
            total, moved = total + moved, moved[taken] @ matrix.T
        np.testing.assert_allclose(found[0, 0], total / order, atol=1e-14)
        alone = np.empty((n, 3))
        assert average(matrix, taken, change, alone) == pytest.approx((found**2).sum())


@UNTIMED
@given(SEEDS, st.integers(1, 6))
def test_rotations_are_orthonormal_and_turn_points(seed, n):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2, n, 3))
    points[1] = np.outer(rng.normal(size=n) + 3, rng.normal(size=3))  # on a line
    for found, one, n_turns in zip(rotations(points), points, (3 if n > 1 else 2, 2), strict=True):
        gram = found.T @ found
        np.testing.assert_allclose(gram, np.diag(gram.diagonal().round()), atol=1e-10)
        assert round(gram.trace()) == n_turns
        turned = np.cross(rng.normal(size=3), one).ravel()
        np.testing.assert_allclose(found @ (found.T @ turned), turned, atol=1e-8)


class TestConditions:
    """Five neighbors and all their pairs, moved by seven coordinates."""

    n, d = 5, 7
    i, j = (array.astype(np.intp) for array in np.triu_indices(5, 1))

    def around(self, seed):
        rng = np.random.default_rng(seed)
        return rng.normal(size=(self.n, 3)), rng.normal(size=(self.n, 3, self.d)), rng

    def values(self, points, moves, u):
        moved = points + moves @ u
        r = np.linalg.norm(moved, axis=1)
        unit = moved / r[:, None]
        return r, (unit[self.i] * unit[self.j]).sum(axis=1)

    def test_derivatives_are_those_of_finite_differences(self):
        points, moves, rng = self.around(1)
        u, way, p = 0.1 * rng.normal(size=self.d), rng.normal(size=self.d), len(self.i)
        r, cosine = np.empty(self.n), np.empty(p)
        distances, along = np.empty((self.n, self.d)), np.empty((p, self.d))
        gradients(points, moves, self.i, self.j, u, r, cosine, distances, along)
        ahead, behind = (self.values(points, moves, u + h * way) for h in (1e-5, -1e-5))
        for value, known, found, a, b in zip(
            self.values(points, moves, u), (r, cosine), (distances, along), ahead, behind,
            strict=True,
        ):  # fmt: skip
            np.testing.assert_allclose(known, value, rtol=1e-14)
            slope = (a - b) / 2e-5
            assert np.abs(slope).min() > 1e-3
            np.testing.assert_allclose(found @ way, slope, rtol=1e-7)

    def test_sums_and_differences_of_classes(self):
        """Written out for each class."""
        points, moves, rng = self.around(2)
        n, d, p = self.n, self.d, len(self.i)
        shell, pair = rng.integers(0, 3, (2, n)), rng.integers(0, 4, (2, p))
        u = 0.1 * rng.normal(size=(2, 2, d))
        sums, changes, off = np.zeros((2, 2, n + 3 * p, d)), np.empty((2, n + p, d)), np.empty(
            (2, n + p)
        )  # fmt: skip
        conditions(points, moves, self.i, self.j, shell, pair, u, sums, changes, off)
        for g in range(2):
            for a in range(2):
                r, cosine, distances, along = (
                    np.empty(n), np.empty(p), np.empty((n, d)), np.empty((p, d))
                )  # fmt: skip
                gradients(points, moves, self.i, self.j, u[g, a], r, cosine, distances, along)
                expected = np.zeros_like(sums[g, a])
                for k in range(n):
                    expected[shell[g, k]] += distances[k]
                for q, label in enumerate(pair[g]):
                    first, second = sorted((self.i[q], self.j[q]), key=lambda k: shell[g, k])
                    alike = shell[g, first] == shell[g, second]
                    expected[n + label] += along[q]
                    expected[n + p + label] += distances[first]
                    expected[n + (1 if alike else 2) * p + label] += distances[second]
                np.testing.assert_allclose(sums[g, a], expected, atol=1e-13)
                if a:
                    continue
                values, derivatives = (
                    np.concatenate([r, cosine]),
                    np.concatenate([distances, along]),
                )
                label = np.concatenate([shell[g], 10 + pair[g]])
                for k in range(n + p):
                    own = label == label[k]
                    assert off[g, k] == pytest.approx(values[k] - values[own].mean(), abs=1e-13)
                    np.testing.assert_allclose(
                        changes[g, k], derivatives[k] - derivatives[own].mean(0), atol=1e-13
                    )
