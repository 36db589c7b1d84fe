"""``ase-sensitivity select``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import read, write

from ase_sensitivity import Selection
from ase_sensitivity.cli.app import main
from tests.structures import rattled

DESCRIPTOR = ["-d", "soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.5"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool with labels, a copy and a frame that cannot be read."""
    monkeypatch.chdir(tmp_path)
    frames = [rattled(molecule("CH3OH"), 0.02 + 0.01 * k, k) for k in range(12)]
    for k, atoms in enumerate(frames):
        atoms.info["label"] = f"frame {k}"
    write("pool.xyz", [*frames, frames[2]])
    with open("pool.xyz", "a") as file:
        file.write("2\n\nC 0 0 0\nH x 0 0\n")


def test_the_chosen_frames_are_written(capsys: pytest.CaptureFixture) -> None:
    command = ["select", "pool.xyz", *DESCRIPTOR, "-n", "4", "--save", "all.json"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "4 frames of 14 chosen (balanced)." in text
    assert "Copies, which are never chosen: 1. pool.xyz@12: a copy of pool.xyz@2." in text
    assert "1 frame with errors; pool.xyz@13: " in text
    found = Selection.read("all.json")
    chosen = read("chosen.xyz", ":")
    assert [atoms.info["selected_from"] for atoms in chosen] == [
        f"pool.xyz@{number}" for number in found.indices
    ]
    assert [atoms.info["label"] for atoms in chosen] == [f"frame {k}" for k in found.indices]
    assert [atoms.info["selection_gain"] for atoms in chosen] == pytest.approx(found.gain)


def test_json_and_given_frames(capsys: pytest.CaptureFixture) -> None:
    command = ["select", "pool.xyz", *DESCRIPTOR, "--json", "--store", "rows"]
    assert main([*command, "-n", "5"]) == 0
    whole = json.loads(capsys.readouterr().out)
    first = [f"pool.xyz@{k}" for k in whole["indices"][:2]]
    given = [word for name in first for word in ("--given", name)]
    assert main([*command, "-n", "3", "-o", "more.xyz", *given]) == 0
    more = json.loads(capsys.readouterr().out)
    assert more["indices"] == whole["indices"][2:]
    assert (more["output"], more["n_given"]) == ("more.xyz", 2)
    assert [row["index"] for row in more["chosen"]] == more["indices"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-n", "0"], ["0", "-n"]),
        (["-n", "2", "-o", "pool.xyz"], ["pool.xyz is one of the files to read"]),
        (["-n", "2", "-o", "chosen.cif"], ["--output", "must end in .xyz or .extxyz"]),
        (["-n", "2", "--save", "none/all.json"], ["--save", "no place for a file"]),
        (["-n", "2", "--method", "best"], ["'best' is not one of balanced"]),
        (["-n", "2", "--given", "none.xyz"], ["there is no file none.xyz"]),
        (["-n", "2", "--store", "pool.xyz"], ["pool.xyz", "is not of a selection"]),
    ],
)
def test_wrong_options(arguments, words, capsys: pytest.CaptureFixture) -> None:
    before = Path("pool.xyz").read_bytes()
    assert main(["select", "pool.xyz", *DESCRIPTOR, *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert Path("pool.xyz").read_bytes() == before


def test_an_interrupt_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Before the first frame there is no store, and nothing is said to be in it."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ase_sensitivity.dataset.select.select.select", interrupted)
    command = ["select", "pool.xyz", *DESCRIPTOR, "-n", "4", "--store", "rows"]
    assert main(command) == 130
    assert "nothing was computed yet" in capsys.readouterr().err
    Path("rows").touch()
    assert main(command) == 130
    assert "what was computed is in rows; the same command goes on" in capsys.readouterr().err
