"""featomic's calculators as descriptors, against our own SOAP and the contract."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from ase_sensitivity import SOAP, FeatomicDescriptor, analyze, gradient, scan
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled

featomic = pytest.importorskip("featomic")
from featomic.clebsch_gordan import EquivariantPowerSpectrum, PowerSpectrum  # noqa: E402

CUTOFF, N_MAX, L_MAX, SIGMA = 4.0, 3, 3, 0.4
NEAR = {"radius": CUTOFF, "smoothing": {"type": "ShiftedCosine", "width": 0.5}}
DENSITY = {"type": "Gaussian", "width": SIGMA, "center_atom_weight": 1.0}
RADIAL = {"type": "Gto", "max_radial": N_MAX - 1}


def hypers(spline: float | None = 1e-8, **density) -> dict:
    basis = {
        "type": "TensorProduct", "max_angular": L_MAX, "radial": RADIAL, "spline_accuracy": spline
    }  # fmt: skip
    return {"cutoff": NEAR, "density": {**DENSITY, **density}, "basis": basis}


def power_spectrum(spline: float | None = 1e-8):
    return featomic.SoapPowerSpectrum(**hypers(spline))


def radial_spectrum():
    basis = {"radial": RADIAL, "spline_accuracy": None}
    return featomic.SoapRadialSpectrum(cutoff=NEAR, density=DENSITY, basis=basis)


CALCULATORS = {
    "power": power_spectrum,
    "radial": radial_spectrum,
    "product": lambda: PowerSpectrum(featomic.SphericalExpansion(**hypers())),
}
STRUCTURES = {
    "isolated": rattled(molecule("CH3CH2OH"), 0.1, 0),
    "periodic": rattled(bulk("NaCl", "rocksalt", 5.64, cubic=True), 0.1, 0),
    "slab": rattled(Atoms("C4H4", np.random.default_rng(1).uniform(0, 4, (8, 3)),
                          cell=[4, 4.5, 0], pbc=[True, True, False]), 0.01, 0),
    "small cell": rattled(bulk("NaCl", "zincblende", 5.0), 0.1, 0),
    "left-handed": Atoms("NaCl", [(0, 0, 0), (1.5, 1.5, 1.8)],
                         cell=[[1, 3.2, 0], [3, 0, 0], [0.5, 0.3, 3.5]], pbc=True),
}  # fmt: skip


def species(atoms: Atoms) -> list[str]:
    return sorted(set(atoms.symbols))


def descriptor(calculator: str, structure: str) -> FeatomicDescriptor:
    return FeatomicDescriptor(CALCULATORS[calculator](), species(STRUCTURES[structure]))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("calculator", ["power", "radial"])
def test_equals_our_soap(calculator: str, structure: str):
    """Features differ in order, signs and repeated columns; products over features do not."""
    atoms = STRUCTURES[structure]
    kind = CALCULATORS[calculator]
    if calculator == "power":
        theirs = FeatomicDescriptor(power_spectrum(None), species(atoms))
    else:
        theirs = FeatomicDescriptor(kind(), species(atoms))
    ours = SOAP(
        species(atoms), CUTOFF, N_MAX, L_MAX, SIGMA, normalise=False, radial_basis="gto",
        central_reference_all_species=False, body_order=3 if calculator == "power" else 2,
    )  # fmt: skip
    found, expected = theirs.jacobian(atoms), ours.jacobian(atoms)
    assert (theirs.cutoff, theirs.body_order) == (ours.cutoff, ours.body_order)
    kernel, wanted = (jacobian.features @ jacobian.features.T for jacobian in (found, expected))
    ratio = kernel[0, 0] / wanted[0, 0]
    np.testing.assert_allclose(kernel, ratio * wanted, rtol=0, atol=1e-9 * kernel.max())
    gram = expected.gram()
    np.testing.assert_allclose(found.gram(), ratio * gram, rtol=0, atol=1e-9 * ratio * gram.max())
    images = [analyze(atoms, seen, scope="environment", center=1, k=8) for seen in (theirs, ours)]
    assert images[0].n_coordinates == images[1].n_coordinates
    values = images[1].singular_values * np.sqrt(ratio)
    np.testing.assert_allclose(
        images[0].singular_values, values, rtol=0, atol=1e-8 * images[1].scale * np.sqrt(ratio)
    )


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("calculator", CALCULATORS)
def test_the_contract(calculator: str, structure: str):
    check_descriptor(descriptor(calculator, structure), STRUCTURES[structure])


@pytest.mark.parametrize("calculator", CALCULATORS)
def test_columns_are_those_of_the_species(calculator: str):
    """The same columns in every structure; what is not listed is not seen."""
    water, ethanol = molecule("H2O"), molecule("CH3CH2OH")
    everything = FeatomicDescriptor(CALCULATORS[calculator](), ["C", "H", "O"])
    lengths = {everything.features(atoms).shape[1] for atoms in (water, ethanol, Atoms("H"))}
    assert lengths == {everything.n_features}
    fewer = everything.restricted(water)
    assert fewer.species == ("H", "O")
    assert fewer.n_features < everything.n_features
    np.testing.assert_allclose(
        fewer.jacobian(water).gram(), everything.jacobian(water).gram(), atol=1e-12
    )
    assert everything.restricted(ethanol) is everything
    hydrogens = FeatomicDescriptor(CALCULATORS[calculator](), ["H"])
    moved = water.copy()
    moved.positions[0] += (0.1, 0.2, 0.3)  # the oxygen
    np.testing.assert_array_equal(hydrogens.features(water)[1:], hydrogens.features(moved)[1:])
    assert hydrogens.jacobian(water).blocks.any()


def test_everything_else_works_with_it(tmp_path):
    frames = [rattled(bulk("NaCl", "rocksalt", 5.64), 0.1, seed) for seed in range(3)]
    seen = FeatomicDescriptor(power_spectrum(), ["Na", "Cl"])
    assert analyze(molecule("CH4"), FeatomicDescriptor(power_spectrum(), ["C", "H"])).n_null == 2
    slopes = gradient(frames[0], seen)
    assert np.isfinite(slopes.positions).all()
    assert np.isfinite(slopes.strain).all()
    assert len(scan(frames, seen)) == 3


@pytest.mark.parametrize("calculator", CALCULATORS)
def test_travels_to_other_processes(calculator: str):
    atoms = STRUCTURES["isolated"]
    own = descriptor(calculator, "isolated")
    other = pickle.loads(pickle.dumps(own))
    assert type(other.calculator) is type(own.calculator)
    np.testing.assert_array_equal(other.features(atoms), own.features(atoms))
    assert repr(own) == repr(other)


@pytest.mark.parametrize(
    ("calculator", "symbols", "error", "match"),
    [
        (lambda: 3, ["H"], TypeError, "must be a calculator of featomic, not int"),
        (power_spectrum, [], ValueError, "`species` must be chemical symbols"),
        (power_spectrum, "H", TypeError, "`species` must be a list"),
        (
            lambda: featomic.SphericalExpansion(**hypers()), ["H"],
            ValueError, "gives no invariant features of atoms, but by system, atom, o3_mu",
        ),
        (
            lambda: featomic.NeighborList(cutoff=3.0, full_neighbor_list=True), ["H"],
            ValueError, "NeighborList gave no features for H2",
        ),
        (
            lambda: featomic.SortedDistances(
                cutoff=3.0, max_neighbors=3, separate_neighbor_types=True
            ), ["H"],
            ValueError, "does not support gradients",
        ),
        (
            lambda: EquivariantPowerSpectrum(featomic.SphericalExpansion(**hypers())), ["H"],
            ValueError, "EquivariantPowerSpectrum gave no features for H2: .*gradients",
        ),
        (
            lambda: featomic.AtomicComposition(per_system=False), ["H"],
            ValueError, "AtomicComposition has no cutoff",
        ),
    ],
)  # fmt: skip
def test_mistakes(calculator, symbols, error, match):
    with pytest.raises(error, match=match):
        FeatomicDescriptor(calculator(), symbols)


def test_atoms_on_top_of_each_other():
    with pytest.raises(ValueError, match="on top of each other"):
        descriptor("power", "isolated").features(Atoms("H2"))


def test_its_text_tells_it_from_others():
    """By it the results of a scan are continued, or not."""
    product = PowerSpectrum(featomic.SphericalExpansion(**hypers()))
    narrow = PowerSpectrum(featomic.SphericalExpansion(**hypers(width=0.3)))
    built = [power_spectrum(), power_spectrum(None), radial_spectrum(), product, narrow]
    texts = [repr(FeatomicDescriptor(one, ["H"])) for one in built]
    texts.append(repr(FeatomicDescriptor(power_spectrum(), ["H", "O"])))
    assert len(set(texts)) == len(texts)
    assert repr(FeatomicDescriptor(power_spectrum(), ["H"])) == texts[0]


def lode(symbols: list[str]) -> FeatomicDescriptor:
    """Long-ranged features, of the potential of charges 1 about each atom."""
    expansion = featomic.LodeSphericalExpansion(
        density={"type": "SmearedPowerLaw", "smearing": 1.0, "exponent": 1},
        basis={
            "type": "TensorProduct",
            "max_angular": 2,
            "radial": {"type": "Gto", "max_radial": 2, "radius": 3.0},
        },
        k_cutoff=4.0,
    )
    return FeatomicDescriptor(PowerSpectrum(expansion), symbols)


def salt() -> Atoms:
    return rattled(bulk("NaCl", "rocksalt", a=5.64, cubic=True), 0.1, 0)


class TestLongRange:
    def test_contract(self):
        seen = lode(["Na", "Cl"])
        assert seen.cutoff == np.inf
        atoms = salt()
        check_descriptor(seen, atoms)
        jacobian = seen.jacobian(atoms)
        assert not jacobian.per_image
        with pytest.raises(ValueError, match="environment scope needs"):
            analyze(atoms, seen, scope="environment")

    def test_left_handed_cells(self):
        atoms = salt()
        left = Atoms(atoms, cell=atoms.cell.array[[1, 0, 2]])
        assert left.cell.handedness == -1
        seen = lode(["Na", "Cl"])
        np.testing.assert_allclose(seen.features(left), seen.features(atoms), atol=1e-12)
        found, expected = (analyze(x, seen).singular_values for x in (left, atoms))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_null_directions_of_symmetry(self):
        perfect = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
        assert analyze(perfect, lode(["Na", "Cl"])).n_null == 21

    @pytest.mark.parametrize("atoms", [molecule("H2O"), fcc111("Al", (1, 1, 2), vacuum=4)])
    def test_other_structures(self, atoms):
        with pytest.raises(ValueError, match=r"periodic along all directions, and `atoms.pbc`"):
            analyze(atoms, lode(["H", "O", "Al"]))
