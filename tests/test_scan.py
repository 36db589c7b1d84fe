"""Scans of lists, iterators and files, and what becomes of frames that fail."""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from ase_sensitivity import SOAP, QUIPDescriptor, analyze
from ase_sensitivity.auditing.reference import GENERIC, S1, around_carbon
from ase_sensitivity.dataset.record import COLUMNS
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.io.reading import count_frames, read_frames
from ase_sensitivity.singular.nearest import singularity_distance
from tests.structures import REFERENCE_SOAP, TD, rattled


@pytest.fixture(scope="module")
def soap() -> SOAP:
    return SOAP(["C", "H", "O"], cutoff=4.0, n_max=3, l_max=2, threads=1)


def frames(n: int) -> list[Atoms]:
    return [rattled(molecule("CH3OH"), seed=seed) for seed in range(n)]


def told(result: ScanResult) -> list[tuple[str, int]]:
    return [(Path(row["source"]).name, row["index"]) for row in result.rows]


def test_rows_are_what_analyze_finds(soap: SOAP) -> None:
    structures = [*frames(2), molecule("CH4"), rattled(bulk("C", cubic=True), 0.1)]
    result = scan(structures, soap)
    assert len(result) == 4
    for number, (row, atoms) in enumerate(zip(result.rows, structures, strict=True)):
        found = analyze(atoms, soap, causes=True, null_tolerance=1e-9)
        assert tuple(row) == COLUMNS
        assert (row["source"], row["index"], row["error"]) == ("frames", number, None)
        assert (row["formula"], row["n_atoms"]) == (atoms.get_chemical_formula(), len(atoms))
        assert row["sigma_min"] == pytest.approx(found.singular_values[0], abs=1e-14)
        assert row["sigma_max"] == pytest.approx(found.sigma_max)
        assert row["n_null"] == found.n_null
        assert {f"n_{cause}": n for cause, n in found.counts.items()}.items() <= row.items()
        assert row["irreducible_force_error"] is None
        record = result.record(number)
        assert record.singular_values == pytest.approx(found.singular_values, abs=1e-14)
        assert record.modes.shape == (6, len(atoms), 3)
        assert record.causes == found.causes
        assert record.atoms == atoms
    assert [row["cause"] for row in result.rows] == [None, None, "symmetry", None]
    assert result.rows[2]["n_symmetry"] == 2
    assert "no feature changes" in result.summary()
    assert np.isnan(result.curve[1]).all()
    assert result.species_loss == {}
    with pytest.raises(IndexError, match="no row 4"):
        result.record(4)
    assert result.record(-1).row == result.rows[3]
    with pytest.raises(TypeError, match="`number` is 'a'"):
        result.record("a")
    with pytest.raises(TypeError, match="`name` is 3"):
        ScanResult.read(3)


def test_cause_of_a_frame_is_the_worst() -> None:
    descriptor = QUIPDescriptor(REFERENCE_SOAP.format(l_max=8, n_species=1, species_Z=1))
    incomplete = around_carbon(S1)
    result = scan([incomplete, around_carbon(TD)], descriptor, scope="environment")
    assert list(result.column("cause")) == ["incompleteness", "symmetry"]
    assert list(result.column("n_null")) == [1, 8]
    assert list(result.column("center")) == [0, 0]
    assert list(scan([incomplete], descriptor, causes=False).column("cause")) == [""]


@pytest.mark.parametrize(
    ("molecules", "cause"),
    [
        ("TD S1 GENERIC", "incompleteness"),
        ("TD GENERIC", "truncation"),
        ("TD H2O2", "fragment"),
        ("H2O2 GENERIC", "truncation"),
        ("TD", "symmetry"),
    ],
)
def test_of_several_causes_the_most_severe_is_told(molecules: str, cause: str) -> None:
    """Molecules out of each other's sight, on a basis that is too small for one of them."""
    known = {"TD": around_carbon(TD), "S1": around_carbon(S1), "GENERIC": around_carbon(GENERIC)}
    known["H2O2"] = molecule("H2O2")  # its torsion is out of sight
    atoms = Atoms()
    for number, name in enumerate(molecules.split()):
        one = known[name]
        one.positions += 20.0 * number
        atoms += one
    settings = {"normalise": False, "central_weight": 0, "centers": ["C", "O"]}
    soap = SOAP(["H", "O"], 1.6, n_max=8, l_max=3, atom_sigma=0.3, **settings)
    row = scan([atoms], soap).rows[0]
    assert row["cause"] == cause
    for name, found in (("TD", "symmetry"), ("S1", "incompleteness"), ("GENERIC", "truncation")):
        assert (row[f"n_{found}"] > 0) == (name in molecules)


