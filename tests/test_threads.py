"""Threads of BLAS, where they pay."""

from __future__ import annotations

import pytest
from ase.build import bulk
from threadpoolctl import threadpool_info, threadpool_limits

from ase_sensitivity import analyze
from ase_sensitivity.linalg.threads import SMALL, threads_for
from ase_sensitivity.singular.monitor import Monitor
from tests.conftest import CountingSOAP


def n_threads() -> set[int]:
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in pools if pool["threading_layer"] != "disabled"}


@pytest.fixture(autouse=True)
def _two():
    with threadpool_limits(2, user_api="blas"):
        if n_threads() != {2}:
            pytest.skip("BLAS has one thread here")
        yield


@pytest.mark.parametrize(("n_rows", "expected"), [(SMALL, {1}), (SMALL + 1, {2})])
def test_only_large_matrices_get_several(n_rows, expected):
    with threads_for(n_rows):
        assert n_threads() == expected
    assert n_threads() == {2}


def test_a_diagnosis_of_a_small_structure_has_one():
    seen = []

    class Seen(CountingSOAP):
        def jacobian(self, atoms):
            seen.append(n_threads())
            return super().jacobian(atoms)

    soap = Seen(["Cu"], cutoff=4.0, n_max=4, l_max=3)
    copper = bulk("Cu", cubic=True)
    found = analyze(copper, soap, k=3)
    seen.clear()
    Monitor(soap, scope="structure", within=0.1).diagnose(copper, found)
    assert seen == [{1}]
    assert n_threads() == {2}
