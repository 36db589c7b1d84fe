"""The wrapping calculator: transparent without a bias, consistent with one."""

from __future__ import annotations

import copy
import pickle
from collections import Counter

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import (
    BaseCalculator,
    PropertyNotImplementedError,
    all_properties,
)
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones
from ase.calculators.mixing import SumCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons

from ase_sensitivity import SOAP, QUIPDescriptor, SensitivityObserver, analyze
from ase_sensitivity.md.bias import Attract, Repel
from ase_sensitivity.md.calculator import SensitivityCalculator
from tests.conftest import CountingSOAP, Still, Told, warm
from tests.structures import rattled
from tests.test_diagnosis import near_s1
from tests.test_nearest import on_carbon


class Everything(BaseCalculator):
    """Has all properties, computes only what is asked for, and counts."""

    implemented_properties = all_properties

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def calculate(self, atoms, properties, system_changes):
        n = len(atoms)
        x = atoms.positions
        per_atom = (x**2).sum(axis=1)
        values = {
            "energies": per_atom,
            "energy": per_atom.sum(),
            "free_energy": per_atom.sum() - 0.25,
            "forces": -2 * x,
            "stress": 2 * np.einsum("ia,ib->ab", x, x)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
            "stresses": np.arange(6.0 * n).reshape(n, 6),
            "dipole": x.sum(axis=0),
            "charges": atoms.get_initial_charges() + 0.5,
            "dielectric_tensor": np.eye(3),
            "born_effective_charges": np.ones((n, 3, 3)),
            "polarization": x[0],
            "magmom": atoms.get_initial_magnetic_moments().sum(),
            "magmoms": atoms.get_initial_magnetic_moments() + 0.1,
        }
        for name in properties:
            if name not in values:
                raise PropertyNotImplementedError(name)
            self.counts[name] += 1
            self.results[name] = values[name]

    def get_fermi_level(self):
        return 4.5

    def todict(self):
        return {"spring": 2.0}


class Old:
    """Of the old style: springs to the origin, computed whenever asked for."""

    def __init__(self):
        self.counts = Counter()

    def get_potential_energy(self, atoms=None, force_consistent=False):
        self.counts["energy"] += 1
        return (atoms.positions**2).sum()

    def get_forces(self, atoms):
        self.counts["forces"] += 1
        return -2 * atoms.positions

    def get_stress(self, atoms):
        self.counts["stress"] += 1
        return np.arange(6.0)


class CountingEMT(EMT):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def calculate(self, *arguments, **settings):
        self.counts["all"] += 1
        super().calculate(*arguments, **settings)


def soap(*species) -> CountingSOAP:
    return CountingSOAP(species or ["C", "H", "N", "Cu"], cutoff=4.0, n_max=4, l_max=3)


def ammonia() -> Atoms:
    return rattled(molecule("NH3"), 0.05, seed=3)


def copper() -> Atoms:
    return rattled(bulk("Cu", cubic=True), 0.08, seed=1)


# What people do with a calculator: each returns numbers that must not depend on the wrapping.


def ask_for_everything(atoms):
    atoms.set_cell([5, 5, 5])
    atoms.set_initial_magnetic_moments([1, 0, 0, 0])
    first = {name: atoms.calc.get_property(name, atoms) for name in all_properties}
    again = {name: atoms.calc.get_property(name, atoms) for name in all_properties}
    atoms.set_initial_charges([0.5, 0, 0, 0])
    charges = atoms.get_charges()
    energies = [atoms.get_potential_energy(force_consistent=consistent) for consistent in (0, 1)]
    return [*first.values(), *again.values(), charges, *energies, atoms.get_magnetic_moments()]


def partly(atoms):
    """One property after the other, with steps back and results that are not calculated."""
    energy = atoms.get_potential_energy()
    lacking = atoms.calc.get_property("forces", atoms, allow_calculation=False)
    assert lacking is None or lacking.shape == (4, 3)
    forces = atoms.get_forces()
    atoms.positions[0, 0] += 0.1
    assert atoms.calc.get_property("energy", atoms, allow_calculation=False) is None
    assert atoms.calc.calculation_required(atoms, ["energy"])
    other = atoms.get_forces()
    atoms.get_forces()
    atoms.positions[0, 0] -= 0.1
    energies = atoms.get_properties(["energy", "forces"])
    return [energy, forces, other, energies["energy"], energies["forces"]]


