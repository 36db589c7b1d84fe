"""SOAP against quippy, featomic, finite differences, mpmath and what theory demands."""

import importlib.util
import pickle
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers, chemical_symbols
from scipy.spatial.transform import Rotation

import ase_sensitivity.descriptors.soap.power_spectrum as runner
from ase_sensitivity import (
    SOAP,
    Descriptor,
    QUIPDescriptor,
    analyze,
    nearest_singular,
    strain_derivative,
)
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.environments import Environments
from ase_sensitivity.descriptors.soap.power_spectrum import power_spectrum
from ase_sensitivity.descriptors.soap.radial import RadialTable, quip_basis, scaled_bessel
from ase_sensitivity.testing import check_descriptor
from tests.structures import BOUNDARIES, dscribe_columns


def rattled(atoms, stdev=0.1, seed=0):
    atoms = atoms.copy()
    atoms.rattle(stdev, seed=seed)
    return atoms


def perovskite():
    a = 3.9
    positions = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("SrTiO3", scaled_positions=positions, cell=[a, a, a], pbc=True)


STRUCTURES = {
    "isolated": rattled(molecule("CH3CH2OH")),
    "four species": rattled(molecule("CH3CONH2")),
    "periodic": rattled(bulk("Si", cubic=True)),
    "tiny cell": bulk("Si"),
    "oxide": rattled(perovskite()),
    "slab": rattled(Atoms("C4H4", np.random.default_rng(1).uniform(0, 4, (8, 3)),
                          cell=[4, 4.5, 0], pbc=[True, True, False]), 0.01),
    "wire": rattled(Atoms("CHCH", [(0, 0, 0), (0, 1.1, 0), (1.4, 0, 0), (1.4, -1.1, 0)],
                          cell=[2.8, 0, 0], pbc=[True, False, False])),
    "skew": rattled(Atoms("NaCl", [(0, 0, 0), (1.5, 1.5, 1.8)],
                          cell=[[3, 0, 0], [1, 3.2, 0], [0.5, 0.3, 3.5]], pbc=True)),
}  # fmt: skip


def numbers(symbols):
    return "{" + " ".join(str(atomic_numbers[symbol]) for symbol in symbols) + "}"


def quip_string(species, cutoff, n_max, l_max, centers=None, **options):
    words = {
        "cutoff": cutoff,
        "n_max": n_max,
        "l_max": l_max,
        "atom_sigma": 0.5,
        "n_species": len(species),
        "species_Z": numbers(species),
        "n_Z": len(centers or species),
        "Z": numbers(centers or species),
    } | {key: "FT"[value] if isinstance(value, bool) else value for key, value in options.items()}
    return "soap " + " ".join(f"{key}={value}" for key, value in words.items())


def by_image(jacobian):
    """Blocks in an order that does not depend on who lists the neighbors."""
    place = np.rint(1e5 * jacobian.displacement).astype(int)
    return np.lexsort((*place.T, jacobian.atom, jacobian.row))


def assert_same(ours, theirs, features=1e-12, blocks=1e-9):
    __tracebackhide__ = True
    np.testing.assert_array_equal(ours.centers, theirs.centers)
    scale = abs(theirs.features).max()
    np.testing.assert_allclose(ours.features, theirs.features, rtol=0, atol=features * scale)
    near = np.linalg.norm(theirs.displacement, axis=1) < ours.cutoff
    a, b = by_image(ours), np.flatnonzero(near)
    b = b[np.lexsort((*np.rint(1e5 * theirs.displacement[b]).astype(int).T,
                      theirs.atom[b], theirs.row[b]))]  # fmt: skip
    np.testing.assert_array_equal(ours.row[a], theirs.row[b])
    np.testing.assert_array_equal(ours.atom[a], theirs.atom[b])
    np.testing.assert_allclose(ours.displacement[a], theirs.displacement[b], atol=1e-9)
    # A single atom, or one radial function and one l: nothing changes, and rounding is all.
    scale = max(abs(theirs.blocks).max(), 1e-3)
    np.testing.assert_allclose(ours.blocks[a], theirs.blocks[b], rtol=0, atol=blocks * scale)


