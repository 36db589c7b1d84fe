"""Structures that many others look like, rows of pairs, and descriptors of whole structures."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.optimize import linear_sum_assignment
from scipy.stats import special_ortho_group

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor, QUIPDescriptor, find_pairs
from ase_sensitivity.auditing.reference import PAIRS, around_carbon
from ase_sensitivity.environments.place import Place
from ase_sensitivity.environments.row_sets import _row_set, row_sets
from tests.structures import rattled

PLUS, MINUS = PAIRS["X+/X-"]
RADIAL = SOAP(["H"], 3.0, 6, 0, atom_sigma=0.3, centers=["C"], body_order=2)
GAP = QUIPDescriptor(
    [
        "distance_2b cutoff=3 Z1=6 Z2=1",
        "angle_3b cutoff=3 Z=6 Z1=1 Z2=1",
        "soap cutoff=3 n_max=4 l_max=4 atom_sigma=0.3 Z=6 n_species=1 species_Z=1",
    ]
)


def labelled(atoms: Atoms, energy: float, forces: np.ndarray | None = None) -> Atoms:
    atoms = atoms.copy()
    results = {"energy": energy} if forces is None else {"energy": energy, "forces": forces}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def of_equal_lengths(n: int, seed: int = 0) -> list[Atoms]:
    """Carbon atoms with four neighbors anywhere at the same distances."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        directions = rng.normal(size=(4, 3))
        lengths = np.array([0.9, 1.0, 1.1, 1.2]) / np.linalg.norm(directions, axis=1)
        frames.append(around_carbon(directions * lengths[:, None]))
    return frames


def rotated(atoms: Atoms, seed: int) -> tuple[Atoms, np.ndarray]:
    R = special_ortho_group.rvs(3, random_state=seed)
    found = atoms.copy()
    found.set_cell(atoms.cell.array @ R.T)
    found.positions = atoms.positions @ R.T
    return found, R


def whole(pairs) -> list:
    return [pair for pair in pairs if pair.first.center is None]


def test_every_two_of_many_structures_are_a_pair_worst_first() -> None:
    energies = np.random.default_rng(1).normal(size=6)
    frames = [labelled(a, e) for a, e in zip(of_equal_lengths(6), energies, strict=True)]
    found = find_pairs(frames, RADIAL)
    pairs = whole(found.degenerate)
    ends = {frozenset((p.first.frame, p.second.frame)) for p in pairs}
    assert ends == set(map(frozenset, combinations(range(6), 2)))
    differences = [pair.energy_difference for pair in pairs]
    assert differences == sorted(differences, reverse=True)
    assert differences[0] == pytest.approx(np.ptp(energies) / 5)
    assert all(pair.match > found.delta for pair in pairs)
    assert f"energies {differences[0]:.3g} eV per atom apart" in found.summary()


def test_a_bounded_list_has_the_worst_contradiction() -> None:
    energies = np.random.default_rng(2).normal(size=12)
    frames = [labelled(a, e) for a, e in zip(of_equal_lengths(12), energies, strict=True)]
    found = find_pairs(frames, RADIAL, max_pairs=10)
    pairs = whole(found.degenerate)
    wanted = sorted((abs(a - b) / 5 for a, b in combinations(energies, 2)), reverse=True)[:10]
    assert [pair.energy_difference for pair in pairs] == pytest.approx(wanted)
    assert not found.complete


def test_copies_do_not_hide_the_worst_contradiction() -> None:
    """Of copies with different energies, that counts which is farthest from the others."""
    one, other = of_equal_lengths(2)
    frames = [labelled(a, e) for a, e in ((one, 0.0), (one, -1.0), (other, 1.0), (one, 0.5))]
    found = find_pairs(frames, RADIAL)
    (pair,) = whole(found.degenerate)
    assert (pair.first.frame, pair.second.frame) == (1, 2)
    assert pair.energy_difference == pytest.approx(0.4)
    energies = [(c.first.frame, c.second.frame) for c in found.conflicts]
    assert energies == [(1, 3), (0, 1), (0, 3)]  # the first one is neither the lowest nor highest
    assert found.conflicts[0].difference == pytest.approx(0.3)


