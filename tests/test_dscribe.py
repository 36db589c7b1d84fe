"""DScribe's descriptors, against our own SOAP, DScribe itself and the contract."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from ase_sensitivity import SOAP, DScribeDescriptor, analyze, gradient, scan
from ase_sensitivity.testing import check_descriptor
from tests.structures import dscribe_columns, rattled

dscribe = pytest.importorskip("dscribe.descriptors")

STRUCTURES = {
    "isolated": rattled(molecule("CH3CH2OH"), 0.1, 0),
    "periodic": rattled(bulk("NaCl", "rocksalt", 5.64, cubic=True), 0.1, 0),
    "slab": rattled(fcc111("Al", (1, 1, 2), vacuum=5), 0.1, 0),
    "small cell": rattled(bulk("NaCl", "zincblende", 5.0), 0.1, 0),
}
STRUCTURES["slab"].symbols[1] = "O"


def soap(species, **options):
    how = {"r_cut": 2.5, "n_max": 3, "l_max": 2, "sigma": 0.4, **options}
    return dscribe.SOAP(species=species, **how)


def acsf(species):
    pairs, triplets = [[1, 1], [1, 2]], [[1, 1, 1], [0.1, 2, -1]]
    return dscribe.ACSF(species=species, r_cut=4.0, g2_params=pairs, g4_params=triplets)


KINDS = {
    "soap": soap,
    "polynomial": lambda species: soap(species, rbf="polynomial"),
    "weighted": lambda species: soap(
        species, r_cut=3.5, weighting={"function": "poly", "r0": 3.5, "c": 1, "m": 2}
    ),
    "acsf": acsf,
    "outer": lambda species: soap(species, average="outer"),
    "inner": lambda species: soap(species, average="inner"),
}


def descriptor(kind: str, atoms: Atoms) -> DScribeDescriptor:
    return DScribeDescriptor(KINDS[kind](sorted(set(atoms.symbols))))


def test_equals_our_soap():
    n_max, l_max, cutoff = 5, 4, 6.0
    symbols = ["H", "C", "O"]
    atoms = STRUCTURES["isolated"]
    assert atoms.get_all_distances().max() < cutoff - 0.5  # DScribe has no cutoff function
    theirs = soap(symbols, r_cut=cutoff, n_max=n_max, l_max=l_max, sigma=0.5)
    order, weight = dscribe_columns(theirs, symbols, n_max, l_max)
    ours = SOAP(symbols, cutoff, n_max, l_max, 0.5, normalise=False, radial_basis="dscribe")
    found, expected = (seen.jacobian(atoms) for seen in (DScribeDescriptor(theirs), ours))
    np.testing.assert_allclose(
        found.features, weight * expected.features[:, order],
        rtol=0, atol=1e-10 * found.features.max(),
    )  # fmt: skip
    changes, wanted = (
        jacobian.dense(jacobian.atom, len(atoms)).reshape(len(atoms), -1, 3 * len(atoms))
        for jacobian in (found, expected)
    )
    np.testing.assert_allclose(
        changes, weight[:, None] * wanted[:, order], rtol=0, atol=1e-9 * np.abs(changes).max()
    )


@pytest.mark.parametrize("structure", ["periodic", "slab", "small cell"])
def test_images_are_those_of_dscribe(structure: str):
    atoms = STRUCTURES[structure]
    theirs = soap(sorted(set(atoms.symbols)), periodic=True)
    found = DScribeDescriptor(theirs).features(atoms)
    np.testing.assert_allclose(found, theirs.create(atoms), rtol=0, atol=1e-10 * found.max())
    assert theirs.periodic  # it is left as it was


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_contract(kind: str, structure: str):
    atoms = STRUCTURES[structure]
    seen = descriptor(kind, atoms)
    check_descriptor(seen, atoms)
    jacobian = seen.jacobian(atoms)
    rows = 1 if kind in ("outer", "inner") else len(atoms)
    assert len(jacobian.features) == rows
    assert (jacobian.precision < 1e-12) == (kind == "soap")


@pytest.mark.parametrize("kind", ["polynomial", "outer"])
def test_no_difference_crosses_the_jump(kind: str):
    """Derivatives near the radius at which an atom enters are those of the smooth side."""
    seen = descriptor(kind, Atoms("H"))
    assert seen.radius == pytest.approx(2.5 + 0.4 * np.sqrt(2 * np.log(1000)), rel=1e-12)

    def at(distance: float) -> Atoms:
        return Atoms("H3", [(0, 0, 0), (distance, 0, 0), (1.3, 1, 0)])

    below, above = (seen.features(at(seen.radius + shift)) for shift in (-1e-9, 1e-9))
    jump = np.abs(below - above).max()
    assert jump > 1e-7
    for shift in (-1e-5, 1e-5):
        near, far = (seen.jacobian(at(seen.radius + n * shift)) for n in (1, 200))
        difference = np.abs(near.gram() - far.gram()).max()
        assert difference < 0.01 * np.abs(near.gram()).max()
    with pytest.raises(ValueError, match=r"3\.98676888 Å apart, where features jump; change"):
        seen.jacobian(at(seen.radius))


def test_the_neighbors_do_not_jump():
    """Behler's functions have a cutoff function: derivatives at the cutoff are what they are."""
    seen = descriptor("acsf", Atoms("H"))
    atoms = Atoms("H3", [(0, 0, 0), (4.0, 0, 0), (1.3, 1, 0)])
    jacobian = seen.jacobian(atoms)
    atoms.positions[1, 0] += 1e-6
    np.testing.assert_allclose(seen.jacobian(atoms).gram(), jacobian.gram(), atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: dscribe.CoulombMatrix(n_atoms_max=9, permutation="eigenspectrum"),
        lambda: dscribe.CoulombMatrix(n_atoms_max=9, permutation="sorted_l2"),
    ],
)
def test_rows_of_a_whole_molecule(build):
    atoms = STRUCTURES["isolated"]
    seen = DScribeDescriptor(build())
    assert (seen.species, seen.cutoff) == (None, np.inf)
    if seen.descriptor.permutation == "eigenspectrum":  # the other one may exchange atoms
        check_descriptor(seen, atoms)
    derivatives, features = build().derivatives(atoms)
    jacobian = seen.jacobian(atoms)
    assert jacobian.centers.tolist() == [-1]
    np.testing.assert_allclose(jacobian.features, features[None], rtol=1e-10)
    np.testing.assert_allclose(jacobian.blocks, derivatives, atol=1e-6 * derivatives.max())
    found = analyze(atoms, seen)
    assert found.n_trivial == 6


