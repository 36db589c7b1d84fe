"""The command ``ase-sensitivity``."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.logging import RichHandler

from ase_sensitivity.cli import options
from ase_sensitivity.cli.analyze import analyze
from ase_sensitivity.cli.audit import audit
from ase_sensitivity.cli.check import check
from ase_sensitivity.cli.converge import converge
from ase_sensitivity.cli.doubt import doubt
from ase_sensitivity.cli.output import Interrupted, PlainFormatter, fit
from ase_sensitivity.cli.pairs import pairs
from ase_sensitivity.cli.replay import replay
from ase_sensitivity.cli.report import report
from ase_sensitivity.cli.scan import scan
from ase_sensitivity.cli.select import select
from ase_sensitivity.errors import SensitivityWarning
from ase_sensitivity.plain_text import printable
from ase_sensitivity.version import __version__

logger = logging.getLogger(__name__)

INTERRUPTED = 130
CUT_OFF = 141

PARTS = ("ammonia", "methane")
"""Those of the demo."""

app = typer.Typer(
    name="ase-sensitivity",
    help="Find where the descriptor of a machine-learned potential goes blind.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        Console().print(f"ase-sensitivity {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
) -> None:
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    if handler.console.is_terminal:  # somebody waits, and is told what for
        logging.getLogger("ase_sensitivity.descriptors.soap.power_spectrum").setLevel(logging.INFO)


for command in (analyze, replay, scan, pairs, doubt, select, check, converge, report, audit):
    app.command()(command)


@app.command()
def demo(
    directory: Annotated[
        Path, typer.Option(help="Where to save logs, frames and pictures; made if missing.")
    ] = Path("sensitivity-demo"),
    only: Annotated[
        str | None,
        typer.Option(help="One of the molecules.", show_default=False, **options.one_of(*PARTS)),
    ] = None,
    steps: Annotated[int, typer.Option(help="Number of MD steps of ammonia.", min=1)] = 400,
    seed: Annotated[int, typer.Option(help="Seed of velocities and thermostat.", min=0)] = 0,
) -> None:
    """See why blindness matters: ammonia, where it does no harm, and methane, where it does.

    Ammonia turns inside out at 2000 K, with forces of GFN2-xTB. Then two small potentials of
    methane are fitted on the spot, and run; one of them is blind where the runs go.
    """
    from ase_sensitivity.cli.demo import run

    run(directory, only=only, steps=steps, seed=seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    That is what the command says, or 2 with one line about the error, or 130 after an interrupt, or
    141 if the reader of the output is gone.
    """
    if sys.stderr is None:  # closed; `print` would take the standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        return _error("the standard output is closed; send it to a file or to /dev/null")
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
    except BrokenPipeError:
        return _cut_off()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click makes it that
            return _cut_off()
        if _of_a_command(error):
            return _error(f"a library ended the command, with status {error.code}")
        raise  # completion for a shell
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
            logger.info("where it failed", exc_info=True)
            return _error(
                f"{type(error).__name__}: {error}; this is a fault of ase-sensitivity, please "
                "report it with what `ase-sensitivity --verbose ...` shows"
            )
        # Not every version of typer repeats the value it does not like.
        return _error(f"{text()} (in: {shlex.join(given)})")
    if status == INTERRUPTED:  # typer turns Ctrl-C into this
        return _error("interrupted", status)
    return status if isinstance(status, int) else 0


def _of_a_command(error: BaseException) -> bool:
    """Whether it was raised below one of the commands."""
    names = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name.startswith(f"{__package__}.") and name != __name__ for name in names)


def _cut_off() -> int:
    """As of `| head`: nobody wants the rest, nor hear of it."""
    for stream in (sys.stdout, sys.stderr):
        _discard(stream)
    return CUT_OFF


def _discard(stream: TextIO) -> None:
    """Let whatever is left to be written vanish."""
    with suppress(OSError):  # it has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """One line for a warning of ours, whose place in the code is of no interest here."""
    if issubclass(category, SensitivityWarning):
        return f"ase-sensitivity: warning: {printable(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _error(text: str, status: int = 2) -> int:
    line = fit(f"ase-sensitivity: error: {' '.join(text.split())}", sys.stderr)
    for stream, write in ((sys.stdout, ""), (sys.stderr, f"{line}\n")):
        try:
            if stream is not None:
                stream.write(write)
                stream.flush()
        except OSError:  # Python would try once more at exit, and change the status
            _discard(stream)
    return status
