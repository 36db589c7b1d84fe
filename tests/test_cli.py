"""The command line, as a person uses it."""

from __future__ import annotations

import subprocess
import sys

import ase.io
import numpy as np
import pytest

import ase_sensitivity
from ase_sensitivity import read_log
from ase_sensitivity.cli import demo
from ase_sensitivity.cli.app import main
from ase_sensitivity.cli.demo.ammonia import height

tblite = pytest.mark.skipif(
    "not __import__('importlib.util').util.find_spec('tblite')", reason="tblite is not installed"
)


AMMONIA = ["demo", "--only", "ammonia"]


@tblite
class TestDemo:
    def test_it_writes_log_frames_and_plot(self, tmp_path, capsys):
        directory = tmp_path / "new" / "demo"
        assert main([*AMMONIA, "--steps", "60", "--directory", str(directory)]) == 0
        log = read_log(directory / "ammonia.log")
        assert log.step.tolist() == list(range(61))
        assert log.time[-1] == pytest.approx(30)
        flagged = log.step[log.state == "singular"]
        assert len(flagged) > 0
        frames = ase.io.read(directory / "ammonia.xyz", ":")
        assert [frame.info["step"] for frame in frames] == flagged.tolist()
        assert (directory / "ammonia.png").read_bytes()[:4] == b"\x89PNG"
        out = capsys.readouterr().out
        assert "Closest approaches to a singular configuration" in out
        # near the plane, the softest mode is that of N and the ratio goes with its height
        heights = np.array([abs(height(frame)) for frame in frames])
        ratios = np.array([frame.info["sigma_ratio"] for frame in frames])
        assert np.ptp(ratios / heights) < 0.1 * (ratios / heights).mean()

    def test_one_step(self, tmp_path):
        assert main([*AMMONIA, "--steps", "1", "--directory", str(tmp_path)]) == 0
        assert len(read_log(tmp_path / "ammonia.log")) == 2

    def test_the_same_seed_gives_the_same_log(self, tmp_path):
        logs = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            arguments = ["--steps", "5", "--seed", str(seed), "--directory", str(tmp_path / name)]
            assert main([*AMMONIA, *arguments]) == 0
            logs.append((tmp_path / name / "ammonia.log").read_text())
        assert logs[0] == logs[1] != logs[2]

    @pytest.mark.slow
    def test_methane(self, tmp_path, capsys):
        assert main(["demo", "--only", "methane", "--directory", str(tmp_path)]) == 0
        assert (tmp_path / "methane.png").read_bytes()[:4] == b"\x89PNG"
        assert "incompleteness" in read_log(tmp_path / "methane.log").cause
        rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
        forces = next(row for row in rows if "force along the twist" in row[1])
        blind, seeing, true = map(float, forces[2:5])
        assert abs(blind) < 0.01 * abs(true)
        assert seeing == pytest.approx(true, rel=0.02)
        off = next(row for row in rows if "off within" in row[1])
        assert [cell.strip() for cell in off[2:4]] == ["4 of 4", "0 of 4"]

    def test_the_directory_is_a_file(self, tmp_path, capsys):
        path = tmp_path / "file"
        path.touch()
        assert main(["demo", "--directory", str(path)]) == 2
        assert_one_line(capsys.readouterr().err, "file")


def assert_one_line(text, *words):
    assert text.startswith("ase-sensitivity: error: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--steps", "0"], ["--steps", "0"]),
        (["demo", "--steps", "-3"], ["--steps", "-3"]),
        (["demo", "--steps", "many"], ["--steps", "many"]),
        (["demo", "--steps", "1.5"], ["--steps", "1.5"]),
        (["demo", "--seed", "-1"], ["--seed", "-1"]),
        (["demo", "--seed"], ["--seed"]),
        (["demo", "--speed", "1"], ["--speed"]),
        (["demo", "extra"], ["extra"]),
        (["dance"], ["dance"]),
        (["--nonsense"], ["--nonsense"]),
    ],
)
def test_bad_arguments(arguments, words, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_one_line(captured.err, *words)


def test_missing_tblite(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    assert main(["demo", "--directory", str(tmp_path)]) == 2
    assert_one_line(capsys.readouterr().err, "pip install", "ase-sensitivity[demo]")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device"), 2),
        (ValueError("x"), 2),
        (MemoryError("3.2 GiB"), 2),
    ],
)
def test_errors_on_the_way(error, status, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(demo, "run", fail)
    assert main(["demo"]) == status
    assert_one_line(capsys.readouterr().err)


def test_help_lists_the_commands(capsys):
    for arguments in (["--help"], ["-h"]):
        assert main(arguments) == 0
        assert "demo" in capsys.readouterr().out


def test_without_arguments_help_is_shown(capsys):
    main([])
    captured = capsys.readouterr()
    assert "demo" in captured.out + captured.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ase-sensitivity {ase_sensitivity.__version__}\n"


def test_exit_status_of_the_process():
    code = "import sys; from ase_sensitivity.cli.app import main; sys.exit(main())"
    process = subprocess.run(
        [sys.executable, "-c", code, "demo", "--steps", "0"], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert_one_line(process.stderr, "--steps")
