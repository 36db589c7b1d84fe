"""Frames of files: each once, each bounded, and none that harms the others."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write

from ase_sensitivity import SOAP, ReadingWarning, replay
from ase_sensitivity.dataset.pairs.find import find_pairs
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.rows import digest
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.io.reading import count_frames, read_frames
from ase_sensitivity.io.references import cached_results, tasks_of
from ase_sensitivity.io.usable import last_frame, usable_frames
from tests.structures import rattled


@pytest.fixture(scope="module")
def soap() -> SOAP:
    return SOAP(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def water(n: int) -> list[Atoms]:
    return [rattled(molecule("H2O"), seed=seed) for seed in range(n)]


# One file under several names


def spellings() -> list[str]:
    write("run.xyz", water(5))
    os.symlink("run.xyz", "link.xyz")
    os.mkdir("folder")
    return ["run.xyz", "./run.xyz", os.path.abspath("run.xyz"), "folder/../run.xyz", "link.xyz"]


def test_a_file_under_several_names_is_read_once(soap: SOAP) -> None:
    names = spellings()
    result = scan(names, soap)
    assert [(row["source"], row["index"]) for row in result.rows] == [
        ("run.xyz", index) for index in range(5)
    ]
    assert count_frames([*names, "run.xyz@::2"]) == 5
    assert find_pairs(names, soap).n_frames == 5


@pytest.mark.parametrize("name", range(1, 5))
def test_a_scan_is_resumed_under_another_name(name: int, soap: SOAP) -> None:
    names = spellings()
    scan("run.xyz@:3", soap, store="results.db")
    computed: list[int] = []
    result = scan(names[name], soap, store="results.db", progress=computed.append)
    assert {row["source"] for row in result.rows} == {"run.xyz"}
    assert [row["index"] for row in result.rows] == [0, 1, 2, 3, 4]
    assert computed[0] == 4


def test_a_frame_that_cannot_be_read_has_one_row_as_well(soap: SOAP) -> None:
    names = spellings()
    Path("run.xyz").write_text(Path("run.xyz").read_text()[:-20])
    for _ in range(2):
        result = scan(names, soap, store="results.db")
        assert [row["error"] is None for row in result.rows] == [True] * 4 + [False]


def test_selections_of_a_database_do_not_hide_each_other(soap: SOAP) -> None:
    with connect("data.db") as database:
        for number, atoms in enumerate(water(4)):
            database.write(atoms, kind=number % 2)
    result = scan(["data.db@kind=0", "data.db@kind=1"], soap, store="results.db")
    assert len(set(result.column("sigma_min"))) == 4
    assert list(result.column("source")) == ["data.db@kind=0"] * 2 + ["data.db@kind=1"] * 2


def test_a_name_that_is_no_text_is_stored(soap: SOAP) -> None:
    name = os.fsdecode(b"caf\xe9 \x1b[31m.xyz")
    write("run.xyz", water(1))
    os.rename("run.xyz", name)
    for _ in range(2):
        (row,) = scan(name, soap, store="results.db").rows
        assert row["source"] == r"caf\udce9 \x1b[31m.xyz"


# What a frame may ask for


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ("species:S:1:pos:R:99999999", "100000000 columns, but the first atom has 4"),
        ("species:S:1:pos:R:99999999999999999999", "99999999999999999999"),
        ("species:S:1:pos:R:-3", "'-3' where a number"),
        ("species:S:1:pos:R:" + "9" * 5000, "'9999"),
        ("species:S:1:pos:R:3:f:R:3", "7 columns, but the first atom has 4"),
    ],
)
@pytest.mark.parametrize("n_atoms", [1, 0])
def test_columns_are_bounded_before_they_are_made(
    properties: str, words: str, n_atoms: int, soap: SOAP
) -> None:
    write("good.xyz", water(1))
    good = Path("good.xyz").read_text()
    bad = f"{n_atoms}\nProperties={properties}\n" + "H 0 0 0\n" * n_atoms
    Path("mixed.xyz").write_text(good + bad + good)
    begin = time.perf_counter()
    rows = scan("mixed.xyz", soap).rows
    assert [row["error"] is None for row in rows] == [True, False, True]
    with pytest.warns(ReadingWarning):
        assert [place for place, _ in usable_frames("mixed.xyz")] == [0, 2]
    assert last_frame("mixed.xyz", tell=print).index == 2
    backwards = list(read_frames("mixed.xyz@::-1"))
    assert [(frame.index, frame.error is None) for frame in backwards] == [
        (2, True),
        (1, False),
        (0, True),
    ]
    assert time.perf_counter() - begin < 5
    if n_atoms:
        assert words in rows[1]["error"]


def test_a_number_of_atoms_that_is_no_number_costs_itself_only() -> None:
    write("good.xyz", water(2))
    good = Path("good.xyz").read_text()
    for header in ("9" * 5000, "9" * 17):
        Path("mixed.xyz").write_text(good + header + "\n\nH 0 0 0\n" + good)
        assert [f.index for f in read_frames("mixed.xyz") if f.error is None] == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "chosen", [":", "::2", "1::2", "3:0:-2", "-1:0:-2", "::-1", "-2:", ":-2", "2", "-1", "1:9"]
)
def test_selected_frames_are_those_of_a_list(chosen: str) -> None:
    structures = water(5)
    write("run.xyz", structures)
    bounds = [int(word) if word else None for word in chosen.split(":")]
    expected = list(range(5))[slice(*bounds)] if ":" in chosen else [range(5)[int(chosen)]]
    assert [frame.index for frame in read_frames(f"run.xyz@{chosen}")] == expected
    for (_, frame), index in zip(usable_frames(f"run.xyz@{chosen}"), expected, strict=True):
        assert frame.atoms is not None
        assert np.allclose(frame.atoms.positions, structures[index].positions, atol=1e-7)


# What a frame may hold


@pytest.mark.parametrize("number", [200, 119, -1])
def test_a_number_that_is_no_element_costs_its_own_row(number: int, soap: SOAP) -> None:
    structures = water(4)
    structures[1].numbers[2] = number
    write("run.traj", structures)
    for _ in range(2):
        rows = scan("run.traj", soap, store="results.db").rows
        assert [row["error"] is None for row in rows] == [True, False, True, True]
        assert f"atom 2 has the atomic number {number}" in rows[1]["error"]
    assert ScanResult.read("results.db").rows == rows
    assert scan(structures, soap).rows[1]["error"] == rows[1]["error"]
    with pytest.warns(ReadingWarning):
        assert list(replay("run.traj", soap).step) == [0, 2, 3]


class Rude:
    """A calculator that does not say what it has."""

    results = {"energy": 1.0}  # noqa: RUF012

    def check_state(self, atoms: Atoms) -> list[str]:
        raise IndexError(7)


@pytest.mark.parametrize("change", ["", "positions", "numbers", "cell", "pbc", "charges", "nan"])
def test_results_of_a_calculator_belong_to_its_structure(change: str) -> None:
    atoms = molecule("H2O")
    if change == "nan":
        atoms.positions[0] = np.nan
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.ones((3, 3)))
    if change in ("positions", "numbers"):
        atoms.arrays[change][0] += 1
    elif change == "cell":
        atoms.cell[0, 0] += 1.0
    elif change == "pbc":
        atoms.pbc[0] = True
    elif change == "charges":
        atoms.set_initial_charges([1.0, 0.0, 0.0])
    assert sorted(cached_results(atoms)) == ([] if change else ["energy", "forces"])
    assert bool(atoms.calc.check_state(atoms)) == bool(change)


@pytest.mark.parametrize("known", [{}, {"energy": 1.0}, {"energy": 2.0, "forces": np.eye(3)}])
@pytest.mark.parametrize("key", [None, "f"])
def test_a_structure_of_a_file_keeps_as_much_as_a_copy(known: dict, key: str | None) -> None:
    atoms = molecule("H2O", vacuum=3.0, info={"note": "x"}, tags=[1, 2, 3])
    atoms.set_initial_magnetic_moments([1.0, 2.0, 3.0])
    atoms.arrays["f"] = np.arange(9.0).reshape(3, 3)
    if known:
        atoms.calc = SinglePointCalculator(atoms, stress=np.zeros(6), **known)
    write("one.extxyz", atoms)
    options = (key, None, (1.0, 2.0))
    of_file, of_list = (
        next(tasks_of(read_frames(given), *options, strict=False)).atoms
        for given in ("one.extxyz", [read("one.extxyz")])
    )
    assert digest(of_file) == digest(of_list)
    for task in (of_file, of_list):
        assert task.arrays.keys() == {"numbers", "positions"}
        assert not task.info
        assert (task.calc is None) == (not known and key is None)
        if task.calc is not None:
            assert task.calc.results.keys() == known.keys() | ({"forces"} if key else set())
            assert task.calc.check_state(task) == []
            assert task.calc.atoms.arrays.keys() == task.arrays.keys()


class Odd(SOAP):
    """Fails with errors whose text says nothing, or could be a number."""

    def jacobian(self, atoms: Atoms):
        raise self.error

    stream = jacobian


def test_whatever_a_calculator_does_costs_its_own_row(soap: SOAP) -> None:
    structures = water(3)
    structures[1].calc = Rude()
    rows = scan(structures, soap, store="results.db").rows
    assert [row["error"] for row in rows] == [None, "IndexError 7", None]


@pytest.mark.parametrize(
    "error", [KeyError(7), ValueError("1e5"), RuntimeError(), ValueError("a\x1b[2J \udc80\0b")]
)
def test_every_error_of_a_frame_can_be_stored(error: Exception) -> None:
    descriptor = Odd(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)
    descriptor.error = error
    rows = scan(water(2), descriptor, store="results.db").rows
    assert [bool(row["error"]) for row in rows] == [True, True]
    assert all(row["error"].isprintable() for row in rows)
