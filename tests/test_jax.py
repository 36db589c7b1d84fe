"""Functions written with JAX as descriptors."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list

from ase_sensitivity import JaxDescriptor, analyze, gradient, nearest_singular
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

RADII = np.array([0.8, 1.1, 1.4, 1.7, 2.0, 2.4, 2.8])


def radial(atoms: Atoms, positions, cell):
    """Sums of Gaussians of the distances to neighbors."""
    i, j, shift = neighbor_list("ijS", atoms, 3.5)
    distances = jnp.linalg.norm(positions[j] - positions[i] + shift @ cell, axis=1)[:, None]
    weights = jnp.exp(-4 * (distances - RADII) ** 2) * (1 - (distances / 3.5) ** 2) ** 3
    return jnp.zeros((len(atoms), len(RADII))).at[i].add(weights * atoms.numbers[j, None] / 8)


SEEN = JaxDescriptor(radial, 3.5, body_order=2)


def slab() -> Atoms:
    atoms = fcc111("Al", (1, 1, 2), vacuum=4)
    atoms.pbc = (True, True, False)
    return atoms


STRUCTURES = {
    "isolated": rattled(molecule("H2O2"), 0.1, 0),
    "small cell": rattled(bulk("Si"), 0.1, 1),
    "slab": rattled(slab(), 0.1, 1),
    "large cell": rattled(molecule("H2O2", cell=[12, 13, 14], pbc=True), 0.1, 2),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_contract(name):
    check_descriptor(SEEN, STRUCTURES[name])


def test_null_directions_gradients_and_distances():
    methane = molecule("CH4")
    assert analyze(methane, SEEN, causes=True).counts["symmetry"] == 2
    methane.rattle(0.05, seed=1)
    slope = gradient(methane, SEEN).positions
    moved = methane.copy()
    along = np.random.default_rng(0).normal(size=(5, 3))
    values = []
    for sign in (-1, 1):
        moved.positions = methane.positions + sign * 1e-5 * along
        values.append(analyze(moved, SEEN).singular_values[0])
    expected = (values[1] - values[0]) / 2e-5
    assert abs(expected) > 1e-3
    assert (slope * along).sum() == pytest.approx(expected, rel=1e-5)
    assert nearest_singular(methane, SEEN).distance < 0.2


def test_the_default_precision_of_jax_is_left_alone():
    SEEN.jacobian(STRUCTURES["isolated"])
    assert jnp.ones(1).dtype == np.float32


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda atoms, x, cell: x.sum(), r"returned .* but must return \(n_rows"),
        (lambda atoms, x, cell: x / 0.0, "not finite"),
        (lambda atoms, x, cell: x[:2], "gave 2 rows for 4 atoms"),
    ],
)
def test_what_the_function_may_not_do(function, match):
    with pytest.raises(ValueError, match=match):
        JaxDescriptor(function).jacobian(STRUCTURES["isolated"])
