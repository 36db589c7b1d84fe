"""Models of metatomic: the contract, units, lists of neighbors, files."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_sensitivity import MetatomicDescriptor, analyze, gradient
from ase_sensitivity.testing import check_descriptor
from tests.structures import rattled

torch = pytest.importorskip("torch")
pytest.importorskip("metatomic.torch")
torch.set_num_threads(1)

from tests.metatomic_models import exported  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # of the package

STRUCTURES = {
    "isolated": rattled(molecule("CH3CH2OH"), 0.1, 0),
    "periodic": rattled(bulk("NaCl", "rocksalt", 5.64, cubic=True), 0.1, 0),
    "slab": rattled(Atoms("SiOSiO", [(0, 0, 0), (1.5, 1.4, 0.3), (1.4, 0, 1.5), (0, 1.6, 1.7)],
                          cell=[3, 3.2, 0], pbc=[True, True, False]), 0.05, 0),
    "small cell": rattled(bulk("Si"), 0.1, 1),
}  # fmt: skip


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("messages", [False, True])
def test_the_contract(structure: str, messages: bool):
    seen = MetatomicDescriptor(exported(messages=messages))
    assert (seen.cutoff, seen.reach) == (3.5, 7.0 if messages else 3.5)
    assert seen.species == ("H", "C", "O", "Na", "Si", "Cl")
    check_descriptor(seen, STRUCTURES[structure])


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("how", [{"full": False}, {"unit": "nm"}])
def test_lists_and_units_do_not_matter(structure: str, how: dict):
    atoms = STRUCTURES[structure]
    found, expected = (MetatomicDescriptor(exported(**k)).jacobian(atoms) for k in (how, {}))
    np.testing.assert_allclose(found.features, expected.features, atol=1e-6)  # nm: single numbers
    gram = expected.gram()
    np.testing.assert_allclose(found.gram(), gram, atol=1e-6 * gram.max())


def test_everything_else_works_with_it():
    seen = MetatomicDescriptor(exported())
    found = analyze(molecule("CH4"), seen, causes=True)
    assert found.n_null == found.counts["symmetry"] == 2
    slopes = gradient(STRUCTURES["small cell"], seen)
    assert np.isfinite(slopes.positions).all()
    assert np.isfinite(slopes.strain).all()


def test_of_a_file(tmp_path):
    model = exported()
    own = MetatomicDescriptor(model)
    model.save(str(tmp_path / "radial.pt"))
    found = MetatomicDescriptor(tmp_path / "radial.pt")
    atoms = STRUCTURES["isolated"]
    np.testing.assert_allclose(found.features(atoms), own.features(atoms), rtol=1e-12)
    np.testing.assert_allclose(found.jacobian(atoms).gram(), own.jacobian(atoms).gram(), atol=1e-12)
    assert repr(found) == repr(own)


def test_single_precision():
    atoms = STRUCTURES["isolated"]
    coarse = MetatomicDescriptor(exported(dtype="float32"))
    assert coarse.precision == 1e-6
    check_descriptor(coarse, atoms)


def test_the_name_of_the_output():
    for name, found in {
        "mtt::aux::energy_last_layer_features": "mtt::aux::energy_last_layer_features",
        "features": "feature",  # an old name, which the package translates
    }.items():
        seen = MetatomicDescriptor(exported(name=name))
        assert seen.output == found
        assert seen.features(molecule("H2O")).shape == (3, 6)
    with pytest.raises(ValueError, match="`output` is 'energy' but must be one of feature"):
        MetatomicDescriptor(exported(), output="energy")


def test_rotations_may_be_seen():
    atoms = STRUCTURES["isolated"]
    seen = MetatomicDescriptor(exported(), rotation_invariant=False)
    check_descriptor(seen, atoms)
    # Declared as seen, though this model is invariant: three null directions of unknown cause.
    found = analyze(atoms, seen, causes=True)
    assert (found.n_trivial, found.n_null) == (3, 3)
    assert found.counts["unknown"] == 3
    assert analyze(atoms, seen, scope="environment", center=0).n_trivial == 3


def test_mistakes():
    with pytest.raises(TypeError, match="`model` must be an AtomisticModel of metatomic"):
        MetatomicDescriptor(3)
    with pytest.raises(FileNotFoundError, match=r"there is no file none\.pt"):
        MetatomicDescriptor("none.pt")
    with pytest.raises(ValueError, match="does not support the atomic type"):
        MetatomicDescriptor(exported()).features(molecule("N2"))
