"""Arrivals at exact singular geometries, against truths that the rule does not know."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.langevin import Langevin
from matscipy.calculators.manybody import Manybody
from matscipy.calculators.manybody.explicit_forms.tersoff_brenner import (
    Erhart_PRB_71_035211_SiC,
    TersoffBrenner,
)

from ase_sensitivity import SOAP, QUIPDescriptor, analyze, nearest_singular, replay
from ase_sensitivity.auditing.reference import GENERIC, S1, S2, S3, around_carbon
from ase_sensitivity.causes.cause import SPURIOUS
from ase_sensitivity.descriptors.soap.density_jacobian import DensityJacobian
from ase_sensitivity.singular.monitor import Monitor
from ase_sensitivity.singular.operations import Operations, averaged
from tests.structures import rattled
from tests.test_causes import Streaming
from tests.test_nearest import distance_to_s1

CARBON = SOAP(["H"], 4.0, 8, 8, 0.3, centers=["C"])
THIRD = 2 * np.pi / 3
FLUORINE = [(1.53 * np.cos(n * THIRD), 1.53 * np.sin(n * THIRD), 0) for n in range(3)]
BORON = [(0.885, 0, 0), (-0.885, 0, 0), (0, 0.98, 0), (0, -0.98, 0)]
BORON += [(x, 0, z) for x in (1.46, -1.46) for z in (1.04, -1.04)]
HYPERVALENT = {
    "B2H6": Atoms("B2H6", BORON),
    "SF6": Atoms("SF6", [(0, 0, 0), *1.56 * np.vstack([np.eye(3), -np.eye(3)])]),
    "PF5": Atoms("PF5", [(0, 0, 0), *FLUORINE, (0, 0, 1.58), (0, 0, -1.58)]),
}

CRYSTALS = {
    "W": bulk("W", "bcc", a=3.16, cubic=True),
    "CsI": bulk("CsI", "cesiumchloride", a=4.57),
    "NaCl": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "PbTe": bulk("PbTe", "rocksalt", a=6.46, cubic=True),
}


def kicked(atoms: Atoms, size: float, seed: int) -> Atoms:
    """Moved by a distance in Å, without any rigid motion."""
    shift = np.random.default_rng(seed).normal(size=atoms.positions.shape)
    shift -= shift.mean(axis=0)
    relative = atoms.positions - atoms.positions.mean(axis=0)
    turns = np.array([np.cross(axis, relative).ravel() for axis in np.eye(3)]).T
    q = np.linalg.qr(turns)[0]
    shift = (shift.ravel() - q @ (q.T @ shift.ravel())).reshape(-1, 3)
    moved = atoms.copy()
    moved.positions += size / np.linalg.norm(shift) * shift
    return moved


def ring_and_apex(seed: int) -> Atoms:
    """Three like neighbors on a circle about an axis, and one on the axis: the family of S3."""
    rng = np.random.default_rng(seed)
    while True:
        theta, r = rng.uniform(0.15, 0.85) * np.pi, rng.uniform(0.9, 1.2)
        phi = rng.uniform(0, 2 * np.pi, 3)
        ring = np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)])
        points = r * np.vstack([ring, np.full(3, np.cos(theta))]).T
        apex = [0, 0, rng.choice([-1, 1]) * rng.uniform(0.9, 1.4)]
        atoms = Atoms("CH4", np.vstack([np.zeros(3), points, apex]))
        if atoms.get_all_distances()[np.triu_indices(5, 1)].min() > 0.7:
            return atoms


def diagnosed(atoms, soap, within=0.1):
    return Monitor(soap, scope="structure", within=within).diagnose(
        atoms, analyze(atoms, soap, k=3)
    )


def harmful(diagnosis, within=0.1):
    found = diagnosis.worst(within, SPURIOUS)
    return None if found is None else found[0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [0.02, 0.05])
def test_the_nearest_blind_geometry(seed, size):
    """Against a constrained minimisation that knows the conditions of S1."""
    at = kicked(around_carbon(S1), size, seed)
    found = nearest_singular(at, CARBON)
    assert (found.cause, found.n_steps) == ("incompleteness", 0)
    assert found.distance == pytest.approx(distance_to_s1(at.positions), rel=1e-4)
    assert distance_to_s1(found.atoms.positions) < 1e-6
    assert found.ratio < 1e-9


@pytest.mark.parametrize("points", [S1, S2, S3], ids=["S1", "S2", "S3"])
def test_no_basis_sees_what_is_called_incompleteness(points):
    for seed in range(5):
        found = nearest_singular(kicked(around_carbon(points), 0.03, seed), CARBON)
        assert found.cause == "incompleteness"
        assert analyze(found.atoms, CARBON.with_basis(14, 12), k=1).ratio < 1e-8


def test_a_larger_basis_sees_what_is_called_truncation():
    small = SOAP(["H"], 4.0, 8, 3, 0.3, centers=["C"])
    n_found = 0
    for seed in range(6):
        found = nearest_singular(kicked(around_carbon(GENERIC), 0.03, seed), small)
        if found.cause == "truncation":
            n_found += 1
            assert analyze(found.atoms, small.with_basis(14, 12), k=1).ratio > 100 * found.ratio
    assert n_found >= 4


def test_exactly_at_the_point():
    """By analyze, the observer and replay alike, however near a symmetric geometry is."""
    for seed in range(40):
        atoms = ring_and_apex(seed)
        counts = analyze(atoms, CARBON, causes=True).counts
        assert counts["incompleteness"] >= 1
        assert (diagnosed(atoms, CARBON).cause, diagnosed(atoms, CARBON).distance) == (
            "incompleteness",
            0,
        )
        assert replay([atoms], CARBON, on_singular="log").cause[0] == "incompleteness"


@pytest.mark.parametrize("size", [0.02, 0.05])
def test_near_the_ring_and_apex(size):
    """What is reported is there: the harmful geometry is exact, and no basis sees its mode."""
    n_found = 0
    for seed in range(15):
        atoms = kicked(ring_and_apex(seed), size, seed)
        n_found += harmful(diagnosed(atoms, CARBON)) == "incompleteness"
        found = nearest_singular(atoms, CARBON)
        found = found.harmful or found
        assert found.distance < 0.1
        assert analyze(found.atoms, CARBON.with_basis(14, 12), k=1).ratio < 1e-8
    assert n_found >= 14


def test_symmetry_with_one_center():
    atoms = Atoms(
        "NH3",
        [
            (-0.0279, 0.0415, 0.1111),
            (0.043, 0.9023, -0.2595),
            (0.8083, -0.4647, -0.2595),
            (-0.859, -0.5096, -0.22),
        ],
    )
    soap = SOAP(["H"], 4.0, 8, 6, centers=["N"])
    for found in (diagnosed(atoms, soap), nearest_singular(atoms, soap)):
        assert found.cause == "symmetry"
        assert 0.05 < found.distance < 0.1


@pytest.mark.parametrize(
    ("name", "size", "n_flat"), [("C6H6", 0.02, 1), ("BF3", 0.03, 1), ("HCN", 0.03, 2)]
)
def test_no_farther_than_what_all_environments_share(name, size, n_flat):
    """A plane or a line hides some mode: the best one through the atoms is known exactly."""
    base = molecule(name)
    soap = SOAP(sorted(set(base.get_chemical_symbols())), 4.5, 8, 6)
    for seed in range(4):
        atoms = kicked(base, size * np.sqrt(3 * len(base)), seed)
        relative = atoms.positions - atoms.positions.mean(axis=0)
        off = np.linalg.norm(np.linalg.svd(relative)[1][-n_flat:])
        watch = Monitor(soap, scope="structure", within=0.3, suspicious=1.0)
        found = watch.diagnose(atoms, analyze(atoms, soap, k=3))
        assert (found.cause, found.how) == ("symmetry", "filter")
        assert found.distance < 1.001 * off


def test_average_over_the_group_of_two_reflections():
    """The four operations of a rectangle, written out; one of them alone has two."""
    points = np.array([(1.0, 2, 0), (-1, 2, 0), (1, -2, 0), (-1, -2, 0)])
    flips = [np.diag([-1.0, 1, 1]), np.diag([1.0, -1, 1])]
    orders = np.array([(1, 0, 3, 2), (2, 3, 0, 1)])
    change = np.random.default_rng(0).normal(size=(1, 12, 2))
    for chosen in ([0, 1], [0]):
        operations = Operations(np.zeros(len(chosen), int), np.array(flips)[chosen], orders[chosen])
        fitted = operations.refitted(np.array([points] * len(chosen)))
        np.testing.assert_allclose(fitted.matrices, operations.matrices, atol=1e-8)
        total = change.reshape(4, 3, 2)
        for k in chosen:
            total = total + np.einsum("ab,nbm->nam", flips[k], total[orders[k]])
        mean = total.reshape(1, 12, 2) / 2 ** len(chosen)
        np.testing.assert_allclose(averaged(operations, change), mean, atol=1e-12)


def test_an_observer_does_not_walk_to_what_is_harmless():
    """All atoms of a crystal are centers: a mode is symmetric, or a larger basis sees it."""
    soap = SOAP(["Ga", "As"], 5.0, 8, 6)
    for seed in (1, 3):
        atoms = rattled(bulk("GaAs", "zincblende", a=5.65, cubic=True), 0.03, seed)
        diagnosis = diagnosed(atoms, soap)
        assert diagnosis.how != "walk"
        assert harmful(diagnosis) is None


def test_several_descriptors_of_one_center_hide_as_one_does():
    at = kicked(around_carbon(S1), 0.05, 0)
    text = "soap n_max=8 l_max=6 atom_sigma=0.3 n_Z=1 Z=6 n_species=1 species_Z=1"
    three = QUIPDescriptor([f"{text} cutoff={cutoff}" for cutoff in (4, 3.5, 3)])
    cause, distance = diagnosed(at, three).worst(0.1, SPURIOUS)
    assert cause == "incompleteness"
    assert distance == pytest.approx(distance_to_s1(at.positions), rel=1e-3)


def test_molecules_that_do_not_see_each_other_are_blind_each_by_itself():
    single = [kicked(around_carbon(S1), 0.05, seed) for seed in range(3)]
    together = single[0].copy()
    for number, other in enumerate(single[1:], start=1):
        moved = other.copy()
        moved.positions += [12.0 * number, 0, 0]
        together += moved
    assert harmful(diagnosed(together, CARBON)) == "incompleteness"


@pytest.mark.parametrize("size", [1e-5, 1e-4, 3e-4, 1e-3, 0.008])
@pytest.mark.parametrize("name", CRYSTALS)
def test_next_to_a_perfect_crystal_there_is_nothing_but_symmetry(name, size):
    """Values vanish there as high powers of what breaks the symmetry, or all together."""
    base = CRYSTALS[name]
    soap = SOAP(sorted(set(base.get_chemical_symbols())), 5.0, 8, 6)
    for seed in (0, 3, 8, 20):
        atoms = base.copy()
        atoms.rattle(size, seed=seed)
        counts = analyze(atoms, soap, causes=True).counts
        assert (counts["truncation"], counts["incompleteness"]) == (0, 0)
        assert harmful(diagnosed(atoms, soap)) is None


@pytest.mark.parametrize("digits", [15, 9, 8, 6])
@pytest.mark.parametrize("height", [0.015, 0.05])
def test_incompleteness_next_to_symmetry(height, digits):
    """As S1, but with all neighbors nearly in a plane; what is exact to some digits stays so."""
    atoms = around_carbon([(1, 0, 0.5), (-1, 0, 0.5), (0.9, 0, -0.7), (0, height, 1.2)])
    atoms.rotate(40, (1, 2, 3))
    atoms.positions = np.round(atoms.positions, digits)
    soap = SOAP(["H"], 4.0, 8, 6, centers=["C"])
    assert analyze(atoms, soap, causes=True).counts["incompleteness"] == 1
    assert harmful(diagnosed(atoms, soap)) == "incompleteness"


@pytest.mark.parametrize(("n", "l_max", "atom_sigma"), [(6, 8, 0.5), (5, 6, 0.7), (5, 6, 1.0)])
def test_truncation_that_a_larger_basis_hardly_sees(n, l_max, atom_sigma):
    """Neighbors at the same distance: 1e-10 to 1e-7 of the largest value is more than nothing."""
    rng = np.random.default_rng(3)
    points = np.zeros((n, 3))
    while np.linalg.norm(points[:, None] - points, axis=2)[np.triu_indices(n, 1)].min() < 0.75:
        points = rng.normal(size=(n, 3))
        points /= np.linalg.norm(points, axis=1)[:, None]
    soap = SOAP(["H"], 4.0, 8, l_max, atom_sigma, centers=["C"])
    atoms = around_carbon(points, "H" * n)
    assert harmful(diagnosed(atoms, soap)) == "truncation"
    assert nearest_singular(atoms, soap).cause == "truncation"


@pytest.mark.parametrize("name", HYPERVALENT)
def test_a_wide_threshold_warns_of_no_symmetry(name):
    base = HYPERVALENT[name]
    soap = SOAP(sorted(set(base.get_chemical_symbols())), 4.0, 8, 6)
    for seed in range(8):
        atoms = base.copy()
        atoms.rattle(0.06, seed=seed)
        assert harmful(diagnosed(atoms, soap, 0.25), 0.25) is None


@pytest.mark.parametrize("seed", [0, 2])
def test_a_distance_of_zero_is_that_of_a_null_vector(seed):
    """With wide Gaussians a ratio below 2e-4 is nothing special."""
    atoms = around_carbon(S1)
    soap = SOAP(["C", "H"], 4.0, 8, 6, 1.0, centers=["C"])
    atoms = kicked(atoms, 0.1, seed)
    assert analyze(atoms, soap).ratio < 2e-4
    assert 0.01 < diagnosed(atoms, soap).distance < 0.13


def test_one_rule_everywhere():
    systems = {
        "CH4": (molecule("CH4"), CARBON),
        "NH3": (molecule("NH3"), SOAP(["N", "H"], 4.0, 8, 6)),
        "BF3": (molecule("BF3"), SOAP(["B", "F"], 4.0, 8, 6)),
        "S2": (around_carbon(S2), CARBON),
    }
    compared = 0
    for base, soap in systems.values():
        for seed in range(12):
            atoms = rattled(base, 0.02, seed)
            seen = diagnosed(atoms, soap)
            if seen.how not in ("filter", "walk") or seen.cause is None:
                continue
            found = nearest_singular(atoms, soap)
            log = replay([atoms], soap, on_singular="log")
            compared += 1
            assert found.cause == seen.cause == log.cause[0]
            assert found.distance == pytest.approx(seen.distance, rel=1e-3, abs=1e-6)
            assert log.distance[0] == pytest.approx(seen.distance, rel=1e-3, abs=1e-4)
    assert compared > 20


class TestForces:
    """A real potential knows which displacements matter."""

    @staticmethod
    def seen(found, calculator):
        """Force along the hidden displacement and energies on both sides of the fold."""
        end = found.atoms.copy()
        end.calc = calculator
        forces = end.get_forces()
        along = float(np.abs((forces * found.mode).sum()))
        energies = []
        for sign in (1, -1):
            moved = found.atoms.copy()
            moved.positions += 0.1 * sign * found.mode
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        size = float(np.sqrt((forces**2).mean()))
        return along / max(size, 0.1), abs(energies[0] - energies[1])

    @pytest.mark.parametrize("name", ["NH3", "CH4", "BF3", "C2H4"])
    def test_symmetry_costs_nothing(self, name):
        tblite = pytest.importorskip("tblite.ase")
        calculator = tblite.TBLite(method="GFN2-xTB", verbosity=0)
        base = molecule(name)
        soap = SOAP(sorted(set(base.get_chemical_symbols())), 4.0, 8, 6)
        n_symmetric = 0
        for seed in range(4):
            found = nearest_singular(rattled(base, 0.02, seed), soap)
            if found.cause == "symmetry" and found.distance < 0.2:
                n_symmetric += 1
                along, difference = self.seen(found, calculator)
                assert along < 1e-4
                assert difference < 1e-4
        assert n_symmetric or name == "NH3"

    def test_incompleteness_costs_forces(self):
        tblite = pytest.importorskip("tblite.ase")
        calculator = tblite.TBLite(method="GFN2-xTB", verbosity=0)
        for points in (S1, S2, S3):
            found = nearest_singular(kicked(around_carbon(points), 0.02, 0), CARBON)
            assert found.cause == "incompleteness"
            along, difference = self.seen(found, calculator)
            assert max(along, difference) > 1e-2

    @pytest.mark.slow
    def test_silicon_carbide(self):
        """A hot cell of eight atoms: nothing in it is truncated."""
        atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
        atoms.calc = Manybody(**TersoffBrenner(Erhart_PRB_71_035211_SiC))
        rng = np.random.default_rng(0)
        spread = np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
        atoms.set_momenta(spread * rng.normal(size=(8, 3)))
        dyn = Langevin(
            atoms, 1.0 * units.fs, temperature_K=300, friction=0.02 / units.fs, fixcm=False, rng=rng
        )
        soap = SOAP(["C", "Si"], 5.0, 6, 4)
        causes = []
        for _ in range(60):
            dyn.run(20)
            diagnosis = diagnosed(atoms.copy(), soap)
            causes.append(diagnosis.cause)
            assert harmful(diagnosis) is None
        assert causes.count("symmetry") > 10


class Products:
    """A Jacobian of products only."""

    def __init__(self, of):
        for name in ("features", "n_atoms", "precision", "per_image", "ranges"):
            setattr(self, name, getattr(of, name))
        self.gram, self.apply, self.adjoint = of.gram, of.apply, of.adjoint


class ProductsFirst(Streaming):
    """Its stream has no blocks, which its Jacobian has."""

    def stream(self, atoms):
        return Products(self.jacobian(atoms))


@pytest.mark.parametrize("streamed", [Streaming, ProductsFirst])
def test_what_a_stream_gives_changes_no_cause(streamed):
    """Rows of the whole structure are noticed, and blocks are asked for where they are needed."""
    text = "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5"
    for average in ("", " average=T"):
        inner = QUIPDescriptor(text + average, species=["C", "H"])
        assert nearest_singular(molecule("CH4"), inner).cause == "symmetry"
        assert nearest_singular(molecule("CH4"), streamed(inner)).cause == "symmetry"
        moved = kicked(molecule("NH3"), 0.05, 1)
        inner = QUIPDescriptor(text + average, species=["N", "H"])
        expected, found = nearest_singular(moved, inner), nearest_singular(moved, streamed(inner))
        assert (found.cause, found.distance) == (expected.cause, pytest.approx(expected.distance))


def test_of_many_null_vectors_a_few_are_compared_with_a_larger_basis(monkeypatch):
    asked = []
    apply = DensityJacobian.apply

    def counted(self, displacements):
        asked.append(len(displacements))
        return apply(self, displacements)

    monkeypatch.setattr(DensityJacobian, "apply", counted)
    alloy = rattled(bulk("CsCl", "cesiumchloride", a=4.12).repeat(3), 0.05)
    soap = SOAP(["Cs", "Cl"], 5.0, 1, 1)
    found = analyze(alloy, soap)
    assert found.n_null > 40
    asked.clear()
    watch = Monitor(soap, scope="structure", within=0.1)
    assert watch.diagnose(alloy, found).cause == "truncation"
    assert sum(asked) < 20