def test_causes_that_cannot_be_found_do_not_cost_the_frame(soap: SOAP, monkeypatch) -> None:
    def refuse(*arguments, **settings):
        raise ValueError("the environment is too large")

    monkeypatch.setattr("ase_sensitivity.analysis.attribute", refuse)
    row = scan([molecule("CH4")], soap).rows[0]
    assert row["n_null"] == 2
    assert row["cause"] == "unknown"
    assert "too large" in row["error"]


@pytest.mark.parametrize("scope", ["structure", "environment", "atom"])
def test_tolerances_are_those_of_analyze(scope: str) -> None:
    """Planarity that is off by a little: null, near-null or neither, as it was asked for."""
    soap = SOAP(["N", "H"], cutoff=4.0, n_max=8, l_max=6)
    atoms = molecule("NH3")
    atoms.positions[0, 2] = atoms.positions[1, 2] + 3e-5
    found = []
    for tolerances in ({"tolerance": 1e-6}, {}, {"null_tolerance": 1e-3}):
        row = scan([atoms], soap, scope=scope, **tolerances).rows[0]
        settings = {"null_tolerance": 1e-9} | tolerances
        expected = analyze(atoms, soap, scope=scope, causes=True, **settings)
        assert row["n_null"] == expected.n_null
        assert row["n_near_null"] == expected.n_near_null
        found.append((row["n_null"], row["n_near_null"]))
    assert len(set(found)) == 3
    if scope == "structure":
        assert found == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize(("ratio", "n_null"), [(3e-10, 1), (3e-9, 0)])
def test_zeros_of_a_scan(ratio: float, n_null: int) -> None:
    """Below 1e-9 of the largest value, in every scope where forces are looked at as well."""
    soap = SOAP(["N", "H"], cutoff=4.0, n_max=8, l_max=6)
    atoms = molecule("NH3")
    atoms.positions -= atoms.positions[1] * (0, 0, 1)
    atoms.positions[1:, 2] = 0.0
    atoms.positions[0, 2] = 1e-3
    atoms.positions[0, 2] = 1e-3 * ratio / analyze(atoms, soap).ratio
    atoms.arrays["forces"] = np.zeros((4, 3))
    atoms.arrays["forces"][:, 2] = (3, -1, -1, -1)  # out of the plane
    for scope in ("structure", "environment", "atom"):
        row = scan([atoms], soap, scope=scope, forces_key="forces").rows[0]
        if scope == "structure":
            assert row["ratio"] == pytest.approx(ratio, rel=1e-2)
            assert row["n_null"] == n_null
        assert (row["irreducible_force_error"] > 0.9) == (n_null == 1)


@pytest.mark.parametrize("scope", ["structure", "environment", "atom"])
def test_distance_is_that_of_the_scope(scope: str) -> None:
    soap = SOAP(["N", "H"], cutoff=4.0, n_max=6, l_max=4)
    atoms = rattled(molecule("NH3"), 0.1)
    row = scan([atoms], soap, scope=scope, distance=True).rows[0]
    expected = singularity_distance(atoms, soap, scope=scope, center=row["center"])
    assert row["distance"] == pytest.approx(expected)
    others = {"structure", "environment", "atom"} - {scope}
    for other in others:
        center = None if other == "structure" else row["center"]
        assert singularity_distance(atoms, soap, scope=other, center=center) != pytest.approx(
            expected, rel=1e-2
        )


def test_distance() -> None:
    soap = SOAP(["N", "H"], cutoff=4.0, n_max=6, l_max=4)
    flat = molecule("NH3")
    # docs/theory, distance: the estimate is 1.00 to 1.01 of the distance to planarity.
    flat.positions[0, 2] = flat.positions[1:, 2].mean() + 0.02
    flat.positions[0, :2] = flat.positions[1:, :2].mean(axis=0)
    result = scan([flat, molecule("CH4")], SOAP(["C", "N", "H"], 4.0, 6, 4), distance=True)
    # All atoms move: three hydrogens a third of the way back.
    assert result.rows[0]["distance"] == pytest.approx(0.02 / np.sqrt(1 + 1 / 3), rel=0.1)
    assert result.rows[1]["distance"] == 0
    assert scan([flat], soap).rows[0]["distance"] is None


