"""One contract for every descriptor, under every kind of boundary condition."""

from __future__ import annotations

import pickle
from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import (
    SOAP,
    CostWarning,
    FeatureJacobian,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    StreamedJacobian,
    analyze,
)
from ase_sensitivity.testing import check_descriptor
from tests.structures import BOUNDARIES, isolated, periodic, rattled

SPECIES = ["C", "H", "O"]
SOAP_STRING = "soap cutoff=3.2 n_max=3 l_max=2 atom_sigma=0.5"
TURBO = (
    "soap_turbo l_max=3 rcut_hard=3.2 rcut_soft=2.7 basis=poly3gauss scaling_mode=polynomial "
    "radial_enhancement=1 alpha_max={3 3 3} atom_sigma_r={0.5 0.5 0.5} atom_sigma_t={0.5 0.5 0.5} "
    "atom_sigma_r_scaling={0.1 0.1 0.1} atom_sigma_t_scaling={0.1 0.1 0.1} "
    "amplitude_scaling={1.0 1.0 1.0} central_weight={1.0 1.0 1.0} central_index=2 "
    "n_species=3 species_Z={6 1 8}"
)
WITH_SPECIES = {
    "soap": SOAP_STRING,
    "soap normalise": SOAP_STRING + " normalise=F central_weight=0.3",
    "soap average": SOAP_STRING + " average=T",
    "soap nu_R": SOAP_STRING + " nu_R=1 nu_S=2",
    "soap nu_S": SOAP_STRING + " nu_R=2 nu_S=0",
    "soap nu": SOAP_STRING + " nu_R=0 nu_S=0",
    "soap Z_mix": SOAP_STRING + " Z_mix=T K=2",
    "soap R_mix": SOAP_STRING + " R_mix=T K=2",
    "soap coupling": SOAP_STRING + " coupling=F",
    "soap diagonal_radial": SOAP_STRING + " diagonal_radial=T",
    "soap centers": "soap cutoff=3.2 n_max=3 l_max=2 atom_sigma=0.5 n_Z=1 Z=1",
}
AS_THEY_ARE = {
    "soap_turbo": TURBO,
    "bispectrum_so3": "bispectrum_so3 cutoff=3.2 n_max=3 l_max=2",
    "bispectrum_so4": "bispectrum_so4 cutoff=3.2 j_max=2",
    "power_so3": "power_so3 cutoff=3.2 n_max=3 l_max=3",
    "power_so4": "power_so4 cutoff=3.2 j_max=3",
    "behler": "behler",
    "cosnx": "cosnx cutoff=3.2 n_max=3 l_max=3",
    "rdf": "rdf cutoff=3.2 n_gauss=6 w_gauss=0.6",
    "coordination": "coordination cutoff=3.2 transition_width=1.5",
    "distance_2b": "distance_2b cutoff=3.2",
    "distance_2b species": "distance_2b cutoff=3.2 Z1=6 Z2=1",
    "distance_2b exponents": "distance_2b cutoff=3.2 n_exponents=2 exponents={-2 -4}",
    "angle_3b": "angle_3b cutoff=2.6 Z=6 Z1=1 Z2=1",
}
ALL = [(name, SPECIES) for name in WITH_SPECIES] + [(name, None) for name in AS_THEY_ARE]


def quip(name: str, species: list[str] | None) -> QUIPDescriptor:
    return QUIPDescriptor((WITH_SPECIES | AS_THEY_ARE)[name], species=species, native=False)


OURS = {
    "SOAP": SOAP(SPECIES, 3.2, 3, 2),
    "SOAP as it is": SOAP(SPECIES, 3.2, 3, 2, normalise=False, central_weight=0.3),
    "SOAP gto": SOAP(SPECIES, 3.2, 3, 2, radial_basis="gto"),
    "SOAP nu = 1": SOAP(SPECIES, 3.2, 3, 2, body_order=2),
    "SOAP nu = 3": SOAP(SPECIES, 3.2, 2, 2, body_order=4),
    "SOAP centers": SOAP(SPECIES, 3.2, 3, 2, centers=["H"]),
}


