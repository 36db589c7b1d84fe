"""The trained SevenNet-0: what is known of its null directions, and that it is left as it was."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import SevenNetDescriptor, analyze
from ase_sensitivity.auditing.blindness import environment_checks
from ase_sensitivity.auditing.reference import ENVIRONMENTS, blind_directions
from ase_sensitivity.auditing.symmetry import symmetry_checks
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled

torch = pytest.importorskip("torch")
pytest.importorskip("sevenn")
torch.set_num_threads(1)

# Of its own dependencies.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def descriptor() -> SevenNetDescriptor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SevenNetDescriptor()


def test_methane(descriptor):
    found = analyze(molecule("CH4"), descriptor, causes=True)
    assert (found.n_trivial, found.n_null) == (6, 2)
    assert found.counts["symmetry"] == 2
    assert "Not resolved" in str(found)  # it is symmetric in single precision only
    assert analyze(rattled(molecule("CH3OH"), 0.05, 0), descriptor).n_null == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("atoms", "n_null"),
    [(bulk("Si", cubic=True), 15), (bulk("NaCl", "rocksalt", 5.64, cubic=True), 21)],
)
def test_crystals(descriptor, atoms: Atoms, n_null: int):
    found = analyze(atoms, descriptor)
    assert (found.n_trivial, found.n_null) == (3, n_null)


@pytest.mark.slow
@pytest.mark.parametrize(
    "build", [lambda: molecule("H2O2"), lambda: bulk("NaCl", "rocksalt", 5.64)]
)
def test_the_contract(descriptor, build):
    check_descriptor(descriptor, rattled(build(), 0.1, 1), mirrored=False)


def test_left_and_right_are_told_apart(descriptor):
    atoms = rattled(molecule("H2O2"), 0.1, 0)
    mirrored = atoms.copy()
    mirrored.positions[:, 0] *= -1
    one, other = descriptor.features(atoms), descriptor.features(mirrored)
    assert np.abs(one - other).max() > 1e-4 * np.abs(one).max()


def test_forces_are_made_of_the_jacobian(descriptor):
    from sevenn.calculator import SevenNetCalculator

    atoms = rattled(molecule("CH3OH"), 0.1, 0)
    atoms.calc = SevenNetCalculator(device="cpu")
    jacobian = descriptor.jacobian(atoms)
    features = torch.tensor(jacobian.features, requires_grad=True)
    data = {"x": features}
    for name in ("reduce_input_to_hidden", "reduce_hidden_to_energy"):
        data = descriptor.model._modules[name](data)
    (slopes,) = torch.autograd.grad(data["scaled_atomic_energy"].sum(), features)
    scale = float(descriptor.model._modules["rescale_atomic_energy"].scale[0])  # of all elements
    found = -scale * jacobian.adjoint(slopes.numpy().reshape(1, -1))[0]
    forces = atoms.get_forces()  # in single precision
    np.testing.assert_allclose(found, forces, atol=1e-3 * np.abs(forces).max())


def test_the_model_is_left_as_it_was(descriptor):
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(device="cpu")
    weights = {name: value.clone() for name, value in calculator.model.state_dict().items()}
    seen = SevenNetDescriptor(calculator, layers=(1, 5))
    water = molecule("H2O")
    features = seen.features(water)
    assert features.shape == (3, 256)
    np.testing.assert_allclose(features[:, 128:], descriptor.features(water), atol=1e-12)
    assert (SevenNetDescriptor(calculator, layers=1).reach, seen.reach) == (5.0, 25.0)
    for name, value in calculator.model.state_dict().items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, weights[name])
    assert calculator.model.key_grad == "edge_vec"
    assert torch.get_default_dtype() == torch.float32


def test_mirror_planes_hide_nothing_from_it(descriptor):
    """Out of its plane ethene has three directions that are null for others."""
    (row,) = symmetry_checks(descriptor, "molecules", {"C2H4": molecule("C2H4")})
    assert (row.values["symmetry"], row.values["predicted"]) == (0, 3)
    assert row.verdict == "finding"


def test_where_it_is_blind(descriptor):
    """The first of its layers sees distances only; the others what SOAP does not see."""
    atoms = ENVIRONMENTS["S1"]
    (row,) = environment_checks(descriptor, "S1", atoms)
    first, *others = row.values["n_null_by_layer"]
    assert first == len(blind_directions(atoms, 1)) == 6
    assert others == [0, 0, 0, 0, 0]
    assert row.values["blind_at_nu_2"] == pytest.approx(0.068, abs=0.005)
    assert descriptor.at_layers(2).precision == descriptor.precision


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ({"model": 3}, TypeError, "`model` must be a SevenNet"),
        ({"layers": 6}, ValueError, "`layers` is 6 but must be numbers from 1 to 5"),
    ],
)
def test_mistakes(how, error, match):
    with pytest.raises(error, match=match):
        SevenNetDescriptor(**how)


def test_unknown_elements(descriptor):
    with pytest.raises(ValueError, match="the model does not know Po"):
        descriptor.features(Atoms("Po2", [(0, 0, 0), (0, 0, 3)]))