CASES = {
    "default": ("isolated", ["C", "H", "O"], 4.0, 8, 6, {}),
    "smallest": ("isolated", ["C", "H", "O"], 4.0, 1, 0, {}),
    "smallest, raw": ("isolated", ["H"], 4.0, 1, 0, {"normalise": False}),
    "n 2": ("isolated", ["H", "C"], 4.0, 2, 0, {"normalise": False}),
    "n 1": ("isolated", ["H", "C"], 4.0, 1, 3, {}),
    "l 1": ("isolated", ["O", "C"], 4.0, 2, 1, {"normalise": False}),
    "l 2": ("isolated", ["O", "C"], 4.0, 3, 2, {}),
    "l 3": ("isolated", ["O", "C"], 4.0, 3, 3, {}),
    "l 4": ("isolated", ["O", "C"], 4.0, 3, 4, {"atom_sigma": 0.3}),
    "l 8": ("isolated", ["C", "H"], 3.0, 2, 8, {"atom_sigma": 0.2}),
    "four species": ("four species", ["O", "N", "C", "H"], 3.5, 4, 4, {"atom_sigma": 0.4}),
    "some centers": ("four species", ["C", "H"], 3.5, 4, 3, {"centers": ["N", "H"]}),
    "center unseen": ("four species", ["H"], 3.5, 4, 3, {"centers": ["C"]}),
    "everywhere": ("isolated", ["C", "H"], 4.0, 4, 3, {"central_reference_all_species": True}),
    "not everywhere": ("isolated", ["C"], 4.0, 4, 3, {"central_reference_all_species": False,
                                                     "centers": ["C", "O"]}),
    "weight 0": ("isolated", ["C", "H"], 4.0, 4, 3, {"central_weight": 0.0}),
    "weight 2, raw": ("isolated", ["C", "H"], 4.0, 4, 3, {"central_weight": 2.0,
                                                          "normalise": False}),
    "no transition": ("isolated", ["C", "H"], 4.0, 4, 3, {"cutoff_transition_width": 0.0}),
    "wide transition": ("isolated", ["C", "H"], 4.0, 4, 3, {"cutoff_transition_width": 3.0}),
    "periodic": ("periodic", ["Si"], 5.0, 8, 6, {}),
    "sharp": ("periodic", ["Si"], 4.0, 10, 9, {"atom_sigma": 0.2}),
    "blunt": ("periodic", ["Si"], 4.0, 6, 4, {"atom_sigma": 1.0, "normalise": False}),
    "tiny cell": ("tiny cell", ["Si"], 6.0, 6, 5, {"normalise": False}),
    "oxide": ("oxide", ["Sr", "Ti", "O"], 4.5, 6, 4, {}),
    "slab": ("slab", ["C", "H"], 4.5, 5, 5, {}),
    "wire": ("wire", ["C", "H"], 5.0, 5, 5, {"normalise": False}),
    "skew": ("skew", ["Na", "Cl"], 5.0, 5, 5, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_quip(case):
    structure, species, cutoff, n_max, l_max, options = CASES[case]
    atoms = STRUCTURES[structure]
    soap = SOAP(species, cutoff, n_max, l_max, **options)
    text = quip_string(species, cutoff, n_max, l_max, **options)
    theirs = QUIPDescriptor(text, native=False).jacobian(atoms)
    assert_same(soap.jacobian(atoms), theirs)
    read = SOAP.from_quip(text)
    assert repr(read) == repr(soap)
    np.testing.assert_array_equal(read.features(atoms), soap.features(atoms))
    assert soap.n_features == theirs.features.shape[1]


@pytest.mark.parametrize("n_max", [1, 4, 12])
@pytest.mark.parametrize("l_max", [0, 5, 12])
@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_equals_quip_over_the_basis(n_max, l_max, sigma):
    atoms = STRUCTURES["isolated"]
    text = quip_string(["C", "O"], 4.0, n_max, l_max, atom_sigma=sigma)
    theirs = QUIPDescriptor(text, native=False).jacobian(atoms)
    # QUIP's upward recursion of Bessel functions loses digits.
    assert_same(SOAP.from_quip(text).jacobian(atoms), theirs, 1e-9 if l_max > 9 else 1e-12)


def test_bessel_functions_have_all_their_digits():
    mpmath = pytest.importorskip("mpmath")
    z = np.array([1e-12, 1e-3, 0.1, 1.0, 7.3, 30.0, 250.0, 2000.0])
    ours = scaled_bessel(14, z)
    with mpmath.workdps(50):
        for order in (0, 1, 6, 12, 14):
            for k, argument in enumerate(z):
                x = mpmath.mpf(argument)
                exact = mpmath.sqrt(mpmath.pi / 2 / x) * mpmath.besseli(order + 0.5, x)
                exact = float(exact * mpmath.exp(-x))
                assert ours[order, k] == pytest.approx(exact, rel=5e-15)
    np.testing.assert_array_equal(scaled_bessel(2, np.zeros(1))[:, 0], [1, 0, 0])


def exact_radial(mpmath, r, cutoff, n_max, l_max, sigma):
    """g_nl(r) in 40 digits, from the same weights, of shape (n_max, l_max + 1)."""
    points, weights = quip_basis(cutoff, n_max, sigma)
    alpha, r = 1 / (2 * mpmath.mpf(sigma) ** 2), mpmath.mpf(r)
    total = np.zeros((n_max, l_max + 1), dtype=object)
    for point, weight in zip(points, weights, strict=True):
        s = mpmath.mpf(point)
        z = 2 * alpha * r * s
        for order in range(l_max + 1):
            bessel = mpmath.mpf(order == 0)
            if s:
                bessel = mpmath.sqrt(mpmath.pi / 2 / z) * mpmath.besseli(order + 0.5, z)
            value = mpmath.exp(-alpha * (r**2 + s**2)) * bessel
            total[:, order] += [value * mpmath.mpf(w) for w in weight]
    return total


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.0])
def test_radial_functions_are_exact_to_rounding(sigma):
    mpmath = pytest.importorskip("mpmath")
    cutoff, n_max, l_max = 4.0, 8, 12
    table = RadialTable.build("quip", cutoff, n_max, l_max, sigma, l_max + 1)
    errors, largest = [], 0.0
    with mpmath.workdps(40):
        for r in (0.011, 0.4, 1.37, 2.2, 3.999):
            exact = exact_radial(mpmath, r, cutoff, n_max, l_max, sigma).astype(float)
            interval = int(r * table.per_length)
            x = 2 * (r * table.per_length - interval) - 1
            powers = x ** np.arange(table.coefficients.shape[1])
            errors.append(abs(np.tensordot(powers, table.coefficients[interval], 1) - exact).max())
            largest = max(largest, abs(exact).max())
    assert max(errors) < 2e-15 * largest