def test_a_row_of_a_whole_crystal(monkeypatch):
    from dscribe.core import System

    def from_atoms(atoms):  # that of DScribe 2.1 does not run with ASE 3.29
        return System(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)

    monkeypatch.setattr(System, "from_atoms", from_atoms)
    atoms = STRUCTURES["small cell"]
    seen = DScribeDescriptor(dscribe.SineMatrix(n_atoms_max=2, permutation="eigenspectrum"))
    jacobian = seen.jacobian(atoms)
    assert not jacobian.per_image
    np.testing.assert_allclose(jacobian.blocks.sum(axis=0), 0, atol=1e-8)
    assert np.abs(jacobian.blocks).max() > 1e-3


def test_everything_else_works_with_it():
    assert analyze(molecule("CH4"), descriptor("soap", molecule("CH4"))).n_null == 2
    atoms = STRUCTURES["small cell"]
    seen = descriptor("soap", atoms)
    found = analyze(atoms, seen, scope="environment", center=0)
    assert found.n_coordinates == 3 * (seen.jacobian(atoms).row == 0).sum() > 6
    slopes = gradient(atoms, seen)
    assert np.isfinite(slopes.positions).all()
    assert np.isfinite(slopes.strain).all()
    assert len(scan([atoms, rattled(atoms, 0.05, 3)], seen)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_travels_to_other_processes(kind: str):
    atoms = STRUCTURES["isolated"]
    own = descriptor(kind, atoms)
    other = pickle.loads(pickle.dumps(own))
    np.testing.assert_array_equal(other.features(atoms), own.features(atoms))
    assert repr(own) == repr(other)


def test_sparse_and_single_precision_are_not_taken_over():
    atoms = STRUCTURES["isolated"]
    symbols = ["C", "H", "O"]
    coarse = DScribeDescriptor(soap(symbols, dtype="float32", sparse=True))
    expected = DScribeDescriptor(soap(symbols)).features(atoms)
    np.testing.assert_array_equal(coarse.features(atoms), expected)


class TestMistakes:
    @pytest.mark.parametrize(
        ("build", "error", "match"),
        [
            (lambda: 3, TypeError, "must be a descriptor of DScribe, not int"),
            (
                lambda: dscribe.CoulombMatrix(5, permutation="random", sigma=1.0),
                ValueError,
                "random permutations",
            ),
            (
                lambda: dscribe.LMBTR(
                    species=["H"],
                    geometry={"function": "distance"},
                    grid={"min": 0, "max": 5, "n": 10, "sigma": 0.3},
                    weighting={"function": "exp", "r_cut": 4, "threshold": 1e-3},
                    periodic=False,
                ),
                TypeError,
                "`descriptor` is LMBTR; of those with a row for each atom, SOAP and ACSF",
            ),
        ],
    )
    def test_of_descriptors(self, build, error, match):
        with pytest.raises(error, match=match):
            DScribeDescriptor(build())

    def test_of_structures(self):
        seen = descriptor("soap", Atoms("CH"))
        with pytest.raises(ValueError, match="has O, which SOAP was not made for: C, H"):
            seen.features(molecule("H2O"))
        with pytest.raises(ValueError, match="on top of each other"):
            seen.features(Atoms("H2"))
        matrix = DScribeDescriptor(dscribe.CoulombMatrix(n_atoms_max=2))
        with pytest.raises(ValueError, match="CoulombMatrix sees no periodic images"):
            matrix.features(STRUCTURES["small cell"])
        with pytest.raises(ValueError, match="CoulombMatrix gave no features for"):
            matrix.features(molecule("H2O"))


def test_its_text_tells_it_from_others():
    """By it the results of a scan are continued, or not."""
    built = [soap(["H"]), soap(["H"], sigma=0.5), soap(["H"], rbf="polynomial"), acsf(["H"])]
    built.append(dscribe.ACSF(species=["H"], r_cut=4.0, g2_params=[[1, 1]]))
    built.append(dscribe.CoulombMatrix(n_atoms_max=3))
    built.append(dscribe.CoulombMatrix(n_atoms_max=4))
    texts = [repr(DScribeDescriptor(one)) for one in built]
    assert len(set(texts)) == len(texts)
    assert repr(DScribeDescriptor(soap(["H"]))) == texts[0]
