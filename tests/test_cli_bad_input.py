"""What people get wrong on the command line: one clear line, and nothing that was there is lost."""

from __future__ import annotations

import os
import resource
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_sensitivity.cli import parallel
from ase_sensitivity.cli.app import main
from ase_sensitivity.dataset.result import ScanResult

SOAP = "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"
GOOD = ["-d", SOAP, "--species", "H,O"]


def water(seed: int = 0) -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=seed)
    atoms.arrays["reference"] = np.random.default_rng(seed).normal(size=(3, 3))
    atoms.info["total"] = -14.0
    return atoms


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path, monkeypatch):
    """With good data, a good scan, and files that are not what they should be."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("data.xyz", [water(0), water(1), water(2)])
    Path("empty.xyz").touch()
    Path("noise.xyz").write_bytes(os.urandom(500))
    Path("text.xyz").write_text("Dear reader,\nthis is no structure.\n")
    Path("notes.md").write_text("# no structure\n")
    Path("folder").mkdir()
    Path("folder.db").mkdir()
    Path("noise.db").write_bytes(b"no database at all, but long enough to be looked at " * 30)
    Path("noise.toml").write_text("= [\n")


def table(text: str) -> list[str]:
    Path("descriptor.toml").write_text(text)
    return ["-d", "descriptor.toml"]


def gap(text: str) -> list[str]:
    Path("gap.xml").write_text(text)
    return ["--gap", "gap.xml"]


def scanned(*changes: str) -> list[str]:
    """Arguments for a second scan into the database of another one."""
    assert main(["scan", "data.xyz", "-o", "results.db", *GOOD]) == 0
    return ["scan", "data.xyz", "-o", "results.db", *GOOD, *changes]


def other_database() -> list[str]:
    ase.io.write("other.db", [water()])
    return ["scan", "data.xyz", "-o", "other.db", *GOOD]


def torn_database() -> list[str]:
    """A database of a scan, with a page overwritten."""
    scanned()
    with open("results.db", "rb+") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    return ["report", "results.db"]


def foreign_tables() -> list[str]:
    with sqlite3.connect("foreign.db") as connection:
        connection.execute("create table fruit (name text)")
    connection.close()
    return ["report", "foreign.db"]


def unlabeled() -> list[str]:
    frames = [molecule("H2O"), molecule("H2O")]
    ase.io.write("plain.xyz", frames)
    return ["check", "plain.xyz", *GOOD, "--max-irreducible", "0.1"]


def all_bad() -> list[str]:
    atoms = water()
    atoms.positions[1] = np.nan
    ase.io.write("bad.xyz", [atoms, atoms])
    return ["scan", "bad.xyz", *GOOD]


def only_ghosts() -> list[str]:
    ase.io.write("ghosts.xyz", Atoms("X3", np.eye(3)))
    return ["analyze", "ghosts.xyz", "-d", SOAP]


def one_structure(atoms: Atoms) -> Callable[[], list[str]]:
    def arguments() -> list[str]:
        ase.io.write("one.xyz", atoms)
        return ["analyze", "one.xyz", *GOOD]

    return arguments


def moved(value: float) -> Atoms:
    atoms = water()
    atoms.positions[1, 0] = value
    return atoms


def unscanned_report(*arguments: str) -> Callable[[], list[str]]:
    return lambda: [*scanned()[:0], "report", "results.db", *arguments]


def silent_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


# Arguments (or what makes them), and words of the message.
ERRORS: dict[str, tuple[list[str] | Callable[[], list[str]], list[str]]] = {
    # files to read
    "empty file": (["analyze", "empty.xyz", *GOOD], ["empty.xyz"]),
    "empty file scanned": (["scan", "empty.xyz", *GOOD], ["empty.xyz"]),
    "empty file checked": (["check", "empty.xyz", *GOOD, "--max-truncation", "0"], ["empty.xyz"]),
    "random bytes": (["scan", "noise.xyz", *GOOD], ["noise.xyz"]),
    "text": (["analyze", "text.xyz", *GOOD], ["text.xyz"]),
    "text scanned": (["scan", "text.xyz", *GOOD], ["text.xyz"]),
    "text without species": (["scan", "text.xyz", "-d", SOAP], ["text.xyz"]),
    "unknown format": (["scan", "notes.md", *GOOD], ["notes.md"]),
    "no such file": (["analyze", "nothing.xyz", *GOOD], ["nothing.xyz"]),
    "no such file scanned": (["scan", "data.xyz", "nothing.xyz", *GOOD], ["nothing.xyz"]),
    "no such file converged": (["converge", "nothing.xyz", *GOOD], ["nothing.xyz"]),
    "no such file for pairs": (["pairs", "nothing.xyz", *GOOD], ["nothing.xyz"]),
    "text for pairs": (["pairs", "text.xyz", *GOOD], ["text.xyz"]),
    "a directory": (["scan", "folder", *GOOD], ["folder"]),
    "a directory analyzed": (["analyze", "folder", *GOOD], ["folder"]),
    "no files": (["scan", *GOOD], ["FILE"]),
    "index out of range": (["analyze", "data.xyz@3", *GOOD], ["data.xyz@3"]),
    "negative index out of range": (["analyze", "data.xyz@-4", *GOOD], ["data.xyz@-4"]),
    "slice out of range": (["scan", "data.xyz@7:9", *GOOD], ["data.xyz", "7"]),
    "not a slice": (["analyze", "data.xyz@one", *GOOD], ["data.xyz@one"]),
    # structures
    "nan": (one_structure(moved(np.nan)), ["atom 1", "not finite"]),
    "inf": (one_structure(moved(np.inf)), ["atom 1", "not finite"]),
    "zero cell": (one_structure(Atoms("HO", np.eye(3)[:2], pbc=True)), ["cell"]),
    "flat cell": (
        one_structure(Atoms("HO", np.eye(3)[:2], cell=[[1, 0, 0], [1, 0, 0], [0, 0, 1]], pbc=True)),
        ["cell"],
    ),
    "overlapping atoms": (one_structure(Atoms("HOH", np.zeros((3, 3)))), ["atoms 0 and 1"]),
    "wrong species": (one_structure(molecule("Cl2")), ["Cl2", "species"]),
    "ghost atoms": (only_ghosts, ["no atoms"]),
    "all frames bad": (all_bad, ["no frame", "atom 1", "not finite"]),
    # labels
    "unknown forces": (
        ["scan", "data.xyz", *GOOD, "--forces-key", "dft_forces"],
        ["dft_forces", "reference"],
    ),
    "unknown energy": (
        ["scan", "data.xyz", *GOOD, "--energy-key", "dft_energy"],
        ["dft_energy", "total"],
    ),
    "unknown units": (
        ["scan", "data.xyz", *GOOD, "--forces-key", "reference", "--units", "horsepower"],
        ["horsepower", "kcal/mol"],
    ),
    "no forces": (unlabeled, ["--max-irreducible", "--forces-key"]),
    # the descriptor
    "no descriptor": (["scan", "data.xyz"], ["--descriptor", "soap cutoff"]),
    "descriptor and gap": (["scan", "data.xyz", "-d", SOAP, "--gap", "gap.xml"], ["only one"]),
    "misspelt option": (
        ["scan", "data.xyz", "-d", "soap cutof=3 n_max=2 l_max=1 atom_sigma=0.5"],
        ["cutoff"],
    ),
    "misspelt kind": (["scan", "data.xyz", "-d", SOAP.replace("soap", "saop")], ["saop"]),
    "missing option": (["scan", "data.xyz", "-d", "soap cutoff=3 n_max=2"], ["l_max"]),
    "no number": (["scan", "data.xyz", "-d", SOAP.replace("3", "three")], ["three"]),
    "n_max of zero": (["scan", "data.xyz", "-d", SOAP.replace("n_max=2", "n_max=0")], ["n_max"]),
    "cutoff of zero": (["scan", "data.xyz", "-d", SOAP.replace("=3", "=0")], ["cutoff"]),
    "nan cutoff": (["scan", "data.xyz", "-d", SOAP.replace("=3", "=nan")], ["cutoff"]),
    "unbalanced braces": (["scan", "data.xyz", "-d", SOAP + " Z={1"], ["{1"]),
    "no such element": (["scan", "data.xyz", "-d", SOAP, "--species", "H,Oo"], ["Oo"]),
    "ghosts as species": (["scan", "data.xyz", "-d", SOAP, "--species", "H,X"], ["H,X", "as H,C"]),
    "empty species": (["scan", "data.xyz", "-d", SOAP, "--species", ","], ["--species"]),
    "no such TOML": (["scan", "data.xyz", "-d", "none.toml"], ["none.toml"]),
    "bad TOML": (["scan", "data.xyz", "-d", "noise.toml"], ["noise.toml"]),
    "two descriptor files": (["scan", "data.xyz", "-d", "a.toml", "-d", SOAP], ["a.toml"]),
    "empty TOML": (
        lambda: ["scan", "data.xyz", *table("")],
        ["soap, quip, gap, mace, sevenn, chgnet and function"],
    ),
    "unknown TOML key": (
        lambda: ["scan", "data.xyz", *table("[soap]\ncutof = 3.0\nn_max = 2\nl_max = 1\n")],
        ["cutof", "cutoff"],
    ),
    "unknown TOML table": (lambda: ["scan", "data.xyz", *table("[soup]\n")], ["soup", "soap"]),
    "missing TOML key": (
        lambda: ["scan", "data.xyz", *table("[soap]\ncutoff = 3.0\nn_max = 2\n")],
        ["l_max"],
    ),
    "wrong TOML type": (
        lambda: ["scan", "data.xyz", *table('[soap]\ncutoff = "x"\nn_max = 2\nl_max = 1\n')],
        ["[soap]", "descriptor.toml"],
    ),
    "TOML without a table": (lambda: ["scan", "data.xyz", *table("soap = 3\n")], ["[soap]"]),
    "TOML with a number": (lambda: ["scan", "data.xyz", *table("quip = 3\n")], ["quip", "string"]),
    "no such GAP": (["scan", "data.xyz", "--gap", "none.xml"], ["none.xml"]),
    "not XML": (lambda: ["scan", "data.xyz", *gap("soap?")], ["gap.xml", "XML"]),
    "XML but no GAP": (lambda: ["scan", "data.xyz", *gap("<a/>")], ["gap.xml", "GAP"]),
    "GAP and species": (
        lambda: ["scan", "data.xyz", *gap("<a/>"), "--species", "H"],
        ["--species", "--gap"],
    ),
    # options
    "no workers": (["scan", "data.xyz", *GOOD, "--workers", "0"], ["--workers", "0"]),
    "k of zero": (["scan", "data.xyz", *GOOD, "--k", "0"], ["--k", "0"]),
    "k of two and a half": (["analyze", "data.xyz", *GOOD, "-k", "2.5"], ["-k", "2.5"]),
    "unknown scope": (["scan", "data.xyz", *GOOD, "--scope", "world"], ["world", "structure"]),
    "no list of n_max": (["converge", "data.xyz", *GOOD, "--n-max", "2,x"], ["--n-max", "2,x"]),
    "empty range of l_max": (["converge", "data.xyz", *GOOD, "--l-max", "4-2"], ["--l-max", "4-2"]),
    "n_max of zero to try": (["converge", "data.xyz", *GOOD, "--n-max", "0,2"], ["n_max"]),
    "nothing to sweep": (
        ["converge", "data.xyz", "-d", "rdf cutoff=3 r_min=0 r_max=3 n_gauss=4 Z=8"],
        ["n_max"],
    ),
    "center out of range": (
        ["analyze", "data.xyz", *GOOD, "--scope", "atom", "--center", "9"],
        ["center", "9"],
    ),
    "center of a structure": (["analyze", "data.xyz", *GOOD, "--center", "0"], ["center"]),
    "negative center": (
        ["analyze", "data.xyz", *GOOD, "--scope", "atom", "--center", "-1"],
        ["--center", "-1"],
    ),
    "unknown option": (["check", "data.xyz", *GOOD, "--max-fun", "0"], ["--max-fun"]),
    "nothing to check": (["check", "data.xyz", *GOOD], ["--max-truncation"]),
    "negative limit": (["check", "data.xyz", *GOOD, "--max-truncation", "-1"], ["-1"]),
    "limit of one half": (["check", "data.xyz", *GOOD, "--max-truncation", "0.5"], ["0.5"]),
    "no scheduler": (
        lambda: ["scan", "data.xyz", *GOOD, "--scheduler", silent_port()],
        ["scheduler", "127.0.0.1"],
    ),
    "no address": (["scan", "data.xyz", *GOOD, "--scheduler", "?!"], ["?!"]),
    "scheduler and workers": (
        ["scan", "data.xyz", *GOOD, "--scheduler", "x:1", "--workers", "2"],
        ["--workers", "--scheduler"],
    ),
    # where to write
    "no such directory": (["scan", "data.xyz", *GOOD, "-o", "none/results.db"], ["none/results"]),
    "output is a directory": (["scan", "data.xyz", *GOOD, "-o", "folder.db"], ["folder.db"]),
    "output of unknown kind": (["scan", "data.xyz", *GOOD, "-o", "results.txt"], [".db"]),
    "output is no database": (["scan", "data.xyz", *GOOD, "-o", "noise.db"], ["noise.db"]),
    "output of others": (other_database, ["other.db"]),
    "table of unknown kind": (["scan", "data.xyz", *GOOD, "--table", "a.xls"], [".csv"]),
    "table nowhere": (["scan", "data.xyz", *GOOD, "--table", "none/a.csv"], ["none/a.csv"]),
    "other descriptor": (
        lambda: scanned("-d", "soap cutoff=2 n_max=1 l_max=0 atom_sigma=1"),
        ["results.db", "descriptor"],
    ),
    "other scope": (lambda: scanned("--scope", "atom"), ["results.db", "scope"]),
    "other forces": (lambda: scanned("--forces-key", "reference"), ["results.db", "forces_key"]),
    # the report
    "report of nothing": (["report", "none.db"], ["none.db"]),
    "report of a structure": (["report", "data.xyz"], ["data.xyz"]),
    "report of noise": (["report", "noise.db"], ["noise.db"]),
    "report of a directory": (["report", "folder.db"], ["folder.db"]),
    "report of structures": (lambda: ["report", other_database()[3]], ["other.db", "scan"]),
    "report of other tables": (foreign_tables, ["foreign.db"]),
    "report of a torn database": (torn_database, ["results.db"]),
    "report to a directory": (lambda: [*unscanned_report("-o", "folder")()], ["folder"]),
    "report nowhere": (unscanned_report("-o", "none/report.html"), ["none"]),
    "report on a full disk": (unscanned_report("-o", "/dev/full"), ["space"]),
    "report over the scan": (unscanned_report("-o", "results.db"), ["results.db"]),
    "timestep of zero": (unscanned_report("--timestep", "0"), ["timestep"]),
}  # fmt: skip


def assert_one_line(text: str, words: list[str]) -> None:
    *remarks, last = text.splitlines()
    assert last.startswith("ase-sensitivity: error: ")
    assert not [line for line in remarks if not line.startswith(("Species ", "Results", "First"))]
    assert "Traceback" not in text
    for word in words:
        assert word in last


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, capsys, monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE", 0.3)
    arguments, words = ERRORS[case]
    given = arguments if isinstance(arguments, list) else arguments()
    kept = rows_of("results.db")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.suffix == ".xyz"}
    capsys.readouterr()
    assert main(given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_one_line(captured.err, words)
    assert {path: path.read_bytes() for path in before} == before
    assert rows_of("results.db")[: len(kept)] == kept
    leftovers = [path.name for path in Path().iterdir() if path.name.startswith(".")]
    assert not leftovers


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan", "--units", "furlong"],
        ["converge", "--units", "furlong"],
        ["pairs", "--units", "furlong"],
        ["pairs", "-o", "none/pairs.csv"],
        ["select", "-n", "2", "-o", "none/chosen.xyz"],
        ["scan", "-o", "none/results.db"],
        ["scan", "-o", "results.txt"],
        ["scan", "-o", "noise.db"],
        ["check", "--max-truncation", "0", "-o", "none/results.db"],
    ],
)
def test_options_are_checked_before_the_files_are_read(arguments, capsys, monkeypatch):
    def reading(*_, **__):
        raise AssertionError

    monkeypatch.setattr("ase_sensitivity.io.reading.read_frames", reading)
    assert main([*arguments, "data.xyz", "-d", SOAP]) == 2
    assert_one_line(capsys.readouterr().err, [arguments[-1]])


def test_interrupted_while_species_are_looked_up(capsys, monkeypatch):
    def reading(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("ase_sensitivity.io.reading.read_frames", reading)
    assert main(["scan", "data.xyz", "-d", SOAP]) == 130
    assert_one_line(capsys.readouterr().err, ["interrupted: nothing is computed yet"])
    assert not Path("results.db").exists()


def test_parquet_without_pyarrow(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["scan", "data.xyz", *GOOD, "--table", "a.parquet"]) == 2
    assert_one_line(capsys.readouterr().err, ["--table a.parquet", "ase-sensitivity[parquet]"])


def rows_of(name: str) -> list[dict]:
    try:
        return ScanResult.read(name).rows
    except (OSError, ValueError):  # there is none, or the case is about a broken one
        return []


def test_there_are_enough():
    assert len(ERRORS) + len(FRAMES) >= 60


def changed(**arrays: object) -> Atoms:
    atoms = water(1)
    for name, value in arrays.items():
        atoms.arrays[name] = value
    return atoms


def periodic(cell: object) -> Atoms:
    atoms = water(1)
    atoms.set_cell(cell)
    atoms.pbc = True
    return atoms


def with_forces_of(value: float) -> Atoms:
    atoms = water(1)
    atoms.arrays["reference"][1] = value
    return atoms


def without_forces() -> Atoms:
    atoms = water(1)
    del atoms.arrays["reference"]
    return atoms


# A frame among good ones, and words of its error.
FRAMES: dict[str, tuple[Atoms, list[str]]] = {
    "nan": (moved(np.nan), ["atom 1", "not finite"]),
    "inf": (moved(-np.inf), ["atom 1", "not finite"]),
    "far away": (moved(1e300), []),
    "zero cell": (periodic(np.zeros((3, 3))), ["cell"]),
    "flat cell": (periodic([[5, 0, 0], [0, 5, 0], [5, 5, 0]]), ["cell"]),
    "tiny cell": (periodic([1e-3, 1e-3, 1e-3]), []),
    "overlapping": (changed(positions=np.zeros((3, 3))), ["on top of each other"]),
    "nan force": (with_forces_of(np.nan), ["force on atom 1"]),
    "no forces": (without_forces(), ["reference"]),
}


@pytest.mark.parametrize(("number", "symbol"), [(0, "X"), (17, "Cl")])
def test_an_atom_that_the_descriptor_does_not_know_is_a_finding(number, symbol, capsys):
    ase.io.write("mixed.xyz", [water(0), changed(numbers=np.array([8, 1, number])), Atoms("H")])
    assert main(["scan", "mixed.xyz", *GOOD]) == 0
    assert f"1 frame where {symbol} is not among the species" in capsys.readouterr().out
    rows = ScanResult.read("results.db").rows
    assert [row["unseen"] for row in rows] == [None, symbol, None]
    assert [row["error"] for row in rows] == [None] * 3
    assert main(["check", "mixed.xyz", *GOOD, "--max-truncation", "9"]) == 1
    assert "FAILED unseen: 1, at most 0; mixed.xyz@1" in capsys.readouterr().out


@pytest.mark.parametrize("case", FRAMES)
def test_a_bad_frame_costs_itself_only(case, capsys):
    bad, words = FRAMES[case]
    if "reference" not in bad.arrays and case != "no forces":
        bad.arrays["reference"] = np.zeros((len(bad), 3))
    for number, frame in enumerate((water(0), bad, water(2))):  # one by one: columns differ
        ase.io.write("mixed.xyz", frame, append=number > 0)
    arguments = ["scan", "mixed.xyz", *GOOD, "--forces-key", "reference"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    rows = ScanResult.read("results.db").rows
    assert [row["index"] for row in rows] == [0, 1, 2]
    alone = [analyzed(water(0)), analyzed(water(2))]
    assert [rows[0]["ratio"], rows[2]["ratio"]] == pytest.approx(alone, rel=1e-6)
    assert (rows[1]["ratio"] is None) == ("force" not in case)  # which the rest does not need
    assert rows[0]["error"] is rows[2]["error"] is None
    for word in words:
        assert word in rows[1]["error"]
        assert word in captured.err
    # and the gate does not let it pass
    assert (
        main(["check", "mixed.xyz", *GOOD, "--max-net-force", "100", "--forces-key", "reference"])
        == 1
    )
    assert main(["report", "results.db"]) == 0
    assert "1 of 3 frames could not be analyzed" in Path("report.html").read_text()


def analyzed(atoms: Atoms) -> float:
    from ase_sensitivity import QUIPDescriptor, analyze

    return analyze(atoms, QUIPDescriptor(SOAP, species=["H", "O"])).ratio


def test_a_torn_last_frame_costs_itself_only(capsys):
    text = Path("data.xyz").read_text()
    Path("torn.xyz").write_text(text[: text.rstrip().rindex("\n") + 9])
    for arguments in (GOOD, ["-d", SOAP]):
        Path("results.db").unlink(missing_ok=True)
        assert main(["scan", "torn.xyz", *arguments]) == 0
        rows = ScanResult.read("results.db").rows
        assert [row["ratio"] is None for row in rows] == [False, False, True]
    assert "torn.xyz" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("command", ["analyze", "scan"])
def test_an_unreadable_file(command, capsys):
    Path("data.xyz").chmod(0)
    assert main([command, "data.xyz", *GOOD]) == 2
    assert_one_line(capsys.readouterr().err, ["data.xyz"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_an_unwritable_directory(capsys):
    Path("folder").chmod(0o500)
    assert main(["scan", "data.xyz", *GOOD, "-o", "folder/results.db"]) == 2
    assert_one_line(capsys.readouterr().err, ["folder/results.db"])


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """What a full disk does to a file that grows."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_stored_and_the_scan_goes_on_later(capsys):
    scanned()
    kept = rows_of("results.db")
    ase.io.write("data.xyz", [water(seed) for seed in range(300)])
    capsys.readouterr()
    with no_file_larger_than(os.path.getsize("results.db") + 8192):
        assert main(["scan", "data.xyz", *GOOD]) == 2
    assert_one_line(capsys.readouterr().err, ["results.db", "safe"])
    assert rows_of("results.db")[:3] == kept
    assert main(["scan", "data.xyz", *GOOD]) == 0
    assert sorted(row["index"] for row in rows_of("results.db")) == list(range(300))


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_standard_output_is_full(unbuffered):
    """Nobody would notice a gate whose verdict got lost."""
    import subprocess

    code = "import sys; from ase_sensitivity.cli.app import main; sys.exit(main())"
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-c", code, "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert process.returncode == 2
    assert_one_line(process.stderr, ["space"])
