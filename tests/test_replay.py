"""The observer over frames that exist already."""

from __future__ import annotations

import io

import ase.io
import numpy as np
import pytest
from ase import units
from ase.io import Trajectory
from ase.md import VelocityVerlet

from ase_sensitivity import (
    EvaluationWarning,
    QUIPDescriptor,
    SensitivityObserver,
    SingularConfiguration,
    read_log,
    replay,
)
from tests.conftest import Told, ammonia, warm
from tests.structures import SHARED

SETTINGS = {"k": 4, "threshold": 0.22, "patience": 2, "on_singular": "log"}


@pytest.fixture
def live(soap, tmp_path):
    """The log and the trajectory of a run of six steps."""
    atoms = ammonia()
    warm(atoms, 2000)
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    observer = SensitivityObserver(dyn, soap, logfile=tmp_path / "log", **SETTINGS)
    dyn.attach(observer)
    with Trajectory(tmp_path / "run.traj", "w", atoms) as trajectory:
        dyn.attach(trajectory)
        dyn.run(6)
    observer.close()
    return tmp_path


def rows(path):
    return [text for text in path.read_text().splitlines() if not text.startswith("#")]


class TestEqualsTheLiveRun:
    def test_line_by_line(self, live, soap):
        log = live / "replayed"
        found = replay(live / "run.traj", soap, timestep=0.5, logfile=log, **SETTINGS)
        assert log.read_text() == (live / "log").read_text()
        assert found.step.tolist() == list(range(7))
        assert set(found.state) == {"ok", "below", "singular"}

    @pytest.mark.parametrize("kind", ["file", "text", "list", "generator"])
    def test_from_whatever_holds_frames(self, live, soap, kind):
        path = live / "run.traj"
        frames = {
            "file": path,
            "text": str(path),
            "list": ase.io.read(path, ":"),
            "generator": (frame for frame in ase.io.read(path, ":")),
        }[kind]
        found, expected = replay(frames, soap, timestep=0.5, **SETTINGS), read_log(live / "log")
        for name in vars(expected):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)

    def test_some_frames_of_a_file(self, live, soap):
        found = replay(f"{live / 'run.traj'}@1::2", soap, **SETTINGS)
        expected = read_log(live / "log")
        assert found.step.tolist() == [0, 1, 2]
        assert np.array_equal(found.ratio, expected.ratio[1::2])

    def test_a_folder_may_have_an_at_sign(self, tmp_path):
        path = tmp_path / "user@host" / "run.xyz"
        path.parent.mkdir()
        ase.io.write(path, [ammonia()] * 3)
        assert len(replay(path, Told())) == 3

    def test_files_follow_on_each_other(self, live, soap):
        path = live / "run.traj"
        found = replay([f"{path}@:3", f"{path}@3:"], soap, timestep=0.5, **SETTINGS)
        expected = read_log(live / "log")
        for name in vars(expected):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)

    def test_one_frame_of_a_file(self, live, soap):
        assert len(replay(f"{live / 'run.traj'}@-1", soap, on_singular="log")) == 1


class TestReplay:
    def test_time_is_unknown_without_a_time_step(self):
        assert np.isnan(replay([ammonia()] * 2, Told()).time).all()

    def test_halt_ends_it(self):
        found = replay([ammonia()] * 5, Told([0.5, 0.5, 1e-5]), on_singular="halt", threshold=1e-3)
        assert found.state.tolist() == ["ok", "ok", "singular"]

    def test_raise_leaves_the_log(self, tmp_path):
        log = tmp_path / "log"
        with pytest.raises(SingularConfiguration):
            replay(
                [ammonia()] * 5, Told([0.5, 1e-5]), on_singular="raise", threshold=1e-3, logfile=log
            )
        assert read_log(log).state.tolist() == ["ok", "singular"]

    def test_frames_are_read_one_at_a_time(self):
        def endless():
            while True:
                yield ammonia()

        found = replay(endless(), Told([0.5, 0.5, 1e-5]), on_singular="halt", threshold=1e-3)
        assert len(found) == 3

    def test_a_failure_does_not_stop_it(self):
        frames = [ammonia() for _ in range(3)]
        frames[1].positions[0] = np.nan
        with pytest.warns(EvaluationWarning):
            found = replay(frames, Told())
        assert found.state.tolist() == ["ok", "failed", "ok"]

    def test_flagged_frames_are_recorded(self, tmp_path):
        path = tmp_path / "flagged.xyz"
        settings = {"trajectory": path, "on_singular": "record", "threshold": 1e-3}
        replay([ammonia()] * 3, Told([0.5, 1e-5]), **settings)
        assert [frame.info["step"] for frame in ase.io.read(path, ":")] == [1]

    def test_frames_may_differ_in_size(self, soap):
        small = ammonia()[[0, 1, 2]]
        assert len(replay([ammonia(), small], soap, on_singular="log", k=6)) == 2

    def test_appending_returns_these_frames_only(self, tmp_path):
        log = tmp_path / "log"
        replay([ammonia()] * 3, Told(), logfile=log)
        assert len(replay([ammonia()] * 2, Told(), logfile=log, append=True)) == 2
        assert len(read_log(log)) == 5

    def test_standard_output(self, capsys):
        found = replay([ammonia()], Told(), logfile="-")
        printed = read_log(capsys.readouterr().out.splitlines(keepends=True))
        assert printed.ratio == pytest.approx(found.ratio, rel=1e-6)
        assert len(found) == 1

    def test_an_open_file(self):
        log = io.StringIO()
        assert len(replay([ammonia()], Told(), logfile=log)) == 1
        assert "Step" in log.getvalue()

    def test_without_a_header(self):
        assert len(replay([ammonia()] * 2, Told(), header=False)) == 2

    def test_the_progress_bar_is_shown_on_request(self, capsys, monkeypatch):
        replay([ammonia()] * 2, Told())
        assert capsys.readouterr() == ("", "")
        monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to rich
        replay([ammonia()] * 2, Told(), progress=True)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Replaying" in captured.err
        assert "2/2" in captured.err

    def test_frames_are_left_alone(self):
        frame = ammonia()
        before = frame.copy()
        replay([frame], Told([1e-5]), on_singular="log")
        assert frame == before
        assert frame.info == before.info
        assert frame.calc is not None
        assert set(frame.arrays) == set(before.arrays)


@pytest.mark.slow
def test_a_published_trajectory():
    path = SHARED / "ethanol_reduced_100.xyz"
    if not path.exists():
        pytest.skip("../shared/data/ethanol_reduced_100.xyz is not here")
    soap = QUIPDescriptor("soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.4", species=["C", "H", "O"])
    found = replay(f"{path}@:20", soap, on_singular="log")
    assert len(found) == 20
    assert not (found.state == "failed").any()
    assert ((found.ratio > 0) & (found.ratio < 1)).all()
