"""Modes of multiple singular values are a choice: it is the same whatever rounding does."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_sensitivity import SOAP, analyze, singularity_distance
from ase_sensitivity.geometry.matching import best_match
from ase_sensitivity.linalg.canonical import canonical, multiplets
from tests.structures import rattled

SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(0, 2**32 - 1))
def test_any_basis_of_a_multiplet_gives_the_same_modes(sizes, seed):
    rng = np.random.default_rng(seed)
    n = sum(sizes) + 3
    modes = np.linalg.qr(rng.normal(size=(n, sum(sizes))))[0]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    turns = [np.linalg.qr(rng.normal(size=(size, size)))[0] for size in sizes]
    chosen = canonical(modes, groups)
    np.testing.assert_allclose(chosen.T @ chosen, np.eye(len(groups)), atol=1e-12)
    for group in range(len(sizes)):
        before, after = modes[:, groups == group], chosen[:, groups == group]
        np.testing.assert_allclose(before @ before.T, after @ after.T, atol=1e-12)
    other = canonical(modes @ scipy.linalg.block_diag(*turns), groups)
    np.testing.assert_allclose(other, chosen, atol=1e-9)


def test_ties_are_decided_by_order():
    """A pair of modes that have equal weights in many coordinates, as those of symmetric atoms."""
    angles = 2 * np.pi * np.arange(6) / 6
    pair = np.column_stack([np.cos(angles), np.sin(angles)]) / np.sqrt(3)
    for angle in np.linspace(0, 6, 50):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(canonical(pair @ turn, np.zeros(2, int)), pair, atol=1e-12)


def test_multiplets():
    values = np.array([0.0, 1e-13, 1e-3, 1e-3 * (1 + 1e-9), 2e-3, 0.5, 0.5])
    assert multiplets(values, 1e-12).tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert multiplets(values, 0.0).tolist() == [0, 1, 2, 2, 3, 4, 4]
    assert multiplets(np.empty(0), 1.0).tolist() == []


def rounded_otherwise(atoms: Atoms, seed: int) -> Atoms:
    """The structure with errors of rounding in its coordinates."""
    other = atoms.copy()
    other.positions += 1e-15 * np.random.default_rng(seed).normal(size=other.positions.shape)
    return other


MULTIPLE = {
    "methane": (molecule("CH4"), {}),
    "benzene": (molecule("C6H6"), {}),
    "ammonia": (molecule("NH3"), {}),
    "silicon": (bulk("Si", cubic=True), {}),
    "C60": (molecule("C60"), {}),
    "an environment": (bulk("Si", cubic=True), {"scope": "environment", "center": 0}),
}


@pytest.mark.parametrize("name", MULTIPLE)
@pytest.mark.parametrize("k", [1, 3, None])
def test_modes_do_not_depend_on_rounding(name, k):
    atoms, where = MULTIPLE[name]
    soap = SOAP(sorted(set(atoms.get_chemical_symbols())), 4.0, 4, 3)
    found = [
        analyze(rounded_otherwise(atoms, seed), soap, k=k, causes=name != "C60", **where)
        for seed in range(3)
    ]
    for other in found[1:]:
        # A few modes of large structures come from an iteration.
        np.testing.assert_allclose(other.modes, found[0].modes, atol=1e-5)
        assert other.worst_atom == found[0].worst_atom
        assert other.causes == found[0].causes


def test_the_first_modes_do_not_depend_on_how_many_are_asked_for():
    """Also where the last one is one of several with the same value."""
    atoms = rattled(molecule("C60"), 0.0)
    soap = SOAP(["C"], 4.0, 4, 3)
    everything = analyze(atoms, soap, k=None)
    for k in range(1, 8):
        few = analyze(atoms, soap, k=k)
        np.testing.assert_allclose(few.modes, everything.modes[:k], atol=1e-6)


def test_distances_do_not_depend_on_rounding():
    atoms = molecule("NH3")  # its two smallest singular values are equal
    soap = SOAP(["H", "N"], 4.0, 8, 6)
    first, *others = (singularity_distance(rounded_otherwise(atoms, n), soap) for n in range(4))
    np.testing.assert_allclose(others, first, rtol=1e-5)


def test_a_match_does_not_depend_on_rounding():
    """Points with three equal moments of inertia, too many to try all permutations."""
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    numbers = np.ones(8, dtype=int)
    far = corners + 0.3 * np.random.default_rng(0).normal(size=corners.shape)
    found = []
    for seed in range(5):
        noise = 1e-15 * np.random.default_rng(seed).normal(size=corners.shape)
        found.append(best_match(numbers, corners + noise, numbers, far).rmsd)
    np.testing.assert_allclose(found, found[0], rtol=1e-9)
