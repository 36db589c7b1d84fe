"""Databases of scans: resumed after anything, refused if they do not fit, read by ASE."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write

from ase_sensitivity import SOAP, QUIPDescriptor
from ase_sensitivity.auditing.reference import S1, around_carbon
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.dataset.store import DatabaseStore
from tests.conftest import hears_interrupts
from tests.scanning import run, stream
from tests.structures import REFERENCE_SOAP, TD, rattled

ROOT = Path(__file__).parent.parent
STORE = "ase_sensitivity.dataset.store"


@pytest.fixture(scope="module")
def soap() -> SOAP:
    return SOAP(["H", "O", "C"], cutoff=3.0, n_max=2, l_max=1, threads=1)


def water(n: int) -> list[Atoms]:
    return [rattled(molecule("H2O"), seed=seed) for seed in range(n)]


def start(results: Path, n_frames: int, *more: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.scanning", str(results), str(n_frames), *more]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_interrupts,
    )


def same(result: ScanResult, expected: ScanResult) -> None:
    assert result.rows == expected.rows
    for one, other in zip(result.records(), expected.records(), strict=True):
        assert np.array_equal(one.singular_values, other.singular_values)
        assert np.array_equal(one.atoms.positions, other.atoms.positions, equal_nan=True)
        assert one.causes == other.causes
        assert (one.lost_forces is None) == (other.lost_forces is None)
        if one.lost_forces is not None:
            assert np.allclose(one.lost_forces, other.lost_forces, rtol=1e-6, atol=1e-12)
            assert np.array_equal(one.curve, other.curve)


def test_a_database_has_what_memory_has(tmp_path: Path) -> None:
    expected = run(None, 20)
    result = run(str(tmp_path / "results.db"), 20)
    same(result, expected)
    same(ScanResult.read(tmp_path / "results.db"), expected)
    assert result.parameters == ScanResult.read(tmp_path / "results.db").parameters
    assert result.parameters["descriptor"].startswith("SOAP(['H', 'O'], cutoff=3")
    assert result.summary() == expected.summary()
    assert np.array_equal(result.curve[1], expected.curve[1])
    assert result.species_loss == pytest.approx(expected.species_loss, rel=1e-6)
    assert os.listdir(tmp_path) == ["results.db"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupted_scan_is_resumed(interruption, soap: SOAP, tmp_path: Path) -> None:
    structures = water(12)
    expected = scan(structures, soap)

    def stop(n_done: int) -> None:
        if n_done >= 5:
            raise interruption

    with pytest.raises(interruption):
        scan(structures, soap, store=tmp_path / "results.db", progress=stop)
    part = ScanResult.read(tmp_path / "results.db")
    assert 5 <= len(part) < 12
    n_stored = len(part)
    assert part.rows == expected.rows[:n_stored]
    counts: list[int] = []
    result = scan(structures, soap, store=tmp_path / "results.db", progress=counts.append)
    same(result, expected)
    assert counts[0] > n_stored
    computed: list[int] = []
    same(scan(structures, soap, store=tmp_path / "results.db", progress=computed.append), expected)
    assert computed == []


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signals(sign: signal.Signals, tmp_path: Path) -> None:
    results = tmp_path / "results.db"
    with start(results, 4000) as process:
        while stored(results) < 10:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(sign)
    n_stored = stored(results)
    assert 10 <= n_stored < 4000
    result = run(str(results), n_stored + 5)
    same(result, run(None, n_stored + 5))


def stored(results: Path) -> int:
    return len(ScanResult.read(results)) if results.exists() else 0


@pytest.mark.slow
def test_killed_at_random_times(tmp_path: Path) -> None:
    """SIGKILL at any time, from before the database is there to the middle of a transaction."""
    kills = 6
    results, n_frames = tmp_path / "results.db", 80 * kills
    random.seed(kills)
    sizes = [0]
    for number in range(kills):
        with start(results, n_frames) as process:
            if number % 4 == 0:  # while it starts
                time.sleep(random.uniform(0, 2))
            else:
                while stored(results) == sizes[-1] and process.poll() is None:
                    time.sleep(0.05)
                time.sleep(random.uniform(0, 0.1))
            process.kill()
        sizes.append(stored(results))
        if results.exists():
            with closing(sqlite3.connect(results)) as database:
                assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > kills / 4
    assert sizes[-1] < n_frames
    same(run(str(results), n_frames), run(None, n_frames))


def test_killed_while_the_database_is_made(soap: SOAP, tmp_path: Path, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*names):
        raise Killed

    monkeypatch.setattr("ase_sensitivity.dataset.store.os.link", kill)
    with pytest.raises(Killed):
        scan(water(2), soap, store=tmp_path / "results.db")
    monkeypatch.undo()
    assert not (tmp_path / "results.db").exists()
    assert len(scan(water(2), soap, store=tmp_path / "results.db")) == 2
    assert os.listdir(tmp_path) == ["results.db"]


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    results = tmp_path / "results.db"
    with start(results, 600, "150000") as process:
        text = process.communicate()[1]
    assert process.returncode == 1
    last = text.strip().splitlines()[-1]
    assert last.startswith("OSError: the database")
    assert "goes on from there" in last
    n_stored = len(ScanResult.read(results))
    assert 10 < n_stored < 600
    same(run(str(results), n_stored + 20), run(None, n_stored + 20))


def test_ase_selects(tmp_path: Path) -> None:
    descriptor = QUIPDescriptor(REFERENCE_SOAP.format(l_max=8, n_species=1, species_Z=1))
    generic = around_carbon([(1, 0, 0.1), (0.28, 0.96, 0), (-0.48, 0.6, 0.64), (-0.4, -0.5, -0.8)])
    frames = [around_carbon(S1), around_carbon(TD), generic]
    frames[0].arrays["dft"] = np.ones((5, 3))
    frames[0].info["dft"] = -3.0
    results = str(tmp_path / "results.db")
    scan(
        iter(frames[:1]), descriptor, scope="environment", store=results, forces_key="dft",
        energy_key="dft",
    )  # fmt: skip
    scan(frames, descriptor, scope="environment", store=results, forces_key="dft", energy_key="dft")
    database = connect(results)
    (row,) = database.select("cause=incompleteness,ratio<1e-4")
    assert row.n_incompleteness == 1
    assert row.energy == -3.0
    assert row.fmax == pytest.approx(np.sqrt(3))
    assert row.toatoms().get_forces() == pytest.approx(np.ones((5, 3)))
    assert row.data["modes"].shape == (6, 5, 3)
    assert database.count("cause=symmetry") == 1
    assert database.count("error") == 2  # no such forces
    assert database.count("CH4") == 3
    command = [sys.executable, "-m", "ase", "db", results, "cause=incompleteness,ratio<1e-4"]
    done = subprocess.run([*command, "-n"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 row"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scope": "atom"}, "scope = 'structure', not 'atom'"),
        ({"k": 3}, "k = 6, not 3"),
        ({"units": "kcal/mol"}, "units = 'eV'"),
        ({"descriptor": SOAP(["H", "O", "C"], 3.5, 2, 1)}, "cutoff=3.5"),
    ],
)
def test_other_options_are_refused(given: dict, words: str, soap: SOAP, tmp_path: Path) -> None:
    arguments = {"frames": water(3), "descriptor": soap, "store": tmp_path / "results.db"}
    scan(**arguments)
    with pytest.raises(ValueError, match=r"results\.db is of a scan with") as caught:
        scan(**arguments | given)
    assert words in str(caught.value)
    assert len(ScanResult.read(tmp_path / "results.db")) == 3


def test_other_data_are_refused(soap: SOAP, tmp_path: Path) -> None:
    structures = water(4)
    scan(structures[:3], soap, store=tmp_path / "results.db")
    structures[2].positions[0, 0] += 1e-3
    with pytest.raises(
        ValueError, match=r"another structure, .* for frames@2: the data have changed"
    ):
        scan(structures, soap, store=tmp_path / "results.db")


def changed(how: str) -> Atoms:
    atoms = water(1)[0]
    atoms.set_cell([9.0, 9.0, 9.0])
    if how == "pbc":
        atoms.pbc = (True, True, False)
    elif how == "cell":
        atoms.set_cell([9.0, 9.0, 9.0 + 1e-6])
    elif how == "positions":
        atoms.positions[2, 1] += 1e-9
    elif how == "species":
        atoms.numbers[0] = 6
    elif how in ("energy", "forces"):
        values = {"energy": 1.0, "forces": np.ones((3, 3))}
        atoms.calc = SinglePointCalculator(atoms, **{how: values[how]})
    return atoms


@pytest.mark.parametrize("how", ["pbc", "cell", "positions", "species", "energy", "forces"])
def test_whatever_changes_the_result_is_noticed(how: str, soap: SOAP, tmp_path: Path) -> None:
    store = tmp_path / "results.db"
    scan([changed("nothing")], soap, store=store)
    scan([changed("nothing")], soap, store=store)
    with pytest.raises(ValueError, match="the data have changed"):
        scan([changed(how)], soap, store=store)


def test_a_growing_trajectory(soap: SOAP, tmp_path: Path) -> None:
    """More frames, and another file, are added; the torn frame is read again."""
    path, other, results = tmp_path / "run.xyz", tmp_path / "more.xyz", tmp_path / "results.db"
    structures = water(9)
    write(path, structures[:5], format="extxyz")
    text = path.read_text()
    path.write_text(text[:-20])
    assert scan(path, soap, store=results).rows[4]["error"] is not None
    write(path, structures[:7], format="extxyz")
    write(other, structures[7:], format="extxyz")
    result = scan([path, other], soap, store=results)
    assert result.rows == scan([path, other], soap).rows
    assert [row["error"] for row in result.rows] == [None] * 9


def test_overlapping_selections_are_scanned_once(soap: SOAP, tmp_path: Path) -> None:
    write(tmp_path / "run.xyz", water(6), format="extxyz")
    names = [f"{tmp_path}/run.xyz@::2", f"{tmp_path}/run.xyz"]
    scan(names[0], soap, store=tmp_path / "results.db")
    result = scan(names, soap, store=tmp_path / "results.db")
    assert list(result.column("index")) == [0, 2, 4, 1, 3, 5]


def test_two_scans_at_once(soap: SOAP, tmp_path: Path) -> None:
    structures = water(3)

    def second(_: int) -> None:
        scan(structures, soap, store=tmp_path / "results.db")

    with pytest.raises(RuntimeError, match="another process is writing"):
        scan(structures, soap, store=tmp_path / "results.db", progress=second)
    assert list(ScanResult.read(tmp_path / "results.db").column("index")) == [0, 1, 2]


@pytest.mark.parametrize("ours", [True, False])
def test_the_parameters_are_those_of_the_rows(ours: bool, tmp_path: Path, monkeypatch) -> None:
    """Another scan begins between the beginning of one and its first rows."""
    monkeypatch.setattr(f"{STORE}.takes_records", lambda _: ours)
    store = tmp_path / "results.db"
    first = run(None, 4)
    other = first.parameters | {"descriptor": "other"}
    connect(store).metadata = {}
    one, two, late = DatabaseStore(store), DatabaseStore(store), DatabaseStore(store)
    one.begin(first.parameters)
    two.begin(other)
    with pytest.raises(ValueError, match="of a scan with descriptor = 'other'"):
        one.write([*first.records()])
    found = ScanResult.read(store)
    assert (len(found), found.parameters) == (0, other)
    two.write([*first.records()])
    with pytest.raises(ValueError, match="of a scan with descriptor = 'other'"):
        late.begin(first.parameters)
    found = ScanResult.read(store)
    assert (len(found), found.parameters) == (4, other)
    with pytest.raises(ValueError, match="of a scan with descriptor = 'other'"):
        run(str(store), 4)


def test_rows_that_are_added_while_another_scan_begins(tmp_path: Path, monkeypatch) -> None:
    store = tmp_path / "results.db"
    first = run(None, 4)
    one = DatabaseStore(store)
    one.begin(first.parameters)
    two = DatabaseStore(store)

    def written_after_it_was_counted(_: DatabaseStore) -> int:
        monkeypatch.undo()
        one.write([*first.records()])
        return 0

    monkeypatch.setattr(DatabaseStore, "__len__", written_after_it_was_counted)
    with pytest.raises(ValueError, match="not 'other'"):
        two.begin(first.parameters | {"descriptor": "other"})
    found = ScanResult.read(store)
    assert (len(found), found.parameters) == (4, first.parameters)


def test_what_is_no_database_of_a_scan(soap: SOAP, tmp_path: Path) -> None:
    with connect(tmp_path / "other.db") as database:
        database.write(molecule("H2O"), colour="blue")
    (tmp_path / "text.db").write_text("not a database, but long enough to look like one" * 20)
    (tmp_path / "empty.db").touch()
    with pytest.raises(ValueError, match="rows that are not from a scan"):
        scan(water(1), soap, store=tmp_path / "other.db")
    with pytest.raises(ValueError, match="not the result of a scan"):
        ScanResult.read(tmp_path / "other.db")
    for call in (lambda: scan(water(1), soap, store=tmp_path / "text.db"),
                 lambda: ScanResult.read(tmp_path / "text.db")):  # fmt: skip
        with pytest.raises(ValueError, match=r"text\.db is not a database"):
            call()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.db"):
        ScanResult.read(tmp_path / "absent.db")
    with pytest.raises(ValueError, match="not the result of a scan"):
        ScanResult.read(tmp_path / "empty.db")
    assert len(scan(water(1), soap, store=tmp_path / "empty.db")) == 1
    with pytest.raises(OSError, match="cannot be used"):
        scan(water(1), soap, store=tmp_path / "nowhere" / "results.db")


def test_frames_of_the_stream_differ() -> None:
    """Else a frame computed twice could pass for another one."""
    rows = [row["sigma_min"] for row in run(None, 30).rows if row["sigma_min"]]
    assert len(set(rows)) == len(rows) > 20
    assert len(list(stream(30))) == 30


def test_postgresql(tmp_path: Path) -> None:
    backend = pytest.importorskip("ase_db_backends", reason="ASE's backend is not installed")
    pgserver = pytest.importorskip("pgserver", reason="there is no PostgreSQL server to start")
    assert backend is not None
    with pgserver.get_server(tmp_path / "server", cleanup_mode="stop") as server:
        uri = server.get_uri()

        def stop(n_done: int) -> None:
            if n_done >= 5:
                raise KeyboardInterrupt

        structures, soap = water(12), SOAP(["H", "O"], 3.0, 2, 1)
        with pytest.raises(KeyboardInterrupt):
            scan(structures, soap, store=uri, progress=stop)
        assert 5 <= len(ScanResult.read(uri)) < 12
        same(scan(structures, soap, store=uri), scan(structures, soap))
        with pytest.raises(ValueError, match="scan with k = 6, not 3"):
            scan(structures, soap, store=uri, k=3)


def test_a_server_without_its_package_is_told(soap: SOAP, monkeypatch) -> None:
    monkeypatch.setattr("ase_sensitivity.dataset.store.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs the package ase-db-backends"):
        scan(water(1), soap, store="postgresql://me:secret@host/name")


def labelled(forces: float, n: int = 4) -> list[Atoms]:
    """Structures whose only difference is the reference."""
    frames = []
    for seed in range(n):
        atoms = molecule("CH3OH")
        atoms.rattle(0.05, seed=seed)
        atoms.arrays["forces"] = np.full((len(atoms), 3), forces)
        frames.append(atoms)
    return frames


def test_other_references_are_refused(tmp_path: Path) -> None:
    """Labels that were corrected must not show the old errors."""
    store = tmp_path / "results.db"
    soap = SOAP(["C", "H", "O"], cutoff=3.0, n_max=2, l_max=1)
    scan(labelled(0.1), soap, forces_key="forces", store=store)
    scan(labelled(0.1), soap, forces_key="forces", store=store)
    with pytest.raises(ValueError, match="other forces or another energy, for frames@0"):
        scan(labelled(0.2), soap, forces_key="forces", store=store)


def test_the_result_is_about_the_frames_that_were_given(tmp_path: Path) -> None:
    store = tmp_path / "results.db"
    soap = SOAP(["C", "H", "O"], cutoff=3.0, n_max=2, l_max=1)
    a, b = (tmp_path / f"{name}.xyz" for name in "ab")
    write(a, labelled(0.1))
    write(b, labelled(0.1, n=2))
    b.write_text(b.read_text()[:-90])
    only_b = scan(b, soap)
    assert len(scan(b, soap, store=store)) == 2
    found = scan(a, soap, store=store)
    assert {row["source"] for row in found.rows} == {str(a)}
    assert (len(found), found.n_besides, found.column("error").any()) == (4, 2, False)
    assert "\nThe database has 2 more frames, not included here." in found.summary()
    done: list[int] = []
    part = scan([f"{a}@3", b], soap, store=store, progress=done.append)
    assert done == [2 + 1]  # the torn frame is read again
    assert part.rows == [*only_b.rows, found.rows[3]]  # in the order of the store
    assert [record.row for record in part.records()] == part.rows
    assert [part.record(n).row for n in range(-1, 2)] == [part.rows[n] for n in range(-1, 2)]
    write(a, labelled(0.1, n=2))  # shorter than before
    again = scan([a, b], soap, store=store)
    assert (len(again), again.n_besides) == (4, 2)
    assert len(ScanResult.read(store)) == 6


def test_an_empty_database_is_begun(tmp_path):
    path = str(tmp_path / "empty.db")
    with connect(path) as database:
        database.write(molecule("H2"))
        del database[1]
    soap = SOAP(["H", "O"], 3.0, 2, 1)
    assert len(scan([molecule("H2O")], soap, store=path).rows) == 1
    assert len(scan([molecule("H2O")], soap, store=path).rows) == 1


def test_rows_are_those_that_ase_writes(tmp_path: Path, monkeypatch) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    frames = [molecule("CH4"), molecule("H2O"), crystal, Atoms(), molecule("NH3"), bulk("Si")]
    for frame, known in zip(frames, ("energy forces", "energy", "forces"), strict=False):
        values = {"energy": -1.5, "forces": np.ones((len(frame), 3))}
        frame.calc = SinglePointCalculator(frame, **{name: values[name] for name in known.split()})
    soap = SOAP(["H", "O", "C"], cutoff=3.0, n_max=2, l_max=1, threads=1)
    found = []
    for name, ours in (("ours.db", True), ("theirs.db", False)):
        monkeypatch.setattr(
            "ase_sensitivity.dataset.store.takes_records", lambda _, is_so=ours: is_so
        )
        scan(frames, soap, store=tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as database:
            database.row_factory = sqlite3.Row
            times = {"ctime": None, "mtime": None}
            found.append([
                [dict(row) | times for row in database.execute("SELECT * FROM systems")],
                *(
                    sorted(map(tuple, database.execute(f"SELECT * FROM {table}")))
                    for table in ("species", "keys", "text_key_values", "number_key_values")
                ),
            ])  # fmt: skip
    assert len(found[0][0]) == len(frames)
    assert found[0] == found[1]
