"""The trained CHGNet: what is known of its null directions, and that it is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from ase_sensitivity import CHGNetDescriptor, analyze, audit, nearest_singular
from ase_sensitivity.auditing.blindness import environment_checks, pair_checks
from ase_sensitivity.auditing.reference import ENVIRONMENTS, PAIRS, blind_directions
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled

torch = pytest.importorskip("torch")
pytest.importorskip("chgnet")
torch.set_num_threads(1)

from ase_sensitivity.jacobian import autograd  # noqa: E402


@pytest.fixture(scope="module")
def descriptor() -> CHGNetDescriptor:
    return CHGNetDescriptor()


def planar_ammonia() -> Atoms:
    angles = 2 * np.pi / 3 * np.arange(3)
    ring = np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    return Atoms("NH3", [(0, 0, 0), *ring])


class TestNullDirections:
    @pytest.mark.parametrize(
        ("build", "n_trivial", "n_null", "n_near_null"),
        [
            (lambda: molecule("CH4"), 6, 2, 0),
            (planar_ammonia, 6, 1, 0),
            # Out of the plane exactly; in it up to the printed digits.
            (lambda: molecule("C6H6"), 6, 9, 3),
        ],
    )
    def test_of_molecules(self, descriptor, build, n_trivial, n_null, n_near_null):
        found = analyze(build(), descriptor, causes=True)
        assert (found.n_trivial, found.n_null) == (n_trivial, n_null)
        assert found.n_near_null == n_near_null
        assert found.counts["symmetry"] == n_null + n_near_null

    @pytest.mark.parametrize(
        ("build", "n_null"),
        [
            (lambda: bulk("Si", cubic=True), 15),
            (lambda: bulk("NaCl", "rocksalt", 5.64, cubic=True), 21),  # nothing at all is seen
        ],
    )
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_of_crystals(self, descriptor, build, n_null, dtype):
        seen = descriptor if dtype == "float64" else CHGNetDescriptor(dtype=dtype)
        found = analyze(build(), seen)
        assert (found.n_trivial, found.n_null) == (3, n_null)

    @pytest.mark.slow
    def test_causes_in_a_crystal(self, descriptor):
        """Some 3000 atoms are within reach of each."""
        found = analyze(bulk("Si", cubic=True), descriptor, causes=True)
        assert found.counts["symmetry"] == 15

    def test_none_without_symmetry(self, descriptor):
        assert analyze(rattled(molecule("CH3OH"), 0.05, 0), descriptor).n_null == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        lambda: molecule("H2O2"),
        lambda: bulk("NaCl", "rocksalt", 5.64),
        lambda: fcc111("Al", (1, 1, 2), vacuum=5),
    ],
)
def test_the_contract(descriptor, build):
    # Angles near 180 degrees vary within a few thousandths of an Å.
    check_descriptor(descriptor, rattled(build(), 0.1, 1), differentiable=1e-3)


def test_features_and_forces_are_those_of_the_model(descriptor):
    """The readout of our features is the energy, and its slopes give the forces."""
    from chgnet.model.dynamics import CHGNetCalculator

    atoms = rattled(bulk("NaCl", "rocksalt", 5.64), 0.1, 0)
    jacobian = descriptor.jacobian(atoms)
    readout = descriptor.model.mlp
    features = torch.tensor(jacobian.features, requires_grad=True)
    (slopes,) = torch.autograd.grad(readout(features).sum(), features)
    atoms.calc = CHGNetCalculator(use_device="cpu")
    forces = -jacobian.adjoint(slopes.numpy().reshape(1, -1))[0]
    with pytest.warns(UserWarning, match="requires_grad"):  # its own
        expected = atoms.get_forces()
    np.testing.assert_allclose(forces, expected, atol=1e-4)  # it computes in single precision


def test_layers(descriptor):
    atoms = molecule("H2O")
    several = CHGNetDescriptor(layers=(1, 4))
    assert several.features(atoms).shape == (3, 128)
    np.testing.assert_array_equal(several.features(atoms)[:, 64:], descriptor.features(atoms))
    first = CHGNetDescriptor(layers=1)
    assert (first.cutoff, first.reach, descriptor.reach) == (6.0, 6.0, 24.0)
    far = Atoms("H3", [(0, 0, 0), (4, 0, 0), (9.5, 0, 0)])
    moved = far.copy()
    moved.positions[2, 0] -= 0.1
    unchanged = [
        np.array_equal(seen.features(far)[0], seen.features(moved)[0])
        for seen in (first, descriptor)
    ]
    assert unchanged == [True, False]


def test_layers_of_the_same_copy(descriptor):
    atoms = molecule("H2O")
    first = descriptor.at_layers(1)
    assert (first.layers, first.reach, descriptor.n_layers) == ((1,), 6.0, 4)
    np.testing.assert_array_equal(first.features(atoms), CHGNetDescriptor(layers=1).features(atoms))
    coarse = CHGNetDescriptor(dtype="float32", precision=1e-5).at_layers((1, 2))
    assert (coarse.dtype, coarse.precision) == (torch.float32, 1e-5)


class TestAudit:
    @pytest.mark.parametrize("name", ["S1", "T"])
    def test_the_first_layer_sees_distances_only(self, descriptor, name):
        """It is blind where nu = 1 is; the next one, which has heard of angles, nowhere."""
        atoms = ENVIRONMENTS[name]
        (row,) = environment_checks(descriptor, name, atoms)
        assert row.values["n_null_by_layer"] == [len(blind_directions(atoms, 1)), 0, 0, 0, 0]
        assert "lifted at layer 2" in row.note
        assert row.verdict == "ok"
        if name == "S1":  # what SOAP does not see
            assert row.values["blind_at_nu_2"] == pytest.approx(0.06, abs=0.005)

    def test_what_all_soaps_confuse(self, descriptor):
        (row,) = pair_checks(descriptor, "X+/X-", PAIRS["X+/X-"])
        first, *others = row.values["distance_by_layer"]
        assert first < 1e-12
        assert min(others) > 1e-3

    @pytest.mark.slow
    def test_the_whole(self, descriptor):
        found = audit(descriptor)
        assert found.passed
        assert found.check("finite differences").verdict == "finding"  # within 1e-3 Å it bends
        symmetry = found.check("molecules").values
        assert symmetry["symmetry"] == symmetry["predicted"] > 20


def test_a_slab_without_a_third_cell_vector(descriptor):
    atoms = rattled(fcc111("Al", (1, 1, 2), vacuum=5), 0.1, 0)
    atoms.pbc = (True, True, False)
    expected = descriptor.jacobian(atoms)
    atoms.cell[2] = 0.0
    found = descriptor.jacobian(atoms)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-12)
    np.testing.assert_allclose(found.gram(), expected.gram(), atol=1e-10)


def test_atoms_beyond_all_others(descriptor):
    """Two molecules 10 Å apart never exchange a message."""
    pair = molecule("H2O") + molecule("NH3")
    pair.positions[3:] += (10, 0, 0)
    pair.rattle(0.05, seed=0)
    found = analyze(pair, descriptor)
    assert (found.n_trivial, found.n_null, found.n_apart) == (12, 0, 6)
    alone = descriptor.features(Atoms("H"))
    assert np.isfinite(alone).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_molecules_that_exchange_no_messages_share_products(descriptor, dtype, monkeypatch):
    seen = descriptor if dtype == "float64" else CHGNetDescriptor(dtype=dtype)
    atoms = sum((molecule("H2O") for _ in range(4)), Atoms())
    atoms.positions[:, 0] += 8.0 * np.repeat(np.arange(4), 3)
    atoms.rattle(0.05, seed=0)
    quick = seen.jacobian(atoms)
    assert quick._shared.n_colors == 3
    gram = quick.gram()
    monkeypatch.setattr(autograd, "shared", lambda *given: None)
    expected = seen.jacobian(atoms).gram()
    np.testing.assert_allclose(gram, expected, atol=100 * seen.precision * expected.max())


def test_the_model_is_left_as_it_was():
    from chgnet.model import CHGNet, CHGNetCalculator

    model = CHGNet.load(use_device="cpu", verbose=False).train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    seen = CHGNetDescriptor(model)
    features = seen.features(molecule("H2O"))
    assert model.training
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())
    assert model.graph_converter.on_isolated_atoms == "error"
    assert not any(layer._forward_hooks for layer in model.modules())
    assert not any(layer._forward_hooks for layer in seen.model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert torch.get_default_dtype() == torch.float32
    of_calculator = CHGNetDescriptor(CHGNetCalculator(model, use_device="cpu"))
    np.testing.assert_array_equal(of_calculator.features(molecule("H2O")), features)


def test_the_walk_to_planar_ammonia(descriptor):
    atoms = planar_ammonia()
    atoms.positions[0, 2] += 0.05
    found = nearest_singular(atoms, descriptor)
    assert found.cause == "symmetry"
    assert found.distance == pytest.approx(0.05 * np.sqrt(3) / 2, rel=0.05)


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ({"model": 3}, TypeError, "`model` must be a CHGNet"),
        ({"layers": 5}, ValueError, "`layers` is 5 but must be numbers from 1 to 4"),
        ({"layers": ()}, ValueError, "`layers` is"),
    ],
)
def test_mistakes(how, error, match):
    with pytest.raises(error, match=match):
        CHGNetDescriptor(**how)
