"""Scanning from the command line: results, resuming, interrupts, workers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from ase_sensitivity import QUIPDescriptor
from ase_sensitivity.cli.app import main
from ase_sensitivity.cli.options import as_given
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from tests.conftest import hears_interrupts
from tests.scanning import but_progress

SOAP = "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"
LARGE_SOAP = "soap cutoff=4 n_max=20 l_max=10 atom_sigma=0.5"
CODE = "import sys; from ase_sensitivity.cli.app import main; sys.exit(main())"


def waters(count: int) -> list:
    frames = []
    for seed in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.1, seed=seed)
        atoms.arrays["reference"] = np.random.default_rng(seed).normal(size=(3, 3))
        frames.append(atoms)
    return frames


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data() -> str:
    ase.io.write("data.xyz", waters(8))
    return "data.xyz"


def test_the_command_gives_what_the_function_gives(data, capsys):
    arguments = ["scan", data, "-d", SOAP, "--forces-key", "reference", "--k", "2", "--distance"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    soap = QUIPDescriptor(SOAP, species=["H", "O"])
    expected = scan(data, soap, forces_key="reference", k=2, distance=True)
    found = ScanResult.read("results.db")
    assert found.rows == expected.rows
    given = as_given([SOAP], None, None)
    assert captured.out == expected.summary(given) + "\n"
    assert "Species H, O" in captured.err
    assert "report results.db" in captured.err
    assert "\r" not in captured.err  # no progress bar in a pipe


def test_species_given_spare_the_pass_and_change_nothing(data, capsys):
    assert main(["scan", data, "-d", SOAP, "-o", "a.db"]) == 0
    assert "Species" in capsys.readouterr().err
    assert main(["scan", data, "-d", SOAP, "-o", "b.db", "--species", "H,O"]) == 0
    assert "Species" not in capsys.readouterr().err
    assert ScanResult.read("a.db").rows == ScanResult.read("b.db").rows


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(data, capsys, monkeypatch):
    def show(message, category, filename, lineno, file=None, line=None):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))

    monkeypatch.setattr(warnings, "showwarning", show)  # pytest would keep them to itself
    usual = warnings.formatwarning
    assert main(["scan", data, "-d", SOAP, "--species", "H,O"]) == 0
    assert "warning" not in capsys.readouterr().err
    strings = ["water_dimer cutoff=6", f"{SOAP} species_Z={{{{1 8}}}} n_species=2"]
    words = "".join(f"<descriptor>{text}</descriptor>" for text in strings)
    Path("gap.xml").write_text(f"<GAP gap_version='1700000000'>{words}</GAP>")
    assert main(["scan", data, "--gap", "gap.xml", "-o", "other.db"]) == 0
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if "some descriptors of this GAP" in line]
    assert line.startswith("ase-sensitivity: warning: some descriptors of this GAP are not")
    assert ".py" not in line
    assert warnings.formatwarning is usual


def test_a_second_scan_speaks_of_its_own_files(data, capsys):
    """It also reports the other frames of the database in a separate line; so does check."""
    torn = Path("torn.xyz")
    torn.write_text(Path(data).read_text()[:-90])
    ase.io.write("one.xyz", waters(1))
    options = ["-d", SOAP, "--species", "H,O", "-o", "results.db"]
    assert main(["scan", "torn.xyz", *options]) == 0
    capsys.readouterr()
    assert main(["scan", "one.xyz", *options]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("1 frame, 0 with an error.\n")
    assert "torn.xyz" not in captured.out + captured.err
    assert captured.out.endswith("\nThe database has 8 more frames, not included here.\n")
    assert main(["check", "one.xyz", *options, "--max-truncation", "9"]) == 0
    captured = capsys.readouterr()
    assert "FAILED" not in captured.out
    assert "8 more frames" in captured.err
    assert main(["check", "torn.xyz", *options, "--max-truncation", "9"]) == 1
    capsys.readouterr()
    assert main(["scan", "one.xyz", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["n_frames"], told["n_besides"]) == (1, 8)


def test_units(data):
    for name, unit in (("a.db", "eV"), ("b.db", "kcal/mol")):
        arguments = ["-d", SOAP, "--forces-key", "reference", "--units", unit, "-o", name]
        assert main(["scan", data, *arguments]) == 0
    in_ev, in_kcal = (ScanResult.read(name).rms_force for name in ("a.db", "b.db"))
    assert in_ev / in_kcal == pytest.approx(23.0605, rel=1e-5)


def test_forces_too_large_for_ev_are_asked_about(capsys):
    frames = waters(2)
    for frame in frames:
        frame.arrays["reference"] *= 50
    ase.io.write("kcal.xyz", frames)
    arguments = ["scan", "kcal.xyz", "-d", SOAP, "--forces-key", "reference"]
    assert main(arguments) == 0
    assert "--units" in capsys.readouterr().err
    assert main([*arguments, "--units", "kcal/mol", "-o", "b.db"]) == 0
    assert "--units" not in capsys.readouterr().err


def test_json(data, capsys):
    arguments = ["scan", data, "-d", SOAP, "--forces-key", "reference", "--json", "--distance"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    rows = ScanResult.read("results.db").rows
    assert told["n_frames"] == told["n_analyzed"] == 8
    assert told["n_failed"] == 0
    for name in ("ratio", "distance"):
        values = [row[name] for row in rows]
        assert told["worst"][name]["value"] == min(values)
        assert told["worst"][name]["index"] == int(np.argmin(values))
    for name in ("irreducible_force_error", "required_slope", "net_force"):
        values = [row[name] for row in rows]
        assert told["worst"][name]["value"] == max(values)
        assert told["worst"][name]["index"] == int(np.argmax(values))
    assert told["parameters"]["forces_key"] == "reference"
    assert told["irreducible_force_error"] == pytest.approx(
        np.sqrt(np.mean([row["irreducible_force_error"] ** 2 for row in rows]))
    )


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_table(data, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    assert main(["scan", data, "-d", SOAP, "--table", name]) == 0
    if name.endswith("csv"):
        lines = Path(name).read_text().splitlines()
        assert len(lines) == 9
        assert lines[0].startswith("source,index,")
    else:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(name)
        assert table["index"].to_pylist() == list(range(8))


def test_it_works_with_ase_db(data):
    assert main(["scan", data, "-d", SOAP.replace("l_max=1", "l_max=0"), "-o", "out.db"]) == 0
    from ase.db import connect

    with_null = [row["index"] for row in ScanResult.read("out.db").rows if row["n_null"]]
    assert connect("out.db").count("n_null>0") == len(with_null)


def test_a_longer_file_costs_only_its_new_frames(data, monkeypatch):
    assert main(["scan", data, "-d", SOAP]) == 0
    ase.io.write(data, waters(12))
    counted = count_calls(monkeypatch)
    assert main(["scan", data, "-d", SOAP]) == 0
    assert counted == [8, 9, 10, 11]
    assert [row["index"] for row in ScanResult.read("results.db").rows] == list(range(12))


def count_calls(monkeypatch) -> list[int]:
    from ase_sensitivity.dataset import evaluation

    seen: list[int] = []
    original = evaluation._record

    def counting(descriptor, settings, task):
        seen.append(task.index)
        return original(descriptor, settings, task)

    monkeypatch.setattr(evaluation, "_record", counting)
    return seen


@pytest.mark.slow
def test_two_workers_find_the_same(data):
    assert main(["scan", data, "-d", SOAP, "-o", "one.db"]) == 0
    assert main(["scan", data, "-d", SOAP, "-o", "two.db", "--workers", "2"]) == 0
    one, two = (ScanResult.read(name).rows for name in ("one.db", "two.db"))
    for name in ("index", "cause", "n_null"):
        assert [row[name] for row in one] == [row[name] for row in two]
    assert [row["ratio"] for row in one] == pytest.approx([row["ratio"] for row in two], rel=1e-9)


@pytest.mark.slow
def test_a_dask_cluster_finds_the_same(data):
    distributed = pytest.importorskip("distributed")
    assert main(["scan", data, "-d", SOAP, "-o", "one.db"]) == 0
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster:
        address = cluster.scheduler_address
        arguments = ["scan", data, "-d", SOAP, "-o", "two.db", "--scheduler", address]
        assert main(arguments) == 0
    one, two = (ScanResult.read(name).rows for name in ("one.db", "two.db"))
    assert [row["ratio"] for row in one] == pytest.approx([row["ratio"] for row in two], rel=1e-9)
    assert [row["index"] for row in two] == list(range(8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "more"),
    [(signal.SIGINT, []), (signal.SIGTERM, []), (signal.SIGINT, ["--workers", "2"])],
)
def test_an_interrupted_scan_goes_on(number, more):
    count = 200  # that take two seconds or more, and are stored twice a second
    frames = [molecule("CH3CH2OH") for _ in range(count)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    ase.io.write("data.xyz", frames)
    arguments = ["scan", "data.xyz", "-d", LARGE_SOAP, "--species", "H,C,O", *more]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_interrupts,
    )
    deadline = time.monotonic() + 300
    while n_rows() == 0 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert out == ""
    err = but_progress(err)
    assert err.startswith("ase-sensitivity: error: interrupted: ")
    assert err.count("\n") == 1
    assert "same command" in err
    stored = n_rows()
    assert 0 < stored < count
    frames = "1 frame is" if stored == 1 else f"{stored} frames are"
    assert f": {frames} in results.db; " in err
    assert main(arguments[:6]) == 0
    assert sorted(row["index"] for row in ScanResult.read("results.db").rows) == list(range(count))


def n_rows() -> int:
    try:
        return len(ScanResult.read("results.db"))
    except (OSError, ValueError):
        return 0


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar(data):
    """With the number of frames, the rate and the time that remains."""
    pty = pytest.importorskip("pty")
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "scan", data, "-d", SOAP, "--species", "H,O"],
        stdout=subprocess.DEVNULL,
        stderr=secondary,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(secondary)
    text = b""
    while True:
        try:
            piece = os.read(primary, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(primary)
    assert process.wait() == 0
    assert "Scanning" in text.decode()
    assert "/8" in text.decode()


@pytest.mark.slow
def test_workers_and_their_parent_killed_at_random_times():
    """SIGKILL to the parent, and to one of its two workers: nothing is lost or twice."""
    random.seed(0)
    count = 300
    ase.io.write("data.xyz", waters(count))
    arguments = ["scan", "data.xyz", "-d", LARGE_SOAP, "--species", "H,O", "--workers", "2"]
    sizes = [0]
    for number in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", CODE, *arguments], stderr=subprocess.PIPE, text=True
        ) as process:
            end = time.monotonic() + 300
            while n_rows() == sizes[-1] and process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            time.sleep(random.uniform(0, 0.2))
            workers = workers_of(process.pid)
            os.kill(random.choice(workers) if number % 2 and workers else process.pid, 9)
            error = process.communicate(timeout=300)[1]
        assert process.returncode in (0, 2, -9)
        assert ("the workers did not compute" in error) == (process.returncode == 2)
        sizes.append(n_rows())
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2
    assert main(arguments) == 0
    assert main([*arguments[:-2], "-o", "once.db"]) == 0
    assert ScanResult.read("results.db").rows == ScanResult.read("once.db").rows


def workers_of(parent: int) -> list[int]:
    """Processes that were spawned, but not the one that keeps track of semaphores."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status = (process / "stat").read_text().rpartition(")")[2].split()
            command = (process / "cmdline").read_text()
        except OSError:  # it has ended
            continue
        if int(status[1]) == parent and "spawn_main" in command:
            found.append(int(process.name))
    return found
