"""The order of the packages, names of the root package, and modules that have moved."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

import ase_sensitivity

ROOT = Path(ase_sensitivity.__file__).parent

FLOORS = [
    {"cli", "plugin"},
    {"report", "demonstration"},
    {"md", "dataset", "auditing"},
    {"singular"},
    {"analysis"},
    {"sensitivity"},
    {"causes", "testing"},
    {"spectrum"},
    {"environments"},
    {"descriptors"},
    {"jacobian"},
    {"geometry", "io"},
    {"compiled", "linalg"},
    {"moved"},
    {"progress", "errors", "validation", "plain_text", "types", "version"},
]
"""From top to bottom. A module imports from its own package and from floors below."""


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports at any time, other than for types alone."""
    names = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.startswith("ase_sensitivity")}
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ase_sensitivity"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if module_path(full).exists() else str(node.module))
    return names


def module_path(name: str) -> Path:
    return ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")


def modules() -> dict[str, Path]:
    files = [path for path in ROOT.rglob("*.py") if path.stem not in ("__init__", "__main__")]
    return {
        ".".join(["ase_sensitivity", *path.relative_to(ROOT).with_suffix("").parts]): path
        for path in files
    }


def floor(module: str) -> int:
    room = module.split(".")[1]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def test_imports_go_down_only():
    for name, path in modules().items():
        for other in imports(path):
            assert other != "ase_sensitivity", f"{name} imports the root package"
            same = name.split(".")[1] == other.split(".")[1]
            assert same or floor(other) > floor(name), f"{name} imports {other}"


def test_no_import_is_circular():
    found = list(TopologicalSorter({n: imports(p) for n, p in modules().items()}).static_order())
    assert len(found) >= len(modules())


def test_every_name_is_there():
    for name in ase_sensitivity.__all__:
        assert getattr(ase_sensitivity, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ase_sensitivity.no_such_name


def test_importing_loads_nothing():
    code = "import ase_sensitivity, sys; print([m for m in ('numpy', 'ase') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_modules_that_have_moved(caplog):
    with pytest.warns(DeprecationWarning, match="have moved") as told:
        moved = importlib.import_module("ase_sensitivity.dynamics.bias")
    assert moved.Repel is ase_sensitivity.Repel
    assert "ase_sensitivity.dynamics.bias is ase_sensitivity.md.bias now" in caplog.text
    assert told[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="have moved"):
        from ase_sensitivity.descriptors.base import Range
    with pytest.warns(DeprecationWarning, match="have moved"):
        from ase_sensitivity.dataset.pairs import Pair
    assert ase_sensitivity.Range is Range
    assert Pair.__module__ == "ase_sensitivity.dataset.pairs.result"
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from ase_sensitivity.dataset.pairs import Nothing  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("ase_sensitivity.dynamics.nothing")


def test_the_old_name_of_a_method():
    soap = ase_sensitivity.SOAP(["H"], cutoff=3.0, n_max=2, l_max=1)
    atoms = molecule("H2")
    moves = np.array([[[0.0, 0, 0], [0, 0, 1]]])
    with pytest.warns(DeprecationWarning, match="squared_jvp_gradient"):
        old, _ = soap.derivatives_of_squares(atoms, moves, both_sides=False)
    new, _ = soap.squared_jvp_gradient(atoms, moves, central_difference=False)
    assert np.abs(new).max() > 0
    np.testing.assert_array_equal(old, new)
