"""Threads of BLAS, where they pay."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from ase.build import bulk
from threadpoolctl import threadpool_info, threadpool_limits

from ase_sensitivity import SOAP, analyze, nearest_singular, scan
from ase_sensitivity.linalg.threads import SMALL, threads_for
from ase_sensitivity.singular.monitor import Monitor
from ase_sensitivity.spectrum import smallest, solvers
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


def diagnosed(atoms, soap):
    with threadpool_limits(2, user_api="blas"):
        found = analyze(atoms, soap, k=3)
        soap.seen.clear()
        Monitor(soap, scope="structure", within=0.1).diagnose(atoms, found)


@pytest.mark.parametrize(
    "work", [diagnosed, nearest_singular, lambda atoms, soap: scan([atoms], soap)]
)
def test_a_small_structure_has_one(work):
    class Seen(CountingSOAP):
        seen: ClassVar[list[set[int]]] = []

        def jacobian(self, atoms):
            self.seen.append(n_threads())
            return super().jacobian(atoms)

    soap = Seen(["Cu"], cutoff=4.0, n_max=4, l_max=3)
    work(bulk("Cu", cubic=True), soap)
    assert len(soap.seen) > 0
    assert set.union(*soap.seen) == {1}
    assert n_threads() == {2}


def test_all_values_of_a_molecule_take_one(monkeypatch):
    seen = []

    def spied(*arguments):
        seen.append(n_threads())
        return solvers_deflate(*arguments)

    solvers_deflate = solvers._deflate
    monkeypatch.setattr(solvers, "_deflate", spied)
    carbon = SOAP(["C"], cutoff=4.0, n_max=4, l_max=3)
    for n_atoms in (12, 18):  # a limit takes time of its own
        analyze(bulk("C", cubic=True).repeat((3, 1, 1))[:n_atoms], carbon, k=None)
    assert seen == [{2}, {1}]


def test_only_the_factor_of_a_large_matrix_has_several(monkeypatch):
    """Thin products have one thread, and results do not depend on the number."""
    seen = {}

    def spied(name):
        original = getattr(smallest, name)

        def call(*arguments, **how):
            seen.setdefault(name, set()).update(n_threads())
            return original(*arguments, **how)

        monkeypatch.setattr(smallest, name, call)

    atoms = bulk("Si", cubic=True).repeat((4, 4, 2))
    atoms.rattle(0.1, seed=0)
    soap = SOAP(["Si"], cutoff=4.0, n_max=4, l_max=3)
    with threadpool_limits(1, user_api="blas"):
        expected = analyze(atoms, soap, k=3)
    spied("smallest_eigenpairs")
    spied("Factor")
    found = analyze(atoms, soap, k=3)
    assert seen == {"smallest_eigenpairs": {1}, "Factor": {1}}
    np.testing.assert_array_equal(found.singular_values, expected.singular_values)
    np.testing.assert_array_equal(found.modes, expected.modes)
    monkeypatch.setattr("ase_sensitivity.linalg.threads.SMALL", 100)
    seen.clear()
    found = analyze(atoms, soap, k=3)
    assert seen == {"smallest_eigenpairs": {1}, "Factor": {2}}
    np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=1e-10)
    assert n_threads() == {2}
