"""Scans into folders of Parquet files: what databases have, resumed after anything."""

from __future__ import annotations

import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from ase_sensitivity import SOAP
from ase_sensitivity.cli.app import main
from ase_sensitivity.dataset import parquet_store
from ase_sensitivity.dataset import scan as module
from ase_sensitivity.dataset.parquet_store import ParquetStore
from ase_sensitivity.dataset.result import ScanResult
from tests.conftest import hears_interrupts
from tests.scanning import run, stream

pyarrow = pytest.importorskip("pyarrow")
ROOT = Path(__file__).parent.parent
SOAP_TEXT = "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results.parquet"


def same(result: ScanResult, expected: ScanResult) -> None:
    assert result.rows == expected.rows
    assert len(result) == len(expected)
    for one, other in zip(result.records(), expected.records(), strict=True):
        assert_same_records(one, other)
    number = len(expected) - 2
    assert_same_records(result.record(number), expected.record(number))


def assert_same_records(one, other) -> None:
    assert one.row == other.row
    assert one.causes == other.causes
    assert np.array_equal(one.singular_values, other.singular_values)
    assert np.array_equal(one.modes, other.modes.astype(np.float32))
    assert (one.atoms.symbols == other.atoms.symbols).all()
    assert np.array_equal(one.atoms.positions, other.atoms.positions, equal_nan=True)
    assert np.array_equal(one.atoms.cell, other.atoms.cell)
    for known in ("lost_forces", "curve"):
        a, b = getattr(one, known), getattr(other, known)
        assert (a is None and b is None) or np.allclose(a, b, rtol=1e-6, atol=1e-12)
    if other.atoms.calc is not None:
        assert np.array_equal(one.atoms.calc.results["forces"], other.atoms.calc.results["forces"])


def test_parquet_has_what_memory_has(folder: Path) -> None:
    expected = run(None, 20)
    same(run(str(folder), 20), expected)
    same(ScanResult.read(folder), expected)
    found = ScanResult.read(folder)
    assert found.summary() == expected.summary()
    assert np.array_equal(found.curve[1], expected.curve[1])
    assert found.parameters == run(str(folder), 20).parameters


def test_any_reader_of_parquet_finds_one_table(folder: Path) -> None:
    import pyarrow.parquet

    rows = run(str(folder), 9).rows
    table = pyarrow.parquet.read_table(folder).to_pylist()
    assert [row["ratio"] for row in table] == [row["ratio"] for row in rows]
    assert len(table[0]["positions"]) == 9


def written_one_by_one(monkeypatch) -> None:
    monkeypatch.setattr(module, "WRITTEN_AFTER", 0.0)
    monkeypatch.setattr("ase_sensitivity.dataset.chunks.MOST_FRAMES", 1)
    monkeypatch.setattr(parquet_store, "MANY", 4)
    monkeypatch.setattr(parquet_store, "SMALL", (3, 9))


def test_many_parts_are_merged(folder: Path, monkeypatch) -> None:
    written_one_by_one(monkeypatch)
    found = run(str(folder), 37)
    n_files = len(os.listdir(folder))
    assert n_files < 16
    same(found, run(None, 37))
    same(ScanResult.read(folder), run(None, 37))


def test_remains_of_an_interrupted_merge_are_deleted(folder: Path, monkeypatch) -> None:
    """Readers of other packages have no rows twice after the scan has gone on."""
    import pyarrow.parquet

    written_one_by_one(monkeypatch)
    real, kept = Path.unlink, set[Path]()

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("rows-"):  # merged, and not deleted yet
            kept.update(folder.glob("rows-*"))
            raise KeyboardInterrupt
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            run(str(folder), 30)
    n_rows = len(ScanResult.read(folder))
    assert pyarrow.parquet.read_table(folder).num_rows > n_rows
    same(run(str(folder), n_rows), run(None, n_rows))
    assert pyarrow.parquet.read_table(folder).num_rows == n_rows
    assert {*folder.glob("rows-*")} < kept
    same(run(str(folder), 30), run(None, 30))
    table = pyarrow.parquet.read_table(folder)
    assert sorted(table["index"].to_pylist()) == [*range(30)]


def test_a_part_beyond_an_earlier_one_is_not_deleted(folder: Path) -> None:
    """It is not from a merge: its last rows are nowhere else."""
    run(str(folder), 4)
    shutil.copy(folder / f"rows-{0:012d}.parquet", folder / f"rows-{2:012d}.parquet")
    run(str(folder), 4)
    assert len([*folder.glob("rows-*")]) == 2


