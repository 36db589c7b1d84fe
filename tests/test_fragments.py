"""Parts of a structure that no center sees together, or hardly: before the cutoff and beyond."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP, Sensitivity, analyze, nearest_singular, replay, scan
from ase_sensitivity.dataset.forces import force_loss
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.report.verdict import verdict
from ase_sensitivity.singular.point import point_at
from ase_sensitivity.singular.system import system_of
from tests.structures import rattled

CARBON = [(0, 0, 0), (1.1, 0.2, -0.9), (-0.8, 1.0, -0.7), (-0.3, -1.2, -1.0)]
AWAY = np.array([0.15, 0.1, 1.0]) / np.linalg.norm([0.15, 0.1, 1.0])
INSIDE = [3.6, 3.8, 3.95, 3.999]
BEYOND = [4.01, 6.0]


def leaving(distance: float) -> Atoms:
    """Four carbon atoms without symmetry, and an oxygen atom at a distance from the first."""
    atoms = Atoms("C4O", [*CARBON, distance * AWAY])
    forces = np.zeros((5, 3))
    forces[4] = 0.3 * AWAY[::-1]
    forces[0] = -forces[4]
    atoms.arrays["f"] = forces
    return atoms


@pytest.fixture(scope="module")
def soap() -> SOAP:
    return SOAP(["C", "O"], cutoff=4.0, n_max=6, l_max=4)


@pytest.mark.parametrize("distance", INSIDE + BEYOND)
def test_an_atom_that_leaves_is_a_fragment(distance: float, soap: SOAP) -> None:
    atoms = leaving(distance)
    found = nearest_singular(atoms, soap)
    assert (found.cause, found.found) == ("fragment", True)
    assert found.distance <= max(4.0 - distance, 0.0)
    log = replay([atoms], soap, distance_threshold=0.4, on_singular={"fragment": "log"})
    assert (log.cause[0], log.state[0]) == ("fragment", "singular")
    if distance > 4:  # what is lost moves oxygen away from the rest
        assert (found.mode[4] - found.mode[:4].mean(axis=0)) @ AWAY > 0.9


@pytest.mark.parametrize("distance", BEYOND)
def test_what_is_lost_between_fragments_has_a_cause(distance: float, soap: SOAP) -> None:
    atoms = leaving(distance)
    found = analyze(atoms, soap, causes=True)
    assert (found.n_trivial, found.n_null, found.n_apart) == (9, 0, 3)
    assert found.counts["fragment"] == 3
    assert "3 of these move parts against each other" in str(found)
    assert Sensitivity.fromdict(found.todict()).n_apart == 3
    result = scan([atoms], soap, forces_key="f")
    (row,) = result.rows
    assert (row["cause"], row["n_fragment"], row["n_null"]) == ("fragment", 3, 0)
    assert row["irreducible_force_error"] > 0.05
    assert "1 of 1 have directions" in result.summary()
    assert "1 frame because of fragment" in result.summary()
    said = verdict(result.totals)
    assert any("a larger cutoff would see them" in sentence for sentence in said.sentences)
    assert not any("harmless" in sentence for sentence in said.sentences)
    loss = force_loss(atoms, atoms.arrays["f"], analyze(atoms, soap, k=None))
    assert loss.between_fragments == pytest.approx(loss.irreducible)


def test_connected_atoms_lose_nothing(soap: SOAP) -> None:
    (row,) = scan([leaving(3.0)], soap, forces_key="f").rows
    assert (row["cause"], row["irreducible_force_error"]) == (None, 0)
    assert replay([leaving(3.0)], soap).cause[0] == "-"


def test_a_mode_between_fragments_changes_no_feature(soap: SOAP) -> None:
    atoms = leaving(5.0)
    mode = nearest_singular(atoms, soap).mode.ravel()
    at = point_at(system_of(atoms, soap, "structure", None), atoms)
    assert np.linalg.norm(at.view.dense() @ mode) < 1e-12
    assert np.linalg.norm(at.view.whole.T @ mode) < 1e-12
    assert np.linalg.norm(mode) == pytest.approx(1)


def test_frames_in_which_only_fragments_move(soap: SOAP, tmp_path: Path) -> None:
    """Dimers beyond the cutoff and single atoms have no ratio, but a force that is lost."""
    structures = []
    for distance, force in ((1.3, 2.0), (2.0, -1.0), (4.5, -0.5), (5.0, -0.3)):
        dimer = Atoms("O2", [(0, 0, 0), (0, 0, distance)])
        dimer.arrays["f"] = np.array([[0, 0, -force], [0, 0, force]])
        structures.append(dimer)
    result = scan(structures, soap, forces_key="f")
    assert list(result.column("cause")) == ["", "", "fragment", "fragment"]
    assert list(result.column("error")) == [""] * 4
    assert result.irreducible_force_error == pytest.approx(np.sqrt((0.5 + 0.18) / 24))
    atom = Atoms("O")
    atom.arrays["f"] = np.zeros((1, 3))
    (row,) = scan([atom], soap, forces_key="f").rows
    assert (row["error"], row["cause"], row["irreducible_force_error"]) == (None, None, 0)
    found = scan([atom, *structures], soap, forces_key="f").totals.todict()
    assert (found["n_analyzed"], found["n_failed"], found["causes"]["fragment"]) == (5, 0, 2)
    stored = scan([atom, *structures], soap, forces_key="f", store=tmp_path / "results.db")
    assert stored.irreducible_force_error == pytest.approx(np.sqrt((0.5 + 0.18) / 27))
    assert ScanResult.read(tmp_path / "results.db").rows == stored.rows
    assert nearest_singular(structures[3], soap).cause == "fragment"
    assert replay([structures[3]], soap).cause[0] == "fragment"


def test_a_torque_on_a_molecule_in_a_box_is_lost_to_its_images() -> None:
    atoms = rattled(molecule("H2O"))
    atoms.set_cell([20.0, 21.0, 22.0])
    atoms.pbc = True
    turn = np.cross([0.0, 0.0, 1.0], atoms.positions - atoms.positions.mean(axis=0))
    atoms.arrays["f"] = turn
    (row,) = scan([atoms], SOAP(["O", "H"], 4.0, 6, 4), forces_key="f").rows
    assert (row["n_null"], row["cause"]) == (0, "fragment")
    assert row["irreducible_force_error"] > 0.1


def test_symmetry_that_is_there_is_not_taken_for_fragments() -> None:
    """Planar molecules whose farthest atoms are within half an Å of the cutoff."""
    atoms = molecule("NH3")
    atoms.positions[0, 2] = atoms.positions[1, 2] + 0.03
    for cutoff in (1.8, 2.0, 4.0):
        found = nearest_singular(atoms, SOAP(["N", "H"], cutoff, 6, 4))
        assert found.cause == "symmetry"


def test_what_is_spurious_is_told_before_fragments() -> None:
    singular = [(0, 0, 0), (1, 0, 0.5), (-1, 0, 0.5), (0.9, 0, -0.7), (0, 1.2, 0.3)]
    atoms = Atoms("CH4He", [*singular, (9, 0, 0)])
    carbon = SOAP(["H"], 3.0, 8, 8, atom_sigma=0.3, centers=["C"])
    found = nearest_singular(atoms, carbon)
    assert (found.cause, found.distance) == ("incompleteness", 0)
