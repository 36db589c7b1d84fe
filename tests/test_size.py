"""Measures that do not depend on the size of the cell."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import QUIPDescriptor, SizeIndependent, analyze, size_independent
from tests.structures import rattled

SPECIES = ["C", "H", "O"]


def soap(species=SPECIES, cutoff=3.2) -> QUIPDescriptor:
    return QUIPDescriptor(f"soap cutoff={cutoff} n_max=4 l_max=4 atom_sigma=0.5", species=species)


def test_size_independent_measures_do_not_fall_with_the_cell():
    """The ratio falls to a quarter from 2x2x2 to 2x2x12 (docs/theory, size)."""
    silicon = QUIPDescriptor("soap cutoff=5 n_max=4 l_max=4 atom_sigma=0.5", species=["Si"])
    found, ratios = [], []
    for length in (2, 8):
        atoms = rattled(bulk("Si", cubic=True).repeat((1, 1, length)), 0.08)
        found.append(size_independent(atoms, silicon))
        ratios.append(analyze(atoms, silicon, k=1).ratio)
    assert ratios[1] < 0.5 * ratios[0]
    assert found[1].gamma == pytest.approx(found[0].gamma, rel=0.2)
    assert found[1].distance_per_atom == pytest.approx(found[0].distance_per_atom, rel=0.35)


def test_gamma_by_dense_algebra():
    """The definition, with explicit loops over centers, neighbors and rotations."""
    atoms = rattled(molecule("CH3OH"))
    descriptor = soap(cutoff=2.0)
    jacobian = descriptor.jacobian(atoms)
    J = jacobian.dense(jacobian.atom, len(atoms))
    rows = []
    for i in range(len(atoms)):
        d = atoms.positions - atoms.positions[i]
        r = np.linalg.norm(d, axis=1)
        near = [j for j in range(len(atoms)) if j != i and r[j] < 2.0]
        f = [1.0 if r[j] < 1.5 else 0.5 * (1 + np.cos(np.pi * (r[j] - 1.5) / 0.5)) for j in near]
        C = np.zeros((len(near), 3, len(atoms), 3))
        turn = np.zeros((3, len(near), 3))
        for n, j in enumerate(near):
            C[n, :, j] += f[n] * np.eye(3)
            C[n, :, i] -= f[n] * np.eye(3)
            turn[:, n] = f[n] * np.cross(np.eye(3), d[j])
        C = C.reshape(3 * len(near), -1)
        basis = np.linalg.svd(turn.reshape(3, -1), full_matrices=False)
        span = basis[2][basis[1] > 1e-9]
        rows.append(C - span.T @ (span @ C))
    C = np.concatenate(rows)
    # Minimise |J v| / |C v| where C v is not zero.
    _, s, vt = np.linalg.svd(C, full_matrices=False)
    assert (s < 1e-9).sum() == 6
    whitened = J @ (vt[:-6].T / s[:-6])
    smallest = np.linalg.svd(whitened, compute_uv=False)[-1]
    expected = smallest / np.sqrt((J**2).sum() / (C**2).sum())
    assert size_independent(atoms, descriptor).gamma == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < 1


def test_size_independent_refuses():
    averaged = QUIPDescriptor(
        "soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5 average=T", species=SPECIES
    )
    with pytest.raises(ValueError, match="no environments"):
        size_independent(rattled(molecule("CH3OH")), averaged)
    with pytest.raises(ValueError, match="nothing but rigid motions"):
        size_independent(Atoms("C"), soap())


def test_null_direction_is_at_distance_zero():
    assert size_independent(molecule("CH4"), soap()) == SizeIndependent(0.0, 0.0)
    copper = QUIPDescriptor("soap cutoff=4 n_max=4 l_max=4 atom_sigma=0.5", species=["Cu"])
    assert size_independent(bulk("Cu", cubic=True), copper) == SizeIndependent(0.0, 0.0)