def test_unfinished_files_of_dead_processes_are_deleted(folder: Path) -> None:
    run(str(folder), 2)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    name = f".rows-{2:012d}.parquet"
    dead, alive, old, elsewhere = (
        folder / f"{name}.{process.pid}@{platform.node()}",
        folder / f"{name}.{os.getpid()}@{platform.node()}",
        folder / f"{name}.{os.getppid()}@{platform.node()}",
        folder / f"{name}.{process.pid}@another",
    )
    for file in (dead, alive, old, elsewhere):
        file.touch()
    os.utime(old, (0, 0))
    same(run(str(folder), 2), run(None, 2))
    assert {*folder.glob(".rows*")} == {alive, elsewhere}


@pytest.mark.parametrize("interrupted", [False, True])
def test_results_are_read_while_parts_are_merged(
    interrupted: bool, folder: Path, monkeypatch
) -> None:
    """Opened before, read after or in the middle, with merged files that are deleted or not yet."""
    written_one_by_one(monkeypatch)
    expected = run(None, 30)
    run(str(folder), 12)
    early, middle, number = (ScanResult.read(folder) for _ in range(3))
    begun = middle.records()
    records = [next(begun) for _ in range(10)]
    with monkeypatch.context() as patch:
        if interrupted:
            patch.setattr(ParquetStore, "_delete_remains", lambda _: None)
            kept = folder.parent / "kept"
            shutil.copytree(folder, kept)
        run(str(folder), 30)
        if interrupted:
            for file in kept.glob("rows-*"):
                if not (folder / file.name).exists():
                    shutil.copy(file, folder)
    assert early.rows == expected.rows[:12]
    assert len(early) == len([*early.records()]) == 12
    records += begun
    for one, other in zip(records, islice(expected.records(), 12), strict=True):
        assert_same_records(one, other)
    assert_same_records(number.record(11), expected.record(11))
    assert_same_records(number.record(0), expected.record(0))
    same(ScanResult.read(folder), expected)


@pytest.mark.parametrize("at", [0, -1])
def test_parts_are_merged_while_a_folder_is_opened(at: int, folder: Path, monkeypatch) -> None:
    import pyarrow.parquet

    written_one_by_one(monkeypatch)
    run(str(folder), 12)
    real = pyarrow.parquet.read_metadata
    last = sorted(folder.glob("rows-*"))[at]

    def after_more_was_written(path: Path):
        if path == last:
            monkeypatch.setattr(pyarrow.parquet, "read_metadata", real)
            run(str(folder), 30)
        return real(path)

    monkeypatch.setattr(pyarrow.parquet, "read_metadata", after_more_was_written)
    found = ScanResult.read(folder)
    assert last.exists() == (at == 0)
    assert len(found) >= 12
    same(found, run(None, len(found)))


def test_a_part_that_is_deleted_while_it_is_read(folder: Path, monkeypatch) -> None:
    written_one_by_one(monkeypatch)
    run(str(folder), 6)
    found = ScanResult.read(folder)
    sorted(folder.glob("rows*"))[1].unlink()
    with pytest.raises(ValueError, match=r"has lost rows while it was read.*read it again"):
        assert found.rows
    assert len(ScanResult.read(folder).rows) < 6