def test_sources(soap: SOAP, tmp_path: Path) -> None:
    structures = frames(6)
    for name in ("a.xyz", "b.traj", "c.db", "d.xyz.gz"):
        write(tmp_path / name, structures)
    expected = scan(structures, soap, causes=False).column("sigma_min")
    chosen = {
        "a.xyz": range(6),
        "b.traj@1:5:2": [1, 3],
        "c.db@4:": [4, 5],
        "d.xyz.gz@0": [0],
        "a.xyz@-2:": [4, 5],
        "b.traj@-9:2": [0, 1],
        "a.xyz@4::-2": [4, 2, 0],
        "a.xyz@-1": [5],
    }
    for name, indices in chosen.items():
        for path in (str(tmp_path / name), tmp_path / name):
            result = scan(path, soap, causes=False)
            assert told(result) == [(name.split("@")[0], index) for index in indices]
            assert result.column("sigma_min") == pytest.approx(expected[list(indices)], rel=1e-6)
    mixed = scan([tmp_path / "a.xyz", structures[1], str(tmp_path / "c.db@0")], soap, causes=False)
    assert told(mixed) == [*(("a.xyz", n) for n in range(6)), ("frames", 0), ("c.db", 0)]
    assert count_frames([tmp_path / "a.xyz", f"{tmp_path}/b.traj@1:5:2", structures[0]]) == 9
    assert count_frames(str(tmp_path / "c.db")) == count_frames(tmp_path / "d.xyz.gz") == 6
    assert count_frames(iter(structures)) is None


def test_a_selection_of_a_database(soap: SOAP, tmp_path: Path) -> None:
    write(tmp_path / "c.db", [molecule("CH4"), molecule("H2O"), rattled(molecule("CH4"))])
    result = scan(f"{tmp_path}/c.db@C=1", soap)
    assert list(result.column("formula")) == ["CH4", "CH4"]


def test_iterators_are_read_as_needed(soap: SOAP) -> None:
    taken = []

    def stream() -> Iterator[Atoms]:
        for number, atoms in enumerate(frames(30)):
            taken.append(number)
            yield atoms

    ahead = []
    result = scan(stream(), soap, causes=False, progress=lambda n: ahead.append(len(taken) - n))
    assert len(result) == 30
    assert max(ahead) == 0  # a chunk is computed before the next one is read


def test_frames_that_fail_are_recorded(soap: SOAP, tmp_path: Path) -> None:
    nan, overlapping = frames(2)
    nan.positions[2, 1] = np.nan
    overlapping.positions[1] = overlapping.positions[0]
    flat = frames(1)[0]
    flat.pbc, flat.cell = True, [5, 5, 0]
    good = frames(1)[0]
    bad = [nan, overlapping, flat, Atoms(), Atoms("He2", [[0] * 3, [1] * 3])]
    result = scan([good, *bad, good], soap)
    errors = list(result.column("error"))
    assert errors[0] == errors[-1] == ""
    expected = ["not finite", "on top", "linearly dependent", "no atoms", "He"]
    for error, words in zip(errors[1:-1], expected, strict=True):
        assert words in error
    assert np.isnan(result.column("ratio")[1:-1]).all()
    assert result.column("ratio")[0] == result.column("ratio")[-1] > 0
    assert "5 with an error" in result.summary()
    stored = scan([good, *bad, good], soap, store=tmp_path / "results.db")
    assert stored.rows == result.rows
    failure = next(row for row in result.rows if row["error"])
    where = f"{failure['source']}@{failure['index']}"
    assert str(result) == f"{result.summary()}\nFirst failure: {where}: {failure['error']}"
    assert np.isnan(stored.record(1).atoms.positions[2, 1])
    assert len(stored.record(4).atoms) == 0
    with pytest.raises(TypeError, match=r"neither an ase\.Atoms nor a file"):
        scan([good, 3], soap)
    assert "3 is not an ase.Atoms" in scan(iter([good, 3, good]), soap).rows[1]["error"]


def test_bad_references_are_recorded(soap: SOAP) -> None:
    structures = frames(5)
    for atoms in structures:
        atoms.arrays["f"] = np.ones((6, 3))
        atoms.info["e"] = 1.0
    structures[1].arrays["f"][3, 0] = np.inf
    del structures[2].arrays["f"]
    structures[3].info["e"] = "much"
    structures[4].info["e"] = np.nan
    result = scan(structures, soap, forces_key="f", energy_key="e", causes=False)
    errors = list(result.column("error"))
    for error, words in zip(
        errors, ["", "force on atom 3", "no forces", "much", "nan"], strict=True
    ):
        assert words in error
    assert (result.column("sigma_min") > 0).all()
    known = ~np.isnan(result.column("irreducible_force_error"))
    assert list(known) == [True, False, False, True, True]
    assert np.isnan(result.column("energy")).sum() == 2


