"""Who hears whom directly, and how far what is heard may come from: not the same with messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor, StreamedJacobian, analyze, find_pairs
from ase_sensitivity.causes.attribution import predicted_nulls
from ase_sensitivity.causes.environments import receptive_fields
from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.geometry.fragments import fragments, pairs_within_reach
from ase_sensitivity.geometry.ranges import Range
from ase_sensitivity.spectrum.scopes import structure_view
from ase_sensitivity.testing import check_descriptor


def two_hops(atoms: Atoms) -> np.ndarray:
    """Every atom sums over those within 3 Å what they have summed over those within 3 Å."""
    d = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    np.fill_diagonal(d, 9.0)
    near = np.clip(1 - (d / 3.0) ** 2, 0, None) ** 4
    weights = [near * np.exp(-2 * (d - c) ** 2) for c in (0.5, 1.0, 1.5, 2.0, 2.5)]
    z = atoms.numbers[:, None] / 8
    heard = np.concatenate([w @ z for w in weights], axis=1)
    heard = np.concatenate([z, heard, heard**2], axis=1)
    return np.concatenate([heard, *(w @ heard for w in weights)], axis=1)


def descriptor(**ranges: float) -> FiniteDifferenceDescriptor:
    return FiniteDifferenceDescriptor(two_hops, **({"cutoff": 3.0, "reach": 6.0} | ranges))


@pytest.fixture
def apart() -> Atoms:
    """Two molecules that are 3.67 Å from each other, and never exchange a message."""
    one, other = molecule("CH3OH"), molecule("NH3")
    one.rattle(0.1, seed=0)
    other.rattle(0.1, seed=1)
    direction = np.array([0.94, 0.28, 0.19])
    gaps = [
        cdist(one.positions, other.positions + s * direction).min() for s in np.arange(3, 9, 0.01)
    ]
    other.positions += np.arange(3, 9, 0.01)[int(np.searchsorted(gaps, 3.67))] * direction
    return one + other


class TestTwoHops:
    def test_molecules_apart(self, apart: Atoms):
        distance = apart.get_all_distances()[:6, 6:].min()
        assert 3.6 < distance < 3.7
        found = analyze(apart, descriptor(), causes=True)
        assert (found.n_trivial, found.n_null, found.n_apart) == (12, 0, 6)
        assert "unknown" not in found.counts

    def test_reach_taken_for_cutoff(self, apart: Atoms):
        """What it looked like: six motions that nobody could explain."""
        found = analyze(apart, descriptor(cutoff=6.0), causes=True)
        assert (found.n_trivial, found.n_null, found.counts["unknown"]) == (6, 6, 6)

    def test_contract(self):
        atoms = molecule("CH3OH")
        atoms.rattle(0.1, seed=0)
        check_descriptor(descriptor(), atoms)

    def test_symmetry_is_that_of_the_reach(self):
        """Argon is out of the carbon's earshot, but its hydrogen tells where it is."""
        atoms = molecule("CH4") + Atoms("Ar", [(0, 0, 0)])
        atoms.positions[5] = 3.9 * atoms.positions[1] / np.linalg.norm(atoms.positions[1])
        atoms.positions[5] += (0.3, -0.2, 0.0)
        told = replace(descriptor().jacobian(atoms))
        only = told.of_rows(0, 1)  # of carbon
        near, far = (replace(only, center_atoms=[0], reach=reach) for reach in (3.0, 6.0))
        counts = [
            predicted_nulls(structure_view(part, atoms), atoms, descriptor())["symmetry"]
            for part in (near, far)
        ]
        assert counts[0] > counts[1] == 0
        assert [len(fragments(atoms, part.ranges)) for part in (near, far)] == [2, 1]

    def test_other_fragments_are_no_neighbors(self, apart: Atoms):
        jacobian = descriptor().jacobian(apart)
        view = structure_view(jacobian, apart)
        (sight,) = receptive_fields(view, apart, descriptor(), 1e-5)
        assert {len(e.numbers) for e in sight.environments[:6]} == {5}
        assert {len(e.numbers) for e in sight.environments[6:]} == {3}


class TestHops:
    CHAIN = Atoms("H5", [(2.0 * n, 0, 0) for n in range(5)])

    @pytest.mark.parametrize(
        ("reach", "pieces"), [(0.0, 4), (2.1, 4), (4.2, 3), (6.3, 2), (8.4, 1), (np.inf, 1)]
    )
    def test_atoms_that_hand_on(self, reach: float, pieces: int):
        """The center at the end hears one more atom with every hop."""
        known = Range(2.1, np.array([0]), reach=reach)
        assert len(fragments(self.CHAIN, [known])) == pieces

    def test_what_is_within_reach(self):
        known = Range(2.1, np.array([0]), reach=4.2)
        pairs = pairs_within_reach(self.CHAIN, [known])
        assert set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == {
            (0, 1),
            (0, 2),
        }

    @pytest.mark.parametrize(("pbc", "n_images"), [(False, 0), ((True, False, True), 2)])
    def test_without_an_end_everything_is_within_reach(self, pbc, n_images: int):
        """Through the boundaries, too."""
        chain = Atoms("H5", self.CHAIN.positions, cell=[9.0, 9.0, 9.0], pbc=pbc)
        pairs = pairs_within_reach(chain, [Range(2.1, np.array([0]), reach=np.inf)])
        edges = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(5, 5))
        assert connected_components(edges)[0] == 1
        assert np.linalg.matrix_rank(pairs.shift) == n_images

    def test_reach_is_the_cutoff_unless_told(self):
        atoms = molecule("H2O")
        soap = SOAP(["H", "O"], 3.0, 2, 2)
        found = soap.jacobian(atoms)
        assert found.reach == found.ranges[0].reach == reach_of(soap) == 3.0
        assert replace(found, reach=7).ranges[0].reach == 7.0
        assert reach_of(descriptor()) == 6.0
        stream = StreamedJacobian(
            found.of_rows, (0, 3), n_atoms=3, cutoff=3.0, center_atoms=np.arange(3), reach=6.0
        )
        assert stream.ranges[0].reach == 6.0

    @pytest.mark.parametrize("bad", [-1.0, np.nan, "6"])
    def test_no_reach(self, bad):
        atoms = molecule("H2O")
        with pytest.raises(ValueError, match="`reach` is"):
            replace(SOAP(["H", "O"], 3.0, 2, 2).jacobian(atoms), reach=bad)

    def test_reach_below_the_cutoff(self):
        with pytest.raises(ValueError, match=r"`reach` is 2.* no less than `cutoff`"):
            descriptor(reach=2.0)


@pytest.mark.parametrize(("reach", "same"), [(3.0, True), (6.0, False)])
def test_pairs_look_as_far_as_the_reach(reach: float, same: bool):
    """Helium that no feature tells of: within reach it makes two waters different."""
    one = molecule("H2O") + Atoms("He", [(0, 0, 4.5)])
    other = one.copy()
    other.positions[3, 2] += 0.8

    def one_hop_of_oxygen(atoms: Atoms) -> np.ndarray:
        return two_hops(atoms[:3])[:1]

    seen = FiniteDifferenceDescriptor(one_hop_of_oxygen, cutoff=3.0, reach=reach, centers=[0])
    found = find_pairs([one, other], seen)
    kinds = [
        len([pair for pair in pairs if pair.first.center == 0])
        for pairs in (found.duplicates, found.degenerate)
    ]
    assert kinds == ([1, 0] if same else [0, 1])
