"""Singular configurations from many starts."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import read, write

from ase_sensitivity import SOAP, analyze, find_singular
from ase_sensitivity.auditing.reference import S1, S2, S3
from tests.structures import TD

CARBON = SOAP(["H"], 3.0, 8, 8, 0.3, 0.5, 0.0, normalise=False, centers=["C"])


EXAMPLE = Path(__file__).parent.parent / "examples" / "singular_methane.py"
families = runpy.run_path(str(EXAMPLE))["families"]


def test_families_are_told():
    for name, points in (("S1", S1), ("S2", S2), ("S3", S3)):
        assert families(np.array(points)) == {name}
    assert families(np.random.default_rng(0).normal(size=(4, 3))) == set()


def test_configurations_are_singular_as_they_say():
    search = find_singular(
        molecule("CH4"), CARBON, cause="incompleteness", n_starts=5, n_walks=2, displacement=0.8
    )
    assert search.found
    assert search.n_walks == 10
    larger = SOAP(["H"], 3.0, 10, 10, 0.3, 0.5, 0.0, normalise=False, centers=["C"])
    for point in search.points:
        assert point.cause == point.atoms.info["cause"] == "incompleteness"
        here = analyze(point.atoms, CARBON)
        assert here.ratio <= 1e-5
        assert here.ratio == pytest.approx(point.ratio, rel=1e-3, abs=1e-9)
        # No larger basis sees it either.
        assert analyze(point.atoms, larger).ratio < 1e-4
        ends = [_moved(point.atoms, sign * 1e-4 * point.mode) for sign in (1, -1)]
        change = CARBON.features(ends[0]) - CARBON.features(ends[1])
        assert np.linalg.norm(change) / 2e-4 < 1e-4 * here.sigma_max
        assert point.atoms.get_all_distances()[np.triu_indices(5, 1)].min() > 0.6


@pytest.mark.slow
def test_known_families_are_found_from_twenty_random_starts():
    search = find_singular(
        molecule("CH4"), CARBON, cause="incompleteness", n_starts=20, n_walks=6, displacement=0.6
    )
    assert search.n_starts == 20
    assert search.n_successful >= 10
    found = [families(p.atoms.positions[1:] - p.atoms.positions[0]) for p in search.points]
    assert {"S1", "S2", "S3"} <= set().union(*found)


def _moved(atoms, displacement):
    moved = atoms.copy()
    moved.positions += displacement
    return moved


def test_other_causes_are_left_out_unless_wanted():
    settings = {"n_starts": 8, "n_walks": 1, "displacement": 0.5}
    every = find_singular(molecule("CH4"), CARBON, **settings)
    assert {point.cause for point in every.points} == set(every.causes)
    assert len(every.causes) > 1
    assert every.n_successful == every.n_arrived == sum(every.causes.values())
    for cause, count in every.causes.items():
        wanted = find_singular(molecule("CH4"), CARBON, cause=cause, **settings)
        assert {point.cause for point in wanted.points} == {cause}
        # A harmful configuration that is wanted is preferred to a nearer harmless one.
        assert wanted.n_successful == wanted.causes[cause] >= count
    none = find_singular(molecule("CH4"), CARBON, cause="fragment", **settings)
    assert not none.found
    assert none.message.startswith("0 different configurations singular by fragment from 0 of 8")


def test_duplicates_are_merged():
    # Small displacements of a tetrahedron lead back to it, turned, or next to it.
    atoms = molecule("CH4")
    atoms.positions[1:] = TD + atoms.positions[0]
    search = find_singular(atoms, CARBON, n_starts=6, n_walks=1, displacement=0.03)
    assert len(search.points) < 6
    assert search.n_duplicates == search.n_arrived - len(search.points)
    assert sum(point.count for point in search.points) == search.n_arrived
    fine = find_singular(atoms, CARBON, n_starts=6, n_walks=1, displacement=0.03, min_distance=1e-9)
    assert len(fine.points) > len(search.points)


def test_energy_ceiling(tmp_path):
    atoms = molecule("CH4")
    settings = {"n_starts": 5, "n_walks": 1, "displacement": 0.8, "calculator": EMT()}
    free = find_singular(atoms, CARBON, **settings)
    reference = atoms.copy()
    reference.calc = EMT()
    for point in free.points:
        same = point.atoms.copy()
        same.calc = EMT()
        above = same.get_potential_energy() - reference.get_potential_energy()
        assert point.energy == pytest.approx(above)
        assert point.atoms.get_potential_energy() == pytest.approx(same.get_potential_energy())
    energies = np.array([point.energy for point in free.points])
    assert energies.max() > 1.0
    low = find_singular(atoms, CARBON, energy_ceiling=1.0, **settings)
    assert low.found
    assert all(point.energy <= 1.0 for point in low.points)
    assert "above the energy ceiling" in low.message or low.n_too_high == 0
    none = find_singular(atoms, CARBON, energy_ceiling=-100.0, **settings)
    assert not none.found
    assert none.n_too_high == none.n_arrived > 0
    write(tmp_path / "found.xyz", [point.atoms for point in free.points])
    back = read(tmp_path / "found.xyz", ":")
    for frame, point in zip(back, free.points, strict=True):
        assert frame.info["cause"] == point.cause
        expected = point.atoms.get_potential_energy()
        assert frame.get_potential_energy() == pytest.approx(expected, abs=1e-6)


def test_environment_scope_seed_progress_and_budget():
    calls = []
    settings = {"scope": "environment", "center": 0, "n_starts": 2, "n_walks": 2, "rng": 5}
    search = find_singular(
        molecule("CH3OH"),
        SOAP(["C", "O", "H"], 1.9, 4, 3),
        callback=lambda *now: calls.append(now),
        **settings,
    )
    assert calls == [(1, 2), (2, 2)]
    assert search.n_walks == 4
    for point in search.points:
        assert point.atoms.symbols[0] == "C"
        assert len(point.atoms) == len(point.mode) == 5
    again = find_singular(molecule("CH3OH"), SOAP(["C", "O", "H"], 1.9, 4, 3), **settings)
    assert again.n_evaluations == search.n_evaluations
    short = find_singular(molecule("CH4"), CARBON, max_evaluations=1)
    assert short.n_walks == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cause": "bad luck"}, "`cause` is 'bad luck' but must be one of species"),
        ({"n_starts": 0}, "`n_starts` is 0"),
        ({"n_walks": 0}, "`n_walks` is 0"),
        ({"displacement": 0.0}, "`displacement` is 0"),
        ({"min_distance": 0.0}, "`min_distance` is 0"),
        ({"energy_ceiling": 1.0}, "needs a `calculator`"),
        ({"calculator": EMT(), "scope": "environment"}, 'needs scope="structure"'),
        ({"scope": "atom"}, '"structure" or "environment"'),
    ],
)
def test_bad_arguments(settings, words):
    with pytest.raises(ValueError, match=words):
        find_singular(molecule("CH4"), CARBON, **settings)