@pytest.mark.parametrize("at", ["unlink", "fsync", "link"])
def test_an_interruption_at_any_step_loses_nothing(at: str, folder: Path, monkeypatch) -> None:
    written_one_by_one(monkeypatch)
    expected = run(None, 30)
    owner = Path if at == "unlink" else os
    real = getattr(owner, at)
    left = iter([False] * 9 + [True])

    def interrupted(*arguments, **keywords):
        if next(left, False):
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(owner, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(str(folder), 30)
    assert 0 < len(ScanResult.read(folder)) < 30
    same(run(str(folder), 30), expected)


@pytest.mark.slow
def test_killed_at_random_times(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.scanning", str(folder), "60"]
    random.seed(0)
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=hears_interrupts)
        deadline = time.monotonic() + 60
        before = set(os.listdir(folder)) if folder.exists() else set()
        while process.poll() is None and time.monotonic() < deadline:
            if folder.exists() and set(os.listdir(folder)) - before:
                break
            time.sleep(0.02)
        time.sleep(0.2 * random.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    same(run(str(folder), 60), run(None, 60))


@pytest.mark.slow
def test_a_full_disk_loses_nothing(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.scanning", str(folder), "20", "8000"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode
    assert "OSError" in ended.stderr
    same(run(str(folder), 20), run(None, 20))


def test_frames_that_could_not_be_read_are_replaced(tmp_path: Path, folder: Path) -> None:
    frames = list(stream(3))
    soap = SOAP(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)
    file = tmp_path / "growing.xyz"
    write(file, frames)
    whole = file.read_text()
    file.write_text(whole[: len(whole) - 90])
    assert [bool(row["error"]) for row in module.scan(file, soap, store=folder).rows] == [
        False,
        False,
        True,
    ]
    file.write_text(whole)
    found = module.scan(file, soap, store=folder)
    same(found, module.scan(file, soap))
    same(ScanResult.read(folder), module.scan(file, soap))


def test_two_scans_at_once(folder: Path) -> None:
    soap = SOAP(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)
    with pytest.raises(RuntimeError, match="another process is writing"):
        module.scan(
            stream(6), soap, forces_key="f", store=folder, progress=lambda _: run(str(folder), 2)
        )
    same(run(str(folder), 6), run(None, 6))


def test_the_parameters_are_those_of_the_rows(folder: Path) -> None:
    """Another scan begins between the beginning of one and its first rows."""
    first = run(None, 4)
    other = first.parameters | {"descriptor": "other"}
    one, two = ParquetStore(folder), ParquetStore(folder)
    one.begin(first.parameters)
    two.begin(other)
    with pytest.raises(ValueError, match="of a scan with descriptor = 'other'"):
        one.write([*first.records()])
    found = ScanResult.read(folder)
    assert (len(found), found.parameters) == (0, other)
    two.write([*first.records()])
    found = ScanResult.read(folder)
    assert (len(found), found.parameters) == (4, other)
    with pytest.raises(ValueError, match="of a scan with descriptor = 'other'"):
        run(str(folder), 4)


def test_a_scan_that_began_before_the_first_rows_leaves_the_parameters(folder: Path) -> None:
    first = run(None, 4)
    one, two = ParquetStore(folder), ParquetStore(folder)
    one.begin(first.parameters)
    one.write([*first.records()])
    with pytest.raises(RuntimeError, match="another process is writing"):
        two.begin(first.parameters | {"descriptor": "other"})
    assert ScanResult.read(folder).parameters == first.parameters


def test_parts_of_another_scan_are_named(folder: Path, tmp_path: Path) -> None:
    run(str(folder), 4)
    other = ParquetStore(tmp_path / "other.parquet")
    other.begin(run(None, 1).parameters | {"k": 3})
    shutil.copy(tmp_path / "other.parquet" / "parameters.parquet", folder)
    for look in (lambda: ScanResult.read(folder), lambda: run(str(folder), 4)):
        with pytest.raises(ValueError, match=r"rows-0+\.parquet in .* k = 6, not 3; delete it"):
            look()


def test_a_damaged_part_is_named_and_can_be_deleted(folder: Path, monkeypatch) -> None:
    written_one_by_one(monkeypatch)
    run(str(folder), 6)
    part = sorted(folder.glob("rows*"))[1]
    part.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=f"{part.name} in .* is damaged.*delete it"):
        ScanResult.read(folder)
    part.unlink()
    found = sorted(run(str(folder), 6).rows, key=lambda row: row["index"])
    assert found == run(None, 6).rows


def test_other_options_and_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    run(str(folder), 2)
    soap = SOAP(["H", "O"], cutoff=3.5, n_max=2, l_max=1, threads=1)
    with pytest.raises(ValueError, match="is of a scan with descriptor"):
        module.scan(stream(2), soap, forces_key="f", store=folder)
    run(None, 2).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match="a single file, not the folder"):
        ScanResult.read(tmp_path / "table.parquet")
    (tmp_path / "other.parquet").mkdir()
    shutil.copy(tmp_path / "table.parquet", tmp_path / "other.parquet" / "parameters.parquet")
    with pytest.raises(ValueError, match="not the result of a scan"):
        ScanResult.read(tmp_path / "other.parquet")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        run(str(tmp_path / "nowhere" / "results.parquet"), 2)


def test_without_pyarrow_the_extra_is_named(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install .ase-sensitivity\[parquet\]"):
        run(str(folder), 2)
    monkeypatch.chdir(folder.parent)
    write("water.xyz", list(stream(1)))
    asked = ["scan", "water.xyz", "-d", SOAP_TEXT, "-o", "results.parquet"]
    assert main(asked) == 2
    assert "ase-sensitivity[parquet]" in capsys.readouterr().err


def test_commands(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder.parent)
    write("water.xyz", list(stream(3)))
    asked = ["scan", "water.xyz", "-d", SOAP_TEXT, "-o", folder.name]
    assert main(asked) == 0
    first = capsys.readouterr().out
    assert main(asked) == 0
    assert capsys.readouterr().out == first
    assert main(["report", folder.name, "-o", "report.html"]) == 0
    assert "water.xyz" in Path("report.html").read_text()
