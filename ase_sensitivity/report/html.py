"""A scan as one HTML file that opens from disk, without a network."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
from importlib import resources
from pathlib import Path

from ase_sensitivity.dataset.result import ScanResult, check_result
from ase_sensitivity.report.contents import contents
from ase_sensitivity.report.verdict import verdict
from ase_sensitivity.validation import as_number
from ase_sensitivity.version import __version__

logger = logging.getLogger(__name__)


def write_report(
    result: ScanResult | str | Path,
    path: str | Path,
    *,
    title: str = "Sensitivity of the descriptor",
    timestep: float | None = None,
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

    Raises
    ------
    ImportError
        Without plotly and jinja2, the extra ``report``.
    OSError
        If the file cannot be written, or the database not be read.
    TypeError, ValueError
        If an argument makes no sense, such as a ``timestep`` that is not positive.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` is {path!r} but must be the name of a file")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    if isinstance(result, str | os.PathLike):
        result = ScanResult.read(result)
    page = render(result, title=title, timestep=timestep)
    if path.exists() and not path.is_file():  # a device, a pipe
        path.write_text(page, encoding="utf-8", errors="replace")
        return
    path = Path(os.path.realpath(path))  # a symbolic link stays one
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8", errors="replace")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def render(
    result: ScanResult,
    *,
    title: str = "Sensitivity of the descriptor",
    timestep: float | None = None,
) -> str:
    """The text of the file that :func:`write_report` writes."""
    try:
        import jinja2
        import markupsafe
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            'a report needs plotly and jinja2: pip install "ase-sensitivity[report]"'
        ) from error
    check_result(result)
    if timestep is not None:
        as_number("timestep", timestep, "positive")
    files = resources.files("ase_sensitivity.report")
    template = jinja2.Environment(autoescape=True).from_string(
        (files / "template.html").read_text(encoding="utf-8")
    )
    data = json.dumps(contents(result, timestep=timestep), allow_nan=False, separators=(",", ":"))
    packed = base64.b64encode(gzip.compress(data.encode(), 6, mtime=0)).decode()
    logger.info("the data of the page take %.1f MB", len(packed) / 1e6)
    safe = markupsafe.Markup
    rows = result.rows
    sources = list(dict.fromkeys(row["source"] for row in rows))
    listed = ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
    return template.render(
        title=title,
        subtitle=f"{len(rows)} frames of {listed}" if rows else "no frames",
        version=__version__,
        verdict=verdict(result.totals, str(result.parameters.get("scope"))),
        parameters=[(name, str(value)) for name, value in result.parameters.items()],
        css=safe((files / "report.css").read_text(encoding="utf-8")),
        script=safe((files / "report.js").read_text(encoding="utf-8")),
        plotly=safe(get_plotlyjs()),
        data=safe(packed),
    )
