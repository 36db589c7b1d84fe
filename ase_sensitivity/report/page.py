"""An HTML file that opens from disk, without a network: templates, and how it is written."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

from ase_sensitivity.io.whole_file import whole_file
from ase_sensitivity.version import __version__


def check_page(path: str | Path) -> Path:
    """The path of a page; TypeError or OSError where none can be written."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`path` is {path!r} but must be the name of a file")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
    return path


def write_page(path: Path, page: str) -> None:
    """Write a page; the file appears when it is complete."""
    with whole_file(path) as file:
        file.write_text(page, encoding="utf-8", errors="replace")


def rendered(template: str, **values: Any) -> str:
    """A template of this package, with the style sheet and the version."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, loader=jinja2.FunctionLoader(text_of))
    page = environment.get_template(template)
    return page.render(version=__version__, css=safe(text_of("report.css")), **values)


def safe(text: str) -> str:
    """A text that is put into the page as it is."""
    import markupsafe

    return markupsafe.Markup(text)


def text_of(name: str) -> str:
    """The text of a file of this package."""
    found = resources.files("ase_sensitivity.report") / name
    return found.read_text(encoding="utf-8")


def needs_report(_: ImportError) -> ImportError:
    """The error that names the extra, in the place of another."""
    return ImportError('a report needs plotly and jinja2: pip install "ase-sensitivity[report]"')
