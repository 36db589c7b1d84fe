"""``ase-sensitivity audit``: what a descriptor keeps, where it is blind, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.check import FAILED
from ase_sensitivity.cli.output import remark, say, to_json


def audit(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[AUDIT]...",
            help="Earlier audits, written with -o, to compare: a table of who is blind where.",
            show_default=False,
        ),
    ] = None,
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: Annotated[
        str | None,
        typer.Option(
            "--species",
            metavar="C,H,...",
            help="Species that the descriptor sees. By default those of all structures looked at.",
            show_default=False,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full/--quick", help="All of g2, s22 and larger cells, or a selection of these."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="JSON", help="Write it to this file.", show_default=False
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="HTML", help="Write it as a page to this file.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> int:
    """Audit a descriptor: its contract, where it is blind, and what it costs.

    Exit status 0 if no check failed, 1 if one did, 2 if it could not be audited. A finding is a
    property that one should know, and no failure.
    """
    from ase_sensitivity.auditing.result import Audit, compared
    from ase_sensitivity.auditing.run import audit as audit_of
    from ase_sensitivity.auditing.run import n_checks
    from ase_sensitivity.auditing.structures import named_in_audit
    from ase_sensitivity.cli.descriptor import descriptor_of
    from ase_sensitivity.progress import progress

    if files:
        if descriptor or gap is not None or species or output or html or json or full:
            raise ValueError("audits are compared alone; give no other options beside their files")
        short = [Path(file).stem for file in files]
        names = short if len({*short}) == len(files) else files
        say(compared(dict(zip(names, map(Audit.read, files), strict=True))))
        return 0
    for path in (output, html):
        if path is not None and not path.parent.is_dir():  # before minutes of work, not after
            raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    seen = descriptor_of(descriptor, gap, species, frames=lambda: named_in_audit(full), tell=remark)
    with progress("Auditing", n_checks(), "checks", shown=not json) as move:
        found = audit_of(seen, full=full, progress=move)
    if output is not None:
        found.write(output)
    if html is not None:
        from ase_sensitivity.report.audit_page import write_audit

        write_audit(found, html)
    say(to_json(found.todict()) if json else found.summary())
    return 0 if found.passed else FAILED
