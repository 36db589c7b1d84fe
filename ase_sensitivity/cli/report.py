"""``ase-sensitivity report``: the result of a scan as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ase_sensitivity.cli.output import remark


def report(
    results: Annotated[
        str,
        typer.Argument(
            metavar="RESULTS",
            help="What a scan wrote: results.db or results.parquet.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="HTML", help="The file to write.")
    ] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Heading of the page.")] = (
        "Sensitivity of the descriptor"
    ),
    timestep: Annotated[
        float | None,
        typer.Option(
            metavar="FS",
            help="Time between two frames, if they are a trajectory.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the result of a scan as one HTML file."""
    from ase_sensitivity.dataset.result import ScanResult
    from ase_sensitivity.report.html import write_report

    found = ScanResult.read(results)
    if output.exists() and Path(results).exists() and output.samefile(results):
        raise ValueError(f"--output is {str(output)!r}, which is the scan itself")
    write_report(found, output, title=title, timestep=timestep)
    remark(f"Report: {output}")