def constrained(atoms):
    atoms.set_constraint([FixAtoms([0]), FixBondLength(1, 2)])
    atoms.get_forces(apply_constraint=False)
    dyn = BFGS(atoms, logfile=None)
    dyn.run(steps=4)
    return [atoms.positions, atoms.get_forces(), atoms.get_potential_energy()]


def dynamics(atoms):
    warm(atoms, 300)
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    dyn.attach(atoms.get_potential_energy, interval=2)
    dyn.run(6)
    return [atoms.positions, atoms.get_velocities()]


def numerically(atoms):
    atoms.set_cell([5, 5, 5])
    return [calculate_numerical_stress(atoms), calculate_numerical_forces(atoms, iatoms=[1])]


def band(atoms):
    images = [atoms.copy() for _ in range(4)]
    for n, image in enumerate(images):
        image.positions[0, 2] -= 0.1 * n
        image.calc = atoms.calc
    neb = NEB(images, allow_shared_calculator=True, method="improvedtangent")
    FIRE(neb, logfile=None).run(steps=2)
    return [image.positions for image in images]


def workloads(*functions):
    return pytest.mark.parametrize("workload", functions)


def outcome(workload, atoms, calc, wrapped):
    descriptor = soap()
    atoms.calc = SensitivityCalculator(calc, descriptor) if wrapped else calc
    numbers = workload(atoms)
    return numbers, calc.counts, descriptor


@pytest.mark.parametrize("inner", [Everything, CountingEMT])
@workloads(partly, constrained, dynamics, numerically, band)
def test_nothing_changes_and_nothing_more_is_evaluated(workload, inner):
    plain, counts, _ = outcome(workload, ammonia(), inner(), False)
    found, wrapped, descriptor = outcome(workload, ammonia(), inner(), True)
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert counts == wrapped
    assert sum(counts.values()) > 1
    assert descriptor.n_calls == 0  # what nobody reads costs nothing


