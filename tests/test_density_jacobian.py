"""Products of SOAP's Jacobian from density coefficients are those of its blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from ase_sensitivity import SOAP, FeatureJacobian, analyze
from ase_sensitivity.descriptors.soap import density_jacobian, power_spectrum, tiles
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.density_jacobian import DensityJacobian
from ase_sensitivity.descriptors.soap.environments import Environments
from ase_sensitivity.descriptors.soap.local_gram import local_grams
from ase_sensitivity.jacobian.contract import BlockJacobian
from ase_sensitivity.spectrum.banded import BandedGram
from ase_sensitivity.spectrum.scopes import structure_view
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled


def alloy(n_species: int) -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.symbols = [("Cu", "Ni", "Al", "Ti", "Zn")[n % n_species] for n in range(len(atoms))]
    return rattled(atoms, 0.1, n_species)


def slab() -> Atoms:
    return rattled(fcc111("Al", (2, 2, 3), vacuum=5.0), 0.1, 0)


def lonely() -> Atoms:
    """A water molecule, and an atom that nobody sees."""
    return rattled(molecule("H2O"), 0.1, 0) + Atoms("O", [(20.0, 0, 0)])


def along_z() -> Atoms:
    """Bonds along both directions of every axis: a frame is needed for each."""
    vectors = np.concatenate([np.eye(3), -np.eye(3)]) * np.linspace(1.0, 1.6, 6)[:, None]
    return Atoms("CH6", [(0, 0, 0), *vectors])


STRUCTURES: dict[str, Callable[[], Atoms]] = {
    **{f"{n} species": lambda n=n: alloy(n) for n in range(1, 6)},  # type: ignore[misc]
    "self-images": lambda: rattled(bulk("NaCl", "rocksalt", a=5.0), 0.2, 0),
    "slab": slab,
    "lonely": lonely,
    "axes": along_z,
    "ethanol": lambda: rattled(molecule("CH3CH2OH"), 0.1, 0),
}


def soap_for(atoms: Atoms, cutoff: float = 4.0, n_max: int = 4, l_max: int = 3, **how: Any) -> SOAP:
    return SOAP(sorted(set(atoms.symbols)), cutoff, n_max, l_max, **how)


def without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes less time, and however much cancels."""
    monkeypatch.setattr(DensityJacobian, "_blocks_are_faster", False)
    monkeypatch.setattr(density_jacobian, "LOST", np.inf)


def assert_same_products(found: BlockJacobian, expected: FeatureJacobian) -> None:
    n, rng = found.n_atoms, np.random.default_rng(0)
    v, w = rng.normal(size=(3, n, 3)), rng.normal(size=(2, expected.features.size))
    changes, forces, gram = expected.apply(v), expected.adjoint(w), expected.gram()
    size = np.abs(expected.blocks).max(initial=1e-300)
    np.testing.assert_allclose(found.features, expected.features, rtol=0, atol=0)
    np.testing.assert_allclose(found.apply(v), changes, atol=1e-13 * size)
    np.testing.assert_allclose(found.adjoint(w), forces, atol=1e-12 * size)
    np.testing.assert_allclose(found.gram(), gram, atol=1e-14 * len(expected.row) * size**2)
    np.testing.assert_array_equal(found.gram(), found.gram().T)
    some = np.array([n - 1, 0])
    np.testing.assert_allclose(
        found.gram(some), expected.gram(some), atol=1e-14 * len(expected.row) * size**2
    )


