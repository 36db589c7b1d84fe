"""An audit as one HTML file."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from pathlib import Path

from ase_sensitivity.auditing.check import FINDING, OK
from ase_sensitivity.auditing.result import Audit
from ase_sensitivity.report.page import check_page, needs_report, rendered, write_page


def write_audit(audit: Audit, path: str | Path, *, title: str = "Audit of a descriptor") -> None:
    """Write an audit as one HTML file that opens from disk.

    Parameters
    ----------
    audit
        Of :func:`ase_sensitivity.audit`.
    path
        The file; it appears when it is complete.
    title
        Heading of the page.

    Raises
    ------
    ImportError
        Without jinja2, of the extra ``report``.
    OSError
        If the file cannot be written.
    TypeError
        If an argument has another type.
    """
    if not isinstance(audit, Audit):
        raise TypeError(f"`audit` must be an Audit, not {type(audit).__name__}")
    where = check_page(path)
    level = "bad" if not audit.passed else "attention" if audit.of(FINDING) else "good"
    try:
        page = rendered(
            "audit.html",
            title=title,
            audit=audit,
            level=level,
            reasons=[check for check in audit.checks if check.note and check.verdict != OK],
            groups=[(name, [*rows]) for name, rows in groupby(audit.checks, attrgetter("group"))],
        )
    except ImportError as error:
        raise needs_report(error) from error
    write_page(where, page)