@pytest.mark.parametrize(("r", "sigma", "lost"), [(0.7, 0.5, 1e-8), (0.3, 1.0, 1e-4)])
def test_where_quip_loses_digits_ours_are_right(r, sigma, lost):
    """A neighbor close by, high l: QUIP's features are off and ours equal those of mpmath."""
    mpmath = pytest.importorskip("mpmath")
    cutoff, n_max, l_max = 4.0, 3, 12
    atoms = Atoms("HH", [(0, 0, 0), (0, 0, r)])
    text = quip_string(
        ["H"], cutoff, n_max, l_max, atom_sigma=sigma, central_weight=0, normalise=False
    )
    with mpmath.workdps(40):
        radial = exact_radial(mpmath, r, cutoff, n_max, l_max, sigma)
        exact = []
        for a in range(n_max):
            for b in range(a + 1):
                for order in range(l_max + 1):
                    # sum over m of Y_lm^2 is (2 l + 1) / 4 pi
                    value = radial[a, order] * radial[b, order] / (4 * mpmath.pi)
                    value *= mpmath.sqrt(2 * order + 1) * (1 if a == b else mpmath.sqrt(2))
                    exact.append(float(value))
    exact = np.array(exact).reshape(-1, l_max + 1)

    def errors(descriptor):
        found = descriptor.jacobian(atoms).features[0, :-1].reshape(exact.shape)
        return abs(found - exact).max(axis=0) / abs(exact).max(axis=0)

    quip = QUIPDescriptor(text, native=False)
    # Of each l by itself: the highest are many orders of magnitude below the lowest.
    assert errors(quip).max() > lost
    assert errors(SOAP.from_quip(text)).max() < 1e-4 * errors(quip).max()
    ours = SOAP.from_quip(text).features(atoms)[0, :-1].reshape(exact.shape)
    assert abs(ours - exact).max() < 1e-15 * abs(exact).max()


