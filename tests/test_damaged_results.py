"""Databases of scans that somebody has changed: told in one line, and nothing is made up."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.db import connect

from ase_sensitivity import SOAP
from ase_sensitivity.cli.app import main
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.dataset.store import DatabaseStore
from tests.structures import rattled

SMALL = SOAP(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def water(n: int) -> list[Atoms]:
    frames = [rattled(molecule("H2O"), seed=seed) for seed in range(n)]
    for atoms in frames:
        atoms.arrays["dft"] = np.ones((3, 3))
    return frames


def scanned(n: int = 4) -> ScanResult:
    return scan(water(n), SMALL, forces_key="dft", store="results.db")


def sql(command: str, *values: object) -> None:
    with closing(sqlite3.connect("results.db")) as database:
        database.execute(command, values)
        database.commit()


def foreign() -> None:
    with connect("results.db") as database:
        database.write(molecule("H2O"), colour="blue")


def foreign_with(**pairs: object) -> Callable[[], None]:
    def write() -> None:
        connect("results.db").update(2, **pairs)

    return write


def without(*names: str) -> Callable[[], None]:
    return lambda: connect("results.db").update(2, delete_keys=list(names))


def with_data(**data: object) -> Callable[[], None]:
    def write() -> None:
        database = connect("results.db")
        with database:
            row = database.get(id=2)
            database.write(row.toatoms(), row.key_value_pairs, row.data | data, id=2)

    return write


def bytes_in(column: str, value: object) -> Callable[[], None]:
    return lambda: sql(f"update systems set {column} = ? where id = 2", value)


# What was done to row 2 (or added as row 5), and words of the error.
DAMAGE: dict[str, tuple[Callable[[], None], str]] = {
    "a foreign row": (foreign, "row 5 of .*it has no source"),
    "no source": (without("source"), "row 2 of .*it has no source"),
    "no index": (without("index"), "row 2 of .*it has no index"),
    "no ratio": (without("ratio"), "row 2 of .*neither a ratio nor an error"),
    "half of the singular values": (without("sigma_max"), "row 2 of .*it has no sigma_max"),
    "half of the forces": (without("net_force"), "row 2 of .*it has no net_force"),
    "an index in words": (foreign_with(index="first"), "row 2 of .*its index is 'first'"),
    "a ratio in words": (foreign_with(ratio="small"), "row 2 of .*its ratio is 'small'"),
    "a cause that is a number": (foreign_with(cause=3), "row 2 of .*its cause is 3"),
    "a cause of nothing": (foreign_with(cause="constructor"), "row 2 of .*'constructor'"),
    "columns that are no JSON": (bytes_in("key_value_pairs", "{"), "damaged after its row 1"),
}
ARRAYS: dict[str, tuple[Callable[[], None], str]] = {
    "positions that are torn": (bytes_in("positions", b"\1\2\3"), "damaged after its row 1"),
    "no arrays": (bytes_in("data", None), "row 2 of"),
    "torn arrays": (bytes_in("data", b"\0" * 40), "row 2 of"),
    "fewer modes": (with_data(modes=np.zeros((1, 3, 3))), "row 2 of .*its modes are not 3 x 3 x 3"),
    "modes of nothing": (with_data(modes=np.full((3, 3, 3), np.nan)), "row 2 of .*its modes"),
    "words": (with_data(singular_values=["a"]), "row 2 of"),
    "fewer forces": (with_data(lost_forces=np.zeros((2, 3))), "row 2 of .*its lost_forces"),
    "a short curve": (with_data(curve=np.zeros(3)), "row 2 of .*its curve"),
    "too many causes": (with_data(causes=["symmetry"] * 9), "row 2 of .*its causes"),
    "unknown causes": (with_data(causes=["a", "b", "c"]), "row 2 of .*its causes"),
}


@pytest.mark.parametrize("case", [*DAMAGE, *ARRAYS])
def test_a_damaged_row_is_told(case: str, capsys) -> None:
    damage, words = (DAMAGE | ARRAYS)[case]
    scanned()
    damage()
    with pytest.raises(ValueError, match=words):
        list(ScanResult.read("results.db").records())
    if case in DAMAGE:
        with pytest.raises(ValueError, match=words):
            scan(water(4), SMALL, forces_key="dft", store="results.db")
    assert main(["report", "results.db"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ase-sensitivity: error: ")
    assert not Path("report.html").exists()


@pytest.mark.parametrize("case", ["a foreign row", "no index", "no arrays", "fewer modes"])
def test_without_the_row_all_is_well(case: str) -> None:
    """The remedy that the error names."""
    expected = scanned().rows
    (DAMAGE | ARRAYS)[case][0]()
    connect("results.db").delete([5 if case == "a foreign row" else 2])
    result = scan(water(4), SMALL, forces_key="dft", store="results.db")
    assert sorted(result.rows, key=lambda row: row["index"]) == expected
    assert len(list(result.records())) == 4


@pytest.mark.parametrize(
    "metadata",
    [
        "",
        "{",
        "{}",
        json.dumps({"ase_sensitivity": 3}),
        json.dumps({"ase_sensitivity": {}}),
        json.dumps({"ase_sensitivity": {"descriptor": "SOAP", "null_tolerance": "small"}}),
    ],
)
def test_metadata_that_are_not_those_of_a_scan(metadata: str, capsys) -> None:
    scanned()
    sql("update information set value = ? where name = 'metadata'", metadata)
    for call in (
        lambda: ScanResult.read("results.db"),
        lambda: scan(water(4), SMALL, forces_key="dft", store="results.db"),
    ):
        with pytest.raises(ValueError, match=r"results\.db (is|has)"):
            call()
    assert main(["report", "results.db"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# Where a database is made


def test_a_database_is_made_where_a_link_leads() -> None:
    os.mkdir("disk")
    os.symlink("disk/real.db", "results.db")
    result = scanned()
    assert os.path.islink("results.db")
    assert os.listdir("disk") == ["real.db"]
    assert ScanResult.read("disk/real.db").rows == result.rows
    os.symlink("nowhere/real.db", "other.db")
    with pytest.raises(FileNotFoundError, match=r"other\.db cannot be used: there is no folder"):
        DatabaseStore("other.db")


def test_a_full_disk_leaves_no_half_database() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"results\.db cannot be used"):
            scanned()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir() == []
    assert len(scanned()) == 4
