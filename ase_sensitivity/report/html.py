"""A scan as one HTML file that opens from disk, without a network."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
from pathlib import Path
from typing import Any

from ase_sensitivity.dataset.result import ScanResult, check_result
from ase_sensitivity.descriptors.base import Descriptor, descriptor_text
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.report.contents import contents
from ase_sensitivity.report.page import (
    check_page,
    needs_report,
    rendered,
    safe,
    text_of,
    write_page,
)
from ase_sensitivity.report.partners import partner_drawing
from ase_sensitivity.report.verdict import verdict
from ase_sensitivity.validation import as_number

logger = logging.getLogger(__name__)


def write_report(
    result: ScanResult | str | Path,
    path: str | Path,
    *,
    title: str = "Sensitivity of the descriptor",
    timestep: float | None = None,
    partners: Given | None = None,
    price: Any = None,
) -> None:
    """Write a scan as one HTML file: verdict, charts, the worst structures, a table.

    Parameters
    ----------
    result
        Of :func:`ase_sensitivity.scan`, or the database that it wrote.
    path
        The file; it appears when it is complete.
    title
        Heading of the page.
    timestep
        Time between two frames in fs, if they are a trajectory.
    partners
        The descriptor of the scan. With it the page draws the
        :attr:`~ase_sensitivity.NearestSingular.partner` of each structure that it draws.
    price
        An ASE calculator, for the difference of energies and forces of each of these pairs.

    Raises
    ------
    ImportError
        Without plotly and jinja2, the extra ``report``.
    OSError
        If the file cannot be written, or the database not be read.
    TypeError, ValueError
        If an argument makes no sense, such as a ``timestep`` that is not positive.
    """
    path = check_page(path)
    if isinstance(result, str | os.PathLike):
        result = ScanResult.read(result)
    write_page(
        path,
        render(result, title=title, timestep=timestep, partners=partners, price=price),
    )


def render(
    result: ScanResult,
    *,
    title: str = "Sensitivity of the descriptor",
    timestep: float | None = None,
    partners: Given | None = None,
    price: Any = None,
) -> str:
    """The text of the file that :func:`write_report` writes."""
    try:
        import jinja2  # noqa: F401
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise needs_report(error) from error
    check_result(result)
    if timestep is not None:
        as_number("timestep", timestep, "positive")
    partner_of = None
    if partners is not None:
        partner_of = partner_drawing(partners, price, result.parameters.get("scope"))
        _check_same(partners, result)
    elif price is not None:
        raise ValueError("`price` needs `partners`, the descriptor of the scan")
    found = contents(result, timestep=timestep, partner_of=partner_of)
    data = json.dumps(found, allow_nan=False, separators=(",", ":"))
    packed = base64.b64encode(gzip.compress(data.encode(), 6, mtime=0)).decode()
    logger.info("the data of the page take %.1f MB", len(packed) / 1e6)
    rows = result.rows
    sources = list(dict.fromkeys(row["source"] for row in rows))
    listed = ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
    return rendered(
        "template.html",
        title=title,
        subtitle=f"{len(rows)} frames of {listed}" if rows else "no frames",
        verdict=verdict(result.totals, str(result.parameters.get("scope"))),
        doubts=result.doubts,
        steps=result.next_steps,
        parameters=[(name, str(value)) for name, value in result.parameters.items()],
        script=safe(text_of("report.js")),
        plotly=safe(get_plotlyjs()),
        data=safe(packed),
    )


def _check_same(partners: Given, result: ScanResult) -> None:
    """Raise ValueError if a descriptor is not that of the scan; strings lack its species."""
    known = result.parameters.get("descriptor")
    if isinstance(partners, Descriptor) and descriptor_text(partners) != known:
        raise ValueError(
            f"`partners` is {partners!r} but must be the descriptor of the scan, {known}"
        )