def contracts():
    for (name, species), boundary in product(ALL, BOUNDARIES):
        many = name == "behler" and boundary in ("periodic", "outside")  # neighbors within 6 Å
        marks = [pytest.mark.slow] if many else []
        yield pytest.param(name, species, boundary, id=f"{name}-{boundary}", marks=marks)


@pytest.mark.parametrize(("name", "species", "boundary"), list(contracts()))
def test_contract(name, species, boundary):
    check_descriptor(quip(name, species), BOUNDARIES[boundary]())


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("name", OURS)
def test_contract_of_ours(name, boundary):
    check_descriptor(OURS[name], BOUNDARIES[boundary]())


def gaussians(atoms: Atoms) -> np.ndarray:
    d = atoms.get_all_distances() + 10 * np.eye(len(atoms))
    return np.stack([np.exp(-((d - r) ** 2)).sum(axis=1) for r in (1.0, 1.5, 2.0)], axis=1)


def test_contract_of_concatenation():
    both = QUIPDescriptor([AS_THEY_ARE["power_so3"], AS_THEY_ARE["distance_2b"], TURBO])
    check_descriptor(both, periodic())
    jacobian = both.jacobian(isolated())
    assert [part.features.shape[1] for part in jacobian.parts] == [12, 1, 180]
    assert both.body_order == 3
    assert both.cutoff == pytest.approx(3.2)


def test_contract_of_two_of_ours():
    strings = [SOAP_STRING, WITH_SPECIES["soap centers"]]
    check_descriptor(QUIPDescriptor(strings, species=SPECIES), periodic())
    both = QUIPDescriptor([*strings, AS_THEY_ARE["distance_2b"]], species=SPECIES)
    modes = np.zeros((1, len(periodic()), 3))
    assert both.squared_jvp_gradient(periodic(), modes, 1e-4) is None


def test_contract_of_a_function():
    check_descriptor(FiniteDifferenceDescriptor(gaussians), isolated())


class TestContractFindsBrokenDescriptors:
    """The contract is worth something only if it fails where it should."""

    class Broken(QUIPDescriptor):
        def __init__(self, change):
            super().__init__(SOAP_STRING, species=SPECIES)
            self.change = change

        def jacobian(self, atoms):
            jacobian = super().jacobian(atoms)
            fields = {
                name: getattr(jacobian, name).copy()
                for name in ("features", "centers", "row", "atom", "displacement", "blocks")
            }
            self.change(fields, atoms)
            return FeatureJacobian(**fields, n_atoms=len(atoms), cutoff=jacobian.cutoff)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f, a: f["features"].__imul__(1 + 1e-6), "different features"),
            (lambda f, a: f["blocks"][3].__imul__(1 + 1e-5), "sum to zero"),
            (lambda f, a: f["blocks"].__imul__(1 + 1e-4), "the derivative along"),
            (lambda f, a: f["blocks"].__imul__(0.0), "zero"),
            (lambda f, a: f["displacement"].__iadd__(0.01), "does not lead"),
        ],
    )
    def test_is_found(self, change, message):
        with pytest.raises(AssertionError, match=message):
            check_descriptor(self.Broken(change), isolated())

    def test_orientation_dependence(self):
        def oriented(atoms):
            return np.abs(atoms.positions - atoms.positions.mean(axis=0)) ** 2

        with pytest.raises(AssertionError, match="not invariant under rotation"):
            check_descriptor(FiniteDifferenceDescriptor(oriented), isolated())

    def test_merged_images(self):
        def merge(fields, atoms):
            fields["displacement"][:] = (
                atoms.positions[fields["atom"]] - atoms.positions[fields["centers"][fields["row"]]]
            )

        with pytest.raises(AssertionError, match="images"):
            check_descriptor(self.Broken(merge), periodic())


