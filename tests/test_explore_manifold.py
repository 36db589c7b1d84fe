"""Paths of constant, nearly constant and changing features."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from ase_sensitivity import SOAP, trace_manifold
from ase_sensitivity.auditing.reference import S3, around_carbon
from tests.structures import rattled

CARBON = SOAP(["H"], 3.0, 8, 8, 0.3, 0.5, 0.0, normalise=False, centers=["C"])
RADIAL = SOAP(["H"], 3.0, 8, 0, 0.3, 0.5, 0.0, normalise=False, centers=["C"], body_order=2)

BENT = around_carbon([(0.9, 0.1, 0), (0.28, 0.96, 0.2), (-0.5, 0.7, 0.8), (-0.4, -0.5, -1.1)])


def check_numbers(path, atoms, descriptor):
    """What the result says of its frames holds."""
    features = descriptor.features(atoms).ravel()
    for n, frame in enumerate(path.frames):
        change = np.linalg.norm(descriptor.features(frame).ravel() - features)
        assert path.feature_change[n] == pytest.approx(
            change / np.linalg.norm(features), rel=1e-6, abs=1e-13
        )
        moved = frame.positions - atoms.positions
        assert np.linalg.norm(moved) == pytest.approx(path.length[n])
        assert frame.info["rmsd"] == path.rmsd[n]
        # No rotation or permutation: seen from the carbon, on the four atoms that are seen.
        relative = np.linalg.norm((moved - moved[0])[1:], axis=1)
        assert path.rmsd[n] <= np.sqrt((relative**2).mean()) + 1e-12
    assert path.rmsd[0] == path.feature_change[0] == 0
    assert path.rmsd[-1] > 0.2 * path.length[-1] / np.sqrt(len(atoms))


def test_angles_are_free_at_body_order_two():
    path = trace_manifold(BENT, RADIAL, length=0.4)
    assert path.verdict == "degenerate"
    assert path.feature_change.max() < 1e-8
    assert path.random_feature_change[1:].min() > 1e-3
    check_numbers(path, BENT, RADIAL)
    # Distances to the center stay while angles change.
    radii = [frame.get_distances(0, [1, 2, 3, 4]) for frame in path.frames]
    assert np.ptp(radii, axis=0).max() < 1e-6
    angles = [[f.get_angle(i, 0, i + 1) for i in (1, 2, 3)] for f in path.frames]
    assert np.ptp(angles, axis=0).max() > 5
    assert len(path.frames) == 9


@pytest.mark.parametrize("seed", range(3))
def test_quasi_constant_near_s3(seed):
    atoms = rattled(around_carbon(S3), 0.05, seed)
    path = trace_manifold(atoms, CARBON)
    assert path.verdict == "quasi-constant"
    assert path.feature_change.max() > 1e-5
    assert 0.005 < path.ratio < 0.12
    check_numbers(path, atoms, CARBON)


def test_merely_soft_with_all_atoms_as_centers():
    atoms, soap = rattled(molecule("CH3OH"), 0.1), SOAP(["C", "O", "H"], 4.0, 4, 3)
    path = trace_manifold(atoms, soap, length=0.2, n_random=4)
    first = path.frames[1].positions - atoms.positions
    back = trace_manifold(atoms, soap, length=0.2, n_random=4, direction=-first)
    assert path.verdict == back.verdict == "soft"


def test_the_path_changes_the_features_least():
    atoms = rattled(around_carbon(S3), 0.05)
    path = trace_manifold(atoms, CARBON, length=0.2)
    rng = np.random.default_rng(0)
    moved = path.frames[-1].positions - atoms.positions
    norm = np.linalg.norm(CARBON.features(atoms))
    for _ in range(20):  # neighbors on the sphere are no better
        other = moved + 0.02 * rng.normal(size=moved.shape)
        other -= (other - moved).mean(axis=0)
        other *= np.linalg.norm(moved) / np.linalg.norm(other)
        near = atoms.copy()
        near.positions += other
        change = np.linalg.norm(CARBON.features(near) - CARBON.features(atoms)) / norm
        assert change > path.feature_change[-1]


def test_direction_seed_and_progress(tmp_path):
    calls = []
    settings = {"length": 0.1, "n_random": 2, "rng": 1}
    there = trace_manifold(BENT, CARBON, callback=lambda *now: calls.append(now), **settings)
    assert calls == [(1, 2), (2, 2)]
    first = there.frames[1].positions - BENT.positions
    back = trace_manifold(BENT, CARBON, direction=-first, **settings)
    second = back.frames[1].positions - BENT.positions
    assert np.vdot(first, second) < -0.5 * 0.05**2
    np.testing.assert_allclose(back.random_feature_change, there.random_feature_change, rtol=1e-6)
    write(tmp_path / "path.xyz", there.frames)
    assert read(tmp_path / "path.xyz", -1).info["feature_change"] == pytest.approx(
        there.feature_change[-1], rel=1e-6
    )
    assert "verdict" in repr(there)


def test_a_periodic_structure_and_an_environment():
    salt = rattled(bulk("NaCl", "rocksalt", a=5.6), 0.1)
    path = trace_manifold(salt, SOAP(["Na", "Cl"], 4, 4, 3), length=0.1, n_random=2)
    assert path.frames[-1].pbc.all()
    moved = path.frames[-1].positions - salt.positions
    moved -= moved.mean(axis=0)
    assert path.rmsd[-1] == pytest.approx(np.sqrt((moved**2).sum() / 2))
    assert path.feature_change[-1] > 0
    cluster = trace_manifold(BENT, CARBON, scope="environment", center=0, length=0.1, n_random=2)
    whole = trace_manifold(BENT, CARBON, length=0.1, n_random=2)
    np.testing.assert_allclose(cluster.feature_change, whole.feature_change, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"length": 0.0}, "`length` is 0"),
        ({"step": np.nan}, "`step` is nan"),
        ({"n_random": 0}, "`n_random` is 0"),
        ({"direction": np.zeros((5, 3))}, "`direction` is zero or a rigid"),
        ({"direction": np.ones((5, 3))}, "`direction` is zero or a rigid"),
        ({"direction": np.ones(3)}, "`direction` has shape"),
        ({"scope": "atom"}, '"structure" or "environment"'),
        ({"length": "a"}, "`length` is 'a' but must be a number"),
    ],
)
def test_bad_arguments(settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        trace_manifold(BENT, CARBON, **settings)


def test_no_path_with_a_single_distance():
    with pytest.raises(ValueError, match="no path"):
        trace_manifold(Atoms("CH", [(0, 0, 0), (0, 0, 1.1)]), CARBON)
