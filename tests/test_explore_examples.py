"""The examples run, without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import read

EXAMPLES = Path(__file__).parent.parent / "examples"

CHECKED = {
    "ammonia_causes",
    "blind_methane",
    "carbon_only",
    "causes_pictures",
    "manifolds",
    "singular_methane",
    "twins",
}
"""Of these, tests here and in test_causes_examples.py look at what they print."""


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error::UserWarning", str(EXAMPLES / name), *arguments]
    # With as many threads as cores beside other tests, GFN2-xTB takes ten times as long.
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


SHORT = {
    "copper_crystal": ("--steps", "40"),
    "energy_drift": ("--time", "25"),
    "kept_pyramidal": ("--steps", "200"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({path.stem for path in EXAMPLES.glob("*.py")} - CHECKED))
def test_an_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(f"{name}.py", *SHORT.get(name, ()))


@pytest.mark.slow
def test_twins(tmp_path):
    said = run("twins.py", "line", "--write", str(tmp_path / "twins.xyz"))
    assert "has the same features" in said
    assert len(read(tmp_path / "twins.xyz", ":")) == 2


@pytest.mark.slow
def test_singular_methane(tmp_path):
    settings = ("--starts", "4", "--walks", "2", "--write", str(tmp_path / "singular.xyz"))
    assert "singular by incompleteness from" in run("singular_methane.py", *settings)
    assert read(tmp_path / "singular.xyz", 0).info["cause"] == "incompleteness"


@pytest.mark.slow
def test_manifolds_and_the_plot_of_the_docs(tmp_path):
    said = run("manifolds.py", "--length", "0.1", "--plot", str(tmp_path / "manifolds.svg"))
    assert [line.split(":")[1].split(";")[0].strip() for line in said.splitlines()] == [
        "degenerate",
        "quasi-constant",
        "soft",
    ]
    assert (tmp_path / "manifolds.svg").stat().st_size > 1000
