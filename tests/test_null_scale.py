"""What singular values are compared with, where the largest of them is no measure."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.spatial.transform import Rotation

from ase_sensitivity import (
    SOAP,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    analyze,
    nearest_singular,
    scan,
    singularity_distance,
)
from tests.structures import TD, rattled

PHOSPHORUS = Atoms("P4", 1.2 * TD)

CRYSTALS = {
    "fcc": bulk("Cu", cubic=True),
    "bcc": bulk("Fe", cubic=True),
    "rocksalt": bulk("NaCl", "rocksalt", a=5.6, cubic=True),
    "cesiumchloride": bulk("CsCl", "cesiumchloride", a=4.1),
}
"""Every atom is a center of inversion: the whole Jacobian of the structure vanishes."""


def soap_of(atoms: Atoms, n_max: int = 6, l_max: int = 4) -> SOAP:
    return SOAP(sorted(set(atoms.get_chemical_symbols())), 5.0, n_max, l_max)


def rotated(atoms: Atoms, seed: int) -> Atoms:
    """The crystal in another orientation: none of its coordinates is a round number."""
    atoms = atoms.copy()
    rotation = Rotation.random(random_state=seed).as_matrix()
    atoms.set_cell(atoms.cell.array @ rotation.T, scale_atoms=True)
    return atoms


class TestConstantFeatures:
    """One normalised feature is 1: its derivatives are rounding, and nothing can be seen."""

    @pytest.mark.parametrize("sigma", [0.05, 0.2, 0.5, 1.0])
    @pytest.mark.parametrize(
        "atoms",
        [rattled(bulk("Si", cubic=True), 0.1), rattled(PHOSPHORUS, 0.1)],
        ids=["silicon", "P4"],
    )
    def test_everything_is_null(self, atoms, sigma):
        species = sorted(set(atoms.get_chemical_symbols()))
        kernel = SOAP(species, 5.0, n_max=1, l_max=0, atom_sigma=sigma)
        quip = QUIPDescriptor(
            f"soap cutoff=5 n_max=1 l_max=0 atom_sigma={sigma} normalise=T", species=species
        )
        for descriptor in (kernel, quip):
            found = analyze(atoms, descriptor, k=None, causes=True)
            assert found.n_null == len(found.singular_values) == 3 * len(atoms) - found.n_trivial
            assert found.ratio == 0
            assert (found.singular_values == 0).all()
            assert "nothing is seen" in str(found)

    def test_by_finite_differences(self):
        atoms = rattled(PHOSPHORUS, 0.1)
        soap = SOAP(["P"], 5.0, n_max=1, l_max=0)
        found = analyze(atoms, FiniteDifferenceDescriptor(soap.features, cutoff=5.0), k=None)
        assert found.n_null == 6

    def test_no_force_is_within_reach(self):
        atoms = rattled(bulk("Si", cubic=True), 0.1)
        forces = np.random.default_rng(0).normal(size=(8, 3))
        forces -= forces.mean(axis=0)
        atoms.arrays["F"] = forces
        row = scan([atoms], SOAP(["Si"], 5.0, n_max=1, l_max=0), forces_key="F").rows[0]
        rms = np.sqrt((forces**2).mean())
        assert row["irreducible_force_error"] == pytest.approx(rms, rel=1e-12)
        assert row["required_slope"] == 0


class TestCentersOfInversion:
    @pytest.mark.parametrize("name", CRYSTALS)
    @pytest.mark.parametrize("digits", [4, 5, 6, 9, None])
    def test_printed_coordinates(self, name, digits):
        """Errors of the coordinates below the tolerance are no force that could be learned."""
        for seed in range(3):
            atoms = rotated(CRYSTALS[name], seed)
            tolerance = 1e-5
            if digits is not None:
                atoms.positions = atoms.positions.round(digits)
                tolerance = max(tolerance, 2 * 10.0**-digits)
            found = analyze(atoms, soap_of(atoms), k=None, causes=True, tolerance=tolerance)
            n_values = 3 * len(atoms) - 3
            assert found.counts["symmetry"] == n_values == found.n_null + found.n_near_null
            assert found.ratio < 1e-2
            # What is typical of the environments, not what is left of them.
            assert 0.01 < found.scale < 0.3
            assert analyze(atoms, soap_of(atoms), k=1).ratio == pytest.approx(
                found.ratio, rel=1e-3, abs=1e-10
            )

    def test_a_triclinic_cell_with_five_decimals(self):
        cell = [[3.1557, 0.5997, -0.702], [-0.7582, 2.7799, -0.1623], [0.0868, 0.6489, 3.6035]]
        half = 0.5 * np.sum(cell, axis=0) + [2.7e-6, -3.8e-6, 5e-6]
        atoms = Atoms("Cu2", [(0, 0, 0), half], cell=cell, pbc=True)
        soap = SOAP(["Cu"], 4.0, 4, 3)
        found = analyze(atoms, soap, causes=True)
        assert (found.n_null, found.n_near_null, found.counts["symmetry"]) == (0, 3, 3)
        assert found.ratio < 1e-4
        assert "sigma_min / scale = 5" in str(found)
        assert scan([atoms], soap).rows[0]["cause"] == "symmetry"

    @pytest.mark.parametrize("name", CRYSTALS)
    def test_moved_by_a_billionth(self, name):
        atoms = CRYSTALS[name].copy()
        atoms.positions[0] += (1e-9, 2e-9, -1e-9)
        found = analyze(atoms, soap_of(atoms), causes=True)
        assert found.counts["symmetry"] == 3 * len(atoms) - 3

    @pytest.mark.parametrize("name", CRYSTALS)
    @pytest.mark.parametrize("scope", ["structure", "atom"])
    def test_the_nearest_singular_configuration_is_where_it_is(self, name, scope):
        atoms = CRYSTALS[name]
        found = nearest_singular(atoms, soap_of(atoms), scope=scope)
        assert found.found
        assert (found.cause, found.distance, found.ratio) == ("symmetry", 0.0, 0.0)
        assert singularity_distance(atoms, soap_of(atoms), scope=scope) == 0

    def test_one_atom_against_images_that_cancel(self):
        atoms = CRYSTALS["fcc"]
        assert analyze(atoms, soap_of(atoms), scope="atom").ratio == 0
        moved = atoms.copy()
        moved.positions[0] += (1e-7, 0, 0)
        assert analyze(moved, soap_of(moved), scope="atom").ratio < 1e-5

    def test_a_real_displacement_is_seen(self):
        atoms = rattled(CRYSTALS["fcc"], 0.05)
        found = analyze(atoms, soap_of(atoms), causes=True)
        assert found.n_null == found.n_near_null == 0
        assert found.ratio > 1e-3


@pytest.mark.parametrize(
    "atoms",
    [rattled(molecule("CH3CH2OH")), rattled(bulk("Si", cubic=True), 0.1), bulk("Si") * 2],
    ids=["ethanol", "silicon", "diamond"],
)
def test_the_scale_is_the_largest_value_where_nothing_cancels(atoms):
    for scope in ("structure", "environment"):
        found = analyze(atoms, soap_of(atoms), scope=scope, center=None, k=None)
        assert found.scale == found.sigma_max == found.singular_values[-1]


def test_modes_are_orthonormal_among_vanishing_values():
    """Features of one narrow Gaussian at the center hardly depend on the neighbors."""
    for seed in range(5):
        atoms = rattled(bulk("Si", cubic=True), 0.1, seed)
        for sigma in (0.15, 0.2, 0.25, 0.3, 0.4):
            for l_max in (2, 6):
                soap = SOAP(["Si"], 4.0, 1, l_max, atom_sigma=sigma)
                found = analyze(atoms, soap, k=None)
                modes = found.modes.reshape(len(found.modes), -1)
                np.testing.assert_allclose(modes @ modes.T, np.eye(len(modes)), atol=1e-10)