def test_every_property_passes():
    plain, counts, _ = outcome(ask_for_everything, ammonia(), Everything(), False)
    found, wrapped, _ = outcome(ask_for_everything, ammonia(), Everything(), True)
    assert counts == wrapped
    assert set(counts) == set(all_properties)
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_calculators_of_the_old_style():
    def workload(atoms):
        dyn = VelocityVerlet(atoms, 0.5 * units.fs)
        dyn.run(3)
        assert atoms.get_stress(voigt=False).shape == (3, 3)
        return [atoms.positions, atoms.get_forces(), atoms.get_potential_energy()]

    plain, counts, _ = outcome(workload, copper(), Old(), False)
    found, wrapped, _ = outcome(workload, copper(), Old(), True)
    for one, other in zip(plain, found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(wrapped[name] <= counts[name] for name in counts)

    class Bare:
        def get_potential_energy(self, atoms=None, force_consistent=False):
            return 1.5 + force_consistent

        def get_stress(self, atoms):
            raise NotImplementedError

    atoms = copper()
    atoms.calc = SensitivityCalculator(Bare(), soap())
    assert atoms.get_potential_energy() == 1.5
    assert atoms.get_potential_energy(force_consistent=True) == 2.5
    for ask in (atoms.get_stress, atoms.get_forces, atoms.get_magnetic_moments):
        with pytest.raises(PropertyNotImplementedError):
            ask()
    assert atoms.calc.todict()["calculator"] == "bare"


def test_changes_of_the_wrapped_calculator_are_seen():
    atoms = copper()
    atoms.calc = SensitivityCalculator(LennardJones(sigma=2.3, rc=5), soap())
    before = atoms.get_potential_energy()
    atoms.calc.set(epsilon=2.0)
    atoms.calc.reset()
    assert atoms.get_potential_energy() == pytest.approx(2 * before)
    assert SensitivityCalculator(Everything(), soap()).get_fermi_level() == 4.5
    with pytest.raises(AttributeError, match="nonsense"):
        _ = atoms.calc.nonsense


def test_optimization_of_the_cell():
    positions = []
    for wrapped in (False, True):
        atoms, calc = copper(), CountingEMT()
        atoms.calc = SensitivityCalculator(calc, soap()) if wrapped else calc
        BFGS(FrechetCellFilter(atoms), logfile=None).run(steps=3)
        positions.append((atoms.positions, atoms.cell.array, calc.counts))
    for one, other in zip(*positions, strict=True):
        np.testing.assert_array_equal(one, other)


def test_phonons(tmp_path):
    frequencies = []
    for wrapped in (False, True):
        calc = CountingEMT()
        used = SensitivityCalculator(calc, soap()) if wrapped else calc
        phonons = Phonons(bulk("Cu"), used, supercell=(2, 2, 2), name=str(tmp_path / str(wrapped)))
        phonons.run()
        phonons.read(acoustic=True)
        frequencies.append((phonons.band_structure(np.array([(0.5, 0, 0)])), calc.counts["all"]))
    np.testing.assert_array_equal(*(values for values, _ in frequencies))
    assert frequencies[0][1] == frequencies[1][1] > 0


def test_results_are_found_when_read():
    atoms, descriptor = ammonia(), soap()
    atoms.calc = SensitivityCalculator(EMT(), descriptor)
    with pytest.raises(RuntimeError, match="nothing was calculated yet"):
        _ = atoms.calc.sensitivity
    atoms.get_forces()
    results = atoms.calc.results
    expected = analyze(atoms, soap(), k=3)
    assert descriptor.n_calls == 0
    assert results["sigma_min"] == expected.singular_values[0]
    assert results["sigma_ratio"] == expected.ratio
    assert results["condition_number"] == 1 / expected.ratio
    np.testing.assert_array_equal(atoms.calc.sensitivity.modes, expected.modes)
    assert descriptor.n_calls == 1
    assert atoms.calc.get_property("singularity_distance", atoms) > 0.1
    assert descriptor.n_calls == 2
    assert atoms.calc.get_property("singularity_distance", atoms, False) > 0
    assert descriptor.n_calls == 2
    # A copy of the results holds what ASE knows.
    single = SinglePointCalculator(atoms, **results)
    np.testing.assert_array_equal(single.get_forces(atoms), atoms.get_forces())
    assert "sigma_min" in results
    assert results.get("sigma_min") == expected.singular_values[0]
    assert "bias_energy" not in results
    assert results.get("bias_energy", -1.0) == -1.0
    with pytest.raises(KeyError, match="bias_energy"):
        _ = results["bias_energy"]
    with pytest.raises(PropertyNotImplementedError, match="there is no bias"):
        atoms.calc.get_property("bias_energy", atoms)


def test_results_follow_the_atoms():
    atoms, calc = ammonia(), CountingEMT()
    atoms.calc = SensitivityCalculator(calc, soap())
    atoms.get_potential_energy()
    before = atoms.calc.results["sigma_ratio"]
    atoms.rattle(0.1, seed=5)
    assert atoms.calc.get_property("sigma_ratio", atoms, allow_calculation=False) is None
    now = atoms.calc.get_property("sigma_ratio", atoms)  # no energy is needed for it
    assert calc.counts["all"] == 1
    assert now == analyze(atoms, soap()).ratio != before
    assert "energy" not in atoms.calc.results
    atoms.get_potential_energy()
    assert atoms.calc.results["sigma_ratio"] == now
    atoms.set_initial_charges([1, 0, 0, 0])  # another state for the potential only
    atoms.get_potential_energy()
    assert calc.counts["all"] == 3


def test_errors_of_the_descriptor_concern_those_who_read():
    atoms = ammonia()
    atoms.calc = SensitivityCalculator(EMT(), Told([ValueError("no")]))
    atoms.get_potential_energy()
    with pytest.raises(ValueError, match="no"):
        _ = atoms.calc.results["sigma_min"]
    lonely = Atoms("N", calculator=SensitivityCalculator(EMT(), soap()))
    lonely.get_potential_energy()
    for key in ("sigma_min", "sigma_ratio", "condition_number", "singularity_distance"):
        assert np.isnan(lonely.calc.results[key])


def test_distance_to_planarity():
    """Nitrogen at a height h over three hydrogens: all move, by sqrt(3)/2 h altogether."""
    atoms = molecule("NH3")
    atoms.positions[0, 2] = atoms.positions[1, 2] + 0.02
    atoms.calc = SensitivityCalculator(EMT(), soap())
    atoms.get_potential_energy()
    distance = atoms.calc.results["singularity_distance"]
    assert distance == pytest.approx(np.sqrt(3) / 2 * 0.02, rel=0.02)
    methane = molecule("CH4")
    methane.calc = SensitivityCalculator(EMT(), soap())
    methane.get_potential_energy()
    assert methane.calc.results["singularity_distance"] == 0
    assert methane.calc.results["condition_number"] >= 1e10


@pytest.mark.parametrize("scope", ["environment", "atom"])
def test_scopes(scope):
    atoms = ammonia()
    atoms.calc = SensitivityCalculator(EMT(), soap(), scope=scope, k=2)
    atoms.get_potential_energy()
    assert atoms.calc.sensitivity.scope == scope
    assert len(atoms.calc.sensitivity.singular_values) == 2
    assert atoms.calc.results["singularity_distance"] > 0
    with pytest.raises(ValueError, match='`bias` needs scope="structure"'):
        SensitivityCalculator(EMT(), soap(), scope=scope, bias=Repel(0.1, 1.0))


@pytest.mark.parametrize("bias", [Repel(0.5, 1.0), Attract(0.5, 1.0)])
def test_bias_is_added_and_reported_apart(bias):
    atoms = copper()
    atoms.calc = SensitivityCalculator(Everything(), soap(), bias=bias)
    plain = copper()
    plain.calc = Everything()
    term = bias.evaluate(atoms, soap())
    assert abs(term.energy) > 0.1
    assert atoms.get_potential_energy() == plain.get_potential_energy() + term.energy
    consistent = atoms.get_potential_energy(force_consistent=True)
    assert consistent == plain.get_potential_energy(force_consistent=True) + term.energy
    np.testing.assert_array_equal(atoms.get_forces(), plain.get_forces() + term.forces)
    np.testing.assert_array_equal(atoms.get_stress(), plain.get_stress() + term.stress)
    np.testing.assert_array_equal(atoms.get_potential_energies(), plain.get_potential_energies())
    results = atoms.calc.results
    assert results["energy"] == atoms.get_potential_energy()
    np.testing.assert_array_equal(results["forces"], atoms.get_forces())
    assert results["bias_energy"] == term.energy
    np.testing.assert_array_equal(results["bias_forces"], term.forces)
    np.testing.assert_array_equal(results["bias_stress"], term.stress)
    np.testing.assert_array_equal(atoms.calc.calc.results["forces"], plain.get_forces())
    SinglePointCalculator(atoms, **results)


def test_bias_costs_no_evaluation():
    counts = []
    for bias in (None, Repel(0.5, 1.0)):
        atoms, calc = ammonia(), Everything()
        atoms.calc = SensitivityCalculator(calc, soap(), bias=bias)
        for _ in range(2):
            atoms.get_potential_energy()
            atoms.get_forces()
            atoms.rattle(0.05, seed=1)
        counts.append(calc.counts)
    assert counts[0] == counts[1] == {"energy": 2, "forces": 2}


def test_bias_can_be_changed():
    atoms = ammonia()
    atoms.calc = SensitivityCalculator(EMT(), soap())
    plain = atoms.get_potential_energy()
    atoms.calc.bias = Repel(0.5, 1.0)
    biased = atoms.get_potential_energy()
    assert biased > plain
    atoms.calc.bias = Repel(0.5, 3.0)
    assert atoms.get_potential_energy() == pytest.approx(plain + 3 * (biased - plain))
    atoms.calc.bias = None
    assert atoms.get_potential_energy() == plain


def test_full_stress_and_no_stress():
    class Full(Everything):
        def calculate(self, atoms, properties, system_changes):
            self.results["stress"] = np.eye(3)

    atoms = copper()
    bias = Repel(0.5, 1.0)
    atoms.calc = SensitivityCalculator(Full(), soap(), bias=bias)
    found = atoms.get_stress()
    found[:3] -= 1
    np.testing.assert_allclose(found, bias.evaluate(atoms, soap()).stress, atol=1e-14)
    averaged = QUIPDescriptor(
        "soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5 average=T", species=["Cu"]
    )
    atoms.calc = SensitivityCalculator(Everything(), averaged, bias=bias)
    atoms.get_forces()
    with pytest.raises(PropertyNotImplementedError, match="the bias has no stress"):
        atoms.get_stress()
    assert "stress" not in atoms.calc.results


def drift(bias, step):
    """Largest deviation of the total energy in eV over 12 fs."""
    atoms = molecule("NH3")
    atoms.positions[0, 2] -= 0.15
    atoms.calc = SensitivityCalculator(EMT(), soap(), bias=bias)
    warm(atoms, 500, seed=2)
    dyn = VelocityVerlet(atoms, step * units.fs)
    energies, biases = [], []

    def look():
        energies.append(atoms.get_total_energy())
        biases.append(atoms.calc.results["bias_energy"] if bias else 0.0)

    dyn.attach(look)
    dyn.run(round(12 / step))
    return np.ptp(energies), np.ptp(biases)


@pytest.mark.parametrize("bias", [Repel(0.5, 1.0), Attract(0.5, 1.0)])
def test_energy_is_conserved(bias):
    """Velocity Verlet errs by the square of the time step, and by nothing else."""
    coarse, fine = drift(bias, 0.4), drift(bias, 0.2)
    assert coarse[0] / fine[0] == pytest.approx(4, rel=0.15)
    assert fine[1] > 0.3  # the bias does much on the way
    assert fine[0] < 5 * drift(None, 0.2)[0]


def flattening(bias):
    """The smallest height of a free nitrogen atom thrown at the plane of the hydrogen atoms."""
    atoms = molecule("NH3")
    atoms.calc = SensitivityCalculator(LennardJones(epsilon=1e-9), soap(), bias=bias)
    atoms.set_velocities([(0, 0, -0.05), (0, 0, 0), (0, 0, 0), (0, 0, 0)])
    heights = []
    dyn = VelocityVerlet(atoms, 1 * units.fs)
    dyn.attach(lambda: heights.append(abs(atoms.positions[0, 2] - atoms.positions[1, 2])))
    dyn.run(100)
    return min(heights)


def test_repelled_from_planarity():
    assert flattening(None) < 0.01
    assert flattening(Repel(0.5, 5.0)) > 0.1


def test_fixed_atoms_with_a_bias():
    atoms = ammonia()
    atoms.set_constraint(FixAtoms([0, 1]))
    start = atoms.positions.copy()
    atoms.calc = SensitivityCalculator(EMT(), soap(), bias=Repel(0.5, 1.0))
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=100)
    np.testing.assert_array_equal(atoms.positions[:2], start[:2])
    assert np.abs(atoms.get_forces()).max() < 0.05
    assert np.abs(atoms.get_forces(apply_constraint=False)[:2]).max() > 0.05