@pytest.mark.parametrize("body_order", [2, 3, 4])
@pytest.mark.parametrize("radial_basis", ["quip", "gto", "dscribe"])
@pytest.mark.parametrize("normalise", [True, False])
def test_jacobian_is_the_derivative(body_order, radial_basis, normalise):
    atoms = rattled(STRUCTURES["slab"], seed=4)
    soap = SOAP(["C", "H"], 3.0, 3, 3, 0.4, normalise=normalise, centers=["C"],
                radial_basis=radial_basis, body_order=body_order)  # fmt: skip
    found = soap.jacobian(atoms)
    np.testing.assert_allclose(found.features, soap.features(atoms), rtol=0, atol=1e-15)
    summed = np.zeros((len(found.centers), len(atoms), 3, soap.n_features))
    np.add.at(summed, (found.row, found.atom), found.blocks)
    h = 1e-3
    for atom in (0, 5):
        for component in range(3):
            values = []
            for k in (-2, -1, 1, 2):
                moved = atoms.copy()
                moved.positions[atom, component] += k * h
                values.append(soap.features(moved))
            expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
            error = abs(summed[:, atom, component] - expected).max()
            assert error < 1e-8 * abs(summed).max()


@pytest.mark.parametrize("body_order", [2, 3, 4])
def test_blocks_of_a_row_sum_to_zero(body_order):
    soap = SOAP(["Sr", "Ti", "O"], 3.0, 2, 2, body_order=body_order)
    found = soap.jacobian(STRUCTURES["oxide"])
    total = np.zeros((len(found.centers), 3, soap.n_features))
    np.add.at(total, found.row, found.blocks)
    assert abs(total).max() < 1e-13 * abs(found.blocks).max()


@pytest.mark.parametrize("body_order", [2, 3, 4])
def test_rotations_and_reflections_change_nothing(body_order):
    atoms = STRUCTURES["isolated"]
    soap = SOAP(["C", "H", "O"], 4.0, 3, 4, body_order=body_order)
    rotated = atoms.copy()
    rotated.positions = -Rotation.from_rotvec([0.3, 1.2, -0.4]).apply(atoms.positions)
    np.testing.assert_allclose(soap.features(rotated), soap.features(atoms), rtol=0, atol=2e-15)


@pytest.mark.parametrize("body_order", [2, 3, 4])
def test_strain_derivative(body_order):
    atoms = STRUCTURES["skew"]
    soap = SOAP(["Na", "Cl"], 4.0, 3, 3, body_order=body_order)
    found = strain_derivative(soap.jacobian(atoms))
    h = 1e-4
    for a, b in ((0, 0), (1, 2), (2, 1)):
        values = []
        for k in (-2, -1, 1, 2):
            strain = np.eye(3)
            strain[a, b] += k * h
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain.T, scale_atoms=True)
            values.append(soap.features(moved))
        expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        np.testing.assert_allclose(found[:, a, b], expected, atol=1e-8 * abs(found).max(), rtol=0)
    np.testing.assert_allclose(found, found.transpose(0, 2, 1, 3), atol=1e-13 * abs(found).max())


def test_same_bits_for_any_number_of_threads():
    atoms = rattled(bulk("Si", cubic=True) * (3, 3, 3))
    one, two, five = (SOAP(["Si"], 5.0, 4, 3, threads=n).jacobian(atoms) for n in (1, 2, 5))
    for other in (two, five):
        np.testing.assert_array_equal(one.blocks, other.blocks)
        np.testing.assert_array_equal(one.features, other.features)
    modes = np.random.default_rng(0).normal(size=(2, len(atoms), 3))
    one, two, five = (
        SOAP(["Si"], 5.0, 4, 3, threads=n).squared_jvp_gradient(atoms, modes, 1e-4)
        for n in (1, 2, 5)
    )
    for other in (two, five):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(("seconds", "told"), [(0.2, False), (6.0, True)])
def test_compilation_is_told(seconds, told, caplog, monkeypatch):
    clock = iter([0.0, seconds])
    monkeypatch.setattr(runner.time, "perf_counter", lambda: next(clock))
    caplog.set_level("INFO")
    rows = []
    kernel = SimpleNamespace(overloads={})
    runner.in_shares(lambda *given: rows.append(given), kernel, np.array([0, 3, 5]), 1)
    assert rows == [(0, 0), (0, 2)]
    assert ("compiled in 6.0 s" in caplog.text) == told


