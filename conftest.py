"""Set-up of all tests, doctests included."""

import importlib.util
import os

import pytest

# Its sections need different packages: tests/test_other_packages.py runs those that it can.
collect_ignore = ["docs/other_packages.md"]
if importlib.util.find_spec("torch") is None:
    collect_ignore += ["ase_sensitivity/jacobian/autograd.py"]
    collect_ignore += ["ase_sensitivity/descriptors/torch_function.py"]
    collect_ignore += ["ase_sensitivity/descriptors/edges.py"]
if importlib.util.find_spec("jax") is None:
    collect_ignore += ["ase_sensitivity/descriptors/jax_function.py"]
if importlib.util.find_spec("chgnet") is None:
    collect_ignore += ["ase_sensitivity/descriptors/chgnet.py"]


def pytest_configure(config):
    """Parallel workers share the cores: BLAS threads of each would only wait for the others'."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _doctests_in_a_temporary_directory(request, tmp_path, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
