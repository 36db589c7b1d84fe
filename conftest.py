"""Set-up of all tests, doctests included."""

import os

import pytest


def pytest_configure(config):
    """Parallel workers share the cores: BLAS threads of each would only wait for the others'."""
    if getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _doctests_in_a_temporary_directory(request, tmp_path, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
