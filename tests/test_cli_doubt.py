"""``ase-sensitivity doubt``, and the limit of ``ase-sensitivity check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.io import write

from ase_sensitivity import Doubts
from ase_sensitivity.cli.app import main
from tests.test_doubt import WRONG, a_set, small  # noqa: F401

DESCRIPTOR = ["-d", "soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5"]
OF_WRONG = f"set.xyz@{WRONG}"


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("set.xyz", a_set())


def test_frames_are_listed_with_reasons(capsys: pytest.CaptureFixture) -> None:
    command = ["doubt", "set.xyz", *DESCRIPTOR, "--store", "scan.db"]
    assert main([*command, "-o", "all.json"]) == 0
    text = capsys.readouterr().out
    assert "of 30 frames with forces or an energy that do not fit to the others" in text
    assert text.splitlines()[1].startswith(f"  {OF_WRONG}: ")
    found = Doubts.read("all.json")
    assert str(found.frames[0]) == OF_WRONG
    assert main([*command, "-o", "all.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.todict()
    assert Path("all.csv").read_text().splitlines()[1].startswith(f"set.xyz,{WRONG},")


@pytest.mark.parametrize("fit", [[], ["--no-fit"]])
def test_a_gate(fit: list[str], capsys: pytest.CaptureFixture) -> None:
    command = ["check", "set.xyz", *DESCRIPTOR, "-o", "scan.db", *fit]
    assert main([*command, "--max-doubtful", "0"]) == 1
    assert f", at most 0; first {OF_WRONG}: " in capsys.readouterr().out
    assert main([*command, "--max-doubtful", "5"]) == 0
    assert "ok     doubtful: " in capsys.readouterr().out


def test_frames_without_forces(capsys: pytest.CaptureFixture) -> None:
    frames = a_set()[:2]
    for atoms in frames:
        atoms.arrays["dft_forces"] = atoms.get_forces()
        atoms.calc = None
    write("bare.xyz", frames)
    assert main(["doubt", "bare.xyz", *DESCRIPTOR]) == 2
    assert "name them with --forces-key dft_forces" in capsys.readouterr().err
    assert main(["check", "bare.xyz", *DESCRIPTOR, "--max-doubtful", "0"]) == 2
    assert "--max-doubtful" in capsys.readouterr().err
    assert main(["doubt", "bare.xyz", *DESCRIPTOR, "-o", "all.txt"]) == 2
