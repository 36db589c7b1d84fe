"""The joint force error of frames with equal features, against linear algebra written out."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.stats import special_ortho_group

from ase_sensitivity import SOAP, QUIPDescriptor, find_pairs, scan
from ase_sensitivity.auditing.reference import PAIRS
from ase_sensitivity.dataset.pairs import bounds
from ase_sensitivity.dataset.pairs.joint import bounded_frame, equal_features, jointly_lost
from ase_sensitivity.dataset.pairs.joint_bound import FrameClass, JointBound
from ase_sensitivity.environments.place import Place
from tests.structures import rattled

PLUS, MINUS = PAIRS["X+/X-"]
CARBON = SOAP(["H"], 3.0, 5, 4, atom_sigma=0.3, normalise=False, centers=["C"])
ALL = SOAP(["C", "H"], 3.0, 5, 4, atom_sigma=0.3, normalise=False)
EPSILON = 1e-6


def with_forces(atoms: Atoms, seed: int, energy: float = 0.0) -> Atoms:
    atoms = atoms.copy()
    forces = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def rigid(atoms: Atoms) -> np.ndarray:
    """Orthonormal rigid motions of a molecule, of shape (3 n_atoms, 6)."""
    arm = atoms.positions - atoms.positions.mean(axis=0)
    motions = [np.tile(e, len(atoms)) for e in np.eye(3)]
    motions += [np.cross(e, arm).ravel() for e in np.eye(3)]
    return np.linalg.qr(np.array(motions).T)[0]


def jacobian(atoms: Atoms, descriptor: SOAP) -> np.ndarray:
    """Of shape (n_centers, n_features, 3 n_atoms)."""
    found = descriptor.jacobian(atoms)
    J = np.zeros((len(found.centers), found.features.shape[1], len(atoms), 3))
    for row, atom, block in zip(found.row, found.atom, found.blocks, strict=True):
        J[row, :, atom] += block.T
    return J.reshape(*J.shape[:2], -1)


def truth(frames: list[Atoms], descriptor: SOAP) -> float:
    """Sum of squares that is left of all forces, with one slope for the carbon atoms."""
    blocks = [jacobian(atoms, descriptor) for atoms in frames]
    columns, shared = 15 * len(frames), np.concatenate([J[0] for J in blocks], axis=1)
    rows = [shared]
    for k, J in enumerate(blocks):
        own = np.zeros((J[1:].shape[0] * J.shape[1], columns))
        own[:, 15 * k : 15 * (k + 1)] = J[1:].reshape(-1, 15)
        rows.append(own)
    forces = []
    for atoms in frames:
        Q = rigid(atoms)
        force = atoms.get_forces().ravel()
        forces.append(force - Q @ (Q.T @ force))
    _, values, modes = np.linalg.svd(np.concatenate(rows), full_matrices=False)
    modes = modes[values > 1e-9 * values[0]]
    force = np.concatenate(forces)
    return float(((force - modes.T @ (modes @ force)) ** 2).sum())


def joint(frames: list[Atoms], descriptor) -> float:
    known = [bounded_frame(atoms, atoms.get_forces(), descriptor, EPSILON) for atoms in frames]
    return jointly_lost(known, descriptor, EPSILON)


@pytest.mark.parametrize("descriptor", [CARBON, ALL], ids=["carbon", "all"])
def test_the_joint_error_is_that_of_the_best_slopes(descriptor: SOAP) -> None:
    frames = [with_forces(PLUS, 1), with_forces(MINUS, 2)]
    wanted = truth(frames, descriptor)
    assert joint(frames, descriptor) == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    alone = sum(bounded_frame(a, a.get_forces(), descriptor, EPSILON).lost for a in frames)
    assert alone == pytest.approx(0.0, abs=1e-12)
    assert (wanted > 0.1) == (descriptor is CARBON)  # hydrogen atoms see the difference


def test_forces_of_one_model_are_not_lost() -> None:
    rng = np.random.default_rng(0)
    slopes = rng.normal(size=CARBON.features(PLUS).shape[1])
    frames = []
    for atoms in (PLUS, MINUS):
        forces = -(jacobian(atoms, CARBON)[0].T @ slopes).reshape(-1, 3)
        frames.append(atoms.copy())
        frames[-1].calc = SinglePointCalculator(atoms, forces=forces)
    assert joint(frames, CARBON) == 0.0
    frames[1].calc.results["forces"] *= -1
    assert joint(frames, CARBON) > 1e-3 * (frames[0].get_forces() ** 2).sum()


def test_rotations_and_printed_digits_do_not_matter() -> None:
    frames = [with_forces(PLUS, 1), with_forces(MINUS, 2)]
    wanted = joint(frames, CARBON)
    R = special_ortho_group.rvs(3, random_state=0)
    rotated = Atoms(MINUS.numbers, np.round(MINUS.positions @ R.T + 1.0, 8))
    rotated.calc = SinglePointCalculator(rotated, forces=frames[1].get_forces() @ R.T)
    assert joint([frames[0], rotated], CARBON) == pytest.approx(wanted, rel=1e-4)


def test_pairs_classes_and_the_set_are_bounded() -> None:
    """A frame that is like no other counts with its own error; copies are in the class."""
    other = rattled(PLUS, 0.2)
    frames = [with_forces(PLUS, 1), with_forces(other, 3), with_forces(MINUS, 2)]
    frames.append(frames[2])
    found = find_pairs(frames, CARBON)
    pair = truth([frames[0], frames[2]], CARBON)
    assert len(found.degenerate) == 2
    for one in found.degenerate:
        assert one.joint_force_error == pytest.approx(np.sqrt(pair / 30), rel=1e-6)
    (known,) = found.bound.classes
    assert known.frames == [Place(k, None) for k in (0, 2, 3)]
    three = truth([frames[k] for k in (0, 2, 3)], CARBON)
    assert known.joint_force_error == pytest.approx(np.sqrt(three / 45), rel=1e-6)
    assert known.irreducible_force_error == pytest.approx(0.0, abs=1e-9)
    assert found.bound.joint_force_error == pytest.approx(np.sqrt(three / 60), rel=1e-6)
    assert found.bound.irreducible_force_error == pytest.approx(0.0, abs=1e-9)
    assert "Joint force error" in found.summary()
    assert f"{known.joint_force_error:.3g} eV/Å, in 3 frames" in found.summary()
    assert all("joint_force_error" in row for row in found.rows)


def test_the_bound_of_single_frames_is_that_of_a_scan() -> None:
    blunt = SOAP(["H"], 3.0, 1, 0, normalise=False, centers=["C"])
    frames = [with_forces(rattled(PLUS, 0.2, k), k) for k in range(3)]
    found = find_pairs(frames, blunt).bound
    result = scan(frames, blunt)
    assert found.irreducible_force_error == pytest.approx(result.irreducible_force_error)
    assert found.rms_force == pytest.approx(result.rms_force)
    assert found.irreducible_force_error > 0.1
    assert found.classes == []


def test_what_frames_lose_by_themselves_is_lost_once() -> None:
    """In a class it is part of what is lost jointly."""
    blunt = SOAP(["H"], 3.0, 2, 0, normalise=False, centers=["C"])
    frames = [with_forces(PLUS, 2), with_forces(MINUS, 3), with_forces(rattled(PLUS, 0.2), 4)]
    found = find_pairs(frames, blunt).bound
    pair, other = truth(frames[:2], blunt), truth(frames[2:], blunt)
    alone = [truth([atoms], blunt) for atoms in frames]
    assert min(alone) > 0.1
    assert pair > sum(alone[:2]) + 1.0
    (known,) = found.classes
    assert known.joint_force_error == pytest.approx(np.sqrt(pair / 30), rel=1e-6)
    assert known.irreducible_force_error == pytest.approx(np.sqrt(sum(alone[:2]) / 30), rel=1e-6)
    assert found.joint_force_error == pytest.approx(np.sqrt((pair + other) / 45), rel=1e-6)
    assert found.irreducible_force_error == pytest.approx(np.sqrt(sum(alone) / 45), rel=1e-6)


def test_copies_without_a_contradiction_make_no_class() -> None:
    first = with_forces(PLUS, 1)
    found = find_pairs([first, first, with_forces(rattled(PLUS, 0.2), 3)], CARBON)
    assert len(found.duplicate_frames) == 1
    assert found.bound.classes == []


def test_a_contradiction_of_labels_is_a_loss() -> None:
    """The same structure with opposite forces: nothing better than no force."""
    first = with_forces(PLUS, 1)
    second = first.copy()
    second.calc = SinglePointCalculator(second, forces=-first.get_forces())
    found = find_pairs([first, second], ALL)
    Q, force = rigid(PLUS), first.get_forces().ravel()
    internal = force - Q @ (Q.T @ force)
    wanted = np.sqrt((internal**2).mean())
    assert found.conflicts
    assert found.bound.joint_force_error == pytest.approx(wanted, rel=1e-6)


def test_what_was_bounded_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [with_forces(PLUS, 1), with_forces(MINUS, 2)]
    text = scan(frames, CARBON).summary()
    assert "no force of a single frame is out of reach" in text
    assert "`ase-sensitivity pairs`" in text
    joint_text = find_pairs(frames, ALL).summary()
    assert "frame by frame and where features agree" in joint_text
    without = find_pairs(frames, CARBON, bound=False)
    assert without.bound is None
    assert without.degenerate[0].joint_force_error is None
    assert find_pairs([PLUS, MINUS], CARBON).bound is None
    monkeypatch.setattr(bounds, "MOST", 20)
    found = find_pairs(frames, CARBON)
    assert found.degenerate[0].joint_force_error is None
    assert found.bound.n_unbounded == 2
    assert "as they have too many atoms: 2 frames with features" in found.summary()


@pytest.mark.parametrize(
    ("n_frames", "shown"),
    [(3, "(a@0, a@1, a@2)"), (4, "(a@0, a@1, a@2, a@3)"), (5, "(a@0, a@1, a@2, a@3, ...)")],
)
def test_the_frames_of_a_large_class_are_not_all_named(n_frames: int, shown: str) -> None:
    worst = FrameClass([Place(k, None, "a") for k in range(n_frames)], 0.5, 0.0)
    found = JointBound(n_frames, 1.0, 0.0, 0.5, 0, [worst])
    assert found.summary().endswith(f"in {n_frames} frames with features in common {shown}.")


def test_a_class_in_pieces_is_bounded_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [with_forces(atoms, k) for k, atoms in enumerate([PLUS, MINUS] * 3)]
    whole = find_pairs(frames, CARBON).bound.joint_force_error
    monkeypatch.setattr(bounds, "AT_ONCE", 30)
    pieces = find_pairs(frames, CARBON).bound.joint_force_error
    assert 0.1 < pieces < whole


def test_rows_of_pairs_share_their_function() -> None:
    """Two bonds of the same length pull alike, whatever their angle."""
    pairs = QUIPDescriptor("distance_2b cutoff=3 Z1=6 Z2=1")
    frames = []
    for angle, pull in ((1.5, 1.0), (2.0, -3.0)):
        atoms = Atoms(
            "CHH", [(0, 0, 0), (1.1, 0, 0), (1.1 * np.cos(angle), 1.1 * np.sin(angle), 0)]
        )
        bonds = atoms.positions[1:] / 1.1
        forces = pull * np.array([-bonds.sum(axis=0), *bonds])
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
        frames.append(atoms)
    found = find_pairs(frames, pairs)
    # The best pull w is the one that leaves least: w = (a * 1 - b * 3) / (a + b).
    a = (frames[0].get_forces() ** 2).sum()
    b = (frames[1].get_forces() ** 2).sum() / 9
    w = (a - 3 * b) / (a + b)
    left = a * (1 - w) ** 2 + b * (3 + w) ** 2
    assert found.bound.irreducible_force_error == pytest.approx(0.0, abs=1e-9)
    assert found.bound.joint_force_error == pytest.approx(np.sqrt(left / 18), rel=1e-6)


def test_equal_features_are_within_epsilon_of_the_first() -> None:
    features = np.array([[1.0], [1.0 + 5e-7], [1.0 + 1.2e-6], [2.0], [1.0]])
    kinds = np.array([6, 6, 6, 6, 1])
    label, first = equal_features(features, kinds, EPSILON)
    assert label.tolist() == [0, 0, 1, 2, 3]
    assert first.tolist() == [0, 2, 3, 4]