class TestProducts:
    @pytest.mark.parametrize("radial_basis", ["quip", "gto", "dscribe"])
    @pytest.mark.parametrize("normalise", [True, False])
    @pytest.mark.parametrize("name", STRUCTURES)
    def test_are_those_of_the_blocks(self, name, normalise, radial_basis, monkeypatch):
        without_blocks(monkeypatch)
        atoms = STRUCTURES[name]()
        soap = soap_for(atoms, normalise=normalise, radial_basis=radial_basis)
        assert_same_products(soap.stream(atoms), soap.jacobian(atoms))

    @pytest.mark.parametrize(
        "how",
        [
            {"l_max": 0},
            {"n_max": 1},
            {"n_max": 1, "l_max": 0},
            {"n_max": 3, "l_max": 9},
            {"central_weight": 0.0},
            {"central_reference_all_species": True},
            {"smooth_cutoff": True},
            {"cutoff_transition_width": 0.0},
            {"centers": ["C"]},
            {"centers": ["He", "H"]},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("normalise", [True, False])
    def test_whatever_the_basis(self, how, normalise, monkeypatch):
        without_blocks(monkeypatch)
        atoms = STRUCTURES["ethanol"]()
        soap = soap_for(atoms, normalise=normalise, **how)
        assert_same_products(soap.stream(atoms), soap.jacobian(atoms))

    @pytest.mark.parametrize("species", [["H"], ["O", "Xe", "H"]])
    def test_species_that_are_not_seen_or_not_there(self, species, monkeypatch):
        without_blocks(monkeypatch)
        atoms = STRUCTURES["ethanol"]()
        soap = SOAP(species, 3.0, 3, 2, centers=["C", "H"])
        assert_same_products(soap.stream(atoms), soap.jacobian(atoms))

    def test_no_center(self):
        jacobian = SOAP(["He"], 4.0, 2, 2).stream(molecule("H2O"))
        assert jacobian.apply(np.ones((2, 3, 3))).shape == (2, 0)
        assert not jacobian.adjoint(np.empty((1, 0))).any()
        assert not jacobian.gram().any()

    def test_contract(self):
        class Streamed(SOAP):
            def jacobian(self, atoms):
                return self.stream(atoms)

            stream = SOAP.stream

        atoms = rattled(molecule("CH3OH"), 0.1, 0)
        atoms.set_cell([5.0, 5.1, 5.2])
        atoms.pbc = True
        check_descriptor(Streamed(["C", "H", "O"], 3.2, 3, 2), atoms)

    @pytest.mark.parametrize("wrong", [np.zeros((1, 5)), np.zeros(3)])
    def test_other_numbers_of_weights_are_refused(self, wrong):
        atoms = molecule("H2O")
        with pytest.raises(ValueError, match=r"`weights` has shape .* but must be \(any, "):
            soap_for(atoms).stream(atoms).adjoint(wrong)


class TestScale:
    @pytest.mark.parametrize("name", ["self-images", "slab", "ethanol"])
    @pytest.mark.parametrize("normalise", [True, False])
    def test_sums_are_those_of_the_blocks(self, name, normalise, monkeypatch):
        """Before images are summed; for fixed atoms as well."""
        without_blocks(monkeypatch)
        atoms = STRUCTURES[name]()
        soap = soap_for(atoms, normalise=normalise)
        for fixed in ([], [0], list(range(len(atoms) - 1))):
            found = structure_view(soap.stream(atoms), atoms, np.array(fixed, dtype=int)).gram()
            view = structure_view(soap.jacobian(atoms), atoms, np.array(fixed, dtype=int))
            expected = view.gram()
            assert found.scale == pytest.approx(expected.scale, rel=1e-12)
            assert found.rounding == pytest.approx(expected.rounding, rel=1e-12)
            size = np.abs(view.jacobian.gram()).max()
            np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-12 * size)

    @pytest.mark.parametrize(
        ("atoms", "how", "blocks"),
        [
            (bulk("Cu", cubic=True), {}, 1),  # the derivatives by images cancel
            (molecule("CH4"), {"n_max": 1, "l_max": 0, "species": ["H"]}, 1),  # a norm that is one
            (rattled(molecule("CH4"), 0.1, 0), {}, 0),
            (rattled(bulk("Si"), 0.1, 0), {"cutoff": 9.0}, 1),  # many images of few atoms
        ],
    )
    def test_blocks_where_they_are_needed(self, atoms, how, blocks, monkeypatch):
        calls = []
        original = SOAP._calculate

        def counted(soap, environments, gradients):
            calls.append(gradients)
            return original(soap, environments, gradients)

        monkeypatch.setattr(SOAP, "_calculate", counted)
        arguments = {"species": sorted(set(atoms.symbols)), "cutoff": 4.0, "n_max": 4, "l_max": 3}
        SOAP(**(arguments | how)).stream(atoms).gram()
        assert calls == [True] * blocks


def test_band_of_a_long_structure(monkeypatch):
    """With centers that have no coordinates of their own, and images of one atom."""
    without_blocks(monkeypatch)
    tube = rattled(bulk("Si", cubic=True).repeat((1, 1, 44)), 0.05)
    soap, fixed = SOAP(["Si"], 5.0, 2, 1), np.arange(5, 60, 3)
    banded = BandedGram.of(structure_view(soap.stream(tube), tube, fixed))
    expected = structure_view(soap.jacobian(tube), tube, fixed).gram()
    assert banded is not None
    matrix = expected.matrix[np.ix_(banded.order, banded.order)]
    x = np.random.default_rng(0).normal(size=(len(matrix), 2))
    np.testing.assert_allclose(banded.times(x), matrix @ x, atol=1e-12 * np.abs(matrix).max())
    assert (banded.scale, banded.rounding) == pytest.approx((expected.scale, expected.rounding))


class TestThreads:
    @pytest.mark.parametrize("chunk", [2**14, 2**24])
    def test_same_bits_for_any_number(self, chunk, monkeypatch):
        monkeypatch.setattr(power_spectrum, "WORTHWHILE", 10)
        monkeypatch.setattr(density_jacobian, "CHUNK", chunk)
        monkeypatch.setattr(density_jacobian, "CACHED", chunk)
        atoms = alloy(3)
        v = np.random.default_rng(0).normal(size=(2, len(atoms), 3))
        grams, changes, forces = [], [], []
        for threads in (1, 2, 5):
            jacobian = soap_for(atoms, threads=threads).stream(atoms)
            grams.append(jacobian.gram())
            changes.append(jacobian.apply(v))
            forces.append(jacobian.adjoint(changes[-1]))
        for found in (grams, changes, forces):
            np.testing.assert_array_equal(found[0], found[1])
            np.testing.assert_array_equal(found[0], found[2])

    def test_same_bits_in_pieces(self, monkeypatch):
        atoms = alloy(2)
        jacobian = soap_for(atoms, threads=1).stream(atoms)
        whole = jacobian.gram()
        monkeypatch.setattr(density_jacobian, "CACHED", 1)
        np.testing.assert_array_equal(jacobian.gram(), whole)


@pytest.mark.parametrize(
    ("atoms", "n_null"),
    [
        (molecule("CH4"), 2),
        (molecule("C6H6"), 9),
        (bulk("Si", cubic=True), 15),
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True), 21),
    ],
    ids=["CH4", "C6H6", "Si8", "rock salt"],
)
def test_true_zeros_are_counted(atoms, n_null):
    found = analyze(atoms, soap_for(atoms, 4.0, 8, 6), k=None)
    assert found.n_null == n_null
    expected = analyze(atoms, FromBlocks(soap_for(atoms, 4.0, 8, 6)), k=None)
    assert expected.n_null == n_null
    np.testing.assert_allclose(
        found.singular_values, expected.singular_values, atol=1e-12 * found.scale
    )


