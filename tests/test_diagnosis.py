"""What the observer says of distance and cause, and what it does about it."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

from ase_sensitivity import (
    SOAP,
    SensitivityObserver,
    SingularConfiguration,
    SingularWarning,
    analyze,
    nearest_singular,
    read_log,
)
from ase_sensitivity.auditing.reference import GENERIC, S1, around_carbon
from ase_sensitivity.singular.classification import as_far
from ase_sensitivity.singular.diagnosis import Diagnosis
from ase_sensitivity.singular.monitor import Monitor
from ase_sensitivity.singular.recall import Remembered
from tests.conftest import CountingEMT, CountingSOAP, SlowSOAP, Still, ours
from tests.structures import rattled
from tests.test_nearest import AMMONIA, on_carbon, pyramid


def near_s1(size, seed=0):
    at = around_carbon(S1)
    shift = np.random.default_rng(seed).normal(size=(5, 3))
    at.positions += size * shift / np.linalg.norm(shift)
    return at


def observed(atoms, soap, **settings):
    """An observer after one call on a run that stands still."""
    still = Still(atoms)
    observer = SensitivityObserver(still, soap, **settings)
    still.play(observer, 1)
    return observer


class TestDefault:
    def test_incompleteness_warns(self):
        with pytest.warns(SingularWarning):
            observer = observed(near_s1(0.03), on_carbon())
        found = observer.sensitivity
        assert found.approaching == "incompleteness"
        assert 0 < found.distance < 0.03
        assert observer.n_singular == 1

    def test_truncation_warns(self):
        with pytest.warns(SingularWarning):
            observer = observed(around_carbon(GENERIC), on_carbon(l_max=3))
        assert observer.sensitivity.approaching == "truncation"

    @pytest.mark.parametrize("height", [0.0, 0.02, 0.05])
    def test_symmetry_does_not(self, height):
        at = pyramid("NH3", height)
        if height:
            at.rattle(0.003, seed=1)
        observer = observed(at, AMMONIA)
        assert observer.sensitivity.approaching in ("symmetry", "near-symmetric")
        assert observer.n_singular == 0

    def test_far_from_everything(self):
        observer = observed(molecule("NH3"), AMMONIA)
        assert observer.sensitivity.distance is None
        assert observer.sensitivity.approaching is None

    def test_environments_are_told_but_not_warned_of(self):
        observer = observed(near_s1(0.03), on_carbon(), scope="environment")
        assert observer.sensitivity.approaching == "incompleteness"
        assert observer.n_singular == 1


# What analyze takes, or this and the cluster; one at the start; one ahead of each mode asked.
@pytest.mark.parametrize(
    ("settings", "quickly", "slowly"),
    [
        ({}, 1, 1 + 1 + 1),
        ({"k": 1}, 1 + 1, 1 + 1 + 1),
        ({"distance": True}, 1, 1 + 1 + 3),
        ({"apply_constraints": True}, 1, 1 + 1 + 1),
        ({"scope": "atom", "distance": True}, 1, 1 + 1 + 3),
        ({"scope": "environment", "distance_threshold": 1e-4}, 2 + 1, 2 + 1 + 3),
    ],
    ids=str,
)
def test_estimates_without_jacobians(settings, quickly, slowly):
    """What needs none is what Jacobians give."""
    atoms = rattled(molecule("C2H6"), 0.1)
    atoms.set_constraint(FixAtoms([7]))
    found = []
    for kind, expected in ((CountingSOAP, quickly), (SlowSOAP, slowly)):
        soap = kind(["C", "H"], cutoff=4.0, n_max=6, l_max=4)
        found.append(observed(atoms, soap, on_singular="log", **settings).diagnosis)
        assert soap.n_calls == expected
    quick, slow = found
    assert quick.how == slow.how == "estimate"
    assert 0 < quick.distance == pytest.approx(slow.distance, rel=1e-3)
    scale = np.abs(slow.slope).max()
    np.testing.assert_allclose(quick.slope, slow.slope, atol=1e-3 * scale)


def test_a_crystal_without_any_derivative():
    """All blocks cancel where every atom is a center of inversion."""
    observer = observed(bulk("Cu", cubic=True), SOAP(["Cu"], cutoff=4.0, n_max=4, l_max=4))
    assert observer.error is None
    assert observer.diagnosis.cause == "symmetry"


@pytest.mark.parametrize(
    ("height", "cause"), [(0.02, "symmetry"), (0.13, "symmetry"), (0.16, None)]
)
def test_what_is_looked_at_closely(height, cause):
    """Whatever is estimated within 1.25 times the distance that matters (0.1 Å)."""
    atoms = pyramid("NH3", height)
    watch = Monitor(AMMONIA, scope="structure", within=0.1, suspicious=0.5)
    found = watch.diagnose(atoms, analyze(atoms, AMMONIA, k=3))
    assert found.distance == pytest.approx(height * np.sqrt(3) / 2, rel=0.1)
    assert found.cause == cause
    assert (found.how == "estimate") == (cause is None)


class TestLog:
    def test_distance_arrival_and_cause(self, tmp_path):
        """Planarity comes at the height over the speed, times of flight in fs."""
        atoms = pyramid("NH3", 0.08)
        speed = 0.01 / units.fs  # Å per fs
        atoms.set_velocities([(0, 0, -speed), *[(0, 0, 0)] * 3])
        log = tmp_path / "log"
        observed(atoms, AMMONIA, logfile=log, distance=True)
        atoms.set_velocities([(0, 0, speed), *[(0, 0, 0)] * 3])
        observed(atoms, AMMONIA, logfile=log, distance=True, append=True)
        found = read_log(log)
        assert found.cause.tolist() == ["symmetry", "symmetry"]
        assert found.distance == pytest.approx(0.08 * np.sqrt(3) / 2, rel=0.05)
        assert found.arrival[0] == pytest.approx(8, rel=0.05)
        assert np.isnan(found.arrival[1])

    def test_what_has_been_passed_does_not_arrive(self):
        """Not by a diagnosis from before the passage either."""
        still, log = Still(pyramid("NH3", 0.02)), io.StringIO()
        speed = 0.01 / units.fs
        still.atoms.set_velocities([(0, 0, -speed), *[(0, 0, 0)] * 3])
        observer = SensitivityObserver(still, AMMONIA, logfile=log)
        for height in (0.02, -0.02, -0.04):
            still.atoms.positions[0, 2] = still.atoms.positions[1, 2] + height
            observer()
        assert observer.diagnosis.how == "known"
        log.seek(0)
        found = read_log(log)
        assert found.arrival[0] == pytest.approx(2, rel=0.05)
        assert np.isnan(found.arrival[1:]).all()

    def test_only_on_suspicion_or_always(self):
        far = molecule("NH3")
        assert observed(far, AMMONIA).sensitivity.distance is None
        always = observed(far, AMMONIA, distance=True).sensitivity
        assert always.distance == pytest.approx(nearest_singular(far, AMMONIA).estimate, rel=1e-6)

    def test_a_raw_threshold_costs_no_more(self):
        found = observed(pyramid("NH3", 0.0), AMMONIA, threshold=1e-3, on_singular="log")
        assert found.sensitivity.distance is None
        assert found.n_singular == 1


class TestActions:
    def test_by_cause(self):
        actions = {"incompleteness": "raise", "symmetry": "log"}
        with pytest.raises(SingularConfiguration, match=r"incompleteness at 0\.0"):
            observed(near_s1(0.03), on_carbon(), on_singular=actions)
        flat = observed(pyramid("NH3", 0.01), AMMONIA, on_singular=actions)
        assert flat.n_singular == 1
        assert flat.sensitivity.approaching == "symmetry"

    def test_halt_on_symmetry_if_asked_for(self):
        atoms = pyramid("NH3", 0.3)
        atoms.set_velocities([(0, 0, -0.02 / units.fs), *[(0, 0, 0)] * 3])
        atoms.calc = CountingEMT()
        dyn = VelocityVerlet(atoms, 0.5 * units.fs)
        log = io.StringIO()
        observer = SensitivityObserver(
            dyn, AMMONIA, on_singular={"symmetry": "halt"}, logfile=log, distance_threshold=0.05
        )
        dyn.attach(observer)
        dyn.run(40)
        assert observer.halted is not None
        assert "symmetry at 0.0" in observer.halted
        assert 0 < dyn.nsteps < 40

    def test_raw_threshold_with_causes(self):
        """Both have to hold: the ratio is small, and the cause is one of those named."""
        settings = {"threshold": 0.5, "on_singular": {"incompleteness": "warn"}}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            observed(pyramid("NH3", 0.01), AMMONIA, **settings)
        assert not ours(caught)
        with pytest.warns(SingularWarning):
            observed(near_s1(0.03), on_carbon(), **settings)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"on_singular": {"bug": "warn"}}, "`on_singular` has the cause 'bug'"),
            ({"on_singular": {"symmetry": "shout"}}, "`on_singular` has 'shout'"),
            ({"on_singular": {"symmetry": "record"}}, "needs `trajectory`"),
            ({"distance_threshold": 0}, "`distance_threshold` is 0"),
            ({"distance_threshold": "near"}, "`distance_threshold` is 'near'"),
        ],
    )
    def test_bad_arguments(self, settings, message):
        with pytest.raises(ValueError, match=message):
            observed(molecule("NH3"), AMMONIA, **settings)


class Counted:
    """A descriptor that counts its Jacobians."""

    def __init__(self, soap):
        self._soap, self.n = soap, 0
        self.species, self.cutoff, self.body_order = soap.species, soap.cutoff, soap.body_order

    def features(self, atoms):
        return self._soap.features(atoms)

    def jacobian(self, atoms):
        self.n += 1
        return self._soap.jacobian(atoms)


class TestCost:
    def test_no_suspicion_no_jacobian(self):
        soap = Counted(AMMONIA)
        still = Still(molecule("NH3"))
        still.play(SensitivityObserver(still, soap), 5)
        assert soap.n == 5

    def test_a_benign_state_is_diagnosed_once(self):
        soap = Counted(AMMONIA)
        atoms = pyramid("NH3", 0.03)
        still = Still(atoms)
        observer = SensitivityObserver(still, soap)
        still.play(observer, 1)
        first, soap.n = soap.n, 0
        assert 3 <= first <= 6
        for height in (0.025, 0.02, 0.015):
            atoms.positions[0, 2] = atoms.positions[1, 2] + height
            still.play(observer, 1)
            assert observer.diagnosis.how == "known"
            assert observer.sensitivity.distance == pytest.approx(height * 3**0.5 / 2, rel=0.05)
        assert soap.n == 3

    def test_a_diagnosis_is_made_anew_after_fifty_calls(self):
        atoms = pyramid("NH3", 0.03)
        watch = Monitor(AMMONIA, scope="structure", within=0.1)
        found = analyze(atoms, AMMONIA, k=3)
        known = [watch.diagnose(atoms, found).how == "known" for _ in range(60)]
        assert known == [False, *[True] * 50, False, *[True] * 8]

    def test_distances_follow_through_the_plane(self):
        """N passes through the plane while all atoms jitter."""
        atoms = pyramid("NH3", 0.05)
        flat = atoms.positions.copy()
        still = Still(atoms)
        observer = SensitivityObserver(still, AMMONIA)
        hows = []
        for n, height in enumerate(np.linspace(0.05, -0.05, 41)):
            noise = np.random.default_rng(n).normal(size=(4, 3))
            atoms.positions[:] = flat + 0.004 * noise
            h = atoms.positions[1:]
            normal = np.cross(h[1] - h[0], h[2] - h[0])
            normal /= np.linalg.norm(normal)
            atoms.positions[0] += (height - normal @ (atoms.positions[0] - h[0])) * normal
            still.play(observer, 1)
            hows.append(observer.diagnosis.how)
            true = abs(height) * np.sqrt(3) / 2
            assert observer.sensitivity.distance == pytest.approx(true, rel=0.2, abs=1e-4)
            assert observer.sensitivity.approaching == "symmetry"
        assert hows.count("known") > 30

    @pytest.mark.parametrize(("height", "known"), [(0.22, True), (0.14, True), (0.06, False)])
    def test_what_is_out_of_reach_stays_so_for_a_while(self, height, known):
        """Until the atoms have moved by what was missing to the distance that matters."""
        atoms = pyramid("NH3", 0.18)
        watch = Monitor(AMMONIA, scope="structure", within=0.1, suspicious=0.5)
        first = watch.diagnose(atoms, analyze(atoms, AMMONIA, k=3))
        assert (first.how, first.cause) == ("estimate", None)
        assert 0.15 < first.distance < 0.18
        atoms = pyramid("NH3", height)
        found = watch.diagnose(atoms, analyze(atoms, AMMONIA, k=3))
        assert (found.how == "known") == known

    def test_the_steepest_value_of_the_run_counts(self):
        watch = Monitor(AMMONIA, scope="structure", within=0.1, always=True)
        steepness = []
        for height in (0.3, 0.02, 0.3):
            atoms = pyramid("NH3", height)
            found = analyze(atoms, AMMONIA, k=3)
            diagnosis = watch.diagnose(atoms, found)
            steepness.append(found.ratio / diagnosis.distance)
            assert watch._steepest >= max(steepness) * (1 - 1e-2)
        assert steepness[2] < 0.95 * max(steepness)

    def test_new_neighbors_are_looked_at_anew(self):
        atoms = pyramid("NH3", 0.03) + Atoms("He", [(0, 0, 4.5)])
        soap = SOAP(species=["N", "H", "He"], cutoff=4.0, n_max=6, l_max=4, centers=["N", "H"])
        watch = Monitor(soap, scope="structure", within=0.1)

        def look():
            return watch.diagnose(atoms, analyze(atoms, soap, k=3)).how

        first = look()
        assert first != "known"
        assert look() == "known"
        atoms.positions[4, 2] = 3.5
        assert look() != "known"

    def test_large_cells_are_not_suspicious_for_ever(self):
        """Small ratios that are far from singular are not looked at again and again."""
        soap = Counted(SOAP(species=["Si"], cutoff=5.0, n_max=6, l_max=4))
        atoms = bulk("Si", cubic=True).repeat((1, 1, 6))
        perfect = atoms.positions.copy()
        still = Still(atoms)
        observer = SensitivityObserver(still, soap)
        for seed in range(6):
            noise = np.random.default_rng(seed).normal(size=perfect.shape)
            atoms.positions[:] = perfect + 0.08 * noise
            still.play(observer, 1)
        assert observer.sensitivity.ratio < 0.1
        assert observer.n_singular == 0
        assert soap.n <= 6 + 2 * 4

    def test_the_run_is_not_touched(self):
        atoms = near_s1(0.03)
        before = atoms.positions.copy()
        observed(atoms, on_carbon(), on_singular="log")
        assert (atoms.positions == before).all()


class TestRecall:
    """What a diagnosis of an earlier call is good for, by docs/approach."""

    atoms = pyramid("NH3", 0.03)
    before = analyze(atoms, AMMONIA, k=3)

    def known(self, cause="symmetry", number=0, slack=0.0):
        return Remembered(
            Diagnosis(0.02, cause, None, np.arange(4), "walk"),
            number,
            modes=self.before.modes,
            values=self.before.singular_values,
            n_null=0,
            center=None,
            cutoff=AMMONIA.cutoff,
            atoms=self.atoms,
            slack=slack,
        )

    def after(self, factors=(1, 1, 1), turn=None, **changes):
        """What was found, with singular values and modes changed."""
        modes = self.before.modes
        if turn is not None:
            modes = np.tensordot(turn, modes, axes=1)
        values = self.before.singular_values * factors
        return replace(self.before, singular_values=values, modes=modes, **changes)

    @staticmethod
    def rotated(first, second, share):
        """Modes of which the first holds a share of what it was, and so does the second."""
        turn = np.eye(3)
        c, s = np.sqrt(share), np.sqrt(1 - share)
        turn[[first, first, second, second], [first, second, first, second]] = c, s, -s, c
        return turn

    @pytest.mark.parametrize("factor", [0.4, 1, 3])
    def test_distances_follow_the_value(self, factor):
        found = self.known().recalled(self.atoms, self.after((factor, 1, 1)), 1)
        assert found.distance == pytest.approx(0.02 * factor, rel=1e-9)
        assert (found.cause, found.how) == ("symmetry", "known")

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_no_value_has_fallen_to_a_third(self, which):
        for factor, holds in ((0.35, True), (0.32, False)):
            factors = np.ones(3)
            factors[which] = factor
            found = self.known().recalled(self.atoms, self.after(factors), 3)
            assert (found is not None) == holds

    def test_modes_that_nobody_asks_may_fall(self):
        assert self.known().recalled(self.atoms, self.after((1, 0.1, 0.1)), 1)

    def test_modes_are_what_they_were(self):
        for share, holds in ((0.92, True), (0.88, False)):
            turn = self.rotated(0, 2, share)
            found = self.known("incompleteness").recalled(self.atoms, self.after(turn=turn), 1)
            assert (found is not None) == holds

    def test_every_mode_that_is_asked_has_been_asked(self):
        """A mode that was none of those asked may be harmful."""
        modes = self.before.modes.copy()
        others = np.linalg.svd(modes.reshape(3, -1))[2][3:]
        modes[2] = others[0].reshape(4, 3)
        found = replace(self.before, modes=modes)
        assert self.known().recalled(self.atoms, found, 2)
        assert self.known().recalled(self.atoms, found, 3) is None

    def test_modes_that_meet_may_exchange_parts(self):
        turn = self.rotated(0, 1, 0.5)
        ratio = self.before.singular_values[0] / self.before.singular_values[1]
        for factor, holds in ((0.95, True), (0.8, False)):
            after = self.after((1, ratio / factor, 1), turn=turn)
            found = self.known("incompleteness").recalled(self.atoms, after, 1)
            assert (found is not None) == holds

    def test_what_matters_holds_until_atoms_have_moved(self):
        """But for a translation of all of them."""
        for shift, holds in ((0.02, True), (0.05, False)):
            moved = self.atoms.copy()
            moved.positions += 1.0
            moved.positions[0, 2] += shift
            known = self.known("incompleteness", slack=0.03)
            assert (known.recalled(moved, self.after(), 1) is not None) == holds
            assert self.known().recalled(moved, self.after(), 1) is not None

    def test_other_states(self):
        assert self.known().recalled(self.atoms, self.after(n_null=1), 1) is None
        assert self.known().recalled(self.atoms, self.after(center=2), 1) is None
        null = replace(self.known("incompleteness"), n_null=2)
        assert null.recalled(self.atoms, self.after(n_null=2), 1).distance == 0
        moved = self.atoms.copy()
        moved.positions[1] += 9.0
        assert null.recalled(moved, self.after(n_null=2), 1) is None


@pytest.mark.parametrize(
    ("distance", "far"),
    [(0, 0.05), (0.012, 0.05), (0.013, 0.1), (0.03, 0.2), (0.06, 0.3), (1, 0.3)],
)
def test_how_far_symmetric_geometries_may_be(distance, far):
    assert as_far(distance) == far


def test_a_diagnosis_that_fails_costs_no_singular_values(monkeypatch, tmp_path):
    def broken(self, atoms, found, seconds):
        raise ValueError("no")

    monkeypatch.setattr(Monitor, "diagnose", broken)
    log = tmp_path / "log"
    with pytest.warns(match="distance to a singular configuration could not be found"):
        observer = observed(near_s1(0.03), on_carbon(), logfile=log)
    assert str(observer.error) == "no"
    found = read_log(log)
    assert found.state.tolist() == ["ok"]
    assert found.ratio[0] < 0.1
    assert np.isnan(found.distance[0])