def test_pickle_and_copy():
    atoms = copper()
    atoms.calc = SensitivityCalculator(
        LennardJones(sigma=2.3, rc=5), soap(), bias=Repel(0.5, 1.0), k=2
    )
    energy, ratio = atoms.get_potential_energy(), atoms.calc.results["sigma_ratio"]
    for other in (pickle.loads(pickle.dumps(atoms)), copy.deepcopy(atoms)):
        assert other.calc is not atoms.calc
        assert other.calc.results["sigma_ratio"] == ratio
        assert other.get_potential_energy() == energy
        other.rattle(0.1, seed=2)
        assert other.get_potential_energy() != energy
        assert len(other.calc.sensitivity.singular_values) == 2
    assert copy.copy(atoms.calc).get_potential_energy(atoms) == energy
    assert atoms.calc.results["sigma_ratio"] == ratio
    results = pickle.loads(pickle.dumps(atoms.calc.results))
    assert results["sigma_ratio"] == ratio
    assert dict(results)["energy"] == energy


@pytest.mark.parametrize("suffix", ["xyz", "traj", "db", "json"])
def test_files(suffix, tmp_path):
    atoms = copper()
    atoms.calc = SensitivityCalculator(EMT(), soap(), bias=Repel(0.5, 1.0))
    forces, energy, stress = atoms.get_forces(), atoms.get_potential_energy(), atoms.get_stress()
    path = tmp_path / f"frames.{suffix}"
    atoms.calc.results["sigma_ratio"]  # having been read does not make it a part of the file
    if suffix in ("db", "json"):
        with ase.db.connect(path) as database:
            database.write(atoms, sigma_ratio=atoms.calc.results["sigma_ratio"])
            row = database.get(calculator="sensitivity")
        assert row.calculator_parameters["calculator"] == "emt"
        assert row.calculator_parameters["bias"] == "Repel(ratio=0.5, strength=1.0)"
        assert row.sigma_ratio == atoms.calc.results["sigma_ratio"]
        read = row.toatoms()
    else:
        ase.io.write(path, [atoms, atoms])
        read = ase.io.read(path)
    np.testing.assert_allclose(read.get_forces(), forces, atol=1e-7)
    np.testing.assert_allclose(read.get_stress(), stress, atol=1e-7)
    assert read.get_potential_energy() == pytest.approx(energy)


