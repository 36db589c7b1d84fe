"""The examples on causes say what their docs say, without a warning that gets out."""

from __future__ import annotations

import runpy
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from tests.test_explore_examples import EXAMPLES, run


def rows(said: str) -> list[list[str]]:
    """Lines of a table that begin with a number."""
    split = (line.split() for line in said.splitlines())
    return [row for row in split if row and row[0].replace(".", "").isdigit()]


@pytest.mark.slow
def test_ammonia_passes_planarity_in_silence():
    pytest.importorskip("tblite")
    passages = rows(run("ammonia_causes.py", "--steps", "80"))[:-1]  # the last is "81 calls; ..."
    assert len(passages) == 2
    for row in passages:
        distance, true, arrival, later = (float(word) for word in row[3:7])
        assert 0.01 < true < 0.1
        assert distance == pytest.approx(true, rel=0.05)
        assert arrival == pytest.approx(later, rel=0.05)
        assert row[7] == "symmetry"


@pytest.mark.slow
def test_carbon_only_warns_and_all_atoms_do_not():
    carbon, everything = run("carbon_only.py").split("SOAP on all atoms")
    flagged = [row for row in rows(carbon) if row[-1] == "matters"]
    assert {row[5] for row in flagged} == {"incompleteness"}
    assert all(float(row[3]) <= 0.1 and abs(float(row[1])) < 0.35 for row in flagged)
    assert len(flagged) >= 2
    assert "SingularWarning" in carbon
    assert "matters" not in everything
    assert "No warning." in everything
    assert min(float(row[2]) for row in rows(everything)) > 0.2


@pytest.mark.slow
def test_pictures(tmp_path):
    """As many as the docs show, small, and not blank."""
    run("causes_pictures.py", "--output", str(tmp_path))
    page = (EXAMPLES.parent / "docs" / "causes.md").read_text()
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == page.count("](images/") == 4
    for picture in pictures:
        assert f"](images/{picture.name})" in page
        assert picture.stat().st_size < 80_000
        assert np.ptp(imread(picture)[:, :, :3]) == pytest.approx(1.0)


@pytest.mark.slow
def test_blind_methane(tmp_path):
    pytest.importorskip("tblite")
    picture = tmp_path / "picture.png"
    said = run("blind_methane.py", "--training", "1", "--picture", str(picture))
    errors = [float(line.split()[-2]) for line in said.splitlines() if "held-out" in line]
    assert errors[0] > 10 * errors[1]
    assert "flagged at nan" not in said
    assert "price" in said
    assert picture.stat().st_size > 10_000


def test_without_tblite_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite", None)
    with pytest.raises(ImportError, match=r'pip install "ase-sensitivity\[demo\]"'):
        runpy.run_path(str(EXAMPLES / "ammonia_causes.py"))
