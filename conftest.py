"""Doctests write their files to a directory of their own."""

import pytest


@pytest.fixture(autouse=True)
def _in_a_temporary_directory(request, tmp_path, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(tmp_path)
