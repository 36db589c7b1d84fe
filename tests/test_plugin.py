"""ASE finds the calculator by name, and does not suffer from us."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ase.calculators.calculator import external_calculators, get_calculator_class

from ase_sensitivity import plugin
from ase_sensitivity.md.calculator import SensitivityCalculator

pytest.importorskip("ase._4.plugins.plugin", reason="ASE has plugins as of 3.29")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder for the path with the metadata of an installation that pyproject.toml asks for."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'^\[project.entry-points."ase.plugins"\]\n(.*?)\n\n', text, re.M | re.S)
    assert found is not None
    info = tmp_path / "installed" / "ase_sensitivity-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ase-sensitivity\nVersion: 0.1.0\nSummary: ours\n"
    )
    (info / "entry_points.txt").write_text(f"[ase.plugins]\n{found[1].replace(chr(34), '')}\n")
    return info.parent


def plugins_listed(*folders: Path) -> str:
    path = os.pathsep.join(map(str, [*folders, ROOT]))
    done = subprocess.run(
        [sys.executable, "-m", "ase", "info", "--plugins"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def broken(folder: Path, *packages: str) -> Path:
    for package in packages:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(
            "raise RuntimeError('compiled for another NumPy')\n"
        )
    return folder


def test_ase_lists_the_plugin(installed):
    listed = plugins_listed(installed)
    assert "ase_sensitivity 0.1.0" in listed
    assert re.search(r"CalculatorPlugin\n-+\nsensitivity$", listed, re.M)


@pytest.mark.slow
def test_broken_dependencies_do_not_break_ase(installed, tmp_path):
    stubs = broken(tmp_path / "stubs", "numba", "quippy", "matscipy", "sklearn", "tblite")
    assert "sensitivity" in plugins_listed(stubs, installed)


def test_ase_with_other_plugin_classes(monkeypatch):
    assert [known.name for known in plugin.__ase_plugins__] == ["sensitivity"]
    monkeypatch.setattr("ase._4.plugins.plugin.CalculatorPlugin", lambda title: title)
    try:
        assert importlib.reload(plugin).__ase_plugins__ == set()
    finally:
        monkeypatch.undo()
        importlib.reload(plugin)


def test_class_by_name():
    assert get_calculator_class("sensitivity") is SensitivityCalculator
    (known,) = plugin.__ase_plugins__
    assert known.implementation is SensitivityCalculator
    assert external_calculators["sensitivity"] is SensitivityCalculator
