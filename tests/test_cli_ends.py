"""How the command line ends: 0 with a verdict, 1 without a limit kept, 2 and a line otherwise."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

from ase_sensitivity.cli import demo, start
from ase_sensitivity.cli.app import main
from tests.scanning import but_progress

CODE = "import sys; from ase_sensitivity.cli.start import main; sys.exit(main())"
COMMAND = [sys.executable, "-c", CODE]
CHECK = ["check", "water.xyz", "-d", "soap.toml", "--max-truncation", "9"]
SOAP = '[soap]\nspecies = ["H", "O"]\ncutoff = 3.0\nn_max = 2\nl_max = 1\n'
ERROR = "ase-sensitivity: error: "

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


@pytest.fixture(autouse=True)
def water(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("water.xyz", molecule("H2O"))
    Path("soap.toml").write_text(SOAP)
    return tmp_path


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("nought"), KeyError("S"), IndexError(200), RecursionError("deep")]
)
@pytest.mark.parametrize("command", [["demo"], CHECK])
def test_uncaught_errors(command, error, monkeypatch, capsys):
    """A crash is no verdict: 1 would mean that a limit is not kept."""
    monkeypatch.setattr(demo, "run", raising(error))
    monkeypatch.setattr(importlib.import_module("ase_sensitivity.cli.scan"), "run", raising(error))
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{ERROR}{type(error).__name__}: {error}; this is a fault of")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("status", [0, None, 1, 3])
def test_a_library_that_ends_the_command(status, monkeypatch, capsys):
    scan = importlib.import_module("ase_sensitivity.cli.scan")
    monkeypatch.setattr(scan, "run", raising(SystemExit(status)))
    assert main(CHECK) == 2
    assert capsys.readouterr().err.endswith(
        f"{ERROR}a library ended the command, with status {status}\n"
    )


def test_where_it_failed_is_shown_with_verbose():
    code = (
        "import sys; from ase_sensitivity.cli import demo, app\n"
        "def fail(*_, **__): raise ZeroDivisionError('nought')\n"
        "demo.run = fail; sys.exit(app.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--verbose", "demo"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert f"{ERROR}ZeroDivisionError: nought" in done.stderr


def test_a_broken_installation(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ase_sensitivity.cli.app", None)
    assert start.main() == 2
    assert capsys.readouterr().err.startswith(f"{ERROR}the installation is broken: ")


def shell(redirection: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, *command],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@posix
@pytest.mark.parametrize("command", [CHECK, ["--version"], ["analyze", *CHECK[1:4]]])
def test_closed_standard_output(command):
    """There is no verdict if nobody can read it."""
    done = shell(">&-", *command)
    assert done.returncode == 2
    why = f"{ERROR}the standard output is closed; send it to a file or to /dev/null\n"
    assert but_progress(done.stderr) == why


@pytest.mark.slow
@posix
def test_closed_standard_error():
    """Remarks must not end up among the results."""
    Path("soap.toml").write_text(SOAP.replace('species = ["H", "O"]\n', ""))
    done = shell("2>&-", *CHECK)  # looks for the species, and says so
    assert done.returncode == 0
    assert done.stdout.startswith("ok ")
    assert "Species" not in done.stdout
    assert shell("2>&-", "dance").returncode == 2


@pytest.mark.slow
@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_standard_error():
    assert shell("2>/dev/full", "dance").returncode == 2


@pytest.mark.slow
@posix
@pytest.mark.parametrize("command", [CHECK, ["--help"], ["--version"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_gone(command, unbuffered):
    """As other programs: nothing is said, and the status is that of SIGPIPE."""
    with subprocess.Popen(
        [*COMMAND, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert but_progress(process.stderr.read()) == ""
        assert process.wait() == 141


@pytest.mark.slow
@posix
def test_a_reader_of_both_that_is_gone():
    process = subprocess.Popen(
        [*COMMAND, *CHECK], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 141


@pytest.mark.slow
@posix
def test_head():
    assert shell("| head -n 1", "--help").stderr == ""
