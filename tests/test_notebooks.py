"""Results as notebooks show them: tables and the summary, safe whatever files contain."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from html.parser import HTMLParser

import pytest
from ase.build import molecule
from rich.console import Console

from ase_sensitivity import SOAP, analyze, converge, nearest_singular, progress, scan, select
from ase_sensitivity.dataset.records import MemoryStore
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.plain_text import as_html
from tests.structures import rattled

SOAP_OF_METHANE = SOAP(["C", "H"], 3.0, 3, 2)
FRAMES = [rattled(molecule("CH4"), 0.1, seed) for seed in range(3)]
EVIL = '<script>alert("1")</script>\x1b[31m'


class Page(HTMLParser):
    """The cells of a table, the other text, and the kinds of tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "br":
            self.text += "\n"
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.tags[-1] in ("td", "th"):
            self.cells[-1] += data
        else:
            self.text += data


@pytest.mark.parametrize(
    ("of", "cells"),
    [
        (lambda: analyze(molecule("CH4"), SOAP_OF_METHANE, causes=True), ["symmetry"]),
        (lambda: scan(FRAMES, SOAP_OF_METHANE), ["ratio"]),
        (lambda: select(FRAMES, SOAP_OF_METHANE, 2), ["chosen", "gain"]),
        (lambda: nearest_singular(FRAMES[0], SOAP_OF_METHANE), []),
    ],
)
def test_a_notebook_shows_what_print_does(of: Callable[[], object], cells: list[str]) -> None:
    found = of()
    page = Page(found._repr_html_())  # type: ignore[attr-defined]
    assert page.text == str(found)
    assert {*cells} <= {*page.cells}


def test_a_sweep_is_a_table() -> None:
    found = converge(FRAMES, SOAP_OF_METHANE, cutoff=[2.5, 3.0])
    page = Page(found._repr_html_())
    assert page.cells == [cell for line in found.cells() for cell in line]
    assert page.text == "\n".join(found.findings())


def test_nothing_of_a_file_is_run() -> None:
    store = MemoryStore({})
    (record,) = scan(FRAMES[:1], SOAP_OF_METHANE).records()
    record.row |= {"source": EVIL, "error": EVIL}
    store.write([record])
    shown = ScanResult(store)._repr_html_()
    page = Page(shown)
    assert {*page.tags} <= {"table", "tr", "th", "td", "p", "br"}
    assert '<script>alert("1")</script>' in page.text
    assert "\x1b" not in shown
    assert as_html(EVIL) == ("<p>&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;\\x1b[31m</p>")


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_a_bar_where_it_can(widgets: bool, monkeypatch) -> None:
    shown: list[str] = []

    def recorded(kind: str) -> Callable[..., object]:
        return lambda *_: shown.append(kind) or nullcontext(shown.append)

    monkeypatch.setattr(progress, "Console", lambda stderr: Console(force_jupyter=True))
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets else None)
    for kind in ("_bar", "_lines"):
        monkeypatch.setattr(progress, kind, recorded(kind))
    with progress.progress("Scanning", 3):
        pass
    assert shown == ["_bar" if widgets else "_lines"]
