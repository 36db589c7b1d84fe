"""What a GAP file says beside its strings: versions, arrays of atoms, descriptors we lack."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import DescriptorWarning, QUIPDescriptor, analyze
from ase_sensitivity.testing import check_descriptor
from tests.structures import BOUNDARIES, fit_gap, isolated, rattled

KERNEL = "covariance_type=ard_se delta=1 theta_uniform=1.0 sparse_method=uniform n_sparse=5"
SOAP = "soap cutoff=3.0 n_max=2 l_max=1 atom_sigma=0.5 n_species=2 species_Z={6 1} Z=6"
DOT = "covariance_type=dot_product zeta=2 delta=1 n_sparse=3 sparse_method=cur_points"
TURBO = (
    "soap_turbo l_max=1 rcut_hard=3.2 rcut_soft=2.7 basis=poly3gauss scaling_mode=polynomial "
    "alpha_max={{1 1}} atom_sigma_r={{0.5 0.5}} atom_sigma_t={{0.5 0.5}} "
    "atom_sigma_r_scaling={{0.1 0.1}} atom_sigma_t_scaling={{0.1 0.1}} "
    "amplitude_scaling={{1.0 1.0}} central_weight={{1.0 1.0}} central_index=1 n_species=2 "
    "species_Z={{6 1}}"
)
SLOW = pytest.mark.slow

FITTED = {
    "pairs": f"distance_2b cutoff=3.0 Z1=6 Z2=1 {KERNEL} add_species=F",
    "triplets": f"angle_3b cutoff=1.9 Z_center=6 Z1=8 Z2=1 {KERNEL} add_species=F",
    "pairs Nb": f"distance_Nb order=2 cutoff=3.0 Z={{{{6 1}}}} {KERNEL} add_species=F",
    "triplets Nb": f"distance_Nb order=3 cutoff=1.8 Z={{{{1 6 8}}}} {KERNEL} add_species=F",
    "soap": f"{SOAP.replace('{6 1}', '{{6 1}}')} {DOT} add_species=F",
    "turbo": f"{TURBO} {DOT} add_species=F",
}
"""GAPs of few features, so that most forces are beyond what these can make."""

OLD = ("0", "1423143768", "1426512067", "1596837813")


@pytest.fixture(scope="module")
def gap(tmp_path_factory):
    """A function that fits a GAP by QUIP's own program on a few EMT frames."""
    folder = tmp_path_factory.mktemp("gap")
    fitted: dict[str, Path] = {}

    def fit(name: str) -> Path:
        if name not in fitted:
            path = folder / f"{name.replace(' ', '_')}.xml"
            fit_gap(path, FITTED[name], "sparse_separate_file=F")
            fitted[name] = path
        return fitted[name]

    return fit


def in_a_box(atoms: Atoms) -> Atoms:
    atoms.center(vacuum=6)
    atoms.pbc = True
    return atoms


def beyond(forces: np.ndarray, descriptor: QUIPDescriptor, atoms: Atoms) -> float:
    """How much of forces no function of the features can have, relative to them."""
    parts = descriptor.jacobian(atoms).parts
    rows = np.vstack([part.dense(part.atom, len(atoms)) for part in parts])
    _, values, modes = np.linalg.svd(rows, full_matrices=False)
    modes = modes[values > 1e-9 * values[0]]
    assert len(modes) < 3 * len(atoms) - 6  # the test can fail
    left = forces.ravel() - modes.T @ (modes @ forces.ravel())
    return float(np.linalg.norm(left) / np.linalg.norm(forces))


def forces_of(path: Path, atoms: Atoms) -> np.ndarray:
    from quippy.potential import Potential

    moved = atoms.copy()
    moved.calc = Potential("IP GAP", param_filename=str(path))
    return moved.get_forces()


def aged(path: Path, version: str | None) -> Path:
    """The same file, written by another version of the program."""
    written = "" if version is None else f' gap_version="{version}"'
    older = path.with_name(f"{path.stem}_{version}.xml")
    older.write_text(re.sub(r'\s+gap_version="\d+"', written, path.read_text()))
    return older


@pytest.mark.parametrize(
    "name", [name if name == "soap" else pytest.param(name, marks=SLOW) for name in FITTED]
)
def test_forces_of_a_gap_are_within_reach_of_its_features(name, gap):
    path, atoms = gap(name), in_a_box(rattled(isolated(), 0.1, seed=7))
    assert beyond(forces_of(path, atoms), QUIPDescriptor.from_gap(path), atoms) < 1e-12


@pytest.mark.parametrize("version", [*OLD, None])
@pytest.mark.parametrize("name", ["soap", "triplets Nb"])
def test_whatever_version_wrote_it(name, version, gap):
    path, atoms = aged(gap(name), version), in_a_box(rattled(isolated(), 0.1, seed=7))
    assert beyond(forces_of(path, atoms), QUIPDescriptor.from_gap(path), atoms) < 1e-12


