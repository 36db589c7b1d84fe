"""Thousands of damaged files: one line about what is wrong, and what is whole is not lost.

One input alone: ``python -m tests.test_fuzz_files NUMBER NUMBER+1 LOG``.
"""

from __future__ import annotations

import io
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from typer.main import get_command

from ase_sensitivity.cli import app as cli
from ase_sensitivity.dataset.result import ScanResult
from tests import fuzzing

N_INPUTS = 1200
BATCH = 600
N_FRAMES = 4

SOAP = ["-d", "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5", "--species", "H,O"]
FORCES = ["--forces-key", "reference"]
TOML = """title = "water"
[soap]
species = ["H", "O"]
cutoff = 3.0
n_max = 2
l_max = 1
atom_sigma = 0.5
normalise = true
"""
TOKENS = [
    text.encode("latin-1")
    for text in (
        *("nan", "inf", "-1", "0", "1e300", "1e-300", "99999999", "99999999999999999999", ""),
        *("X", "Zz", "H", "=", '"', "'", "{", "}", "[", "[[[[", "]", "T", "true", "null", "\\"),
        *(":R:", ":S:1:", ":R:99999999", "Lattice=", "Properties=", "pbc=", "#", "%s", "{0}"),
        *(" ", "\n", "\r", "\t", "\0", "\xff\xfe", "\xef\xbb\xbf", "\xc3\x85"),
        *("\x1b[31m", "[red]", "<script>"),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, N_INPUTS, BATCH))
def test_files(start, tmp_path):
    found = fuzzing.findings(__name__, range(start, start + BATCH), tmp_path)
    assert not found, "\n".join(found)


def water(seed: int) -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=seed)
    atoms.arrays["reference"] = np.random.default_rng(seed).normal(size=(3, 3))
    atoms.info["total"] = -14.0 - seed
    if seed % 2:
        atoms.cell[:] = 6.0 * np.eye(3)
        atoms.pbc = True
    return atoms


def mutated(rng: np.random.Generator, content: bytes, first: int = 0) -> bytes:
    """Content with some faults behind its ``first`` bytes."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 5]))):
        head, tail = content[:first], content[first:]
        at = int(rng.integers(len(tail) + 1))
        end = min(len(tail), at + int(rng.choice([1, 1, 2, 8, 50, 500])))
        token = TOKENS[rng.integers(len(TOKENS))]
        match rng.integers(9):
            case 0:
                tail = tail[:at]
            case 1:
                tail = tail[:at] + tail[end:]
            case 2:
                tail = tail[:at] + rng.bytes(end - at) + tail[end:]
            case 3:
                tail = tail[:at] + token + tail[at:]
            case 4:
                tail = tail[:at] + tail[at:end] * int(rng.choice([2, 3, 100])) + tail[end:]
            case 5 | 6:  # a word
                words = tail.split(b" ")
                words[rng.integers(len(words))] = token
                tail = b" ".join(words)
            case 7:  # a line
                lines = tail.split(b"\n")
                i, j = rng.integers(len(lines), size=2)
                lines[i] = rng.choice([lines[j], token, b""])
                tail = b"\n".join(lines)
            case 8 if at < len(tail):  # a bit
                flipped = tail[at] ^ (1 << int(rng.integers(8)))
                tail = tail[:at] + bytes([flipped]) + tail[at + 1 :]
        content = head + tail
    return content


@cache
def content(suffix: str) -> tuple[bytes, tuple[int, ...]]:
    """A file of good frames, and where they begin if that can be told."""
    frames = [water(seed) for seed in range(N_FRAMES)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"good{suffix}"
        if suffix == ".dump":
            path.write_text("".join(map(_dumped, frames)))
        elif suffix == ".xyz":
            starts = []
            for number, atoms in enumerate(frames):
                starts.append(path.stat().st_size if number else 0)
                ase.io.write(path, atoms, append=number > 0)
            return path.read_bytes(), tuple(starts)
        else:
            ase.io.write(path, frames)
        return path.read_bytes(), ()


def _dumped(atoms: Atoms) -> str:
    rows = "".join(
        f"{number} {kind} {x:.6f} {y:.6f} {z:.6f}\n"
        for number, kind, (x, y, z) in zip((1, 2, 3), (2, 1, 1), atoms.positions + 3.0, strict=True)
    )
    return (
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n3\nITEM: BOX BOUNDS pp pp pp\n"
        f"0.0 6.0\n0.0 6.0\n0.0 6.0\nITEM: ATOMS id type x y z\n{rows}"
    )


def called(arguments: list[str]) -> tuple[int, str, str]:
    """Exit status, output and errors of the command line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.main(arguments)
    return status, out.getvalue(), err.getvalue()


def unclear(arguments: list[str], allowed: tuple[int, ...] = (0, 2)) -> str:
    """What is wrong with the way a command ended."""
    status, out, err = called(arguments)
    told = f"{arguments}: {status}\n{out[-500:]}\n{err[-1500:]}"
    if status not in allowed:
        return f"status of {told}"
    if "Traceback" in out + err:
        return f"traceback of {told}"
    errors = [line for line in err.splitlines() if line.startswith("ase-sensitivity: error: ")]
    if len(errors) != (status == 2) or (status == 2 and len(errors[0]) < 30):
        return f"errors of {told}"
    if "\x1b[31m" in out + err:
        return f"terminal escape of {told}"
    return ""


