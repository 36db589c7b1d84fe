"""Files as people have them: torn, compressed, in other encodings, with types for elements."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from ase_sensitivity import SOAP, ReadingWarning, converge, find_pairs, replay, scan
from ase_sensitivity.cli.app import main
from ase_sensitivity.io.reading import count_frames, read_frames
from ase_sensitivity.io.usable import last_frame
from tests.structures import rattled

SOAP_TEXT = "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def crystals(n: int = 4) -> list[Atoms]:
    cell = bulk("SiC", "zincblende", a=4.36, cubic=True)
    return [rattled(cell, seed=seed) for seed in range(n)]


def dump(frames: list[Atoms], columns: str = "id type x y z") -> str:
    """What LAMMPS writes."""
    text = ""
    for step, atoms in enumerate(frames):
        bounds = "".join(f"0.0 {length:.8f}\n" for length in atoms.cell.lengths())
        text += f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(atoms)}\n"
        text += f"ITEM: BOX BOUNDS pp pp pp\n{bounds}ITEM: ATOMS {columns}\n"
        for number, (symbol, (x, y, z)) in enumerate(
            zip(atoms.symbols, atoms.positions, strict=True), 1
        ):
            kind = {"Si": 1, "C": 2}[symbol]
            element = f" {symbol}" if "element" in columns else ""
            text += f"{number} {kind} {x:.8f} {y:.8f} {z:.8f}{element}\n"
    return text


def errors(name: str) -> list[tuple[int, str | None]]:
    return [(frame.index, frame.error) for frame in read_frames(name)]


# Torn files

FORMATS = {
    "run.xyz": "extxyz",
    "run.traj": "traj",
    "run.cif": "cif",
    "run.pdb": "proteindatabank",
    "XDATCAR": "vasp-xdatcar",
}


def written(name: str) -> bytes:
    if name == "run.dump":
        return dump(crystals()).encode()
    write(name, crystals(), format=FORMATS[name])
    return Path(name).read_bytes()


@pytest.mark.filterwarnings("ignore::ase_sensitivity.ReadingWarning")
@pytest.mark.parametrize("name", [*FORMATS, "run.dump"])
def test_frames_before_a_tear_are_read(name: str) -> None:
    torn = written(name)[:-60]
    for suffix, content in (("", torn), (".gz", gzip.compress(torn))):
        Path(f"torn-{name}{suffix}").write_bytes(content)
        found = errors(f"torn-{name}{suffix}")
        assert [index for index, error in found if error is None] == [0, 1, 2]
        assert [index for index, error in found if error is not None] == [3]
        said: list[str] = []
        assert last_frame(f"torn-{name}{suffix}", tell=said.append).index == 2
        assert len(said) == 1


@pytest.mark.filterwarnings("ignore::ase_sensitivity.ReadingWarning")
@pytest.mark.parametrize("name", ["run.xyz", "run.cif", "run.pdb", "XDATCAR", "run.dump"])
@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_a_compressed_file_that_is_torn_is_read_up_to_there(name, suffix, compress) -> None:
    data = compress(written(name))
    Path(f"{name}.{suffix}").write_bytes(data)
    assert [error for _, error in errors(f"{name}.{suffix}")] == [None] * 4
    Path(f"{name}.{suffix}").write_bytes(
        data[: len(data) - 40 if suffix == "gz" else len(data) // 2]
    )
    found = errors(f"{name}.{suffix}")
    assert found[-1][1] is not None
    assert f"{name}.{suffix}" in found[-1][1]
    if suffix == "gz":  # the others have all of it in one block
        assert len(found) > 2
    assert [error for _, error in found[:-1]] == [None] * (len(found) - 1)


def test_a_number_that_is_cut_is_no_number() -> None:
    write("run.xyz", [molecule("H2O")] * 2)
    Path("run.xyz").write_text(Path("run.xyz").read_text()[:-4])
    assert [error is None for _, error in errors("run.xyz")] == [True, False]
    Path("run.xyz").write_text("3\n\nO 0 0 0\nH 0.5 0.5 0\nH 0 0 1")  # by hand
    assert errors("run.xyz") == [(0, None)]


def test_replay_leaves_out_what_cannot_be_read_and_keeps_the_steps(caplog) -> None:
    write("run.xyz", crystals())
    lines = Path("run.xyz").read_text().splitlines(keepends=True)
    lines[15] = "Si oops\n"
    Path("run.xyz").write_text("".join(lines)[:-60])
    soap = SOAP(["Si", "C"], cutoff=3.0, n_max=2, l_max=1, threads=1)
    with caplog.at_level(logging.WARNING), pytest.warns(ReadingWarning, match="left out"):
        log = replay("run.xyz", soap, timestep=2.0)
    assert list(log.step) == [0, 2]
    assert list(log.time) == [0.0, 4.0]
    assert "run.xyz@1 is left out: run.xyz cannot be read here: line 16 has 2 col" in caplog.text
    Path("run.xyz").write_text("2\n")
    with pytest.raises(ValueError, match="ends 3 lines too early"):
        replay("run.xyz", soap)


def test_analyze_takes_the_last_frame_that_can_be_read(capsys) -> None:
    write("run.xyz", crystals())
    Path("run.xyz").write_text(Path("run.xyz").read_text()[:-60])
    options = ["-d", SOAP_TEXT, "--species", "Si,C"]
    assert main(["analyze", "run.xyz", *options, "--json"]) == 0
    captured = capsys.readouterr()
    assert '"index": 2' in captured.out
    assert captured.err.startswith("The last frame is left out, that before it is taken: run.xyz")
    assert main(["analyze", "run.xyz@3", *options]) == 2
    assert "line too early" in capsys.readouterr().err


# Encodings and numbers


@pytest.mark.parametrize("name", ["run.xyz", "POSCAR"])
def test_comments_may_be_in_any_encoding(name: str) -> None:
    write(name, crystals(1)[0], format="extxyz" if name == "run.xyz" else "vasp")
    lines = Path(name).read_bytes().splitlines(keepends=True)
    comment = 1 if name == "run.xyz" else 0
    lines[comment] = lines[comment].rstrip() + b' name="caf\xe9"\n'
    if name == "POSCAR":
        lines[comment] = b"Si C caf\xe9\n"
    Path(name).write_bytes(b"".join(lines))
    (frame,) = read_frames(name)
    assert frame.error is None


def test_files_of_qm9_are_read() -> None:
    Path("dsgdb9nsd_000003.xyz").write_text(
        "3\ngdb 3\t799.58812\t437.90386\t6.002\t\n"
        "O\t-0.0343604951\t 0.9775395708\t 7.6*^-6\t-0.589706\n"
        "H\t 0.0647664923\t 1.5*^-6\t 0.0015346341\t 0.294853\n"
        "H\t 0.8717903737\t 1.3007924048\t 0.0006931336\t 0.294853\n"
        "1671.4222\t3803.6305\t3907.698\nO\tO\nInChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n"
    )
    (frame,) = read_frames("dsgdb9nsd_000003.xyz")
    assert frame.atoms is not None
    assert frame.atoms.positions[1, 1] == pytest.approx(1.5e-6)


# What a message says


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("O1 0 0 1", "line 8 has 'O1' where a chemical symbol belongs; write O"),
        ("D 0 0 1", "line 8 has 'D' where a chemical symbol belongs; write H"),
        ("8 0 0 1", "line 8 has '8' .* write O if it is an atomic number, or .* --type-map"),
        ("? 0 0 1", r"line 8 has '\?' .* write symbols such as H or Si"),
        ("H 0 zero 1", "line 8 has 'zero' where a number belongs"),
        ("H 0 1", "line 8 has 3 columns, not 4"),
    ],
)
def test_a_wrong_word_is_told_with_its_line(row: str, words: str) -> None:
    Path("run.xyz").write_text(f"2\n\nO 0 0 0\nH 0 0 1\n2\n\nO 0 0 0\n{row}\n")
    first, second = read_frames("run.xyz")
    assert first.error is None
    with pytest.raises(ValueError, match=words):
        raise ValueError(second.error)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("data.npz", r"data\.npz: ASE knows no format for files that end in \.npz; convert it"),
        ("data.npz.gz", r"data\.npz\.gz: ASE knows no format for files that end in \.npz"),
        ("data", "data: ASE knows no format for it"),
        ("data.db.gz", "ASE reads no compressed files of the format db; decompress it first"),
        ("POSCAR", "ASE's reader of vasp files stops .* is it torn, or of another format"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(name: str, words: str) -> None:
    content = b"no such thing\n"
    if name.endswith(".db.gz"):
        write("data.db", crystals(1))
        content = Path("data.db").read_bytes()
    Path(name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    ((_, error),) = errors(name)
    with pytest.raises(ValueError, match=words):
        raise ValueError(error)


# Types of LAMMPS


def test_types_are_named_everywhere(capsys) -> None:
    frames = crystals()
    Path("run.dump").write_text(dump(frames))
    assert count_frames("run.dump") == 4
    soap = SOAP(["Si", "C"], cutoff=3.0, n_max=2, l_max=1, threads=1)
    names = ["Si", "C"]
    expected = scan(frames, soap).column("ratio")
    assert scan("run.dump", soap, type_map=names).column("ratio") == pytest.approx(expected, 1e-5)
    assert list(replay("run.dump", soap, type_map=names).step) == [0, 1, 2, 3]
    assert not find_pairs("run.dump", soap, type_map=names).errors
    assert converge("run.dump", soap, n_max=1, l_max=[0], type_map=names).rows[0]["n_failed"] == 0
    common = ["run.dump", "-d", SOAP_TEXT, "--type-map", "Si,C"]
    for command in (
        ["analyze"],
        ["scan"],
        ["check", "--max-truncation", "9", "--max-duplicates", "0"],
        ["converge", "--n-max", "1", "--l-max", "0"],
        ["replay"],
        ["pairs"],
    ):
        assert main([*command, *common]) == 0
    assert "C4Si4" in capsys.readouterr().out
    assert main(["scan", *common[:-1], "Si"]) == 2
    assert "atom 1 is of type 2, but `type_map` (--type-map) names 1: Si" in capsys.readouterr().err
    assert main(["scan", *common[:-1], "Si,Foo"]) == 2
    assert "--type-map is 'Si,Foo' but must be chemical symbols" in capsys.readouterr().err


def test_types_that_are_taken_for_elements_are_told() -> None:
    Path("run.dump").write_text(dump(crystals()))
    with pytest.warns(ReadingWarning, match="--type-map"):
        (frame, *_) = read_frames("run.dump")
    assert set(frame.atoms.symbols) == {"H", "He"}
    Path("run.dump").write_text(dump(crystals(), "id type x y z element"))
    (frame, *_) = read_frames("run.dump")
    assert set(frame.atoms.symbols) == {"Si", "C"}


def test_a_data_file_of_lammps_and_an_xyz_with_types() -> None:
    write("run.data", crystals(1)[0], format="lammps-data")
    (frame,) = read_frames("run.data", type_map=["C", "Si"])
    assert frame.atoms.get_chemical_formula() == "C4Si4"
    Path("run.xyz").write_text("2\nAtoms. Timestep: 0\n1 0 0 0\n2 0 0 1.5\n")
    (frame,) = read_frames("run.xyz", type_map=["Si", "O"])
    assert list(frame.atoms.symbols) == ["Si", "O"]


@pytest.mark.parametrize("wrong", ["Si", [], [14], ["Foo"], {"Si": 1}])
def test_what_is_no_type_map_is_refused(wrong) -> None:
    with pytest.raises((TypeError, ValueError), match="`type_map`"):
        scan(crystals(1), SOAP(["Si"], 3.0, 1, 0), type_map=wrong)
