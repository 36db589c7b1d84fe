"""What to do next: commands that can be pasted."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write

from ase_sensitivity import SOAP, QUIPDescriptor, ScanResult, analyze, converge, scan
from ase_sensitivity.auditing.reference import GENERIC, S1, around_carbon
from ase_sensitivity.causes.next_steps import MOST, Origin, next_steps
from ase_sensitivity.cli.app import main
from ase_sensitivity.report.html import render
from tests.structures import rattled

SMALL = "soap cutoff=3 n_max=8 l_max=2 atom_sigma=0.3 n_Z=1 Z=6 n_species=1 species_Z=1"


@pytest.fixture
def truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScanResult:
    """Four generic neighbors, of which l_max=2 does not see all; a net force on the first."""
    monkeypatch.chdir(tmp_path)
    frames = [around_carbon(GENERIC), around_carbon(1.1 * np.array(GENERIC))]
    for frame in frames:
        frame.arrays["f"] = np.random.default_rng(0).normal(size=(5, 3))
    write("two frames.xyz", frames)
    return scan("two frames.xyz", QUIPDescriptor(SMALL), forces_key="f", store="scan.db")


def command_of(line: str) -> list[str]:
    words = shlex.split(line[line.index("ase-sensitivity") :])
    assert words.pop(0) == "ase-sensitivity"
    return words


def test_the_commands_of_a_scan_run(truncated: ScanResult, capsys: pytest.CaptureFixture) -> None:
    steps = truncated.next_steps
    assert steps == ScanResult.read("scan.db").next_steps
    assert str(truncated).endswith("\n".join(steps))
    assert [command_of(step)[0] for step in steps] == ["converge", "analyze"]
    assert "with the largest lost force and with the largest net force" in steps[1]
    assert main([*command_of(steps[0]), "--n-max", "8", "--l-max", "4-6"]) == 0
    assert "n_max=8, l_max=5 is the smallest" in capsys.readouterr().out
    assert main(command_of(steps[1])) == 0
    assert "because of truncation" in capsys.readouterr().out
    page = render(truncated)
    assert "Next: find a basis that is large enough" in page


def test_nothing_to_do() -> None:
    frames = [rattled(molecule("CH4"), 0.1)]
    soap = SOAP(["C", "H"], 4.0, 6, 4)
    assert scan(frames, soap).next_steps == []
    assert "Next" not in str(analyze(frames[0], soap, causes=True))


def test_structures_in_memory_have_calls() -> None:
    soap = SOAP(["H"], 3.0, 8, 2, 0.3, centers=["C"])
    frames = [around_carbon(GENERIC), around_carbon(S1)]
    call = "Next: find a basis that is large enough: converge(frames, descriptor)"
    assert scan(frames, soap).next_steps[0] == call
    found = analyze(frames[0], soap, causes=True)
    assert str(found).splitlines()[-1] == call.replace("frames", "[atoms]")
    large = soap.with_options(l_max=8)
    (step,) = scan(frames, large).next_steps
    assert step.endswith("analyze(frames[1], descriptor, causes=True)")


def test_a_larger_cutoff_for_fragments() -> None:
    water = molecule("H2O")
    apart = water.copy()
    apart.positions += 6.0
    (step,) = scan([water + apart], SOAP(["H", "O"], 4.0, 6, 4)).next_steps
    assert step.endswith("converge(frames, descriptor, cutoff=[4,4.8,6])")
    many = Origin(tuple("abcdefgh"), descriptor="SOAP(['C'], cutoff=4)")
    (step,) = next_steps(["fragment"], many)
    assert len(many.files) > MOST
    assert step.endswith("ase-sensitivity converge FILES -d DESCRIPTOR --cutoff 4,4.8,6")


def test_a_sweep_says_what_to_take_or_to_try() -> None:
    soap = SOAP(["H"], 3.0, 8, 2, 0.3, centers=["C"])
    frames = [around_carbon(GENERIC)]
    step = converge(frames, soap, l_max=[4, 5, 6]).findings()[-1]
    taken = soap.with_options(l_max=5)
    assert step == "Next: take this one: descriptor.with_options(l_max=5)"
    assert eval(step.split(": ")[-1], {"descriptor": soap}).basis_size == taken.basis_size
    step = converge(frames, soap, l_max=[1, 2]).findings()[-1]
    assert step == "Next: try larger values: converge(frames, descriptor, l_max=[4,6])"


def test_a_command_ends_with_commands(capsys, tmp_path) -> None:
    table = tmp_path / "soap.toml"
    table.write_text(
        '[soap]\nspecies = ["H"]\ncutoff = 3\nn_max = 8\nl_max = 2\natom_sigma = 0.3\n'
        'centers = ["C"]\n'
    )
    data = tmp_path / "data.xyz"
    around_carbon(GENERIC).write(data)
    given = f"{data} --descriptor {table}"
    for command, step in (
        (f"analyze {data}", f"converge {given}"),
        (f"converge {data} --l-max 1,2", f"converge {given} --l-max 4,6"),
        (f"scan {data} -o {tmp_path / 'scan.db'}", f"converge {given}"),
    ):
        assert main([*command.split(), "-d", str(table)]) == 0
        assert f": ase-sensitivity {step}\n" in capsys.readouterr().out