def of_frames(rng: np.random.Generator) -> str:
    """A damaged file of structures."""
    suffix = str(rng.choice([".xyz", ".xyz", ".extxyz", ".traj", ".json", ".dump"]))
    good, starts = content(".xyz" if suffix == ".extxyz" else suffix)
    n_kept = int(rng.integers(N_FRAMES)) if starts else 0
    path = Path(f"data{suffix}")
    path.write_bytes(mutated(rng, good, starts[n_kept] if starts else 0))
    forces = FORCES if rng.random() < 0.3 else []
    match rng.integers(8):
        case 0:
            return unclear(["analyze", str(path), *SOAP])
        case 1:
            limit = ["--max-truncation", "0.0"]
            return unclear(["check", str(path), *SOAP, *limit], (0, 1, 2))
        case 2:
            return unclear(["scan", str(path), *SOAP[:2], "-o", "results.db"])
    fault = unclear(["scan", str(path), *SOAP, *forces, "-o", "results.db"])
    return fault or lost(n_kept)


def lost(n_kept: int) -> str:
    """What is missing of the rows of the first frames."""
    if n_kept == 0:
        return ""
    rows = {row["index"]: row for row in ScanResult.read("results.db").rows}
    for index in range(n_kept):
        if index not in rows:
            return f"frame {index} of {n_kept} has no row: {sorted(rows)}"
        if rows[index]["ratio"] != pytest.approx(expected()[index], rel=1e-6):
            return f"row {rows[index]}"
    return ""


@cache
def expected() -> list[float]:
    from ase_sensitivity import QUIPDescriptor, analyze

    soap = QUIPDescriptor(SOAP[1], species=["H", "O"])
    return [analyze(water(seed), soap).ratio for seed in range(N_FRAMES)]


def of_descriptor(rng: np.random.Generator) -> str:
    """A damaged description of a descriptor, in a file or as an argument."""
    Path("data.xyz").write_bytes(content(".xyz")[0])
    if rng.random() < 0.7:
        Path("soap.toml").write_bytes(mutated(rng, TOML.encode()))
        return unclear(["analyze", "data.xyz", "-d", "soap.toml"])
    text = mutated(rng, SOAP[1].encode()).decode("utf-8", "replace").replace("\x00", "")
    return unclear(["analyze", "data.xyz", "-d", text, "--species", "H,O"])


@cache
def database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        data, path = f"{folder}/data.xyz", Path(folder) / "results.db"
        Path(data).write_bytes(content(".xyz")[0])
        assert called(["scan", data, *SOAP, *FORCES, "-o", str(path)])[0] == 0
        return path.read_bytes()


def of_database(rng: np.random.Generator) -> str:
    """Results of a scan with damage in the file, or in what it says."""
    path = Path("results.db")
    if rng.random() < 0.5:
        path.write_bytes(mutated(rng, database()))
    else:
        path.write_bytes(database())
        with closing(sqlite3.connect(path)) as connection:
            for _ in range(int(rng.integers(1, 4))):
                _change(rng, connection)
            connection.commit()
    if rng.random() < 0.3:
        Path("data.xyz").write_bytes(content(".xyz")[0])
        return unclear(["scan", "data.xyz", *SOAP, *FORCES, "-o", str(path)])
    return unclear(["report", str(path), "-o", "report.html"])


def _change(rng: np.random.Generator, connection: sqlite3.Connection) -> None:
    """Some cell of some table becomes something else, or a row or a table vanishes."""
    names = "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"
    tables = [name for (name,) in connection.execute(names)]
    if not tables:
        return
    table = str(rng.choice(tables))
    columns = [row[1] for row in connection.execute(f"pragma table_info({table})")]
    rows = connection.execute(f"select rowid, * from {table}").fetchall()
    if rng.random() < 0.05:
        connection.execute(f"drop table {table}")
        return
    if not rows:
        return
    row = rows[rng.integers(len(rows))]
    if rng.random() < 0.1:
        connection.execute(f"delete from {table} where rowid = ?", row[:1])
        return
    which = int(rng.integers(len(columns)))
    old = row[1 + which]
    values = [None, 0, -1, 2**62, 1.5, float("inf"), "", "constructor", "\x1b[31m", "<b>", "{}"]
    values += ["[1, 2]", b"", b"\x00" * 7, rng.bytes(24)]
    if isinstance(old, str | bytes) and len(old) and rng.random() < 0.6:
        raw = mutated(rng, old.encode() if isinstance(old, str) else old)
        new = raw.decode("utf-8", "replace") if isinstance(old, str) else raw
    else:
        new = values[rng.integers(len(values))]
    with suppress(sqlite3.Error):  # the table does not take it
        connection.execute(
            f'update {table} set "{columns[which]}" = ? where rowid = ?', (new, row[0])
        )


def judge(number: int) -> str:
    rng = np.random.default_rng([2025, number])
    for name in os.listdir():
        os.unlink(name)
    kinds: list[Callable[[np.random.Generator], str]] = [of_frames, of_descriptor, of_database]
    return kinds[rng.choice(3, p=[0.6, 0.15, 0.25])](rng)


if __name__ == "__main__":
    # Typer makes its commands anew for every call, which takes longer than what they do here.
    cli.app = get_command(cli.app)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as working:
        os.chdir(working)
        fuzzing.serve(judge)