def test_same_bits_in_any_company():
    """What else is in the structure, and the order of atoms, do not matter to a center."""
    near, far = molecule("CH4"), molecule("H2O")
    far.positions += 50
    soap = SOAP(["C", "H", "O"], 4.0, 4, 3)
    alone, together = soap.jacobian(near), soap.jacobian(near + far)
    np.testing.assert_array_equal(alone.blocks, together.blocks[: len(alone.blocks)])


@pytest.mark.parametrize("radial_basis", ["quip", "gto"])
@pytest.mark.parametrize("n_species", [1, 2])
@pytest.mark.parametrize("n_max", [1, 2, 3])
def test_kernel_stays_within_its_arrays(radial_basis, n_species, n_max):
    """It writes four numbers at a time; what lies before and behind must survive."""
    species = ["H", "C"][:n_species]
    environments = Environments.of(molecule("CH4"), 3.0, species, ["C", "H"])
    for l_max in range(9):
        basis = Basis.build(radial_basis, n_species, 3.0, 0.5, n_max, l_max, 0.5, 1.0)
        soap = SOAP(species, 3.0, n_max, l_max, radial_basis=radial_basis)
        features = np.empty((len(environments.centers), soap.n_features))
        n_numbers = environments.n_blocks * 3 * soap.n_features
        memory = np.full(n_numbers + 40, 7.0)
        blocks = memory[20:-20].reshape(environments.n_blocks, 3, soap.n_features)
        blocks[...] = np.nan
        power_spectrum(basis, environments, True, features, blocks, 1)
        assert (memory[:20] == 7).all()
        assert (memory[-20:] == 7).all()
        assert np.isfinite(blocks).all()
        assert np.isfinite(features).all()


REFERENCE = {
    "S1": [(1, 0, 0.5), (-1, 0, 0.5), (0.9, 0, -0.7), (0, 1.2, 0.3)],
    "S2": [(1, 0, 0.5), (-1, 0, 0.5), (0.6, 0.8, -0.5), (0, 0, 1.2)],
    "S3": [(1, 0, 0.4), (-0.6, 0.8, 0.4), (5 / 13, -12 / 13, 0.4), (0, 0, 1.2)],
}
RING = np.array(REFERENCE["S3"][:3])
REFERENCE["B3"] = [*RING, *(RING * [1, 1, -1]), (0, 0, 1.2)]


def internal_rank(name, body_order, n_max, l_max):
    """Rank of the center's Jacobian and the ratio of the smallest of the d internal values."""
    symbols = "CH6O" if name == "B3" else "CH4"
    atoms = Atoms(symbols, [(0, 0, 0), *REFERENCE[name]])
    species = ["H", "O"] if name == "B3" else ["H"]
    soap = SOAP(species, 3.0, n_max, l_max, 0.3, central_weight=0, normalise=False,
                centers=["C"], body_order=body_order)  # fmt: skip
    matrix = soap.jacobian(atoms).blocks[1:].reshape(3 * len(atoms) - 3, -1)
    values = np.linalg.svd(matrix, compute_uv=False)
    d = len(matrix) - 3
    return int((values > 1e-10 * values[0]).sum()), values[d - 1] / values[0]


@pytest.mark.parametrize("name", ["S1", "S2", "S3"])
def test_singular_with_pairs_regular_with_triples(name):
    rank, smallest = internal_rank(name, 3, 8, 8)
    assert rank == 8
    assert smallest < 1e-14
    rank, smallest = internal_rank(name, 4, 4, 4)
    assert rank == 9
    assert smallest > 0.01


def test_singular_with_triples_too():
    assert internal_rank("B3", 3, 8, 8)[0] == 11
    rank, smallest = internal_rank("B3", 4, 3, 6)
    assert rank == 17
    assert smallest < 1e-14


