"""Elements that are not among the species of the descriptor are a finding of their own."""

from __future__ import annotations

import io
import warnings

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from ase.io.jsonio import decode, encode

from ase_sensitivity import (
    SOAP,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    Sensitivity,
    SpeciesWarning,
    analyze,
    nearest_singular,
    replay,
    scan,
)
from ase_sensitivity.auditing.reference import S1, around_carbon
from ase_sensitivity.cli.app import main
from ase_sensitivity.report.verdict import verdict
from tests.conftest import ours
from tests.structures import rattled

TEXT = "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5"
WORDS = "H is not among the species of the descriptor"


def ethanol() -> Atoms:
    return rattled(molecule("CH3CH2OH"), 0.05, seed=1)


def water() -> Atoms:
    return rattled(molecule("H2O"), 0.1, seed=1)


@pytest.mark.parametrize("scope", ["structure", "environment", "atom"])
def test_analyze_names_them(scope: str) -> None:
    found = analyze(ethanol(), SOAP(["C", "O"], 4.0, 6, 4), scope=scope)
    assert found.unseen == ("H",)
    assert WORDS in str(found)
    assert Sensitivity.fromdict(decode(encode(found.todict()))).unseen == ("H",)


def test_what_they_hide_has_a_cause_of_its_own() -> None:
    """Six hydrogen atoms move as they like; in water, oxygen against the two that are seen."""
    found = analyze(ethanol(), SOAP(["C", "O"], 4.0, 6, 4), causes=True)
    assert found.counts["species"] == found.n_null == sum(found.counts.values()) == 18
    assert set(found.causes) == {"species"}
    found = analyze(water(), SOAP(["C", "H"], 4.0, 6, 4), causes=True)
    assert (found.unseen, found.counts["species"], found.n_null) == (("O",), 2, 2)
    assert nearest_singular(water(), SOAP(["C", "H"], 4.0, 6, 4)).cause == "species"


def test_other_causes_are_not_taken_over() -> None:
    """Symmetry stays harmless beside an unseen atom, and incompleteness what it is."""
    methane = molecule("CH4") + Atoms("F", [(0.0, 0.0, 3.0)])
    bends = analyze(methane, SOAP(["C", "H"], 2.5, 6, 4), causes=True)
    assert bends.counts["symmetry"] == 2
    beside = around_carbon(S1) + Atoms("F", [(1.0, 1.0, 1.0)])
    carbon = SOAP(["H"], 3.0, 8, 8, atom_sigma=0.3, centers=["C"])
    found = analyze(beside, carbon, causes=True)
    assert found.counts["incompleteness"] == 1
    assert found.counts["species"] == 3


@pytest.mark.parametrize(
    ("descriptor", "expected"),
    [
        (SOAP(["H"], 4.0, 4, 4, centers=["O"]), ()),
        (SOAP(["H", "O"], 4.0, 4, 4, centers=["H"]), ()),
        (FiniteDifferenceDescriptor(lambda atoms: atoms.get_all_distances()), ()),
        (QUIPDescriptor(f"{TEXT} n_Z=2 Z={{1 8}}"), ()),
        (QUIPDescriptor(f"{TEXT} n_Z=1 Z=8 n_species=1 species_Z=8"), ("H",)),
        (QUIPDescriptor("distance_2b cutoff=4"), ()),
        (QUIPDescriptor("distance_2b cutoff=4 Z1=1 Z2=0"), ()),
        (QUIPDescriptor("distance_2b cutoff=4 Z1=1 Z2=1"), ("O",)),
        (QUIPDescriptor("angle_3b cutoff=4 Z=8 Z1=1 Z2=1"), ()),
        (QUIPDescriptor(["distance_2b cutoff=4 Z1=1 Z2=1", TEXT], species=["H"]), ("O",)),
        (QUIPDescriptor(["distance_2b cutoff=4 Z1=1 Z2=8", TEXT], species=["H"]), ()),
        (QUIPDescriptor("coordination cutoff=4 transition_width=0.5 Z=8"), ()),
    ],
)
def test_who_sees_what(descriptor, expected: tuple[str, ...]) -> None:
    """An atom that is a center is seen, and no species at all are all of them."""
    assert analyze(water(), descriptor).unseen == expected


def test_scan_and_report_name_them(tmp_path) -> None:
    structures = [ethanol(), rattled(molecule("CO2"))]
    result = scan(structures, SOAP(["C", "O"], 4.0, 6, 4), store=tmp_path / "r.db")
    first, second = result.rows
    assert (first["unseen"], first["cause"], first["n_species"]) == ("H", "species", 18)
    assert (first["error"], second["error"], second["unseen"]) == (None, None, None)
    assert second["cause"] != "species"
    assert f"1 frame where {WORDS}." in result.summary()
    found = verdict(result.totals)
    assert found.level == "attention"
    assert f"{WORDS} in 1 of 2 frames." in found.sentences
    assert any(
        "a descriptor with these species would see them" in sentence for sentence in found.sentences
    )


def test_check_does_not_pass_over_them(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write("e.xyz", [ethanol()])
    command = ["check", "e.xyz", "-d", TEXT, "--species", "C,O", "--max-truncation", "0"]
    assert main(command) == 1
    assert f"FAILED unseen: 1, at most 0; e.xyz@0: {WORDS}" in capsys.readouterr().out
    assert main([*command, "--max-unseen", "1"]) == 0


def test_the_observer_warns_once_and_its_log_says_why(tmp_path) -> None:
    log = io.StringIO()
    frames = [ethanol(), ethanol(), rattled(molecule("CO2")), ethanol()]
    with pytest.warns(SpeciesWarning, match="not among the species") as told:
        found = replay(frames, SOAP(["C", "O"], 4.0, 6, 4), logfile=log, on_singular="log")
    assert len(ours(told)) == 1
    assert [line for line in log.getvalue().splitlines() if WORDS in line] == [
        f"# step 0: {WORDS}",
        f"# step 3: {WORDS}",
    ]
    assert list(found.cause[[0, 1, 3]]) == ["species"] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpeciesWarning)
        replay([ethanol()], SOAP(["C", "O", "H"], 4.0, 6, 4))