class TestQUIP:
    def test_features_are_those_of_quippy(self):
        from quippy.descriptors import Descriptor

        mine = QUIPDescriptor(SOAP_STRING, species=SPECIES, native=False)
        expected = Descriptor(mine.specification[0]).calc(isolated())["data"]
        np.testing.assert_allclose(mine.features(isolated()), expected, rtol=0, atol=1e-14)

    def test_species_fill_what_is_missing_only(self):
        assert QUIPDescriptor(SOAP_STRING, species=["C", "H"]).specification == (
            SOAP_STRING + " n_species=2 species_Z={6 1} n_Z=2 Z={6 1}",
        )
        given = QUIPDescriptor(WITH_SPECIES["soap centers"], species=["C", "H"])
        assert given.specification == (
            WITH_SPECIES["soap centers"] + " n_species=2 species_Z={6 1}",
        )
        assert given.species == ("C", "H")
        assert set(given.jacobian(isolated()).centers) == {2, 3, 4, 5} - {1}

    def test_species_of_several_strings(self):
        both = QUIPDescriptor([SOAP_STRING, "distance_2b cutoff=3 Z1=6 Z2=1"], species=SPECIES)
        assert both.specification[1] == "distance_2b cutoff=3 Z1=6 Z2=1"
        symbols = isolated().get_chemical_symbols()
        repeated = QUIPDescriptor(SOAP_STRING, species=np.array(symbols))
        assert repeated.species == ("C", "O", "H")

    @pytest.mark.parametrize("name", ["power_so3", "power_so4", "bispectrum_so3", "bispectrum_so4"])
    def test_species_with_equal_weights(self, name):
        """As without species: all are seen, none is told from another."""
        plain = QUIPDescriptor(AS_THEY_ARE[name])
        given = QUIPDescriptor(AS_THEY_ARE[name], species=SPECIES)
        np.testing.assert_allclose(
            given.features(isolated()), plain.features(isolated()), rtol=1e-9, atol=1e-12
        )

    def test_atoms_that_are_not_told_apart_have_no_blocks(self):
        only_h = QUIPDescriptor(SOAP_STRING + " n_Z=1 Z=6 n_species=1 species_Z=1")
        jacobian = only_h.jacobian(isolated())
        assert list(jacobian.centers) == [0]
        assert set(jacobian.atom) == {0, 2, 3, 4, 5}

    def test_plain_soaps_are_left_to_our_kernel(self):
        """The same features and derivatives, with no action of the user."""
        native = QUIPDescriptor(SOAP_STRING, species=SPECIES).jacobian(periodic())
        quips = QUIPDescriptor(SOAP_STRING, species=SPECIES, native=False).jacobian(periodic())
        assert native.blocks.flags.c_contiguous
        assert not np.array_equal(native.blocks, quips.blocks)
        np.testing.assert_allclose(native.features, quips.features, rtol=0, atol=1e-12)
        J, K = (j.dense(j.atom, 2) for j in (native, quips))
        np.testing.assert_allclose(J, K, rtol=0, atol=1e-9 * np.abs(K).max())

    def test_options_that_ours_lacks_go_to_quip(self):
        compressed = QUIPDescriptor(SOAP_STRING + " nu_R=1 nu_S=1", species=SPECIES)
        assert compressed.features(isolated()).shape == (6, 28)

    @pytest.mark.parametrize("name", ["soap", "soap average", "distance_2b"])
    def test_pickle(self, name):
        descriptor = quip(name, SPECIES if name in WITH_SPECIES else None)
        again = pickle.loads(pickle.dumps(descriptor))
        np.testing.assert_array_equal(again.features(isolated()), descriptor.features(isolated()))

    def test_nothing_is_printed(self, capfd):
        QUIPDescriptor("bispectrum_so3 cutoff=3 n_max=3 l_max=3").features(isolated())
        with pytest.raises(ValueError, match="QUIP does not accept"):
            QUIPDescriptor(
                "soap cutoff=3 n_max=60 l_max=2 atom_sigma=0.5", species=["H"], native=False
            )
        assert capfd.readouterr() == ("", "")

    def test_no_center_in_the_structure(self):
        descriptor = QUIPDescriptor(SOAP_STRING, species=["Si"])
        assert descriptor.features(isolated()).shape == (0, 19)
        with pytest.raises(ValueError, match="no atom of CH4O is a center"):
            analyze(isolated(), descriptor)

    def test_touches_neither_atoms_nor_calculator(self):
        atoms = periodic()
        before = atoms.copy()
        QUIPDescriptor(SOAP_STRING, species=SPECIES).jacobian(atoms)
        assert atoms == before
        assert set(atoms.arrays) == set(before.arrays)