def test_gto_equals_featomic():
    pytest.importorskip("featomic")
    from featomic import SoapPowerSpectrum

    n_max, l_max = 4, 5
    atoms = STRUCTURES["isolated"]
    calculator = SoapPowerSpectrum(
        cutoff={"radius": 4.0, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
        density={"type": "Gaussian", "width": 0.4, "center_atom_weight": 1.0},
        basis={
            "type": "TensorProduct",
            "max_angular": l_max,
            "radial": {"type": "Gto", "max_radial": n_max - 1},
            "spline_accuracy": None,
        },
    )
    key = {"center_type": 6, "neighbor_1_type": 1, "neighbor_2_type": 1}
    block = calculator.compute(atoms).block(key)
    theirs = np.zeros((len(block.values), n_max, n_max, l_max + 1))
    for (order, a, b), column in zip(block.properties.values, block.values.T, strict=True):
        theirs[:, a, b, order] = (-1) ** order * column
    soap = SOAP(["H"], 4.0, n_max, l_max, 0.4, normalise=False, centers=["C"],
                central_reference_all_species=False, radial_basis="gto")  # fmt: skip
    lower = np.tril_indices(n_max)
    factor = np.where(lower[0] == lower[1], 1.0, np.sqrt(2.0))[:, None]
    expected = (theirs[:, lower[0], lower[1]] * factor).reshape(len(theirs), -1)
    ours = soap.features(atoms)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12 * abs(expected).max())


def test_dscribe_basis_equals_dscribe():
    """Features and derivatives of DScribe's gto, of three species, in its order."""
    dscribe = pytest.importorskip("dscribe.descriptors")
    n_max, l_max, cutoff = 5, 4, 6.0
    symbols = ["H", "C", "O"]
    atoms = STRUCTURES["isolated"]
    assert atoms.get_all_distances().max() < cutoff - 0.5  # DScribe has no cutoff function
    theirs = dscribe.SOAP(
        species=symbols, r_cut=cutoff, n_max=n_max, l_max=l_max, sigma=0.5, rbf="gto"
    )
    derivatives, features = theirs.derivatives(atoms, attach=True, method="analytical")
    soap = SOAP(symbols, cutoff, n_max, l_max, 0.5, normalise=False, radial_basis="dscribe")
    jacobian = soap.jacobian(atoms)
    ours = jacobian.dense(jacobian.atom, len(atoms)).reshape(len(atoms), -1, len(atoms), 3)
    order, weight = dscribe_columns(theirs, symbols, n_max, l_max)
    assert len(set(order.tolist())) == len(order) == soap.n_features
    expected = weight * jacobian.features[:, order]
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-10 * features.max())
    change = np.einsum("f,cfax->caxf", weight, ours[:, order])
    largest = abs(derivatives).max()
    assert largest > 1
    np.testing.assert_allclose(derivatives, change, rtol=0, atol=1e-9 * largest)


def test_is_a_descriptor_that_travels():
    soap = SOAP(["C", "H"], 4.0, 4, 3, centers=["C"])
    atoms = molecule("C2H6")
    features = soap.features(atoms)
    assert isinstance(soap, Descriptor)
    assert soap.species == ("C", "H")
    assert soap.centers == ("C",)
    assert soap.cutoff == 4.0
    assert soap.body_order == 3
    assert repr(soap).startswith("SOAP(['C', 'H'], cutoff=4, n_max=4, l_max=3")
    copy = pickle.loads(pickle.dumps(soap))
    assert repr(copy) == repr(soap)
    np.testing.assert_array_equal(copy.features(atoms), features)
    assert features.shape == (2, soap.n_features)
    assert len(pickle.dumps(soap)) < 2000


@pytest.mark.parametrize("body_order", [2, 3, 4])
def test_nothing_to_see(body_order):
    soap = SOAP(["H"], 3.0, 2, 2, central_weight=0, body_order=body_order, centers=["C"])
    found = soap.jacobian(Atoms("CHe", [(0, 0, 0), (0, 0, 1)]))
    assert found.blocks.shape == (1, 3, soap.n_features)
    assert (found.blocks == 0).all()
    assert (found.features == 0).all()
    found = soap.jacobian(Atoms("He"))
    assert found.features.shape == (0, soap.n_features)
    assert found.blocks.shape == (0, 3, soap.n_features)


