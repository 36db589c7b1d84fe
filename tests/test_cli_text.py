"""What a terminal shows of texts from files: words, and nothing that it would obey."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from ase_sensitivity.cli.app import main
from ase_sensitivity.cli.options import as_given
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.plain_text import printable, reason

SOAP = "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"
GOOD = ["-d", SOAP, "--species", "H,O"]
CODE = "import sys; from ase_sensitivity.cli.app import main; sys.exit(main())"
RED = "\x1b[31m\x9b2J\x07\x00\u202e"


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=0)
    atoms.arrays["reference"] = np.ones((3, 3))
    ase.io.write("data.xyz", atoms)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ångström σ × 1", "Ångström σ × 1"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m \x7f \r \0", r"\x9b31m \x7f \r \x00"),
        ("\u202e\u2066\udce9", r"\u202e\u2066\udce9"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(expected) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a long\n story"), "a long story"),
        (KeyError(7), "KeyError 7"),
        (ValueError("nan"), "ValueError nan"),
        (ValueError(), "ValueError"),
        (OSError("\x1b[2J is no file"), r"\x1b[2J is no file"),
    ],
)
def test_reason(error: Exception, expected: str) -> None:
    assert reason(error) == expected


def comment() -> list[str]:
    text = Path("data.xyz").read_text().splitlines()
    text[0] = f"3 {RED}"
    Path("bad.xyz").write_text("\n".join(text))
    return ["scan", "bad.xyz", "data.xyz", *GOOD]


def key() -> list[str]:
    text = Path("data.xyz").read_text()
    Path("bad.xyz").write_text(text.replace("Properties", f'"{RED}"=1 Properties', 1))
    return ["scan", "bad.xyz", *GOOD, "--energy-key", "none"]


def symbol() -> list[str]:
    Path("bad.xyz").write_text(Path("data.xyz").read_text().replace("\nO ", f"\n{RED} ", 1))
    return ["analyze", "bad.xyz", *GOOD]


def name() -> list[str]:
    os.rename("data.xyz", "\x1b[31m\x9b2J\x07.xyz")
    return ["analyze", "\x1b[31m\x9b2J\x07.xyz", *GOOD]


def table() -> list[str]:
    Path("bad.toml").write_text('"\\u001b[31m\\u009b2J\\u0007\\u0000\\u202e" = 1\n')
    return ["scan", "data.xyz", "-d", "bad.toml"]


def verbose() -> list[str]:
    return ["--verbose", *comment()]


@pytest.mark.parametrize("case", [comment, key, symbol, name, table])
def test_nothing_is_obeyed(case, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    assert main(case()) in (0, 2)
    written = capsys.readouterr()
    is_harmless(written.out + written.err)


@pytest.mark.slow
def test_nothing_is_obeyed_in_a_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *verbose()],
        capture_output=True,
        env=os.environ | {"COLUMNS": "500", "PYTHONIOENCODING": "utf-8:surrogateescape"},
    )
    is_harmless((done.stdout + done.stderr).decode())


def is_harmless(shown: str) -> None:
    assert "x1b[31m" in shown
    for letter in RED:
        if not letter.isprintable():
            assert letter not in shown


ENCODINGS = ["ascii", "latin-1", "cp437", "utf-8"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_terminal_gets_its_summary(encoding: str) -> None:
    arguments = ["scan", "data.xyz", *GOOD, "--forces-key", "reference"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0
    shown = done.stdout.decode(encoding)
    summary = ScanResult.read("results.db").summary(as_given([SOAP], None, "H,O"))
    assert "eV/Å" in summary
    assert shown.strip() == summary.encode(encoding, "replace").decode(encoding)


@pytest.mark.parametrize(
    "text",
    [
        "soap = " + "[" * 100_000,
        "soap." + "a." * 3000 + "b = 1",
        "quip." + "a." * 3000 + "b = 1",
        "quip = " + "[" * 900 + "]" * 900,
        "[soap]\ncutoff = " + "{a = " * 3000,
    ],
)
def test_deeply_nested_toml(text: str, capsys) -> None:
    Path("deep.toml").write_text(text)
    assert main(["scan", "data.xyz", "-d", "deep.toml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ase-sensitivity: error: ")
    assert "deep.toml" in line


def test_toml_with_a_byte_order_mark() -> None:
    text = '[soap]\nspecies = ["H", "O"]\ncutoff = 3.0\nn_max = 2\nl_max = 1\n'
    for encoding in ("utf-8", "utf-8-sig"):
        Path("soap.toml").write_text(text, encoding=encoding)
        assert main(["scan", "data.xyz", "-d", "soap.toml", "-o", f"{encoding}.db"]) == 0
    assert ScanResult.read("utf-8.db").rows == ScanResult.read("utf-8-sig.db").rows