def test_conventions_of_a_version(tmp_path):
    """The weights (2l + 1)^(-1/2) and the center in all densities, as QUIP has them."""
    plain = f"{SOAP} normalise=F"

    def features(version: str) -> np.ndarray:
        path = tmp_path / f"{version}.xml"
        path.write_text(
            f'<a><GAP_params gap_version="{version}"><descriptor>{plain}</descriptor>'
            "</GAP_params></a>"
        )
        return QUIPDescriptor.from_gap(path).features(isolated())

    def alone(text: str) -> np.ndarray:
        return QUIPDescriptor(text, native=False).features(isolated())

    everywhere = alone(f"{plain} central_reference_all_species=T")
    np.testing.assert_allclose(features("1686220958"), alone(plain), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(features("1426512067"), everywhere, rtol=1e-12, atol=1e-15)
    older, seen = features("1423143768"), np.abs(everywhere) > 1e-12
    factors = np.resize([1.0, np.sqrt(3)], older.shape)  # l = 0 and 1 in turns
    assert seen[:, 1::2].any()
    np.testing.assert_allclose(older[seen], (factors * everywhere)[seen], rtol=1e-9)


def test_compact_clusters_of_a_version():
    from ase_sensitivity.descriptors.quip.arguments import QUIPArguments

    words = QUIPArguments.parse("distance_Nb order=2 cutoff=3")
    assert words.of_gap(1686220958) == words
    counts = [
        len(QUIPDescriptor(str(one)).features(isolated())) for one in (words, words.of_gap(0))
    ]
    assert counts[0] == 2 * counts[1]


def test_version_that_is_no_number(tmp_path):
    path = tmp_path / "gap.xml"
    path.write_text(f'<GAP_params gap_version="x"><descriptor>{SOAP}</descriptor></GAP_params>')
    with pytest.raises(ValueError, match="`gap_version` is 'x'"):
        QUIPDescriptor.from_gap(path)


class TestDescriptorsThatWeLack:
    @pytest.fixture
    @staticmethod
    def path(tmp_path) -> Path:
        path = tmp_path / "gap.xml"
        path.write_text(
            "<a><descriptor>water_dimer cutoff=6 zeta=2</descriptor>"
            f"<descriptor> {SOAP}\n</descriptor></a>"
        )
        return path

    def test_are_left_out(self, path, caplog):
        with (
            caplog.at_level(logging.WARNING, "ase_sensitivity"),
            pytest.warns(DescriptorWarning, match="left out") as told,
        ):
            descriptor = QUIPDescriptor.from_gap(path)
        assert descriptor.specification == (SOAP,)
        assert told[0].filename == __file__
        assert "QUIP's water_dimer is not supported" in caplog.text
        assert str(path) in caplog.text

    def test_nothing_left(self, path):
        path.write_text("<a><descriptor>water_dimer cutoff=6</descriptor></a>")
        with pytest.raises(ValueError, match=r"gap.xml: QUIP's water_dimer is not supported"):
            QUIPDescriptor.from_gap(path)


MOLECULES = "distance_2b cutoff=3.5 resid_name=resid only_inter"


class TestArraysOfAtoms:
    @staticmethod
    def two() -> Atoms:
        atoms = rattled(molecule("H2O") + molecule("H2O"), 0.05)
        atoms.positions[3:, 0] += 2.6
        atoms.set_array("resid", np.repeat([1, 2], 3))
        return atoms

    @pytest.mark.parametrize(("switch", "count"), [("only_inter", 18), ("only_intra=T", 12)])
    def test_are_handed_over(self, switch, count):
        descriptor = QUIPDescriptor(f"distance_2b cutoff=9 resid_name=resid {switch}")
        assert descriptor.features(self.two()).shape == (count, 1)
        assert analyze(self.two(), descriptor).n_trivial == 6

    def test_contract(self):
        check_descriptor(QUIPDescriptor(MOLECULES), self.two())

    def test_missing(self):
        atoms = self.two()
        del atoms.arrays["resid"]
        with pytest.raises(ValueError, match="`resid_name` is resid but the structure has no such"):
            QUIPDescriptor(MOLECULES).features(atoms)
        with pytest.raises(ValueError, match="`only_inter` needs `resid_name`"):
            QUIPDescriptor("distance_2b cutoff=3.5 only_inter")


NB = {
    "pairs": "distance_Nb order=2 cutoff=3.2",
    "pairs of species": "distance_Nb order=2 cutoff=3.2 Z={6 1}",
    "pairs once": "distance_Nb order=2 cutoff=3.2 Z={6 1} compact_clusters=F",
    "triplets": "distance_Nb order=3 cutoff=2.6",
    "triplets of species": "distance_Nb order=3 cutoff=2.6 Z={1 6 1}",
    "triplets once": "distance_Nb order=3 cutoff=2.6 compact_clusters=F",
    "quadruplets": "distance_Nb order=4 cutoff=2.2",
}


@pytest.mark.parametrize("boundary", ["isolated", "periodic"])
@pytest.mark.parametrize("name", NB)
def test_contract_of_clusters(name, boundary):
    check_descriptor(QUIPDescriptor(NB[name]), BOUNDARIES[boundary]())


@pytest.mark.parametrize("name", NB)
def test_clusters_are_quippys(name):
    from quippy.descriptors import Descriptor

    found = QUIPDescriptor(NB[name]).features(isolated())
    expected = np.asarray(Descriptor(NB[name]).calc(isolated())["data"])
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.sort(found, axis=None), np.sort(expected, axis=None), rtol=1e-12)


def test_body_order_of_clusters():
    both = QUIPDescriptor([NB["pairs of species"], NB["triplets"]])
    assert both.correlations == ((2, None), (3, None))
    assert both.body_order == 3
    assert QUIPDescriptor(NB["triplets of species"]).elements == {"C", "H"}
    for text in ("order=6 cutoff=3", "cutoff=3", "order=2", "order=2 cutoff=3 Z={6 1 1}"):
        with pytest.raises(ValueError, match=r"`order`|`cutoff`"):
            QUIPDescriptor(f"distance_Nb {text}")