def test_writing_computes_nothing(tmp_path):
    atoms, calc, descriptor = copper(), CountingEMT(), soap()
    atoms.calc = SensitivityCalculator(calc, descriptor, bias=Repel(0.5, 1.0))
    ase.io.write(tmp_path / "frame.traj", atoms)
    calc.get_forces(atoms)  # known to EMT, but not with the bias
    ase.io.write(tmp_path / "frame.traj", atoms)
    assert not {"energy", "forces"} & set(ase.io.read(tmp_path / "frame.traj").calc.results)
    assert (calc.counts["all"], descriptor.n_calls) == (1, 0)


def test_combinations():
    atoms = copper()
    bias = Repel(0.5, 1.0)
    inside = SensitivityCalculator(EMT(), soap(), bias=bias)
    atoms.calc = SumCalculator([inside, LennardJones(sigma=2.3, rc=5)])
    outside = copper()
    outside.calc = SensitivityCalculator(
        SumCalculator([EMT(), LennardJones(sigma=2.3, rc=5)]), soap(), bias=bias
    )
    nested = copper()
    nested.calc = SensitivityCalculator(outside.calc, soap(), bias=Attract(0.5, 1.0))
    plain = copper()
    plain.calc = SumCalculator([EMT(), LennardJones(sigma=2.3, rc=5)])
    np.testing.assert_allclose(atoms.get_forces(), outside.get_forces(), atol=1e-12)
    np.testing.assert_allclose(nested.get_forces(), plain.get_forces(), atol=1e-12)
    assert atoms.get_potential_energy() == pytest.approx(outside.get_potential_energy())
    assert outside.get_properties(["energy"])["energy"] == outside.get_potential_energy()
    assert inside.results["bias_energy"] == outside.calc.results["bias_energy"]


