"""Structures with the same features that are not the same."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from ase_sensitivity import SOAP, best_match, find_twin
from ase_sensitivity.auditing.reference import PAIRS, S1, around_carbon, line
from ase_sensitivity.singular.feature_map import FeatureMap
from tests.structures import rattled

CARBON = SOAP(["H"], 3.0, 8, 8, 0.3, 0.5, 0.0, normalise=False, centers=["C"])


def relative(atoms: Atoms) -> np.ndarray:
    return atoms.positions[1:] - atoms.positions[0]


@pytest.mark.parametrize("name", PAIRS)
def test_the_twin_is_the_known_one(name):
    atoms, expected = PAIRS[name]
    before = atoms.copy()
    result = find_twin(atoms, CARBON)
    assert result.found, result.message
    numbers = atoms.numbers[1:]
    own = best_match(numbers, relative(result.twin), numbers, relative(expected))
    assert own.rmsd < 1e-6
    # They are two structures, and the features are the same.
    known = best_match(numbers, relative(atoms), numbers, relative(expected))
    assert result.rmsd == pytest.approx(known.rmsd, abs=1e-6)
    assert result.rmsd > 0.1
    difference = CARBON.features(result.twin) - CARBON.features(atoms)
    size = np.linalg.norm(CARBON.features(atoms))
    assert np.linalg.norm(difference) / size == pytest.approx(result.feature_distance, abs=1e-15)
    assert result.feature_distance < 1e-8
    assert atoms == before


BOTH_WAYS = {
    "X+": PAIRS["X+/X-"],
    "X-": PAIRS["X+/X-"][::-1],
    "D(2.8)": (line(2.8), line(-2.8)),
    "D(-2.8)": (line(-2.8), line(2.8)),
}


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_twins_are_found_from_either_side_without_luck(name):
    atoms, expected = BOTH_WAYS[name]
    seed = 1
    numbers = atoms.numbers[1:]
    for soap in (CARBON, SOAP(["C", "H"], 4.0, 8, 6, centers=["C"])):
        result = find_twin(rotated(atoms, seed), soap, rng=seed, max_evaluations=600)
        assert result.found, result.message
        assert result.feature_distance < 1e-8
        own = best_match(numbers, relative(result.twin), numbers, relative(expected))
        assert own.rmsd < 1e-5


def rotated(atoms: Atoms, seed: int) -> Atoms:
    """In another orientation, the hydrogen atoms in another order."""
    rng = np.random.default_rng(seed)
    turned = atoms[[0, *(1 + rng.permutation(4))]]
    turned.rotate(360 * rng.random(), rng.normal(size=3))
    return turned


def test_half_turns_are_of_one_center():
    for scope, center in (("structure", None), ("environment", 0)):
        features = FeatureMap(PAIRS["X+/X-"][0], CARBON, scope, center)
        turned = list(features.half_turns())
        assert turned
        for guess in turned:
            moved = np.linalg.norm(guess - features.start.positions, axis=1)
            assert np.count_nonzero(moved > 1e-12) == 1
            lengths = np.linalg.norm(guess - guess[0], axis=1)
            start = features.start.positions
            np.testing.assert_allclose(lengths, np.linalg.norm(start - start[0], axis=1))
    several = FeatureMap(molecule("CH4"), SOAP(["C", "H"], 4.0, 4, 3), "structure", None)
    assert list(several.half_turns()) == []


def test_the_other_body_order_tells_twins_apart():
    atoms, expected = PAIRS["X+/X-"]
    fourth = SOAP(["H"], 3.0, 4, 3, 0.3, 0.5, 0.0, normalise=False, centers=["C"], body_order=4)
    features = [fourth.features(structure) for structure in (atoms, expected)]
    assert np.linalg.norm(features[1] - features[0]) > 1e-3 * np.linalg.norm(features[0])
    result = find_twin(atoms, fourth, n_starts=8)
    assert not result.found


def test_says_plainly_that_none_was_found():
    result = find_twin(molecule("NH3"), SOAP(["N", "H"], 4.0, 6, 4), n_starts=6)
    assert not result.found
    assert result.twin is None
    assert np.isnan(result.rmsd)
    assert result.n_starts == 6
    assert "no twin was found from 6 starts" in result.message
    assert "no twin" in repr(result)


def test_environment_scope_works_in_a_crystal_and_gives_clusters():
    # Two neighbors of body order 2 at different distances: every angle is a twin.
    wire = Atoms("CHF", [(0, 0, 0), (1.0, 0.3, 0), (-0.4, 1.2, 0.3)], cell=[20, 20, 20], pbc=True)
    blind = SOAP(["H", "F"], 3.0, 6, 0, centers=["C"], body_order=2)
    result = find_twin(wire, blind, scope="environment", center=0)
    assert result.found
    assert not result.twin.pbc.any()
    assert result.atoms.symbols[0] == result.twin.symbols[0] == "C"
    with pytest.raises(ValueError, match='scope="environment"'):
        find_twin(wire, blind)


def test_seeds_budget_and_progress():
    calls = []
    settings = {"n_starts": 4, "rng": 3, "callback": lambda *now: calls.append(now)}
    atoms = rattled(around_carbon(S1), 0.02)
    first = find_twin(atoms, CARBON, **settings)
    assert calls[0] == (1, 4)
    again = find_twin(atoms, CARBON, n_starts=4, rng=np.random.default_rng(3))
    assert again.n_evaluations == first.n_evaluations
    short = find_twin(atoms, CARBON, max_evaluations=2)
    assert short.n_starts < 4


def test_frames_can_be_written(tmp_path):
    result = find_twin(PAIRS["X+/X-"][0], CARBON)
    write(tmp_path / "pair.xyz", [result.atoms, result.twin])
    back = read(tmp_path / "pair.xyz", ":")
    assert back[1].info["rmsd"] == pytest.approx(result.rmsd, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n_starts": 0}, "`n_starts` is 0"),
        ({"tolerance": 0.0}, "`tolerance` is 0"),
        ({"min_distance": -1.0}, "`min_distance` is -1"),
        ({"scope": "atom"}, '"structure" or "environment"'),
        ({"tolerance": "a"}, "`tolerance` is 'a' but must be a number"),
        ({"max_evaluations": None}, "`max_evaluations` is None"),
    ],
)
def test_bad_arguments(settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        find_twin(PAIRS["X+/X-"][0], CARBON, **settings)


def test_features_that_see_nothing():
    with pytest.raises(ValueError, match="depends on the positions"):
        find_twin(Atoms("C"), SOAP(["C"], 3.0, 4, 2))
    with pytest.raises(ValueError, match="periodic"):
        find_twin(bulk("Si"), SOAP(["Si"], 3.0, 4, 2))
