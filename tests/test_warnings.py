"""The default warning: near what is spurious, and not near what is benign."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import SOAP, analyze
from ase_sensitivity.auditing.reference import GENERIC, S1, S2, S3, around_carbon
from ase_sensitivity.singular.monitor import Monitor

WITHIN = 0.1
SPURIOUS = ("incompleteness", "truncation")
SEEDS = range(12)


class Observed:
    """The descriptor of a run, and what watches it."""

    def __init__(self, soap):
        self.soap = soap
        self.watch = Monitor(soap, scope="structure", within=WITHIN)

    def __call__(self, atoms):
        return self.watch.diagnose(atoms, analyze(atoms, self.soap, k=3))


def warns(diagnosis):
    return diagnosis.cause in SPURIOUS and diagnosis.distance <= WITHIN


def shifted(atoms, size, seed):
    """In a random direction; the size is the length in all coordinates together."""
    shift = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    moved = atoms.copy()
    moved.positions += size / np.linalg.norm(shift) * shift
    return moved


def sizes():
    return np.linspace(0.01, 0.1, len(SEEDS))


def n_detected(atoms, soap):
    near = [shifted(atoms, size, seed) for seed, size in zip(SEEDS, sizes(), strict=True)]
    return sum(warns(Observed(soap)(at)) for at in near)


def on_carbon(l_max=6, atom_sigma=0.5, **settings):
    return SOAP(["H"], 4.0, 8, l_max, atom_sigma, centers=["C"], **settings)


class TestPlanted:
    @pytest.mark.parametrize("points", [S1, S2, S3], ids=["S1", "S2", "S3"])
    @pytest.mark.parametrize("atom_sigma", [0.3, 0.5])
    def test_incompleteness(self, points, atom_sigma):
        at, soap = around_carbon(points), on_carbon(atom_sigma=atom_sigma)
        counts = analyze(at, soap, causes=True).counts
        assert counts["incompleteness"] == sum(counts.values()) == 1
        assert n_detected(at, soap) >= 11

    @pytest.mark.parametrize("l_max", [3, 4])
    def test_truncation(self, l_max):
        """Too few l: blind in some direction everywhere near."""
        assert n_detected(around_carbon(GENERIC), on_carbon(l_max)) >= 11

    def test_small_basis(self):
        """Found by walks in a small basis; a larger one sees everything there."""
        soap = SOAP(["H"], 4.0, 2, 2, 0.3, centers=["C"])
        at = small_basis_is_singular()
        assert analyze(at, soap, k=1).ratio < 1e-5
        assert analyze(at, on_carbon(8, 0.3), k=1).ratio > 1e-3
        assert n_detected(at, soap) >= 11

    def test_low_body_order(self):
        """Two of the atoms equally far from one of three that see all others, or in their plane."""
        triangle = np.array([(0.0, 0.0, 0.0), (1.3, 0.0, 0.0), (0.3, 1.1, 0.0)])
        tie = np.array([(-0.4, 0.5, 1.0), (0.9, 0.6, -1.2)])
        tie[1] *= np.linalg.norm(tie[0]) / np.linalg.norm(tie[1])
        plane = np.array([(1.5, 1.2, 0.0), (0.2, 0.4, 1.3)])
        soap = SOAP(["N", "O"], 5.0, 10, 0, 0.3, centers=["N"], body_order=2)
        for others in (tie, plane):
            at = Atoms("N3O2", np.concatenate([triangle, others]))
            counts = analyze(at, soap, causes=True).counts
            assert counts["incompleteness"] == sum(counts.values()) == 1
            assert n_detected(at, soap) >= 11
            full = SOAP(["N", "O"], 5.0, 8, 6)
            assert not any(warns(Observed(full)(shifted(at, 0.05, seed))) for seed in SEEDS)

    @pytest.mark.parametrize("points", [S1, S2], ids=["S1", "S2"])
    @pytest.mark.parametrize("seed", range(4))
    def test_in_a_run(self, points, seed):
        """What an earlier call has found out does not hide what comes nearer."""
        goal, soap = around_carbon(points), on_carbon(atom_sigma=0.3)
        watch = Observed(soap)
        far = shifted(goal, 0.6, seed).positions - goal.positions
        warned = False
        for share in np.linspace(1, 0.05, 15):
            at = goal.copy()
            at.positions += share * far
            warned = warns(watch(at))
        assert warned


def small_basis_is_singular():
    from ase_sensitivity import nearest_singular

    soap = SOAP(["H"], 4.0, 2, 2, 0.3, centers=["C"])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = np.array(GENERIC) * rng.uniform(0.9, 1.5, 4)[:, None]
        found = nearest_singular(around_carbon(points), soap, max_distance=1.0)
        if found.found and found.cause == "truncation" and found.ratio < 1e-5:
            return found.atoms
    raise AssertionError("no walk arrived")


BENIGN = {
    "BF3": molecule("BF3"),
    "CH4": molecule("CH4"),
    "C2H4": molecule("C2H4"),
    "cyclobutane": molecule("cyclobutane"),
    "NaCl": bulk("NaCl", "rocksalt", a=5.64),
    "ZnS": bulk("ZnS", "zincblende", a=5.41),
}


class TestBenign:
    @pytest.mark.parametrize("name", BENIGN)
    def test_no_warning(self, name):
        at = BENIGN[name]
        soap = SOAP(sorted(set(at.get_chemical_symbols())), 4.0, 8, 6)
        watch, suspicious = Observed(soap), 0
        for seed, size in enumerate(np.geomspace(0.01, 0.6, 12)):
            moved = shifted(at, size, seed)
            for diagnosis in (watch(moved), Observed(soap)(moved)):
                suspicious += diagnosis.how != "ratio"
                assert not warns(diagnosis)
        assert suspicious  # the rule had something to decide

    def test_all_atoms_see_what_carbon_alone_does_not(self):
        soap = SOAP(["C", "H"], 4.0, 8, 6)
        for points in (S1, S2, S3):
            for seed, size in zip(SEEDS, sizes(), strict=True):
                assert not warns(Observed(soap)(shifted(around_carbon(points), size, seed)))