def test_band_with_a_bias():
    """Images see each other's bias only through their own calculators."""
    images = [ammonia() for _ in range(3)]
    for n, image in enumerate(images):
        image.positions[0, 2] -= 0.1 * n
        image.calc = SensitivityCalculator(EMT(), soap(), bias=Repel(0.5, 1.0))
    neb = NEB(images, method="improvedtangent")
    FIRE(neb, logfile=None).run(steps=3)
    for image in images:
        expected = Repel(0.5, 1.0).evaluate(image, soap()).energy
        image.get_potential_energy()
        assert image.calc.results["bias_energy"] == expected


def test_refuses():
    with pytest.raises(TypeError, match="`calc` is None but must be an ASE calculator"):
        SensitivityCalculator(None, soap())
    with pytest.raises(TypeError, match="`calc` is <class"):
        SensitivityCalculator(EMT, soap())
    with pytest.raises(TypeError, match="`calc` is Atoms"):
        SensitivityCalculator(ammonia(), soap())
    with pytest.raises(TypeError, match="`descriptor` must be a Descriptor"):
        SensitivityCalculator(EMT(), b"soap")
    with pytest.raises(TypeError, match="`bias` is 1 but must be a Repel"):
        SensitivityCalculator(EMT(), soap(), bias=1)
    with pytest.raises(ValueError, match="`k` is 0"):
        SensitivityCalculator(EMT(), soap(), k=0)
    with pytest.raises(ValueError, match="`scope` is 'bond'"):
        SensitivityCalculator(EMT(), soap(), scope="bond")