def test_on_the_cutoff_and_just_inside():
    soap = SOAP(["H"], 3.0, 2, 2, normalise=False)
    for distance in (3.0, np.nextafter(3.0, 0), 2.5, np.nextafter(2.5, 3), 0.02):
        found = soap.jacobian(Atoms("HH", [(0, 0, 0), (0, 0, distance)]))
        assert np.isfinite(found.blocks).all()
        assert np.isfinite(found.features).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"species": "Si"}, TypeError, "`species` must be a list"),
        ({"species": []}, ValueError, "`species` must be chemical symbols"),
        ({"species": ["Qq"]}, ValueError, "`species` must be chemical symbols"),
        ({"centers": ["X"]}, ValueError, "`centers` must be chemical symbols"),
        ({"cutoff": 0.0}, ValueError, "`cutoff` is 0.0 but must be positive"),
        ({"cutoff": np.inf}, ValueError, "`cutoff` is inf but must be positive"),
        ({"n_max": 0}, ValueError, "`n_max` is 0 but must be an integer from 1"),
        ({"n_max": 2.5}, ValueError, "`n_max` is 2.5 but must be an integer"),
        ({"n_max": True}, ValueError, "`n_max` is True but must be an integer"),
        ({"l_max": -1}, ValueError, "`l_max` is -1 but must be an integer from 0"),
        ({"atom_sigma": 0.0}, ValueError, "`atom_sigma` is 0.0 but must be positive"),
        ({"atom_sigma": np.nan}, ValueError, "`atom_sigma` is nan but must be positive"),
        ({"cutoff_transition_width": -1}, ValueError, "must be not negative"),
        ({"central_weight": np.inf}, ValueError, "`central_weight` is inf but must be finite"),
        ({"radial_basis": "poly"}, ValueError, "`radial_basis` is 'poly'"),
        ({"body_order": 5}, ValueError, "`body_order` is 5 but must be 2, 3 or 4"),
        ({"threads": 0}, ValueError, "`threads` is 0"),
    ],
)
def test_bad_arguments(options, error, message):
    arguments = {"species": ["Si"], "cutoff": 4.0, "n_max": 2, "l_max": 2} | options
    with pytest.raises(error, match=message):
        SOAP(**arguments)


def test_dependent_radial_functions():
    soap = SOAP(["Si"], 4.0, 60, 0, atom_sigma=1.0)
    with pytest.raises(ValueError, match="linearly dependent"):
        soap.features(STRUCTURES["periodic"])


def test_too_large_for_memory():
    soap = SOAP(["Si"], 50.0, 60, 60)
    with pytest.raises(ValueError, match="more than this machine has"):
        soap.jacobian(STRUCTURES["periodic"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("average=T", "`average` other than F"),
        ("nu_R=1", "`nu_R` other than 2"),
        ("covariance_sigma0=0.1", "`covariance_sigma0` other than 0"),
        ("radial_basis=GTO", "`radial_basis` other than EQUISPACED_GAUSS"),
        ("cutoff_dexp=2", "`cutoff_dexp` other than 0"),
        ("xml_version=2000000000", "`xml_version` other than"),
        ("no_such_thing=1", "option `no_such_thing=1`"),
        ("normalise=maybe", "`normalise` is 'maybe'"),
    ],
)
def test_quip_options_that_are_lacking(words, message):
    with pytest.raises(ValueError, match=message):
        SOAP.from_quip(quip_string(["H"], 3.0, 2, 2) + " " + words)


def test_quip_strings_in_other_words():
    text = quip_string(["H"], 3.0, 2, 2).replace("atom_sigma=0.5", "atom_gaussian_width=0.5d0")
    extras = " normalize=F zeta=4 delta=0.1 covariance_type=dot_product average=F"
    plain = SOAP(["H"], 3.0, 2, 2, normalise=False)
    assert repr(SOAP.from_quip(text + extras)) == repr(plain)
    with pytest.raises(ValueError, match="reads soap strings, not distance_2b"):
        SOAP.from_quip("distance_2b cutoff=4")
    with pytest.raises(ValueError, match="needs `species_Z`"):
        SOAP.from_quip("soap cutoff=3 n_max=2 l_max=2 atom_sigma=0.5")


def test_import_is_light():
    """What takes long to load, and an analysis does without, is not loaded for it."""
    heavy = ["matplotlib", "quippy", "rich", "typer", "ase.io"]
    heavy += [f"scipy.{name}" for name in ("optimize", "stats")]
    code = "import sys; from ase_sensitivity import SOAP, analyze; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert "ase_sensitivity.analysis" in loaded, result.stderr
    assert not loaded & set(heavy)
    # The names above are those of today.
    assert all(importlib.util.find_spec(name) for name in heavy if name != "quippy")


