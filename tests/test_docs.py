"""What docstrings and the README refer to is there, also where no build of the docs can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ase_sensitivity
from ase_sensitivity.causes.cause import NULL_CAUSES

PACKAGE = Path(ase_sensitivity.__file__).parent
ROOT = PACKAGE.parent
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
LABELS = {label for text in PAGES.values() for label in re.findall(r"^\((\S+)\)=$", text, re.M)}
SECTIONS = {
    page: {heading.lower() for heading in re.findall(r"^#+ (.*)$", text, re.M)} | LABELS
    for page, text in PAGES.items()
}


@pytest.mark.skipif(not PAGES, reason="an installed package has no docs")
def test_references_of_docstrings() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert {*re.findall(r":ref:`([^`]*)`", text)} <= LABELS, path
        assert {*re.findall(r":doc:`/([^`]*)`", text)} <= {*PAGES}, path
        for page, section in re.findall(r"\bdocs/([a-z_]+)(?:, ([a-z ]+))?", text):
            assert not section or section in SECTIONS[page], path


@pytest.mark.skipif(not PAGES, reason="an installed package has no docs")
def test_links_of_the_readme() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 3
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.skipif(not PAGES, reason="an installed package has no docs")
def test_the_glossary_has_every_cause_and_is_linked_to() -> None:
    terms = {*re.findall(r"^(\S.*)\n  \S", PAGES["glossary"], re.M)}
    assert {*NULL_CAUSES} - {"species", "unknown"} <= terms  # these two are words for themselves
    linking = [page for page, text in PAGES.items() if "{term}" in text]
    assert len(linking) > 5
