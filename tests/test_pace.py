"""The time of an observer stays below a fraction of that of its run. The clock is the test's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from ase_sensitivity import EvaluationWarning, SensitivityObserver, read_log, replay
from ase_sensitivity.md.pace import Pace
from tests.conftest import Still, Told, ammonia


class Timed(Still):
    """A run whose steps take a second each, and a clock for it."""

    def __init__(self, atoms: Atoms) -> None:
        super().__init__(atoms)
        self.now = 0.0

    @property
    def nsteps(self) -> int:
        return self._nsteps

    @nsteps.setter
    def nsteps(self, value: int) -> None:
        self.now = getattr(self, "now", 0.0) + max(value - getattr(self, "_nsteps", value), 0)
        self._nsteps = value


class Costly(Told):
    """Each Jacobian takes some seconds of the run's clock."""

    def __init__(self, run: Timed, seconds=(3.0,), ratios=(0.5,)) -> None:
        super().__init__(ratios)
        self.run, self.seconds, self.taken = run, seconds, []

    def jacobian(self, atoms):
        self.taken.append(self.seconds[len(self.taken) % len(self.seconds)])
        self.run.now += self.taken[-1]
        return super().jacobian(atoms)


@pytest.fixture
def run() -> Timed:
    return Timed(ammonia())


def observer_of(run: Timed, descriptor: Told, max_overhead=0.1, **how) -> SensitivityObserver:
    # Ratios tell nothing of interest here.
    how = {"on_singular": "log", "distance_threshold": None, "threshold": 1e-6} | how
    observer = SensitivityObserver(run, descriptor, max_overhead=max_overhead, **how)
    observer._pace.clock = lambda: run.now
    return observer


@pytest.mark.parametrize("seconds", [(3.0,), (0.25,), (1.0, 1.0, 1.0, 20.0)])
@pytest.mark.parametrize("max_overhead", [0.05, 0.5])
def test_the_time_stays_below_the_fraction(run, seconds, max_overhead):
    costly = Costly(run, seconds)
    observer = observer_of(run, costly, max_overhead)
    for step in range(400):
        before = len(costly.taken)
        run.play(observer, 1)
        if step == 0:
            assert len(costly.taken) == 1  # always
        elif len(costly.taken) > before:
            # One call may take longer than the calls before did on average.
            excess = max(0.0, costly.taken[-1] - np.mean(costly.taken[:-1]))
            assert sum(costly.taken) <= max_overhead * (run.nsteps - 1) + excess + 1e-9
    assert observer.n_calls == len(costly.taken) > 1
    assert observer.n_calls + observer.n_skipped == 400
    # What is allowed is used, as far as there are calls.
    assert sum(costly.taken) >= min(
        0.8 * max_overhead * run.nsteps - 2 * max(seconds), 400 * min(seconds)
    )


def test_without_a_limit_every_call_looks_and_no_clock_is_read(run):
    observer = observer_of(run, Costly(run), None)
    observer._pace.clock = lambda: pytest.fail("no time is asked for")
    run.play(observer, 5)
    assert (observer.n_calls, observer.n_skipped) == (5, 0)


def test_time_between_two_runs_earns_one_call(run):
    observer = observer_of(run, Costly(run))
    run.play(observer, 10)
    assert observer.n_calls == 1
    run.now += 1e4
    run.play(observer, 20)
    assert observer.n_calls == 2


def test_calls_that_fail_take_time_as_well(run):
    broken = Costly(run, ratios=[0.5, ValueError("broken")])
    observer = observer_of(run, broken)
    with pytest.warns(EvaluationWarning):
        run.play(observer, 300)
    assert observer.n_failed >= 1
    assert sum(broken.taken) <= 0.1 * run.nsteps


def test_the_log_says_what_was_skipped(run):
    log = io.StringIO()
    observer = observer_of(run, Costly(run), logfile=log)
    run.play(observer, 100)
    text = log.getvalue()
    assert "max_overhead=0.1" in text.splitlines()[1]
    remarks = [line for line in text.splitlines() if line.startswith("# step")]
    # Two calls are paid for after 60 s, three after 90 s.
    assert remarks == [
        "# step 2: a call takes 3 s, and calls are skipped until the run has taken 30 s for each "
        "(max_overhead=0.1)",
        "# step 61: 59 calls skipped; so far calls took 3 s and the run 60 s",
        "# step 91: 29 calls skipped; so far calls took 6 s and the run 90 s",
    ]
    assert read_log(text.splitlines(keepends=True)).step.tolist() == [1, 61, 91]


def test_an_old_log_is_continued(run, tmp_path: Path):
    file = tmp_path / "log"
    with observer_of(run, Told(), None, logfile=file) as observer:
        run.play(observer, 2)
    with observer_of(run, Costly(run), logfile=file, append=True) as observer:
        run.play(observer, 61)
    assert read_log(file).step.tolist() == [1, 2, 3, 63]


def test_what_is_skipped_neither_counts_for_patience_nor_interrupts_it(run):
    observer = observer_of(run, Costly(run, ratios=[1e-8]), patience=2, on_singular="halt")
    run.play(observer, 200)
    assert observer.n_calls == 2
    assert run.nsteps == 61
    assert observer.halted is not None
    run.play(observer, 1)
    assert observer.halted is None  # the run goes on, although the call was skipped


def test_all_ranks_do_what_the_first_decides(run):
    """Their clocks differ, and a halt of some ranks only would block the others."""
    decisions: list[int] = []

    class Rank:
        size = 2

        def __init__(self, rank: int) -> None:
            self.rank, self.n = rank, 0

        def broadcast(self, numbers, root):
            assert root == 0
            if self.rank == 0:
                decisions.append(int(numbers[0]))
            numbers[0] = decisions[self.n]
            self.n += 1

    clocks = [0.0, 0.0]
    paces = [Pace(0.1, Rank(rank), lambda rank=rank: clocks[rank]) for rank in (0, 1)]
    allowed: list[list[bool]] = [[], []]
    for _ in range(100):
        for rank, pace in enumerate(paces):
            clocks[rank] += 1 + 5 * rank
            allowed[rank].append(pace.begin())
            if allowed[rank][-1]:
                clocks[rank] += 3
                pace.end()
    assert allowed[0] == allowed[1]
    assert 1 < sum(allowed[0]) < 5


@pytest.mark.parametrize(
    ("given", "error"),
    [(0, ValueError), (-0.1, ValueError), (np.nan, ValueError), ("5 %", TypeError)],
)
def test_mistakes(run, given, error):
    with pytest.raises(error, match="`max_overhead` is"):
        SensitivityObserver(run, Told(), max_overhead=given)


def test_a_finished_run_pays_for_nothing():
    with pytest.raises(ValueError, match=r"`max_overhead` is 0\.1 but has no meaning"):
        replay([ammonia()], Told(), max_overhead=0.1)
