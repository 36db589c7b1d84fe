"""The code of docs/other_packages.md, section by section, with the packages that are here."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "other_packages.md"
NEEDS = {
    "A torch function": "torch",
    "A JAX function": "jax",
    "CHGNet": "chgnet",
    "SevenNet": "sevenn",
    "MACE": "mace.modules",
    "featomic": "featomic",
    "DScribe": "dscribe",
}


def sections() -> dict[str, str]:
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    _, *found = re.split(r"^## (.*)$", text, flags=re.M)
    return dict(zip(found[::2], found[1::2], strict=True))


@pytest.mark.skipif(not PAGE.exists(), reason="an installed package has no docs")
def test_every_section_says_what_it_needs():
    with_code = [name for name, text in sections().items() if ">>> " in text]
    assert with_code == [*NEEDS]


@pytest.mark.filterwarnings("default")  # of the packages
@pytest.mark.parametrize("name", NEEDS)
def test_section(name: str, tmp_path, monkeypatch):
    if not PAGE.exists():
        pytest.skip("an installed package has no docs")
    pytest.importorskip(NEEDS[name])  # some packages say something when they are loaded
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(sections()[name], {}, name, str(PAGE), 0)
    assert test.examples
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=options)
    runner.run(test, out=told.append)
    assert not runner.failures, "".join(told)