class FromBlocks:
    """SOAP without its other ways to products."""

    def __init__(self, soap: SOAP) -> None:
        self.species, self.cutoff, self.body_order = soap.species, soap.cutoff, soap.body_order
        self.features, self.jacobian = soap.features, soap.jacobian


def within_guards(scratch: Any, memories: list[np.ndarray]) -> Any:
    """The same arrays in the middle of memory that must not change."""
    if isinstance(scratch, tuple):
        return tuple(within_guards(part, memories) for part in scratch)
    memories.append(np.full(scratch.size + 80, 7, dtype=scratch.dtype))
    own = memories[-1][40:-40].reshape(scratch.shape)
    own[...] = 0
    return own


@pytest.mark.parametrize("n_species", [1, 2])
@pytest.mark.parametrize("n_max", [1, 2, 3])
def test_kernel_stays_within_its_arrays(n_species, n_max):
    """It reads and writes four numbers at a time, and two m."""
    atoms, species = molecule("CH4"), ["H", "C"][:n_species]
    around = Environments.of(atoms, 3.0, species, ["C", "H"])
    n_rows, width = len(around.centers), 8 if n_species == 2 else 4
    for l_max in range(9):
        basis = Basis.build("quip", n_species, 3.0, 0.5, n_max, l_max, 0.5, 1.0)
        memories: list[np.ndarray] = []
        found = (
            np.empty((n_rows, 9 * (width + 1) * (width + 4))),
            np.empty((n_rows, width), dtype=np.intp),
            np.empty((n_rows, width + 1)),
            np.empty(n_rows),
        )
        local_grams(
            np.arange(n_rows),
            around.starts,
            around.vectors,
            around.species,
            around.center_species,
            basis.central,
            basis.arguments(),
            tiles.positions(l_max),
            True,
            within_guards(tiles.scratch(basis, width), memories),
            *within_guards(found, memories),
        )
        for memory in memories:
            assert (memory[:40] == 7).all()
            assert (memory[-40:] == 7).all()
            assert np.isfinite(memory).all()