@pytest.mark.parametrize("option", ["forces_key", "energy_key"])
def test_a_misspelt_key_is_an_error(option: str, soap: SOAP, tmp_path: Path) -> None:
    structures = frames(2)
    structures[0].arrays["dft_force"] = np.ones((6, 3))
    structures[0].info["dft_energy"] = 1.0
    message = r"frames@0: there is no .* entry 'dft'; the frame has: .*dft_.*; did you mean 'dft_"
    with pytest.raises(ValueError, match=message):
        scan(structures, soap, store=tmp_path / "results.db", **{option: "dft"})
    assert not list(tmp_path.iterdir())
    key = {"forces_key": "dft_force", "energy_key": "dft_energy"}[option]
    result = scan(structures[:1], soap, store=tmp_path / "results.db", **{option: key})
    assert result.rows[0]["error"] is None


def test_a_set_that_begins_with_single_atoms(soap: SOAP) -> None:
    """They have no forces, by convention no column of forces either, and tell nothing of a key."""
    alone = [Atoms(symbol, info={"dft": -1.0}) for symbol in ("H", "O")]
    structures = frames(3)
    for structure in structures:
        structure.info["dft"] = -2.0
        structure.arrays["dft"] = np.ones((6, 3))
    del structures[1].arrays["dft"]
    result = scan([*alone, *structures], soap, forces_key="dft", energy_key="dft")
    errors = [row["error"] for row in result.rows]
    assert errors[:3] == [None, None, None]
    assert "there is no forces entry 'dft'" in errors[3]
    assert errors[4] is None
    with pytest.raises(ValueError, match="frames@2: there is no forces entry 'dftt'"):
        scan([*alone, *structures], soap, forces_key="dftt")


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


@pytest.mark.parametrize("cut", [1, 3, 7, 7.5])
def test_a_torn_last_frame_loses_no_other(cut: float, soap: SOAP, tmp_path: Path) -> None:
    path = tmp_path / "run.xyz"
    write(path, frames(4), format="extxyz")
    lines = lines_of(path)
    kept = lines[: 3 * 8 + int(cut)]
    if cut != int(cut):
        kept[-1] = kept[-1][:20]
    path.write_text("".join(kept))
    result = scan(path, soap, causes=False)
    assert told(result) == [("run.xyz", n) for n in range(4)]
    assert [row["error"] is None for row in result.rows] == [True, True, True, False]
    assert "cannot be read here" in result.rows[3]["error"]


@pytest.mark.parametrize(
    ("line", "text", "failed"),
    [
        (8, "x6\n", [1]),  # the header
        (8, "7\n", [1]),
        (8, "5\n", [2]),  # the line that is left over
        (12, "C 0.1 zero 0.3\n", [1]),
        (12, "", [1]),
        (12, "C 0 0 0\nC 1 1 1\n", [2]),
        (9, "Properties=species:S:1:pos:R:2\n", [1]),
    ],
)
def test_a_corrupt_frame_in_the_middle(line, text, failed, soap: SOAP, tmp_path: Path) -> None:
    path = tmp_path / "run.xyz"
    write(path, frames(4), format="extxyz")
    lines = lines_of(path)
    lines[line] = text
    path.write_text("".join(lines))
    result = scan(path, soap, causes=False)
    assert [n for n, row in enumerate(result.rows) if row["error"]] == failed
    last = analyze(read_back(frames(4)[-1], tmp_path), soap)
    assert result.rows[-1]["sigma_min"] == pytest.approx(last.singular_values[0], rel=1e-12)


def read_back(atoms: Atoms, directory: Path) -> Atoms:
    write(directory / "one.xyz", atoms, format="extxyz")
    return read(directory / "one.xyz")


