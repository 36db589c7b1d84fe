"""analyze, check, converge and completion on the command line; scan and report have their own."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP, QUIPDescriptor, Sensitivity, analyze
from ase_sensitivity.auditing.reference import GENERIC, around_carbon
from ase_sensitivity.cli.app import main
from ase_sensitivity.cli.converge import levels
from ase_sensitivity.cli.descriptor import descriptor_of

TEXT = "soap cutoff=3 n_max=4 l_max=3 atom_sigma=0.5"
CENTERED = "soap cutoff=3 n_max=8 l_max={} atom_sigma=0.3 n_Z=1 Z=6 n_species=1 species_Z=1"


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data() -> str:
    frames = [molecule("CH4"), molecule("CH3OH")]
    frames[1].rattle(0.1, seed=0)
    ase.io.write("data.xyz", frames)
    return "data.xyz"


class TestAnalyze:
    def test_it_prints_the_summary(self, data, capsys):
        assert main(["analyze", f"{data}@0", "-d", TEXT]) == 0
        captured = capsys.readouterr()
        soap = QUIPDescriptor(TEXT, species=["H", "C"])
        expected = analyze(ase.io.read(data, 0), soap, causes=True)
        assert captured.out == f"{data}@0, CH4\n{expected}\n"
        assert "2 because of symmetry" in captured.out
        assert captured.err.startswith("Species H, C: those found in 1 frame;")

    def test_without_an_index_it_is_the_last_frame(self, data, capsys):
        assert main(["analyze", data, "-d", TEXT]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"{data}, CH4O\n")
        assert out.count("sigma_min / sigma_max") == 1

    def test_json_is_one_line_for_each_frame_and_can_be_read_back(self, data, capsys):
        arguments = ["analyze", f"{data}@:", "-d", TEXT, "--species", "H,C,O", "--json", "-k", "3"]
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        soap = QUIPDescriptor(TEXT, species=["H", "C", "O"])
        for index, line in enumerate(lines):
            told = json.loads(line)
            assert told.pop("source") == f"{data}@:"
            assert told.pop("index") == index
            found = Sensitivity.fromdict(told)
            expected = analyze(ase.io.read(data, index), soap, k=3, causes=True)
            np.testing.assert_allclose(
                found.singular_values, expected.singular_values, rtol=1e-9, atol=1e-12
            )
            assert found.counts == expected.counts
            assert found.modes.shape == expected.modes.shape

    @pytest.mark.parametrize(
        ("chosen", "numbers"), [("@1", [1]), ("", [2]), ("@-2:", [1, 2]), ("@::2", [0, 2])]
    )
    def test_numbers_are_those_in_the_file(self, chosen, numbers, capsys):
        ase.io.write("three.xyz", [molecule(name) for name in ("H2O", "SH2", "HCl")])
        arguments = ["analyze", f"three.xyz{chosen}", "-d", TEXT, "--species", "H,O,S,Cl"]
        assert main([*arguments, "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["index"] for line in lines] == numbers
        assert main(arguments) == 0
        if len(numbers) > 1:
            assert capsys.readouterr().out.startswith(f"frame {numbers[0]} of three.xyz{chosen}, ")

    @pytest.mark.parametrize("scope", ["environment", "atom"])
    def test_scopes(self, data, scope, capsys):
        arguments = ["analyze", f"{data}@1", "-d", TEXT, "--scope", scope, "--center", "1"]
        assert main([*arguments, "--no-causes"]) == 0
        out = capsys.readouterr().out
        assert ("environment of atom 1" if scope == "environment" else "Atom 1, all others") in out


class TestDescriptor:
    def found(self, *texts: str, gap: str | None = None, species: str | None = None) -> str:
        told: list[str] = []
        chosen = descriptor_of(
            texts,
            None if gap is None else Path(gap),
            species,
            frames=lambda: [molecule("CH4"), Atoms("XN", [(0, 0, 0), (0, 0, 1)])],
            tell=told.append,
        )
        self.told = told
        return repr(chosen)

    def test_species_are_those_of_all_frames_without_ghosts_in_order(self):
        assert self.found(TEXT) == repr(QUIPDescriptor(TEXT, species=["H", "C", "N"]))
        assert self.told == [
            "Species H, C, N: those found in 2 frames; --species H,C,N spares this pass."
        ]

    @pytest.mark.parametrize("species", ["C,H", "C H", " C , H "])
    def test_species_given(self, species):
        assert self.found(TEXT, species=species) == repr(QUIPDescriptor(TEXT, species=["C", "H"]))
        assert self.told == []

    def test_a_string_with_its_own_species_needs_no_pass(self):
        text = CENTERED.format(2)
        assert self.found(text) == repr(QUIPDescriptor(text))
        assert self.told == []
        neighbors = f"{TEXT} n_species=2 species_Z={{1 6}}"
        assert self.found(neighbors) == repr(QUIPDescriptor(neighbors, species=["H", "C"]))
        assert self.told == []

    def test_several_strings_are_seen_together(self):
        pair = "distance_2b cutoff=3 Z1=6 Z2=1"
        assert self.found(TEXT, pair) == repr(QUIPDescriptor([TEXT, pair], species=["H", "C", "N"]))

    def test_gap(self):
        Path("gap.xml").write_text(f"<gap><descriptor>{CENTERED.format(2)}</descriptor></gap>")
        expected = repr(QUIPDescriptor(CENTERED.format(2)))
        assert self.found(gap="gap.xml") == expected
        Path("gap.toml").write_text('gap = "gap.xml"\n')
        assert self.found("gap.toml") == expected

    def test_a_table_takes_what_soap_takes(self):
        Path("a.toml").write_text(
            '[soap]\ncutoff = 3\nn_max = 2\nl_max = 1\ncenters = ["C"]\nradial_basis = "gto"\n'
        )
        expected = SOAP(["H", "C", "N"], 3, 2, 1, centers=["C"], radial_basis="gto")
        assert self.found("a.toml") == repr(expected)
        assert len(self.told) == 1
        assert self.found("a.toml", species="N,C,H") == repr(
            SOAP(["N", "C", "H"], 3, 2, 1, centers=["C"], radial_basis="gto")
        )

    def test_quip_strings_in_a_table(self):
        Path("a.toml").write_text(f'quip = ["{TEXT}"]\nspecies = ["C", "H"]\n')
        assert self.found("a.toml") == repr(QUIPDescriptor(TEXT, species=["C", "H"]))
        assert self.told == []


class TestCheck:
    @pytest.fixture
    def singular(self) -> str:
        """THEORY: a carbon that sees four generic neighbors; l_max 5 resolves them, 4 does not."""
        frame = around_carbon(GENERIC)
        frame.arrays["reference"] = np.random.default_rng(0).normal(size=(5, 3))
        ase.io.write("singular.xyz", [frame])
        return "singular.xyz"

    @pytest.mark.parametrize(("l_max", "status"), [(4, 1), (5, 0)])
    def test_truncation(self, singular, l_max, status, capsys):
        arguments = ["check", singular, "-d", CENTERED.format(l_max)]
        assert main([*arguments, "--max-truncation", "0", "--max-incompleteness", "0"]) == status
        lines = capsys.readouterr().out.splitlines()
        assert "ok     incompleteness: 0, at most 0" in lines
        (line,) = [line for line in lines if "truncation" in line]
        if status:
            assert line == f"FAILED truncation: 1, at most 0; first in {singular}@0"
        else:
            assert line == "ok     truncation: 0, at most 0"
        assert main([*arguments, "--max-truncation", "1"]) == 0

    def test_forces_that_cannot_be_learned(self, singular, capsys):
        arguments = ["check", singular, "-d", CENTERED.format(4), "--forces-key", "reference"]
        assert main([*arguments, "--max-irreducible", "0", "--json"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert told["passed"] is False
        (check,) = [check for check in told["checks"] if check["name"] == "irreducible"]
        value = check["value"]
        assert value > 0.01
        assert main([*arguments, "--max-irreducible", str(1.01 * value)]) == 0
        assert main([*arguments, "--max-irreducible", str(0.99 * value)]) == 1
        assert main([*arguments, "--max-net-force", "0.1"]) == 1  # these do not add up
        assert main([*arguments, "--max-slope", "1e9"]) == 0

    def test_duplicates_and_conflicts(self, capsys):
        first, second = molecule("CH3OH"), molecule("CH3OH")
        second.rotate(40, (1, 2, 3))
        other = molecule("CH3OH")
        other.rattle(0.1, seed=0)
        for frame, energy in ((first, -1.0), (second, -3.0), (other, -2.0)):
            frame.info["total"] = energy
        ase.io.write("twice.xyz", [first, other, second])
        arguments = ["check", "twice.xyz", "-d", TEXT, "--energy-key", "total"]
        assert main([*arguments, "--max-duplicates", "0"]) == 1
        assert "FAILED duplicates: 1, at most 0" in capsys.readouterr().out
        assert main([*arguments, "--max-duplicates", "1"]) == 0
        assert main([*arguments, "--max-conflicts", "0"]) == 1
        assert main([*arguments, "--max-degenerate", "0"]) == 0

    def test_a_frame_that_fails(self, data, capsys):
        frames = ase.io.read(data, ":")
        frames[0].positions[0] = np.nan
        ase.io.write(data, frames)
        arguments = ["check", data, "-d", TEXT, "--max-incompleteness", "9"]
        assert main(arguments) == 1
        assert "FAILED failed: 1, at most 0; data.xyz@0" in capsys.readouterr().out
        assert main([*arguments, "--max-failed", "1"]) == 0

    def test_with_output_it_goes_on_with_a_scan(self, data):
        arguments = ["-d", TEXT, "-o", "results.db"]
        assert main(["scan", data, *arguments]) == 0
        assert main(["check", data, *arguments, "--max-truncation", "0"]) == 0
        assert main(["check", data, "-d", TEXT, "--max-truncation", "0"]) == 0


class TestConverge:
    def test_theory(self, capsys):
        """THEORY: with n_max 8, l_max 5 is the first that resolves four generic neighbors."""
        ase.io.write("generic.xyz", around_carbon(GENERIC))
        arguments = ["converge", "generic.xyz", "-d", CENTERED.format(1), "--n-max", "8"]
        assert main([*arguments, "--l-max", "1-6", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [row["n_truncation"] for row in told["rows"]] == [6, 4, 2, 1, 0, 0]
        assert told["recommended"] == [8, 5]
        assert main([*arguments, "--l-max", "1,6"]) == 0
        assert "n_max=8, l_max=6 is the smallest that truncates nothing." in capsys.readouterr().out

    def test_n_max_and_l_max_may_be_left_out(self, data, capsys):
        arguments = ["--n-max", "2", "--l-max", "0-1", "--json"]
        assert main(["converge", data, "-d", TEXT, *arguments]) == 0
        full = json.loads(capsys.readouterr().out)
        assert main(["converge", data, "-d", "soap cutoff=3 atom_sigma=0.5", *arguments]) == 0
        short = json.loads(capsys.readouterr().out)
        for row, other in zip(short["rows"], full["rows"], strict=True):
            assert row | {"cost": 0} == other | {"cost": 0}

    def test_lists(self):
        assert levels("--l-max", "0-3") == [0, 1, 2, 3]
        assert levels("--l-max", "2, 4,6-7") == [2, 4, 6, 7]


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ("ase-sensitivity sc", {"scan"}),
            ("ase-sensitivity scan --sc", {"--scope", "--scheduler"}),
            ("ase-sensitivity scan --scope e", {"environment"}),
        ],
    )
    def test_words(self, words, expected, monkeypatch, capsys):
        monkeypatch.setenv("_ASE_SENSITIVITY_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        with pytest.raises(SystemExit) as leaving:
            main([])
        assert leaving.value.code in (0, None)
        assert set(capsys.readouterr().out.split()) == expected

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_scripts(self, shell, monkeypatch, capsys):
        monkeypatch.setenv("_ASE_SENSITIVITY_COMPLETE", f"source_{shell}")
        with pytest.raises(SystemExit):
            main([])
        assert f"_ASE_SENSITIVITY_COMPLETE=complete_{shell}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["analyze", "scan", "pairs", "select", "doubt", "check", "converge", "report", "demo"],
)
def test_help(command, capsys):
    assert main([command, "-h"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: ase-sensitivity {command}")
    assert max(map(len, out.splitlines())) <= 80
