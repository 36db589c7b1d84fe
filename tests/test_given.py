"""Descriptors given as strings, and short descriptions of what comes out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import write
from ase.optimize import BFGS

from ase_sensitivity import (
    SOAP,
    QUIPDescriptor,
    SensitivityCalculator,
    SensitivityObserver,
    analyze,
    best_match,
    converge,
    find_pairs,
    find_singular,
    find_twin,
    gradient,
    nearest_singular,
    replay,
    scan,
    singularity_distance,
    size_independent,
    trace_manifold,
)
from ase_sensitivity.cli.app import main
from tests.structures import rattled

TEXT = "soap cutoff=3 n_max=2 l_max=2 atom_sigma=0.5"


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def water() -> Atoms:
    return rattled(molecule("H2O"), seed=0)


@pytest.fixture(scope="module")
def quip() -> QUIPDescriptor:
    return QUIPDescriptor(TEXT, species=["H", "O"])


@pytest.mark.parametrize(
    "of",
    [
        lambda atoms, d: analyze(atoms, d).singular_values,
        lambda atoms, d: gradient(atoms, d).positions,
        lambda atoms, d: nearest_singular(atoms, d, max_steps=2).distance,
        lambda atoms, d: singularity_distance(atoms, d),
        lambda atoms, d: size_independent(atoms, d).gamma,
        lambda atoms, d: find_singular(atoms, d, n_starts=1).n_starts,
        lambda atoms, d: find_twin(atoms, d, n_starts=1).n_starts,
        lambda atoms, d: scan([atoms], d).column("ratio"),
        lambda atoms, d: find_pairs([atoms], d).n_environments,
        lambda atoms, d: [r["median_ratio"] for r in converge([atoms], d, n_max=2, l_max=1).rows],
        lambda atoms, d: replay([atoms], d).ratio,
    ],
)
def test_a_string_is_a_descriptor_for_the_species_of_the_structures(of, water, quip) -> None:
    np.testing.assert_array_equal(of(water, TEXT), of(water, quip))


def test_several_strings(water: Atoms) -> None:
    found = analyze(water, [TEXT, "distance_2b cutoff=3 Z1=1 Z2=8"])
    assert set(found.alone or {}) == {"soap", "distance_2b"}


def test_species_are_those_of_all_frames_of_a_file(quip: QUIPDescriptor) -> None:
    write("run.xyz", [molecule("H2"), rattled(molecule("H2O"), seed=0)])
    assert scan("run.xyz", TEXT).parameters["descriptor"] == repr(quip)
    with pytest.raises(ValueError, match="an iterator can be read only once"):
        scan(iter([molecule("H2O")]), TEXT)
    listed = f"{TEXT} n_species=2 species_Z={{1 8}}"
    assert len(scan(iter([molecule("H2O")]), listed)) == 1


def test_a_calculator_needs_the_species(quip: QUIPDescriptor) -> None:
    with pytest.raises(ValueError, match="no structure to take them from"):
        SensitivityCalculator(EMT(), TEXT)
    listed = f"{TEXT} n_species=2 species_Z={{1 8}}"
    assert SensitivityCalculator(EMT(), listed).descriptor.species == quip.species


@pytest.mark.parametrize("wrong", [5, None, object(), ["soap", 5], []])
def test_what_is_no_descriptor_is_refused(wrong, water: Atoms) -> None:
    with pytest.raises(TypeError, match="`descriptor` must be a Descriptor"):
        analyze(water, wrong)


def test_a_file_is_no_string(water: Atoms, capsys) -> None:
    with pytest.raises(ValueError, match=r'QUIPDescriptor.from_gap\("gap.xml"\)'):
        analyze(water, "gap.xml")
    with pytest.raises(ValueError, match="TOML file, which only the command line reads"):
        analyze(water, "soap.toml")
    write("run.xyz", water)
    for options, words in (
        (["-d", "gap.xml"], "is given with --gap gap.xml"),
        (["-d", "none.toml"], "there is no file none.toml"),
        (["--gap", "none.xml"], "there is no file none.xml"),
    ):
        assert main(["analyze", "run.xyz", *options]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1


def test_forces_that_nobody_named_are_suggested(capsys) -> None:
    frames = [molecule("H2O") for _ in range(2)]
    for frame in frames:
        frame.arrays["DFT_forces"] = np.ones((3, 3))
        frame.arrays["dipoles"] = np.ones((3, 3))
    write("run.xyz", [Atoms("H"), *frames], format="extxyz")
    options = ["run.xyz", "-d", TEXT, "--species", "H,O"]
    assert main(["scan", *options]) == 0
    assert "--forces-key DFT_forces\n" in capsys.readouterr().err
    assert main(["analyze", *options]) == 0
    assert "--forces-key DFT_forces tells" in capsys.readouterr().err
    assert main(["check", *options, "--max-irreducible", "1"]) == 2
    assert "name them with --forces-key DFT_forces" in capsys.readouterr().err
    assert main(["scan", *options, "--forces-key", "DFT_forces", "-o", "b.db"]) == 0
    assert "--forces-key" not in capsys.readouterr().err


def test_python_runs_the_package_as_the_command() -> None:
    command = [sys.executable, "-m", "ase_sensitivity", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ase-sensitivity ")


def test_whatever_comes_out_is_one_short_line(water: Atoms, quip: QUIPDescriptor) -> None:
    atoms = molecule("H2O")
    atoms.calc = EMT()
    soap = SOAP(["H", "O"], 3.0, 2, 2, threads=1)
    jacobian = soap.jacobian(water)
    dyn = BFGS(atoms, logfile=None)
    for found in (
        analyze(water, quip),
        gradient(water, quip),
        nearest_singular(water, quip, max_steps=2),
        find_singular(water, quip, n_starts=1),
        find_twin(water, quip, n_starts=1),
        trace_manifold(water, quip, length=0.05),
        best_match(water.numbers, water.positions, water.numbers, water.positions),
        size_independent(water, quip),
        scan([water], quip),
        find_pairs([water], quip),
        converge([water], quip, n_max=2, l_max=1),
        replay([water], quip),
        SensitivityObserver(dyn, quip),
        SensitivityCalculator(EMT(), soap),
        jacobian,
        soap.stream(water),
    ):
        text = repr(found)
        assert "\n" not in text
        assert len(text) < 200, text