def test_files_that_cannot_be_read(soap: SOAP, tmp_path: Path) -> None:
    write(tmp_path / "good.xyz", frames(2))
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "words.txt").write_text("not a structure\n")
    (tmp_path / "huge.xyz").write_text("99999999999\n\nH 0 0 0\n")
    (tmp_path / "negative.xyz").write_text("-3\n\nH 0 0 0\n")
    (tmp_path / "zeros.xyz").write_bytes(bytes(1000))
    (tmp_path / "POSCAR").write_text("x\n1\n1 0 0\n0 1 0\n0 0 1\nH\n1\nDirect\n0 0\n")
    write(tmp_path / "whole.traj", frames(3))
    (tmp_path / "torn.traj").write_bytes((tmp_path / "whole.traj").read_bytes()[:-40])
    (tmp_path / "torn.xyz.gz").write_bytes(gzip.compress(b"6\n" * 500)[:-30])
    names = ["empty.xyz", "good.xyz", "words.txt", "torn.xyz.gz", "good.xyz@7", "huge.xyz"]
    names += ["negative.xyz", "zeros.xyz", "POSCAR", "torn.traj", "good.xyz@C=1"]
    result = scan([tmp_path / name for name in names], soap, causes=False)
    sound = [row["error"] is None for row in result.rows if "good" in row["source"]]
    assert sound == [True, True, False, False]
    sound = [row["error"] is None for row in result.rows if "torn.traj" in row["source"]]
    assert sound == [True, True, False]
    assert {Path(row["source"]).name for row in result.rows if row["error"]} == {
        name.removesuffix("@7") for name in names
    }
    assert all(row["source"] in row["error"] for row in result.rows if row["error"])
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.xyz"):
        scan([tmp_path / "good.xyz", tmp_path / "absent.xyz"], soap)


def test_names_and_comments_of_any_kind(soap: SOAP, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("123", frames(1), format="extxyz")
    write("run@300K.xyz", frames(1))
    Path("comment.xyz").write_bytes(b"2\n12.5 \xc5\nH 0 0 0\nO 0 0 1\n")
    result = scan(["123", "run@300K.xyz@0", "comment.xyz"], soap, store="results.db")
    assert list(result.column("source")) == ["./123", "run@300K.xyz", "comment.xyz"]
    assert list(result.column("error")) == ["", "", ""]


def test_a_growing_frame_number_of_plain_xyz_is_no_header(tmp_path: Path) -> None:
    path = tmp_path / "steps.xyz"
    path.write_text("".join(f"2\n{n}\nH 0 0 0\nH 0 0 1\n" for n in range(1, 4)))
    assert count_frames(path) == 3
    assert [frame.error for frame in read_frames(path)] == [None] * 3


def test_tables(soap: SOAP, tmp_path: Path, monkeypatch) -> None:
    structures = [*frames(2), Atoms("H")]
    structures[0].arrays["forces"] = np.ones((6, 3))
    result = scan(structures, soap, forces_key="forces")
    result.to_csv(tmp_path / "t.csv")
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["n_atoms"] for line in lines] == ["6", "6", "1"]
    assert float(lines[0]["sigma_min"]) == result.rows[0]["sigma_min"]
    assert lines[1]["required_slope"] == lines[2]["sigma_min"] == ""
    table = result.to_numpy()
    assert table.dtype.names == COLUMNS
    assert table["index"].tolist() == [0, 1, 2]
    assert np.array_equal(np.isnan(table["ratio"]), [False, False, True])
    assert table["center"].tolist() == [-1, -1, -1]
    parquet = pytest.importorskip("pyarrow.parquet")
    result.to_parquet(tmp_path / "t.parquet")
    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == result.rows
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"ase-sensitivity\[parquet\]"):
        result.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="`name` is 'sigma'"):
        result.column("sigma")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"frames": molecule("CH4")}, TypeError, "`frames` is one ase.Atoms"),
        ({"frames": 5}, TypeError, "`frames` is 5"),
        ({"frames": []}, ValueError, "has no frames"),
        ({"frames": iter([])}, ValueError, "has no frames"),
        ({"descriptor": b"soap"}, TypeError, "`descriptor`"),
        ({"scope": "all"}, ValueError, "`scope`"),
        ({"k": 0}, ValueError, "`k` is 0"),
        ({"k": None}, ValueError, "`k` is None"),
        ({"null_tolerance": 2}, ValueError, "`null_tolerance`"),
        ({"tolerance": 1}, ValueError, "`tolerance`"),
        ({"units": "pounds"}, ValueError, "`units`"),
        ({"store": "results.csv"}, ValueError, "`store` is 'results.csv'"),
        ({"store": "ftp://host/results.db"}, ValueError, "`store` is 'ftp"),
        ({"store": 5}, TypeError, "`store` is 5"),
        ({"frames": b"run.xyz"}, TypeError, "`frames` is b'run"),
        ({"frames": "run.xyz@::0"}, ValueError, "the step of 'run.xyz@::0' is 0"),
        ({"frames": "@"}, FileNotFoundError, "there is no file"),
        ({"executor": 4}, TypeError, "`executor` is 4"),
    ],
)
def test_arguments_are_checked(given: dict, error, words: str, soap: SOAP) -> None:
    arguments = {"frames": frames(1), "descriptor": soap} | given
    with pytest.raises(error, match=words):
        scan(**arguments)
