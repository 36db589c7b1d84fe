"""replay on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import Trajectory
from ase.md import VelocityVerlet

from ase_sensitivity import QUIPDescriptor, read_log, replay
from ase_sensitivity.cli.app import main
from ase_sensitivity.errors import EvaluationWarning
from tests.conftest import warm

TEXT = "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5"
GIVEN = ["-d", TEXT, "--species", "N,H"]


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch) -> None:
    """Ammonia on its way through the plane."""
    monkeypatch.chdir(tmp_path)
    atoms = molecule("NH3")
    atoms.positions[0, 2] = atoms.positions[1:, 2].mean() + 0.05
    atoms.calc = EMT()
    warm(atoms, 1000)
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    with Trajectory("run.traj", "w", atoms) as trajectory:
        dyn.attach(trajectory)
        dyn.run(7)


@pytest.fixture
def soap() -> QUIPDescriptor:
    return QUIPDescriptor(TEXT, species=["N", "H"])


def same(found, expected) -> None:
    assert len(expected) == 8
    for name in vars(expected):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


class TestReplay:
    def test_the_log_is_that_of_python(self, soap, capsys):
        given = ["--timestep", "0.5", "--k", "4", "--distance", "-o", "log"]
        assert main(["replay", "run.traj", *GIVEN, *given]) == 0
        expected = replay("run.traj", soap, timestep=0.5, k=4, distance=True)
        same(read_log("log"), expected)
        captured = capsys.readouterr()
        assert captured.err == ""
        lines = captured.out.splitlines()
        assert lines[0] == "8 frames, 0 of them in a singular state."
        lowest = expected.ratio.argmin()
        assert lines[1] == (
            f"Smallest sigma_min / sigma_max: {expected.ratio[lowest]:.2e}, frame {lowest}."
        )
        of = expected.cause == "symmetry"
        nearest = np.where(of, expected.distance, np.inf).argmin()
        assert (
            f"By symmetry, known in {of.sum()}: nearest {expected.distance[nearest]:.4f} Å, "
            f"frame {nearest}."
        ) in lines

    def test_several_files_are_one_run(self, soap):
        assert main(["replay", "run.traj@:5", "run.traj@5:", *GIVEN, "-o", "log"]) == 0
        same(read_log("log"), replay("run.traj", soap))

    def test_the_log_on_the_standard_output(self, soap, capsys):
        assert main(["replay", "run.traj", *GIVEN, "-o", "-"]) == 0
        captured = capsys.readouterr()
        same(read_log(captured.out.splitlines(keepends=True)), replay("run.traj", soap))
        assert captured.err.startswith("8 frames")

    def test_json(self, soap, capsys):
        assert main(["replay", "run.traj", *GIVEN, "--threshold", "0.2", "--json"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        told = json.loads(captured.out)
        expected = replay("run.traj", soap, threshold=0.2, on_singular="log")
        assert told["n_frames"] == 8
        assert 0 < told["n_singular"] == (expected.state == "singular").sum()
        assert told["n_failed"] == 0
        assert told["smallest"]["ratio"] == expected.ratio.min()
        assert told["smallest"]["frame"] == expected.ratio.argmin()

    def test_recorded_frames(self, soap):
        given = ["--threshold", "0.2", "--patience", "2", "--trajectory", "flagged.xyz"]
        assert main(["replay", "run.traj", *GIVEN, *given]) == 0
        log = replay("run.traj", soap, threshold=0.2, patience=2, on_singular="log")
        flagged = [frame.info["step"] for frame in ase.io.read("flagged.xyz", ":")]
        assert flagged == log.step[log.state == "singular"].tolist() != []

    def test_it_ends_where_it_shall(self, capsys):
        given = ["--threshold", "0.5", "--on-singular", "halt"]
        assert main(["replay", "run.traj", *GIVEN, *given]) == 0
        assert capsys.readouterr().out.startswith("1 frame, 1 of them in a singular state.")

    def test_nothing_is_near(self, capsys):
        ase.io.write("far.xyz", [molecule("NH3")])
        assert main(["replay", "far.xyz", *GIVEN]) == 0
        assert "No singular configuration is near in any frame." in capsys.readouterr().out

    def test_an_interrupt_says_what_is_left(self, monkeypatch, capsys):
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("ase_sensitivity.md.replay.replay", interrupted)
        assert main(["replay", "run.traj", *GIVEN, "-o", "log"]) == 130
        assert capsys.readouterr().err.endswith("interrupted: the frames so far are in log\n")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--threshold", "small"], ["--threshold", "'small'"]),
        (["--threshold", "-1"], ["threshold", "-1"]),
        (["--threshold", "nan"], ["threshold", "nan"]),
        (["--distance-threshold", "0"], ["distance_threshold", "0"]),
        (["--patience", "0"], ["--patience", "0"]),
        (["--budget", "-1"], ["budget", "-1"]),
        (["--timestep", "-2"], ["timestep", "-2"]),
        (["--on-singular", "explode"], ["'explode'", "log, warn, halt"]),
        (["--trajectory", "flagged.pdf"], ["flagged.pdf"]),
        (["-o", "run.traj"], ["run.traj", "not a log"]),
        (["-o", "-", "--json"], ["--json", "--logfile -"]),
        (["-o", "nowhere/log"], ["nowhere/log"]),
    ],
)
def test_bad_input(given, words, capsys):
    before = Path("run.traj").read_bytes()
    assert main(["replay", "run.traj", *GIVEN, *given]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ase-sensitivity: error: ")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err
    assert Path("run.traj").read_bytes() == before


def test_a_run_of_failures_ends_with_the_reason(soap, capsys):
    frames = ase.io.read("run.traj", ":3")
    for frame in frames[1:]:
        frame.positions[1] = frame.positions[0]
    ase.io.write("some.traj", frames)
    with pytest.warns(EvaluationWarning):
        assert main(["replay", "some.traj", *GIVEN]) == 0
    said = capsys.readouterr().out
    assert "2 failed." in said
    assert "First failure: step 1: ValueError: " in said
    ase.io.write("none.traj", frames[1:])
    with pytest.warns(EvaluationWarning):
        assert main(["replay", "none.traj", *GIVEN, "-o", "log"]) == 2
    assert "no frame could be analyzed; step 0: ValueError: " in capsys.readouterr().err
    assert read_log("log").state.tolist() == ["failed", "failed"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_log_that_is_not_complete_is_no_success(soap, capsys):
    with pytest.warns(EvaluationWarning):
        assert main(["replay", "run.traj", *GIVEN, "-o", "/dev/full"]) == 2
    captured = capsys.readouterr()
    assert "8 frames" in captured.out
    assert "/dev/full: not all could be written: " in captured.err
    full = open("/dev/full", "w")  # noqa: SIM115 (closing fails as well)
    with pytest.warns(EvaluationWarning):
        log = replay("run.traj", soap, logfile=full)
    with pytest.raises(OSError, match="No space left"):
        full.close()  # what a stream has buffered is tried again
    assert len(log) == 8
    assert "No space left" in log.lost