class TestStream:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_pieces_make_the_whole(self, monkeypatch, threads):
        """Whatever the size of the pieces, the same singular values in every scope."""
        atoms = rattled(bulk("Si", cubic=True) * 2, 0.1)
        soap = SOAP(["Si"], 4.0, 4, 3, threads=threads)
        whole = [
            analyze(atoms, soap, scope=scope) for scope in ("structure", "environment", "atom")
        ]
        assert len(list(soap.stream(atoms).parts)) == 1
        for limit in ("KEPT", "CHUNK", "CACHED"):
            monkeypatch.setattr(f"ase_sensitivity.descriptors.soap.soap.{limit}", 2**17)
        stream = soap.stream(atoms)
        assert isinstance(stream, StreamedJacobian)
        parts = list(stream.parts)
        assert len(parts) > 5
        assert np.concatenate([part.centers for part in parts]).tolist() == list(range(64))
        for expected in whole:
            found = analyze(atoms, soap, scope=expected.scope)
            np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=1e-9)
            assert found.center == expected.center

    def test_null_count_of_a_stream(self, monkeypatch):
        monkeypatch.setattr("ase_sensitivity.descriptors.soap.soap.KEPT", 2**18)
        silicon, soap = bulk("Si", cubic=True) * 2, SOAP(["Si"], 5.0, 8, 6, threads=1)
        assert isinstance(soap.stream(silicon), StreamedJacobian)
        assert analyze(silicon, soap).n_null == 103


class TestFiniteDifference:
    def test_equals_analytic(self):
        soap = QUIPDescriptor(SOAP_STRING, species=SPECIES)
        analytic = analyze(isolated(), soap, k=None)
        numeric = analyze(isolated(), FiniteDifferenceDescriptor(soap.features, cutoff=3.2), k=None)
        np.testing.assert_allclose(
            numeric.singular_values, analytic.singular_values, atol=1e-9 * analytic.sigma_max
        )
        assert numeric.n_trivial == 6
        assert analytic.singular_values[0] > 1e-4 * analytic.sigma_max

    def test_counts_nulls_of_a_symmetric_molecule(self):
        soap = QUIPDescriptor("soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5", species=["C", "H"])
        found = analyze(molecule("CH4"), FiniteDifferenceDescriptor(soap.features))
        assert (found.n_trivial, found.n_null) == (6, 2)

    def test_a_function_that_moves_atoms_moves_a_copy(self):
        def moves(atoms):
            atoms.positions += 1.0
            return gaussians(atoms)

        atoms = isolated()
        FiniteDifferenceDescriptor(moves).jacobian(atoms)
        assert atoms == isolated()

    def test_warns_about_cost(self):
        chain = Atoms("H33", np.random.default_rng(0).normal(size=(33, 3)) * 4)
        with pytest.warns(CostWarning, match="slow for many atoms"):
            FiniteDifferenceDescriptor(gaussians).jacobian(chain)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda atoms: np.zeros(3), r"shape \(3,\).*vector\[None, :\]"),
            (lambda atoms: None, "returned None"),
            (lambda atoms: np.full((6, 2), np.nan), "not finite"),
            (lambda atoms: np.zeros((4, 2)), "`centers`"),
        ],
    )
    def test_bad_functions(self, function, message):
        with pytest.raises(ValueError, match=message):
            FiniteDifferenceDescriptor(function).jacobian(isolated())

    def test_environment_scope_of_merged_images_is_refused(self):
        with pytest.raises(ValueError, match="images kept apart"):
            analyze(periodic(), FiniteDifferenceDescriptor(gaussians), scope="environment")
