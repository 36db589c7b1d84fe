"""``ase-sensitivity pairs`` and the limits of ``check`` that are about pairs."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from ase.io import write

from ase_sensitivity import SOAP, find_pairs
from ase_sensitivity.auditing.reference import around_carbon
from ase_sensitivity.cli.app import main
from ase_sensitivity.dataset.pairs.result import PAIR_COLUMNS

THREE = [(1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7)]
TEXT = "soap cutoff=3 n_max=4 l_max=4 atom_sigma=0.3 n_Z=1 Z=6 n_species=1 species_Z=1"
GAP = ["-d", TEXT, "-d", "distance_2b cutoff=3 Z1=6 Z2=1", "--species", "C,H"]
KEYS = ["--forces-key", "dft", "--energy-key", "e"]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Twins, and a copy of one of them with another energy."""
    monkeypatch.chdir(tmp_path)
    frames = [around_carbon([*THREE, last]) for last in ((-0.72, 0.96, 0.3), (0.72, -0.96, 0.3))]
    frames.append(frames[1].copy())
    for seed, (atoms, energy) in enumerate(zip(frames, (-1.0, -2.0, -2.5), strict=True)):
        atoms.info["e"] = energy
        atoms.arrays["dft"] = np.random.default_rng(min(seed, 1)).normal(size=(5, 3))
    write("data.xyz", frames)


def test_the_summary_tells_energies_and_forces(capsys: pytest.CaptureFixture) -> None:
    assert main(["pairs", "data.xyz", *GAP, *KEYS]) == 0
    text = capsys.readouterr().out
    assert "data.xyz@0 and data.xyz@2: 1.14 Å apart at best, energies 0.3 eV per atom apart" in text
    assert "forces 3.27 eV/Å apart" in text
    assert "eV/Å of the two frames' forces lost jointly" in text
    assert "Joint force error: " in text
    assert (
        "1 label conflict: same structure, different labels; the largest in energy by 0.1" in text
    )


def test_json_and_tables_have_all_pairs(capsys: pytest.CaptureFixture) -> None:
    command = ["pairs", "data.xyz", "-d", TEXT, "--species", "H", *KEYS]
    assert main([*command, "--json", "-o", "pairs.json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with open("pairs.json", encoding="utf-8") as file:
        assert json.load(file) == told
    soap = SOAP(["H"], 3.0, 4, 4, atom_sigma=0.3, centers=["C"])
    found = find_pairs("data.xyz", soap, forces_key="dft", energy_key="e")
    assert [row["kind"] for row in told["pairs"]] == [row["kind"] for row in found.rows]
    assert told["bound"]["joint_force_error"] == pytest.approx(found.bound.joint_force_error)
    assert told["bound"]["classes"][0]["frames"] == [f"data.xyz@{k}" for k in range(3)]
    assert told["complete"] is True
    assert main([*command, "-o", "pairs.csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out == found.summary() + "\n"
    assert captured.err.endswith("All pairs: pairs.csv\n")
    with open("pairs.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == PAIR_COLUMNS
    assert len(rows) == len(found.rows)


def test_the_bound_can_be_left_out(capsys: pytest.CaptureFixture) -> None:
    assert main(["pairs", "data.xyz", *GAP, *KEYS, "--no-bound"]) == 0
    assert "jointly" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epsilon", "0.5"], "`epsilon` is 0.5"),
        (["--delta", "-1"], "`delta` is -1"),
        (["-o", "pairs.xlsx"], "must end in .csv or .json"),
        (["-o", "nowhere/pairs.csv"], "no place for a file"),
        (["--max-pairs", "0"], "`max_pairs` is 0"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["pairs", "data.xyz", *GAP, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_check_has_limits_for_any_descriptor(capsys: pytest.CaptureFixture) -> None:
    command = ["check", "data.xyz", *GAP, *KEYS]
    assert main([*command, "--max-duplicates", "1", "--max-conflicts", "1"]) == 0
    assert main([*command, "--max-irreducible", "0", "--max-joint", "0.01"]) == 1
    text = capsys.readouterr().out
    assert "ok     irreducible: 0 eV/Å" in text
    assert "FAILED joint: " in text
    assert "worst in data.xyz@0, data.xyz@1, data.xyz@2" in text


def test_a_joint_limit_needs_forces(capsys: pytest.CaptureFixture) -> None:
    write("bare.xyz", [around_carbon([*THREE, (-0.72, 0.96, 0.3)])])
    assert main(["check", "bare.xyz", "-d", TEXT, "--species", "H", "--max-joint", "1"]) == 2
    assert "--max-joint" in capsys.readouterr().err