class TestSpurious:
    """What matters and is near, as an observer would judge it."""

    def test_a_perfect_crystal_is_harmless(self):
        atoms = bulk("Cu", cubic=True)
        atoms.calc = SensitivityCalculator(EMT(), SOAP(["Cu"], cutoff=4.0, n_max=4, l_max=4))
        atoms.get_forces()
        results = atoms.calc.results
        assert results["sigma_ratio"] < 1e-10
        assert results["spurious_distance"] == np.inf
        assert results["spurious_proximity"] == 0.0
        assert atoms.calc.diagnosis.cause == "symmetry"

    @pytest.mark.parametrize("within", [0.1, 0.01])
    def test_incompleteness_is_what_an_observer_finds(self, within):
        atoms, descriptor = near_s1(0.03), on_carbon()
        calc = SensitivityCalculator(EMT(), descriptor, distance_threshold=within)
        settings = {"distance_threshold": within, "on_singular": "log"}
        still = Still(atoms)
        observer = SensitivityObserver(still, descriptor, **settings)
        observer()
        near = observer.n_singular == 1
        distance = calc.get_property("spurious_distance", atoms)
        assert distance == (observer.diagnosis.distance if near else np.inf)
        assert near == (within == 0.1)
        assert calc.get_property("spurious_proximity", atoms) == (1 / distance if near else 0.0)

    def test_an_exact_one_can_be_compared(self):
        atoms = near_s1(0.0)
        calc = SensitivityCalculator(EMT(), on_carbon())
        assert calc.get_property("spurious_proximity", atoms) == 1e16

    def test_what_is_known_is_not_looked_for_again(self):
        atoms = bulk("Cu", cubic=True)
        descriptor = CountingSOAP(["Cu"], cutoff=4.0, n_max=4, l_max=4)
        calc = SensitivityCalculator(EMT(), descriptor)
        calc.get_property("spurious_distance", atoms)
        before = descriptor.n_calls
        atoms.positions += 0.1
        assert calc.get_property("spurious_distance", atoms) == np.inf
        assert descriptor.n_calls == before + 1

    def test_nothing_is_learnt_from_other_structures(self):
        """How steep singular values are is a matter of the structure."""
        descriptor = on_carbon()
        calc = SensitivityCalculator(EMT(), descriptor)
        flat = near_s1(0.5) + Atoms("CH", [(9, 9, 9), (10.1, 9.1, 9)])
        calc.get_property("spurious_distance", flat)
        fresh = SensitivityCalculator(EMT(), descriptor)
        found = [known.get_property("spurious_distance", near_s1(0.03)) for known in (calc, fresh)]
        assert found[0] == found[1] < 0.1

    def test_copies_and_files_take_it(self):
        atoms = near_s1(0.03)
        atoms.calc = SensitivityCalculator(LennardJones(), on_carbon())
        atoms.get_forces()
        found = atoms.calc.results["spurious_distance"]
        assert pickle.loads(pickle.dumps(atoms.calc)).results["spurious_distance"] == found
        frozen = SinglePointCalculator(atoms, **atoms.calc.results)
        assert set(frozen.results) <= set(all_properties)

    @pytest.mark.parametrize("within", [0, -1.0, np.inf, "near", None])
    def test_what_is_no_distance(self, within):
        with pytest.raises((TypeError, ValueError), match="`distance_threshold` is"):
            SensitivityCalculator(EMT(), soap(), distance_threshold=within)
