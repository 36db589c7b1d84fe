"""Compiled loops are kept on disk where that is possible, and do their work where it is not."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

import numba
import pytest
from ase.build import bulk
from ase.io import write
from numba.core.caching import IndexDataCacheFile

import ase_sensitivity
from ase_sensitivity.compiled import njit as compiling
from ase_sensitivity.compiled.clock import without_compiling
from ase_sensitivity.errors import CostWarning

DOUBLE = """
from ase_sensitivity.compiled.njit import njit

@njit(nogil=True)
def double(x):
    return 2 * x
"""


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """One warning a process is one a test here, and the user has named no folder."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    compiling._warn_once.cache_clear()
    yield
    compiling._warn_once.cache_clear()


def load(folder: Path) -> ModuleType:
    """A module as new, whose compiled function is on disk only."""
    path = folder / "doubling.py"
    if not path.exists():  # older versions of numba go by its time
        path.write_text(DOUBLE)
    spec = importlib.util.spec_from_file_location("doubling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kept(folder: Path) -> list[Path]:
    return sorted((folder / "__pycache__").glob("*.nb[ci]"))


def test_kept_and_found_again(tmp_path):
    assert compiling.is_missing(load(tmp_path).double)
    assert load(tmp_path).double(2) == 4
    assert not compiling.is_missing(load(tmp_path).double)
    assert not compiling.is_missing(load(tmp_path).double.py_func)
    assert [path.suffix for path in kept(tmp_path)] == [".nbc", ".nbi"]
    module = load(tmp_path)
    assert module.double(2) == 4
    assert sum(module.double.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("suffix", [".nbc", ".nbi"])
def test_damaged_files_are_replaced(tmp_path, suffix):
    assert load(tmp_path).double(2) == 4
    for path in kept(tmp_path):
        if path.suffix == suffix:
            path.write_bytes(path.read_bytes()[:20])
    assert load(tmp_path).double(2) == 4
    module = load(tmp_path)
    assert module.double(2) == 4
    assert sum(module.double.stats.cache_hits.values()) == 1


def test_full_disk(tmp_path, monkeypatch):
    def full(self, key, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    module = load(tmp_path)
    with pytest.warns(CostWarning, match="set NUMBA_CACHE_DIR to a folder") as caught:
        assert [module.double(2), module.double(2.5)] == [4, 5.0]
    assert len(caught) == 1


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", f"{os.devnull}/cache")
    (tmp_path / "__pycache__").write_text("no folder")
    with pytest.warns(CostWarning, match="compiled loops cannot be kept on disk") as caught:
        assert [load(tmp_path).double(2) for _ in range(2)] == [4, 4]
    assert len(caught) == 1


def test_nothing_is_said_where_loops_are_kept():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiling.warn_if_not_cached()


@pytest.mark.slow
def test_commands_of_an_installation_that_cannot_be_written(tmp_path):
    """Permissions do not hold for every user: files stand where folders would be made."""
    package = Path(ase_sensitivity.__file__).parent
    copy = tmp_path / "site" / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("no folder")
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=1)
    write(tmp_path / "si.xyz", atoms)
    (tmp_path / "script.py").write_text(
        "from ase.io import read\nfrom ase_sensitivity import SOAP, analyze\n"
        'analyze(read("si.xyz"), SOAP(["Si"], 4.0, 3, 2))\n'
    )
    run = ["-c", "from ase_sensitivity.cli.app import main; exit(main())"]
    soap = ["-d", "soap cutoff=4 n_max=3 l_max=2 atom_sigma=0.5", "--species", "Si"]
    environment = {
        "PYTHONPATH": str(copy.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": os.devnull,
        "XDG_CACHE_HOME": f"{os.devnull}/cache",
    }
    for command, told in (
        ([*run, "analyze", "si.xyz", *soap], "ase-sensitivity: warning:"),
        (
            [*run, "scan", "si.xyz", "-o", "b.db", "--workers", "2", *soap],
            "ase-sensitivity: warning:",
        ),
        (["script.py"], "script.py:2: CostWarning:"),
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("cannot be kept") == 1
        assert f"{told} {compiling.NOT_CACHED}" in done.stderr


def test_a_clock_that_stands_still_while_kernels_are_compiled(tmp_path):
    double = load(tmp_path).double
    with without_compiling() as clock:
        began, really = clock(), time.perf_counter()
        double(2)
        passed, really = clock() - began, time.perf_counter() - really
        assert 0 <= passed < 0.5 * really
        began = clock()
        time.sleep(0.01)
        assert clock() - began >= 0.01