@pytest.mark.parametrize("basis", ["quip", "gto"])
@pytest.mark.parametrize("body_order", [2, 3])
def test_smooth_cutoff(basis, body_order):
    """The same kernels, and the table of Python: only the transition differs."""
    smooth, plain = (
        SOAP(
            ["C", "H", "O"],
            cutoff=3.0,
            n_max=3,
            l_max=2,
            cutoff_transition_width=1.0,
            radial_basis=basis,
            body_order=body_order,
            smooth_cutoff=choice,
        )
        for choice in (True, False)
    )
    atoms = BOUNDARIES["isolated"]()
    check_descriptor(smooth, atoms)
    assert np.abs(smooth.features(atoms) - plain.features(atoms)).max() > 1e-3

    def derivative(descriptor, distance):
        jacobian = descriptor.jacobian(Atoms("CHO", [(0, 0, 0), (1, 0, 0), (0, 0, distance)]))
        return jacobian.blocks[(jacobian.row == 0) & (jacobian.atom == 2)][0, 2]

    for end in (2.0, 3.0 - 1e-7):  # of the transition
        jumps = [
            np.abs(
                derivative(descriptor, end + 1e-4)
                - 2 * derivative(descriptor, end)
                + derivative(descriptor, end - 1e-4)
            ).max()
            / 1e-4
            if end < 2.5
            else np.abs(derivative(descriptor, end - 1e-4)).max() / 1e-4
            for descriptor in (plain, smooth)
        ]
        assert jumps[0] > 1e-2
        assert jumps[1] < 1e-2 * jumps[0]


class TestSpeciesThatAreNotThere:
    """Their channels are zero and cost nothing."""

    def test_everything_is_as_without_them(self):
        atoms = rattled(molecule("CH3OH"), 0.1)
        few = SOAP(["C", "H", "O"], 4.0, 4, 3)
        everything = SOAP(chemical_symbols[1:], 4.0, 4, 3)
        assert everything.restricted(atoms).n_features == few.n_features
        found, expected = (analyze(atoms, soap, k=None, causes=True) for soap in (everything, few))
        np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=1e-9)
        assert found.counts == expected.counts
        found, expected = (nearest_singular(atoms, soap) for soap in (everything, few))
        assert (found.cause, found.distance) == (expected.cause, pytest.approx(expected.distance))

    def test_features_keep_their_places(self):
        atoms = rattled(molecule("H2O"), 0.1)
        soap = SOAP(["C", "H", "O"], 4.0, 2, 1)
        assert soap.features(atoms).shape == (3, soap.n_features)
        assert soap.jacobian(atoms).blocks.shape[2] == soap.n_features
        assert soap.restricted(atoms) is soap.restricted(atoms)
        assert pickle.loads(pickle.dumps(soap)).restricted(atoms).species == ("H", "O")

    def test_the_center_in_all_channels(self):
        """Then those of species that are not there are constant, but not zero."""
        atoms = rattled(molecule("H2O"), 0.1)
        soap = SOAP(["C", "H", "O"], 4.0, 2, 1, central_reference_all_species=True)
        assert soap.restricted(atoms) is soap

    def test_strings(self):
        atoms = rattled(molecule("H2O"), 0.1)
        text = "soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5"
        few = QUIPDescriptor(text, species=["H", "O"])
        many = QUIPDescriptor(text, species=["C", "H", "N", "O", "S"])
        assert many.restricted(atoms).soap.species == ("H", "O")
        assert few.restricted(atoms) is few
        assert analyze(atoms, many).ratio == pytest.approx(analyze(atoms, few).ratio, rel=1e-9)

    def test_changed_jacobians_are_not_passed_by(self):
        class Doubled(SOAP):
            def jacobian(self, atoms):
                found = super().jacobian(atoms)
                return replace(found, blocks=2 * found.blocks)

        atoms = rattled(molecule("H2O"), 0.1)
        once, twice = (kind(["C", "H", "O"], 4.0, 2, 1) for kind in (SOAP, Doubled))
        found, expected = analyze(atoms, twice), analyze(atoms, once)
        np.testing.assert_allclose(found.singular_values, 2 * expected.singular_values, rtol=1e-9)
