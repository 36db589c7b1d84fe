"""The command ``ase-sensitivity``."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler

import ase_sensitivity
from ase_sensitivity.cli.analyze import analyze
from ase_sensitivity.cli.check import check
from ase_sensitivity.cli.converge import converge
from ase_sensitivity.cli.output import Interrupted
from ase_sensitivity.cli.report import report
from ase_sensitivity.cli.scan import scan
from ase_sensitivity.notices import SensitivityWarning

INTERRUPTED = 130
CUT_OFF = 141

app = typer.Typer(
    name="ase-sensitivity",
    help="Find where the descriptor of a machine-learned potential goes blind.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        Console().print(f"ase-sensitivity {ase_sensitivity.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR, handlers=[handler], format="%(message)s"
    )
    if handler.console.is_terminal:  # somebody waits, and is told what for
        logging.getLogger("ase_sensitivity.descriptors.soap.power_spectrum").setLevel(logging.INFO)


for command in (analyze, scan, check, converge, report):
    app.command()(command)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option(help="Where to save log, frames and plot; made if missing.")
    ] = Path("sensitivity-demo"),
    steps: Annotated[int, typer.Option(help="Number of MD steps of 0.5 fs.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of velocities and thermostat.", min=0)] = 0,
) -> None:
    """Watch ammonia turn inside out: GFN2-xTB dynamics at 2000 K through the planar geometry."""
    from ase_sensitivity.cli.demo import run

    run(directory, steps=steps, seed=seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    That is 0, or 2 with one line about the error, or 130 after an interrupt.
    """
    before, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
    finally:
        warnings.formatwarning = before


def _main(given: list[str]) -> int:
    try:
        status = app(
            given,
            standalone_mode=False,
            prog_name="ase-sensitivity",
        )
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # as of `| head`: nobody wants the rest, nor hear of it
        _discard_output()
        return CUT_OFF
    except Interrupted as interrupt:
        return _error(f"interrupted: {interrupt}", INTERRUPTED)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _error(str(error))
    except MemoryError as error:
        hint = "the scopes environment and atom need less than structure"
        return _error(f"out of memory; {hint}. {error}")
    except Exception as error:
        # typer's own errors, whose base class depends on its version
        text = getattr(error, "format_message", None)
        if text is None:
            raise
        # Not every version of typer repeats the value it does not like.
        return _error(f"{text()} (in: {shlex.join(given)})")
    if status == INTERRUPTED:  # typer turns Ctrl-C into this
        return _error("interrupted", status)
    return status if isinstance(status, int) else 0


def _discard_output() -> None:
    """Let whatever is left to be written vanish."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """One line for a warning of ours, whose place in the code is of no interest here."""
    if issubclass(category, SensitivityWarning):
        return f"ase-sensitivity: warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _error(text: str, status: int = 2) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # Python would try once more at exit, and change the status
        _discard_output()
    print(f"ase-sensitivity: error: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201
    return status