def test_structures_without_energies_are_all_pairs() -> None:
    frames = of_equal_lengths(4)
    frames[2] = labelled(frames[2], 1.0)
    assert len(whole(find_pairs(frames, RADIAL).degenerate)) == 6


def test_rows_are_compared_as_sets() -> None:
    """Distances of two environments are never larger than those in the best match of their rows."""
    rng = np.random.default_rng(0)
    atoms = rattled(PLUS, 0.3)
    other = atoms.copy()
    other.positions += rng.normal(scale=1e-3, size=(5, 3))
    other = other[[0, 3, 1, 4, 2]]
    (_, (a, *_)), (_, (b, *_)) = (row_sets(GAP, frame) for frame in (atoms, other))
    assert a.shape == b.shape == ((4, 1), (12, 3), (1, a.shape[2][1]))
    wanted = 0.0
    for mine, theirs in zip(GAP.jacobian(atoms).parts, GAP.jacobian(other).parts, strict=True):
        x, y = (part.features[part.centers == 0] for part in (mine, theirs))
        costs = ((x[:, None] - y) ** 2).sum(axis=2)
        wanted += costs[linear_sum_assignment(costs)].sum()
    assert a.distance(b) == pytest.approx(np.sqrt(wanted), rel=1e-12)
    assert np.linalg.norm(a.vector - b.vector) <= a.distance(b) * (1 + 1e-12)
    assert np.linalg.norm(a.vector - b.vector) > 0.1 * a.distance(b)


@pytest.mark.parametrize("n_rows", [2, 3, 4])
def test_rows_have_no_order(n_rows: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n_rows, 3))
    one, other = _row_set([rows]), _row_set([rows[::-1]])
    np.testing.assert_allclose(one.vector, other.vector, atol=1e-14)
    assert one.distance(other) == 0.0
    assert one.norm == pytest.approx(np.linalg.norm(rows))


def test_a_gap_of_pairs_triplets_and_soap() -> None:
    """Twins that its many rows do not tell apart, and copies in another order."""
    again = rotated(PLUS, 3)[0][[0, 4, 2, 1, 3]]
    forces = np.random.default_rng(0).normal(size=(5, 3))
    frames = [
        labelled(PLUS, 0.0, forces),
        labelled(MINUS, 1.0, forces),
        labelled(again, 0.0, forces),
        labelled(rattled(PLUS, 0.1), 0.0, forces),
    ]
    found = find_pairs(frames, GAP)
    assert [(p.first.frame, p.second.frame) for p in whole(found.degenerate)] == [(0, 1)]
    assert [(p.first.frame, p.second.frame) for p in whole(found.duplicates)] == [(0, 2)]
    carbon = [p for p in found.degenerate if p.first == Place(0, 0)]
    assert [p.second for p in carbon] == [Place(1, 0)]
    assert {c.quantity for c in found.conflicts} == {"force"}
    assert found.bound.joint_force_error > found.bound.irreducible_force_error + 0.1


def test_atoms_that_are_no_centers_have_labels() -> None:
    again, R = rotated(PLUS, 5)
    forces = np.random.default_rng(0).normal(size=(5, 3))
    soap = SOAP(["H"], 3.0, 4, 4, centers=["C"])
    frames = [labelled(PLUS, 0.0, forces), labelled(again, 0.0, forces @ R.T)]
    assert find_pairs(frames, soap).conflicts == []
    forces[3] *= -1
    (conflict,) = find_pairs([frames[0], labelled(again, 0.0, forces @ R.T)], soap).conflicts
    assert (conflict.first, conflict.second) == (Place(0, 3), Place(1, 3))
    assert conflict.difference == pytest.approx(2 * np.linalg.norm(forces[3]))


def test_atoms_of_crystals_that_are_no_centers_have_labels() -> None:
    atoms = rattled(bulk("SiC", "zincblende", a=4.36, cubic=True), 0.1)
    again, R = rotated(atoms, 5)
    forces = np.random.default_rng(0).normal(size=(8, 3))
    soap = SOAP(["Si", "C"], 2.5, 3, 3, centers=["Si"])
    frames = [labelled(atoms, 0.0, forces), labelled(again, 0.0, forces @ R.T)]
    assert find_pairs(frames, soap).conflicts == []
    carbon = int(np.flatnonzero(atoms.symbols == "C")[2])
    forces[carbon] *= -1
    (conflict,) = find_pairs([frames[0], labelled(again, 0.0, forces @ R.T)], soap).conflicts
    assert (conflict.first, conflict.second) == (Place(0, carbon), Place(1, carbon))
    assert conflict.difference == pytest.approx(2 * np.linalg.norm(forces[carbon]))


