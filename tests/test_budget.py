"""Looking for what is near ends where it would take too long. The clock counts Jacobians."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from ase_sensitivity import (
    SOAP,
    CostWarning,
    SensitivityCalculator,
    SensitivityObserver,
    analyze,
    read_log,
    replay,
)
from ase_sensitivity.auditing.reference import GENERIC, around_carbon
from ase_sensitivity.singular.budget import Budget
from ase_sensitivity.singular.monitor import Monitor
from ase_sensitivity.singular.recall import REFRESH
from tests.conftest import SlowSOAP, Still, Told, ammonia, ours


class Slow(SlowSOAP):
    """Its larger basis is that of the class that it counts."""

    enlarged = SOAP.enlarged


@pytest.fixture
def slow() -> SlowSOAP:
    """Blind at T, and nowhere near it by symmetry: only a walk gets there."""
    settings = {"atom_sigma": 0.3, "normalise": False, "central_weight": 0, "centers": ["C"]}
    return Slow(["H"], cutoff=3.0, n_max=8, l_max=3, **settings)


def near_t(size: float) -> Atoms:
    atoms = around_carbon(GENERIC)
    atoms.positions += size * np.random.default_rng(0).normal(size=(5, 3)) / np.sqrt(15)
    return atoms


@pytest.fixture
def look(slow):
    """What a watch says of a structure, and the Jacobians that it took."""

    def look(watch, atoms):
        found = analyze(atoms, slow, k=3)
        before = slow.n_calls
        return watch.diagnose(atoms, found), slow.n_calls - before

    return look


def watch_of(slow, seconds) -> Monitor:
    budget = Budget(seconds, clock=lambda: float(slow.n_calls))
    return Monitor(slow, scope="structure", within=0.1, budget=budget)


def test_without_a_budget_the_cause_is_found(slow, look):
    found, n_jacobians = look(watch_of(slow, None), near_t(0.03))
    assert (found.how, found.cause) == ("walk", "truncation")
    assert n_jacobians > 10


def test_a_walk_that_would_take_too_long_is_skipped(slow, look):
    found, n_jacobians = look(watch_of(slow, 11.0), near_t(0.03))
    # What is blind by geometry alone needs no walk; the truncated point, which does, is nearer.
    assert (found.how, found.cause) == ("skipped", "incompleteness")
    assert 0.03 < found.distance < 0.1
    # The start, one ahead of it along each of three suspects, and one at the blind geometry.
    assert n_jacobians == 5


def test_a_walk_that_takes_longer_than_usual_is_broken_off(slow, look):
    _, whole = look(watch_of(slow, None), near_t(0.03))
    found, n_jacobians = look(watch_of(slow, 12.0), near_t(0.03))
    assert found.how == "skipped"
    assert n_jacobians <= 12 + 3 < whole  # what a step tries at most is tried


def test_blocks_that_take_longer_than_the_gram_matrix_are_learnt_before_a_walk():
    """The start does without them; a walk, which needs them, would take too long."""
    now = [0.0]

    class BlocksAreSlow(SOAP):
        def jacobian(self, atoms):
            now[0] += 1.0
            return super().jacobian(atoms)

        def stream(self, atoms):
            now[0] += 0.1
            return SOAP.stream(self, atoms)

        squared_jvp_gradient = SOAP.squared_jvp_gradient
        enlarged = SOAP.enlarged

    atoms = near_t(0.03)
    soap = BlocksAreSlow(["H"], 3.0, 8, 3, 0.3, centers=["C"], central_weight=0, normalise=False)
    found = analyze(atoms, soap, k=3)
    watch = Monitor(soap, scope="structure", within=0.1, budget=Budget(8.0, clock=lambda: now[0]))
    before = now[0]
    assert watch.diagnose(atoms, found).how == "skipped"
    assert now[0] - before < 4.0
    assert watch.budget.cost == pytest.approx(1.1)


def test_an_estimate_that_would_take_too_long_is_skipped(slow, look):
    """One Jacobian tells; after that it is known."""
    watch = watch_of(slow, 1.5)
    for expected in (1, 0, 0):
        found, n_jacobians = look(watch, near_t(0.03))
        assert (found.how, found.cause, found.points) == ("skipped", None, None)
        assert n_jacobians == expected


def test_what_is_known_is_measured_again_at_times(slow, look):
    watch = watch_of(slow, 1.5)
    counts = [look(watch, near_t(0.03))[1] for _ in range(REFRESH + 1)]
    assert counts == [1] + (REFRESH - 1) * [0] + [1]


def test_what_needs_no_jacobian_needs_no_time(slow, look):
    found, n_jacobians = look(watch_of(slow, 1.5), near_t(0.0))
    assert (found.how, found.cause) == ("filter", "truncation")
    assert n_jacobians == 1


class TestObserver:
    @pytest.fixture
    def observer(self, slow):
        still = Still(near_t(0.03))
        log = io.StringIO()
        observer = SensitivityObserver(still, slow, logfile=log, budget=11.0)
        observer._monitor.budget.clock = lambda: float(slow.n_calls)
        return still, observer, log

    def test_it_says_so_once(self, observer):
        still, observer, log = observer
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            still.play(observer, 1)
            still.atoms.positions[1] += 0.03  # beyond what is remembered
            still.play(observer, 1)
        (warning,) = [told for told in ours(caught) if told.category is CostWarning]
        assert "conftest" in warning.filename  # where the run is, not where the observer is
        lines = [text for text in log.getvalue().splitlines() if "not looked for" in text]
        assert lines == [
            "# step 1: not looked for: a Jacobian takes 1 s, a walk some 10 of them, "
            "and the budget of a call is 11 s"
        ]
        assert observer.sensitivity.approaching == "incompleteness"  # which needed no walk
        assert observer.sensitivity.distance < 0.1
        states = read_log(log.getvalue().splitlines(keepends=True)).state
        assert states.tolist() == ["singular", "singular"]

    def test_an_error_that_it_is_made_stops_no_look(self, observer):
        still, observer, _ = observer
        with warnings.catch_warnings():
            warnings.simplefilter("error", CostWarning)
            with pytest.raises(CostWarning):
                still.play(observer, 1)
        assert observer.error is None


def test_the_calculator_has_one_too(slow, monkeypatch):
    clock = lambda: float(slow.n_calls)  # noqa: E731
    monkeypatch.setattr(Budget.__init__, "__defaults__", (30.0, clock))
    atoms = near_t(0.03)
    calc = SensitivityCalculator(EMT(), slow, budget=11.0)
    with pytest.warns(CostWarning):
        without_walk = calc.get_property("spurious_distance", atoms)
    assert calc.diagnosis.how == "skipped"
    calc.budget = None
    assert calc.get_property("spurious_distance", atoms) < 0.5 * without_walk < 0.05


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf"), "long"])
def test_what_is_no_budget(budget):
    for call in (
        lambda: replay([ammonia()], Told(), budget=budget),
        lambda: SensitivityCalculator(EMT(), Told(), budget=budget),
    ):
        with pytest.raises((TypeError, ValueError), match="`budget` is"):
            call()
