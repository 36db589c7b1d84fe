"""MACE with random weights: symmetry, messages and the energy that is made of its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import MACEDescriptor, analyze, descriptor_of
from ase_sensitivity.auditing.blindness import environment_checks
from ase_sensitivity.auditing.reference import ENVIRONMENTS
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

# Of its own dependencies.
pytestmark = pytest.mark.filterwarnings("default")


def random_mace(numbers: Sequence[int], hidden: str = "4x0e+4x1o", r_max: float = 3.0) -> Any:
    pytest.importorskip("mace")  # before e3nn
    from e3nn import o3
    from mace import modules

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        return modules.ScaleShiftMACE(
            r_max=r_max,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(numbers),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(len(numbers)),
            avg_num_neighbors=4.0,
            atomic_numbers=list(numbers),
            correlation=2,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_mace([1, 6, 8, 14])


@pytest.fixture(scope="module")
def descriptor(model) -> MACEDescriptor:
    return MACEDescriptor(model)


@pytest.mark.parametrize(
    ("build", "n_trivial", "n_null"),
    [(lambda: molecule("CH4"), 6, 2), (lambda: bulk("Si", cubic=True), 3, 15)],
)
def test_symmetry(descriptor, build, n_trivial: int, n_null: int):
    found = analyze(build(), descriptor, causes=True)
    assert (found.n_trivial, found.n_null) == (n_trivial, n_null)
    assert found.counts["symmetry"] == n_null


def test_messages(descriptor):
    """Two waters that are more than 3 Å apart exchange none, whatever the reach."""
    assert (descriptor.cutoff, descriptor.reach) == (3.0, 6.0)
    for height, n_trivial in ((4.2, 12), (2.9, 6)):
        dimer = molecule("H2O") + molecule("H2O")
        dimer.positions[3:] += (0, 0, height)
        dimer.rattle(0.05, seed=0)
        assert analyze(dimer, descriptor).n_trivial == n_trivial


def test_layers_of_the_same_copy(descriptor):
    water = molecule("H2O")
    first = descriptor.at_layers(1)
    assert (first.reach, descriptor.n_layers) == (3.0, 2)
    np.testing.assert_array_equal(first.features(water), descriptor.features(water)[:, :4])
    coarse = MACEDescriptor(random_mace([1, 8]).float())
    assert coarse.at_layers(1).precision == coarse.precision == 1e-7


def test_where_it_is_blind():
    """With products of two neighbors the first layer is blind where nu = 2 is."""
    descriptor = MACEDescriptor(random_mace([1, 6], hidden="16x0e+16x1o"))
    atoms = ENVIRONMENTS["S1"]
    (row,) = environment_checks(descriptor, "S1", atoms)
    first, second, together = row.values["n_null_by_layer"]
    assert first >= 1
    assert (second, together, row.values["n_null"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("build", [lambda: molecule("H2O2"), lambda: bulk("Si")])
def test_the_contract(descriptor, build):
    check_descriptor(descriptor, rattled(build(), 0.1, 1))


def test_forces_are_made_of_the_jacobian(model, descriptor):
    """The energy is a sum of one readout for the features of each layer."""
    atoms = rattled(molecule("CH3OH"), 0.05, 0)
    jacobian = descriptor.jacobian(atoms)
    features = torch.tensor(jacobian.features, requires_grad=True)
    zeros = torch.zeros(len(atoms), dtype=torch.long)
    first = torch.cat([features[:, :4], torch.zeros(len(atoms), 12, dtype=torch.float64)], dim=1)
    energies = [
        model.readouts[0](first, zeros).sum(),
        model.readouts[1](features[:, 4:], zeros).sum(),
    ]
    (slopes,) = torch.autograd.grad(sum(energies), features)
    found = -jacobian.adjoint(slopes.numpy().reshape(1, -1))[0]
    positions = torch.tensor(atoms.positions, requires_grad=True)
    data = descriptor._data(atoms, positions, torch.zeros(3, 3, dtype=torch.float64))
    forces = model(data, compute_force=True)["forces"].detach().numpy()
    assert np.abs(forces).max() > 1e-3
    np.testing.assert_allclose(found, forces, atol=1e-12)


def test_the_model_is_left_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = MACEDescriptor(model, dtype="float32", layers=2)
    water = molecule("H2O")
    expected = MACEDescriptor(model).features(water)[:, 4:]
    np.testing.assert_allclose(one.features(water), expected, atol=1e-4 * np.abs(expected).max())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_of_its_calculator(model):
    from mace.calculators import MACECalculator

    atoms = rattled(molecule("H2O"), 0.05, 0)
    atoms.calc = MACECalculator(models=[model], device="cpu", default_dtype="float64")
    assert repr(descriptor_of(atoms.calc)) == repr(MACEDescriptor(model))
    found, expected = analyze(atoms), analyze(atoms, MACEDescriptor(model))
    np.testing.assert_array_equal(found.singular_values, expected.singular_values)


def test_mistakes(model):
    with pytest.raises(TypeError, match="`model` must be a MACE"):
        MACEDescriptor(3)
    with pytest.raises(ValueError, match="`layers` is 3 but must be numbers from 1 to 2"):
        MACEDescriptor(model, layers=3)
    with pytest.raises(ValueError, match="the model does not know He"):
        MACEDescriptor(model).features(Atoms("He"))


def test_of_a_file(model, tmp_path):
    torch.save(model, tmp_path / "some.model")
    own = MACEDescriptor(model)
    for name in (tmp_path / "some.model", str(tmp_path / "some.model")):
        found = MACEDescriptor(name)
        np.testing.assert_array_equal(
            found.features(molecule("H2O")), own.features(molecule("H2O"))
        )
        assert repr(found) == repr(own)
    with pytest.raises(FileNotFoundError, match=r"there is no file none\.model"):
        MACEDescriptor("none.model")


def test_its_text_tells_weights_apart(model):
    """By it the results of a scan are continued, or not."""
    other = random_mace([1, 6, 8, 14])
    assert repr(MACEDescriptor(other)) == repr(MACEDescriptor(model))
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    assert repr(MACEDescriptor(other)) != repr(MACEDescriptor(model))
