"""The best match of two sets of points."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from scipy.stats import ortho_group

from ase_sensitivity import best_match
from ase_sensitivity.auditing.reference import S1
from tests.structures import TD


def disguised(numbers, points, seed: int):
    """The same points turned or mirrored, in another order; the order and the matrix."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(points))
    matrix = ortho_group.rvs(3, random_state=rng)
    return numbers[order], (points @ matrix.T)[order], order, matrix


@pytest.mark.parametrize("name", ["H2O", "CO2", "N2", "C2H6", "CH3CH2OH", "C6H6", "isobutane"])
@pytest.mark.parametrize("seed", range(4))
def test_disguised_molecules_match_exactly(name, seed):
    atoms = molecule(name)
    points = atoms.positions - atoms.positions.mean(axis=0)
    numbers, moved, _, _ = disguised(atoms.numbers, points, seed)
    match = best_match(atoms.numbers, points, numbers, moved)
    assert match.maximum < 1e-9
    assert match.exact
    np.testing.assert_allclose(points @ match.rotation.T, moved[match.permutation], atol=1e-9)
    np.testing.assert_array_equal(numbers[match.permutation], atoms.numbers)
    assert sorted(match.permutation) == list(range(len(points)))


@pytest.mark.parametrize("n", [5, 9, 25])
@pytest.mark.parametrize("noise", [1e-6, 0.02, 0.1])
def test_displaced_points_match_at_least_as_well_as_they_were_displaced(n, noise):
    rng = np.random.default_rng(n)
    points, numbers = rng.normal(size=(n, 3)), np.repeat([1, 6], [n - n // 3, n // 3])
    displaced = points + noise * rng.normal(size=points.shape)
    permuted, moved, order, matrix = disguised(numbers, displaced, n)
    match = best_match(numbers, points, permuted, moved)
    known = np.sqrt(((moved - (points @ matrix.T)[order]) ** 2).sum(axis=1).mean())
    assert 0.3 * known < match.rmsd <= known
    distance = np.linalg.norm(points @ match.rotation.T - moved[match.permutation], axis=1)
    assert match.maximum == pytest.approx(distance.max())
    assert match.rmsd == pytest.approx(np.sqrt((distance**2).mean()))
    np.testing.assert_allclose(match.rotation @ match.rotation.T, np.eye(3), atol=1e-12)


def test_known_distance_with_the_same_distances_from_the_origin():
    # Two like points at right angles against two at 120 degrees: each is 15 degrees off.
    a = np.array([(1.0, 0, 0), (0, 1, 0)])
    b = np.array([(1.0, 0, 0), (-0.5, np.sqrt(0.75), 0)])
    match = best_match(np.ones(2, int), a, np.ones(2, int), b)
    assert match.exact
    assert match.rmsd == pytest.approx(2 * np.sin(np.radians(7.5)))


def test_handedness_and_species_are_told_apart_as_they_should():
    numbers = np.array([1, 9, 17, 35])
    mirrored = TD * [1, 1, -1]
    assert best_match(numbers, TD, numbers, mirrored).rmsd < 1e-9  # a mirror image is the same
    assert best_match(numbers, TD, numbers[::-1], TD).rmsd < 1e-9  # for a regular tetrahedron
    points = np.array(S1)
    swapped = best_match(np.array([1, 1, 9, 17]), points, np.array([9, 1, 1, 17]), points)
    assert swapped.exact
    assert swapped.rmsd > 0.1
    other = best_match(np.array([1, 1, 9, 17]), points, np.array([1, 1, 9, 9]), points)
    assert other.rmsd == np.inf
    assert len(other.permutation) == 0


def test_an_upper_bound_says_so():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 12, 3))
    numbers = np.ones(12, int)
    match = best_match(numbers, a, numbers, b)
    assert not match.exact
    # No distance can be smaller than that of the sorted distances from the origin.
    r, s = (np.sort(np.linalg.norm(points, axis=1)) for points in (a, b))
    assert match.rmsd > np.sqrt(((r - s) ** 2).mean())
    back = best_match(numbers, b, numbers, a)
    assert match.rmsd == pytest.approx(back.rmsd, rel=0.2)


def test_points_on_a_line_and_at_the_origin():
    line = np.array([(0, 0, -1.2), (0, 0, 0), (0, 0, 1.1)])
    numbers, moved, _, _ = disguised(np.array([8, 6, 8]), line, 1)
    assert best_match(np.array([8, 6, 8]), line, numbers, moved).rmsd < 1e-9
    many = np.outer(np.linspace(-2, 3, 9), [0, 0, 1.0])
    numbers, moved, _, _ = disguised(np.ones(9, int), many, 2)
    assert best_match(np.ones(9, int), many, numbers, moved).rmsd < 1e-9
    nothing = np.zeros((7, 3))
    assert best_match(np.ones(7, int), nothing, np.ones(7, int), nothing).rmsd == 0
    assert best_match(np.ones(0, int), nothing[:0], np.ones(0, int), nothing[:0]).rmsd == 0
