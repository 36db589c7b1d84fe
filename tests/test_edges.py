"""Functions of the vectors to neighbors: all blocks in a number of products that does not grow."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from ase_sensitivity import EdgeDescriptor, TorchDescriptor, analyze, nearest_singular
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from ase_sensitivity.jacobian.autograd import Sweeps  # noqa: E402
from tests.torch_functions import SymmetryFunctions  # noqa: E402

FUNCTION = SymmetryFunctions(3.5, 3)
ORDINARY = TorchDescriptor(FUNCTION, 3.5, body_order=3)
EDGES = EdgeDescriptor(FUNCTION.of_vectors, 3.5, body_order=3)


def slab() -> Atoms:
    atoms = fcc111("Al", (1, 1, 2), vacuum=4)
    atoms.pbc = (True, True, False)
    return atoms


STRUCTURES = {
    "isolated": rattled(molecule("H2O2"), 0.1, 0),
    "small cell": rattled(bulk("Si"), 0.1, 1),
    "slab": rattled(slab(), 0.1, 1),
    "large cell": rattled(molecule("H2O2", cell=[12, 13, 14], pbc=True), 0.1, 2),
    "atom": Atoms("O"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_as_a_function_of_positions(name):
    atoms = STRUCTURES[name]
    found, expected = EDGES.jacobian(atoms), ORDINARY.jacobian(atoms)
    np.testing.assert_allclose(EDGES.features(atoms), expected.features, atol=1e-12)
    np.testing.assert_allclose(found.gram(), expected.gram(), atol=1e-10)
    if expected.per_image:
        blocks = expected.as_blocks(per_image=True)
        order, other = (np.lexsort(one.keys.T) for one in (found, blocks))
        np.testing.assert_allclose(found.keys[order], blocks.keys[other], atol=1e-9)


@pytest.mark.parametrize("name", [name for name in STRUCTURES if name != "atom"])
def test_contract(name):
    check_descriptor(EDGES, STRUCTURES[name])


def test_single_precision():
    found = EdgeDescriptor(FUNCTION.of_vectors, 3.5, body_order=3, dtype="float32")
    check_descriptor(found, STRUCTURES["isolated"])
    assert found.jacobian(STRUCTURES["isolated"]).precision == 1e-6


def test_derivatives_of_squares():
    atoms = STRUCTURES["small cell"]
    modes = np.random.default_rng(0).normal(size=(2, len(atoms), 3))
    for center in (None, 1):
        found = EDGES.squared_jvp_gradient(atoms, modes, center=center)
        expected = ORDINARY.squared_jvp_gradient(atoms, modes, center=center)
        for part, other in zip(found, expected, strict=True):
            assert np.abs(other).max() > 1e-3
            np.testing.assert_allclose(part, other, atol=1e-9)


def test_the_number_of_products_does_not_grow(monkeypatch):
    counts = []
    apply = Sweeps.apply
    monkeypatch.setattr(Sweeps, "apply", lambda self, v: counts.append(len(v)) or apply(self, v))
    numbers = []
    for n in (1, 2):
        counts.clear()
        EDGES.jacobian(bulk("Si", cubic=True).repeat((n, 1, 1)))
        numbers.append(sum(counts))
    assert numbers == [13, 13]  # four neighbors, and one product that checks


def test_null_directions_and_distances():
    methane = molecule("CH4")
    assert analyze(methane, EDGES, causes=True).counts["symmetry"] == 2
    methane.rattle(0.02, seed=1)
    found, expected = (nearest_singular(methane, seen) for seen in (EDGES, ORDINARY))
    assert found.cause == expected.cause == "symmetry"
    assert found.distance == pytest.approx(expected.distance, rel=1e-6)


def messages(atoms, center, neighbor, vectors):
    weights = (1 - (vectors.norm(dim=1, keepdim=True) / 3.5) ** 2) ** 3
    rows = torch.zeros(len(atoms), 1, dtype=vectors.dtype).index_add(0, center, weights)
    return rows + torch.zeros_like(rows).index_add(0, center, weights * rows[neighbor])


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (messages, ValueError, "not strictly local, and needs TorchDescriptor"),
        (
            lambda atoms, i, j, v: v,
            ValueError,
            "returned 12 rows but must return one for each of 4",
        ),
        (lambda atoms, i, j, v: v.sum(), ValueError, "must return real numbers"),
        (lambda atoms, i, j, v: 1.0, TypeError, "returned float but must return a torch.Tensor"),
    ],
)
def test_what_the_function_may_not_do(function, error, message):
    with pytest.raises(error, match=message):
        EdgeDescriptor(function, 3.5).jacobian(STRUCTURES["isolated"])


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("inf"), "3"])
def test_cutoff(cutoff):
    with pytest.raises((TypeError, ValueError), match="`cutoff`"):
        EdgeDescriptor(FUNCTION.of_vectors, cutoff)


def test_dtype():
    with pytest.raises(ValueError, match="`dtype` is 'float16' but must be one of float64"):
        EdgeDescriptor(FUNCTION.of_vectors, 3.5, dtype="float16")