def test_the_two_copies_that_differ_most_are_told() -> None:
    """And every further one with the first."""
    energies = (0.0, -1.0, 2.0, 0.5)
    found = find_pairs([labelled(PLUS, energy) for energy in energies], SOAP(["C", "H"], 3.0, 3, 3))
    told = [(one.first.frame, one.second.frame) for one in found.conflicts]
    expected = {(0, 1): 1.0, (0, 2): 2.0, (0, 3): 0.5, (1, 2): 3.0}
    assert sorted(map(tuple, map(sorted, told))) == sorted(expected)
    assert [one.difference for one in found.conflicts] == pytest.approx(
        sorted((difference / 5 for difference in expected.values()), reverse=True)
    )


def per_atom(atoms: Atoms) -> np.ndarray:
    """Coordination numbers without a cutoff that anybody knows."""
    i, d = neighbor_list_of(atoms)
    found = np.zeros((len(atoms), 2))
    np.add.at(found, i, np.column_stack([np.exp(-d), np.exp(-(d**2))]) * (1 - d / 5)[:, None] ** 2)
    return found


def neighbor_list_of(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    from ase.neighborlist import neighbor_list

    return neighbor_list("id", atoms, 5.0)


def average(atoms: Atoms) -> np.ndarray:
    return per_atom(atoms).mean(axis=0)[None]


@pytest.mark.parametrize(("function", "bound"), [(per_atom, False), (average, True)])
def test_any_descriptor_of_a_periodic_structure(function, bound: bool) -> None:
    """Copies and labels need no descriptor: they are told apart by their structure."""
    cell = rattled(bulk("Cu", cubic=True), 0.1)
    again, R = rotated(cell, 1)
    other = rattled(bulk("Cu", cubic=True), 0.1, 7)
    forces = np.random.default_rng(0).normal(size=(4, 3))
    wrong = forces.copy()
    wrong[2] += (0.5, 0, 0)
    frames = [
        labelled(cell, 0.0, forces),
        labelled(other, 0.0, forces),
        labelled(again, 0.4, wrong @ R.T),
    ]
    found = find_pairs(frames, FiniteDifferenceDescriptor(function), bound=bound)
    assert [(p.first, p.second) for p in found.duplicates] == [(Place(0, None), Place(2, None))]
    assert found.degenerate == []
    force, energy = found.conflicts
    assert (force.first, force.second) == (Place(0, 2), Place(2, 2))
    assert force.difference == pytest.approx(0.5)
    assert energy.difference == pytest.approx(0.1)
    assert (found.bound is not None) == bound


def test_features_of_whole_structures_and_of_centers_at_once() -> None:
    both = QUIPDescriptor(
        [
            "soap cutoff=3 n_max=3 l_max=3 atom_sigma=0.3 Z=6 n_species=1 species_Z=1",
            "soap cutoff=3 n_max=3 l_max=3 atom_sigma=0.3 Z=6 n_species=1 species_Z=1 average=T",
        ]
    )
    found = find_pairs([PLUS, MINUS, rotated(PLUS, 2)[0]], both)
    assert [(p.first, p.second) for p in found.degenerate] == [(Place(0, None), Place(1, None))]
    assert [(p.first, p.second) for p in found.duplicates] == [(Place(0, None), Place(2, None))]


def test_frames_without_any_feature_can_be_copies() -> None:
    """Nothing is no feature that they have in common."""
    water = molecule("H2O")
    soap = SOAP(["C", "H"], 3.0, 4, 4, centers=["C"])
    frames = [PLUS, water, rattled(water, 0.2), rotated(water, 1)[0], molecule("O2")]
    found = find_pairs(frames, soap)
    assert [(p.first, p.second) for p in found.duplicates] == [(Place(1, None), Place(3, None))]
    assert found.degenerate == []
    with pytest.raises(ValueError, match="no atom is a center"):
        find_pairs([water], soap)
