"""Degenerate pairs, duplicates and label conflicts, against structures built to be such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from scipy.spatial.transform import Rotation
from scipy.stats import special_ortho_group

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor, QUIPDescriptor
from ase_sensitivity.auditing.reference import PAIRS, around_carbon
from ase_sensitivity.dataset.pairs.find import find_pairs
from ase_sensitivity.dataset.pairs.result import PairResult
from ase_sensitivity.descriptors.base import rows_of
from ase_sensitivity.environments.place import Place
from ase_sensitivity.geometry.matching import best_match
from tests.structures import isolated, rattled

PLUS, MINUS = PAIRS["X+/X-"]
CARBON_ONLY = SOAP(
    ["H"], 3.0, 8, 8, atom_sigma=0.3, normalise=False, central_weight=0.0, centers=["C"]
)
RADIAL = SOAP(["H"], 3.0, 6, 0, atom_sigma=0.3, centers=["C"], body_order=2)


def rotated(atoms: Atoms, seed: int, *, reflect: bool = False) -> Atoms:
    """Rotated, reflected if asked, moved and with its atoms in another order."""
    rng = np.random.default_rng(seed)
    rotation = special_ortho_group.rvs(3, random_state=rng) * (-1 if reflect else 1)
    found = atoms.copy()
    found.set_cell(atoms.cell.array @ rotation.T)
    found.positions = atoms.positions @ rotation.T + rng.normal(size=3)
    return found[rng.permutation(len(atoms))]


def labelled(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def many_molecules(n: int, rng: np.random.Generator, special: dict[int, Atoms]) -> Atoms:
    """Carbon atoms out of sight of each other, each with four hydrogen atoms anywhere."""
    positions, symbols = [], []
    for k in range(n):
        one = special.get(k)
        directions = rng.normal(size=(4, 3))
        directions *= (rng.uniform(0.8, 1.5, 4) / np.linalg.norm(directions, axis=1))[:, None]
        points = np.vstack([(0, 0, 0), directions]) if one is None else one.positions
        positions.append(points - points[0] + (20.0 * k, 0, 0))
        symbols += ["C", "H", "H", "H", "H"]
    return Atoms(symbols, np.concatenate(positions))


def test_twins_are_found_among_ten_thousand_environments() -> None:
    rng = np.random.default_rng(0)
    special = {
        3: {17: PLUS},
        40: {5: MINUS},
        77: {99: MINUS, 0: PLUS},
    }
    frames = [many_molecules(100, rng, special.get(n, {})) for n in range(100)]
    again = Atoms("CHHHH", frames[11].positions[50:55][[0, 4, 2, 3, 1]] * (1, -1, 1))
    frames.append(many_molecules(1, rng, {0: again}))
    found = find_pairs(frames, CARBON_ONLY)
    assert found.n_environments == 10_001
    assert [(pair.first, pair.second) for pair in found.degenerate] == [
        (Place(3, 85), Place(40, 25))
    ]
    assert found.degenerate[0].feature_distance < 1e-12  # rounding of positions far away
    numbers = np.ones(4, dtype=int)
    truth = best_match(numbers, PLUS.positions[1:], numbers, MINUS.positions[1:])
    assert found.degenerate[0].match == pytest.approx(truth.maximum, abs=1e-9)
    assert found.degenerate[0].match > 0.5
    assert {(pair.first, pair.second) for pair in found.duplicates} == {
        (Place(3, 85), Place(77, 0)),
        (Place(40, 25), Place(77, 495)),
        (Place(11, 50), Place(100, 0)),
    }
    assert found.n_distinct == 10_001 - 3
    assert found.complete


def all_pairs(
    frames: list[Atoms], descriptor: SOAP, epsilon: float, delta: float
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Degenerate pairs and duplicates of first atoms, without anything clever."""
    features = np.array([descriptor.features(atoms)[0] for atoms in frames])
    different, same = set(), set()
    for i in range(len(frames)):
        for j in range(i):
            norm = max(np.linalg.norm(features[i]), np.linalg.norm(features[j]))
            if np.linalg.norm(features[i] - features[j]) <= epsilon * norm:
                a, b = frames[i][1:], frames[j][1:]
                match = best_match(a.numbers, a.positions, b.numbers, b.positions)
                (same if match.maximum <= delta else different).add((j, i))
    return different, same


@pytest.mark.parametrize(("seed", "epsilon"), [(0, 1e-6), (1, 1e-6), (2, 3e-3)])
def test_nothing_is_missed(seed: int, epsilon: float) -> None:
    """Every pair of environments is there, each structure stood for by its first copy."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(12):
        lengths = rng.uniform(0.8, 1.6, 3)
        for _ in range(rng.integers(1, 6)):  # features are of lengths only
            directions = rng.normal(size=(3, 3))
            directions *= (lengths / np.linalg.norm(directions, axis=1))[:, None]
            frames += [around_carbon(directions, "HHH")] * rng.integers(1, 4)
    order = rng.permutation(len(frames))
    frames = [frames[k].copy() for k in order]
    for atoms in frames:
        atoms.positions = atoms.positions @ special_ortho_group.rvs(3, random_state=rng).T
        atoms.positions += rng.normal(scale=epsilon / 10, size=atoms.positions.shape)
        atoms.positions -= atoms.positions[0]
    different, same = all_pairs(frames, RADIAL, epsilon, 0.05)
    assert len(different) > 20
    assert len(same) > 20
    found = find_pairs(frames, RADIAL, epsilon=epsilon)
    first = list(range(len(frames)))
    for pair in found.duplicates:
        if pair.first.center is not None:
            first[pair.second.frame] = pair.first.frame
    assert {frozenset((first[i], first[j])) for i, j in same} == {
        frozenset([first[i]]) for i, _ in same
    }
    listed = [pair for pair in found.degenerate if pair.first.center is not None]
    ends = {frozenset((first[pair.first.frame], first[pair.second.frame])) for pair in listed}
    assert ends == {frozenset((first[i], first[j])) for i, j in different}
    assert len(listed) == len(ends)
    assert {(pair.first.frame, pair.second.frame) for pair in listed} <= different


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_epsilon_is_a_fraction_of_the_larger_norm(scale: float) -> None:
    soap = FiniteDifferenceDescriptor(
        lambda atoms: scale * CARBON_ONLY.features(atoms),
        species=["H"],
        cutoff=3.0,
        centers=np.array([0]),
    )
    other = PLUS.copy()
    other.positions[1] *= 1.003
    f, g = (soap.features(atoms)[0] for atoms in (PLUS, other))
    distance = np.linalg.norm(f - g) / max(np.linalg.norm(f), np.linalg.norm(g))
    assert 1e-4 < distance < 5e-3
    for share, n_pairs in ((0.99, 0), (1.01, 1)):
        found = find_pairs([PLUS, other], soap, epsilon=share * distance, delta=1e-3)
        pairs = [pair for pair in found.degenerate if pair.first.center is not None]
        assert (len(pairs), len(found.duplicates)) == (n_pairs, 0)
        assert all(pair.feature_distance == pytest.approx(distance) for pair in pairs)


def test_perfect_crystals_make_no_flood() -> None:
    """Unit cell, supercell, turned and mirrored: one environment, one structure."""
    cell = bulk("Si", cubic=True)
    frames = [
        bulk("Si"),
        cell,
        cell.repeat((2, 2, 1)),
        rotated(cell, 1),
        rotated(cell, 2, reflect=True),
    ]
    found = find_pairs(frames, SOAP(["Si"], 5.0, 4, 3))
    n = sum(map(len, frames))
    assert (found.n_environments, found.n_distinct) == (n, 1)
    assert found.degenerate == []
    assert len(found.duplicates) - len(found.duplicate_frames) == n - 1
    assert [pair.second.frame for pair in found.duplicate_frames] == [1, 2, 3, 4]


def test_structures_that_differ_beyond_the_cutoff() -> None:
    """With bonded neighbors only, no atom of a chain sees how it is twisted."""

    def chain(twist: float) -> Atoms:
        step = np.array([np.cos(1.2), np.sin(1.2)])
        last = (1 + step[0], step[1] * np.cos(twist), step[1] * np.sin(twist))
        return Atoms("H4", [(-step[0], step[1], 0), (0, 0, 0), (1, 0, 0), last])

    frames = [chain(0.5), chain(2.0), chain(-0.5)]
    found = find_pairs(frames, SOAP(["H"], 1.3, 4, 4))
    assert [(pair.first, pair.second) for pair in found.degenerate] == [
        (Place(0, None), Place(1, None))
    ]
    assert found.degenerate[0].match > 0.1
    assert [pair.second.frame for pair in found.duplicate_frames] == [2]
    assert find_pairs(frames, SOAP(["H"], 2.0, 4, 4)).degenerate == []


def test_packings_that_only_angles_tell() -> None:
    """Twelve neighbors at the same distance in fcc and in hcp."""
    a = 4.05 / np.sqrt(2)
    frames = [bulk("Al", a=4.05), bulk("Al", "hcp", a=a, c=a * np.sqrt(8 / 3))]
    found = find_pairs(frames, SOAP(["Al"], 3.0, 4, 0, body_order=2))
    assert {pair.first.center is None for pair in found.degenerate} == {True, False}
    assert found.duplicate_frames == []
    assert find_pairs(frames, SOAP(["Al"], 3.0, 4, 6)).degenerate == []


def test_atoms_at_the_cutoff_do_not_count() -> None:
    inside = around_carbon([(1, 0, 0), (0, 1.1, 0), (0, 0, 3.0 - 1e-6)], "HHH")
    beyond = around_carbon([(1, 0, 0), (0, 1.1, 0), (0, 0, 3.0 + 1e-6)], "HHH")
    seen = around_carbon([(1, 0, 0), (0, 1.1, 0), (0, 0, 2.7)], "HHH")
    found = find_pairs([inside, beyond, seen], CARBON_ONLY)
    kinds = [(pair.first.frame, pair.second.frame) for pair in found.duplicates]
    assert kinds[0] == (0, 1)
    assert found.n_distinct == 2


def test_what_the_descriptor_does_not_see_makes_pairs() -> None:
    """Species that are not told apart, and centers of another species if asked."""
    other = PLUS.copy()
    other.symbols[4] = "F"
    blind = QUIPDescriptor("soap cutoff=3 n_max=4 l_max=4 atom_sigma=0.3 n_Z=1 Z=6")
    found = find_pairs([PLUS, other], blind)
    assert found.degenerate[0].match == np.inf
    nitrogen = PLUS.copy()
    nitrogen.symbols[0] = "N"
    both = SOAP(["H"], 3.0, 4, 4, central_weight=0.0, centers=["C", "N"])
    assert find_pairs([PLUS, nitrogen], both).degenerate == []
    crossed = find_pairs([PLUS, nitrogen], both, across_species=True).degenerate
    assert [pair.match for pair in crossed if pair.first.center is not None] == [np.inf]


def methanol() -> tuple[Atoms, np.ndarray]:
    atoms = isolated()
    forces = np.random.default_rng(4).normal(size=(len(atoms), 3))
    return atoms, forces


def copy_with_labels(energy: float, change: int | None = None) -> list[Atoms]:
    """A molecule, and the same one turned with forces that turn with it, but for one atom's."""
    atoms, forces = methanol()
    rotation = -special_ortho_group.rvs(3, random_state=3)
    again = atoms.copy()
    again.positions = atoms.positions @ rotation.T
    moved = forces @ rotation.T
    if change is not None:
        moved[change] += (0.0, 0.2, 0.0)
    order = np.random.default_rng(1).permutation(len(atoms))
    return [labelled(atoms, -5.0, forces), labelled(again[order], energy, moved[order])]


def pairs_of_molecules(frames: list[Atoms], **options) -> PairResult:
    return find_pairs(frames, SOAP(["C", "O", "H"], 4.0, 4, 3), **options)


def test_labels_that_agree_are_no_conflict() -> None:
    found = pairs_of_molecules(copy_with_labels(-5.0))
    assert found.conflicts == []
    assert found.degenerate == []
    assert len(found.duplicates) == 7
    forces = [pair.force_difference for pair in found.duplicates if pair.first.center is not None]
    assert max(forces) < 1e-9
    assert found.duplicate_frames[0].energy_difference == 0.0


def test_conflicts_of_energies_and_forces() -> None:
    found = pairs_of_molecules(copy_with_labels(-4.4, change=2))
    kinds = {conflict.quantity: conflict for conflict in found.conflicts}
    assert len(found.conflicts) == 2
    assert kinds["energy"].difference == pytest.approx(0.1)  # per atom
    assert kinds["force"].difference == pytest.approx(0.2)
    assert kinds["force"].first == Place(0, 2)
    assert (
        pairs_of_molecules(
            copy_with_labels(-4.4, change=2), energy_tolerance=0.11, force_tolerance=0.21
        ).conflicts
        == []
    )
    kcal = pairs_of_molecules(copy_with_labels(-4.4, change=2), units="kcal/mol")
    assert {conflict.quantity for conflict in kcal.conflicts} == {"energy"}
    assert kcal.conflicts[0].difference == pytest.approx(0.1 * 0.0433641, rel=1e-5)


def test_conflicts_in_crystals(tmp_path: Path) -> None:
    """Turned, in another file, with labels of its own names."""
    atoms = rattled(bulk("Si", cubic=True), 0.1)
    atoms.arrays["dft"] = np.random.default_rng(0).normal(size=(8, 3))
    atoms.info["e"] = -40.0
    rotation = special_ortho_group.rvs(3, random_state=1)
    again = atoms.copy()
    again.set_cell(atoms.cell.array @ rotation.T)
    again.positions = atoms.positions @ rotation.T
    again.arrays["dft"] = atoms.arrays["dft"] @ rotation.T
    files = [str(tmp_path / "a.xyz"), f"{tmp_path / 'b.xyz'}@1:"]
    options = {"forces_key": "dft", "energy_key": "e"}
    soap = SOAP(["Si"], 4.0, 4, 4)
    write(tmp_path / "a.xyz", atoms)
    write(tmp_path / "b.xyz", [rattled(atoms, 0.1, 5), again])
    found = find_pairs(files, soap, **options)
    assert (len(found.duplicate_frames), found.conflicts) == (1, [])
    assert found.duplicate_frames[0].second == Place(1, None, str(tmp_path / "b.xyz"))
    assert max(pair.match for pair in found.duplicates) < 1e-6
    again.arrays["dft"][3] *= -1
    again.info["e"] = -40.8
    write(tmp_path / "b.xyz", [rattled(atoms, 0.1, 5), again])
    found = find_pairs(files, soap, **options)
    energy, force = sorted(found.conflicts, key=lambda conflict: conflict.quantity)
    assert energy.difference == pytest.approx(0.1, rel=1e-6)
    wanted = 2 * np.linalg.norm(atoms.arrays["dft"][3])
    assert force.difference == pytest.approx(wanted, rel=1e-5)
    assert force.first.center == force.second.center == 3
    assert "2 label conflicts" in found.summary()
    assert [row["kind"] for row in found.rows[-2:]] == ["force conflict", "energy conflict"]


def test_forces_may_differ_for_what_neighbors_see() -> None:
    """Up to the cutoff the same, not so up to twice the cutoff: no conflict."""
    chain = [(1.1 * k, 0.3 * (k % 2), 0.1 * k**2 % 0.7) for k in range(4)]
    forces = np.zeros((4, 3))
    longer = Atoms("H4", chain)
    shorter = Atoms("H3", chain[:3])
    pushed = forces.copy()
    pushed[0] = 1.0
    soap = SOAP(["H"], 2.0, 4, 3)
    options = {"epsilon": 1e-6}
    found = find_pairs([labelled(longer, 0.0, forces), labelled(shorter, 0.0, pushed[:3])], soap)
    assert (Place(0, 0), Place(1, 0)) in [(pair.first, pair.second) for pair in found.duplicates]
    assert found.conflicts == []
    twice = find_pairs([labelled(longer, 0, forces), labelled(longer, 0, pushed)], soap, **options)
    assert [conflict.first for conflict in twice.conflicts] == [Place(0, 0)]


@pytest.mark.parametrize(("share", "same"), [(0.4, True), (0.9, True), (1.1, False), (2.5, False)])
def test_copies_are_those_whose_points_are_within_delta(share: float, same: bool) -> None:
    delta = 0.002
    moved = PLUS.copy()
    moved.positions[4] *= 1 + share * delta / np.linalg.norm(moved.positions[4])
    found = find_pairs([PLUS, moved], CARBON_ONLY, epsilon=0.01, delta=delta)
    ends = {
        kind: [pair.match for pair in pairs if pair.first.center is not None]
        for kind, pairs in (("same", found.duplicates), ("different", found.degenerate))
    }
    expected = [pytest.approx(share * delta, rel=1e-6)]
    assert ends["same"] == (expected if same else [])
    assert ends["different"] == ([] if same else expected)


@pytest.mark.parametrize(("shift", "agree"), [(0.6e-3, False), (2e-3, True)])
def test_labels_may_differ_where_atoms_are_a_thousandth_of_an_angstrom_apart(
    shift: float, agree: bool
) -> None:
    """An atom is a little farther away: seen by the centre, or only by its neighbours."""
    moved = PLUS.copy()
    moved.positions[4] *= 1 + shift / np.linalg.norm(moved.positions[4])
    forces = np.zeros((5, 3))
    pushed = forces.copy()
    pushed[1] = 1.0  # a hydrogen atom, which is no centre
    frames = [labelled(PLUS, 0.0, forces), labelled(moved, 0.5, pushed)]
    found = find_pairs(frames, CARBON_ONLY, epsilon=1e-2)
    assert found.duplicate_frames[0].match == pytest.approx(shift, rel=1e-6)
    assert {one.quantity for one in found.conflicts} == (set() if agree else {"energy", "force"})

    chain = Atoms("H4", [(0, 0, 0), (1.1, 0.3, 0.1), (2.2, 0, 0.4), (3.3, 0.3, 0.2)])
    longer = chain.copy()
    longer.positions[3] *= 1 + shift / np.linalg.norm(longer.positions[3])
    forces = np.zeros((4, 3))
    pushed = forces.copy()
    pushed[0] = 1.0
    frames = [labelled(chain, 0.0, forces), labelled(longer, 0.0, pushed)]
    found = find_pairs(frames, SOAP(["H"], 2.0, 4, 3), epsilon=1e-6)
    assert (Place(0, 0), Place(1, 0)) in [(pair.first, pair.second) for pair in found.duplicates]
    assert len(found.conflicts) == (0 if agree else 1)


def test_forces_of_symmetric_structures_do_not_depend_on_the_way_they_are_laid() -> None:
    for name in ("CH4", "H2", "C2H2", "H2O"):
        atoms = molecule(name)
        forces = 3.0 * (atoms.positions - atoms.positions.mean(axis=0))
        again = rotated(atoms, 5)
        copies = [
            labelled(atoms, 0.0, forces),
            labelled(again, 0.0, 3.0 * (again.positions - again.positions.mean(axis=0))),
        ]
        soap = SOAP(sorted(set(atoms.symbols)), 4.0, 4, 3)
        assert find_pairs(copies, soap).conflicts == []
        copies[1].calc.results["forces"] *= 1.5
        assert len(find_pairs(copies, soap).conflicts) >= 1


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("CO2", np.diag([1.0, -1.0, -1.0])),  # end for end
        ("CO2", Rotation.from_euler("z", 40, degrees=True).as_matrix()),
        ("BF3", Rotation.from_euler("z", 120, degrees=True).as_matrix()),
        ("CH4", np.diag([-1.0, -1.0, 1.0])),
    ],
)
def test_a_molecule_turned_onto_itself_has_no_conflict(name: str, matrix: np.ndarray) -> None:
    """Its atoms change places, and a force turns with it: nothing tells that it was turned."""
    atoms = molecule(name)
    soap = SOAP(sorted(set(atoms.symbols)), 4.0, 4, 3)
    forces = np.zeros((len(atoms), 3))
    forces[0] = 0.3, -1.0, 0.7
    again = atoms.copy()
    again.positions = atoms.positions @ matrix.T
    frames = [labelled(atoms, 0.0, forces), labelled(again, 0.0, forces @ matrix.T)]
    found = find_pairs(frames, soap)
    assert len(found.duplicates) >= len(atoms)
    assert found.conflicts == []
    other = forces @ matrix.T
    other[0] *= 1 + 0.2 / np.linalg.norm(other[0])
    (conflict,) = find_pairs([frames[0], labelled(again, 0.0, other)], soap).conflicts
    assert (conflict.quantity, conflict.first.center) == ("force", 0)
    assert conflict.difference == pytest.approx(0.2, abs=1e-3)


def test_degenerate_whole_structures() -> None:
    """With carbon as the only center the two molecules as a whole are a pair."""
    frames = [labelled(PLUS, -1.0, np.zeros((5, 3))), labelled(MINUS, -2.0, np.ones((5, 3)))]
    found = find_pairs([*frames, frames[0]], CARBON_ONLY)
    whole = [pair for pair in found.degenerate if pair.first.center is None]
    assert [(pair.first.frame, pair.second.frame) for pair in whole] == [(0, 1)]
    assert whole[0].energy_difference == pytest.approx(0.2)
    assert whole[0].match > 0.5
    assert found.degenerate[0].force_difference == pytest.approx(np.sqrt(3))
    assert "0.74 Å apart" in found.summary()
    kinds = {row["kind"] for row in found.rows}
    assert kinds == {"degenerate", "duplicate"}


def test_one_row_for_the_whole_structure() -> None:
    def lengths(atoms: Atoms) -> np.ndarray:
        return np.sort(atoms.get_all_distances()[np.triu_indices(len(atoms), 1)])[None]

    # Two sets of four points on a line with the same distances.
    points = {"a": (0, 1, 4, 10, 12, 17), "b": (0, 1, 8, 11, 13, 17)}
    line = [Atoms("H6", [(x, 0, 0) for x in places]) for places in points.values()]
    found = find_pairs([*line, rotated(line[0], 3)], FiniteDifferenceDescriptor(lengths))
    assert [(pair.first, pair.second) for pair in found.degenerate] == [
        (Place(0, None), Place(1, None))
    ]
    assert [pair.second for pair in found.duplicates] == [Place(2, None)]


def test_rows_are_those_of_the_jacobian() -> None:
    texts = [
        "soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.5",
        "rdf cutoff=3 r_min=0 r_max=3 n_gauss=4",
    ]
    several = QUIPDescriptor(texts, species=["C", "O", "H"])
    coordination = FiniteDifferenceDescriptor(
        lambda atoms: np.exp(-atoms.get_all_distances()).sum(axis=1)[:, None]
    )
    atoms = isolated()
    for descriptor in (several, coordination, SOAP(["H"], 3.0, 3, 2, centers=["C", "O"])):
        parts = descriptor.jacobian(atoms).parts
        rows = rows_of(descriptor, atoms)
        assert len(rows) == len(parts)
        for (features, centers), part in zip(rows, parts, strict=True):
            np.testing.assert_allclose(features, part.features, rtol=1e-12, atol=1e-15)
            np.testing.assert_array_equal(centers, part.centers)
    assert find_pairs([atoms, rotated(atoms, 1)], several).n_distinct == len(atoms)


def test_a_broken_structure_is_told_and_left_out() -> None:
    broken = PLUS.copy()
    broken.positions[2] = np.nan
    found = find_pairs([PLUS, broken, MINUS], CARBON_ONLY)
    assert [place for place, _ in found.errors] == [Place(1, None)]
    assert "1 structure with errors; frames@1" in found.summary()
    assert found.degenerate[0].second == Place(2, 0)
    with pytest.raises(ValueError, match="not finite"):
        find_pairs([broken], CARBON_ONLY)


def test_it_is_said_why_a_frame_cannot_be_compared(tmp_path: Path) -> None:
    """What is torn in a file, and what has no atoms."""
    path = tmp_path / "torn.xyz"
    write(path, [PLUS, MINUS])
    path.write_text(path.read_text()[:-30])
    ((place, why),) = find_pairs(str(path), CARBON_ONLY).errors
    assert place == Place(1, None, str(path))
    assert "torn.xyz" in why
    ((place, why),) = find_pairs([PLUS, Atoms()], CARBON_ONLY).errors
    assert place == Place(1, None)
    assert "the frame has no atoms" in why


def test_a_random_choice_of_environments() -> None:
    rng = np.random.default_rng(3)
    frames = [rattled(PLUS, 0.2, seed) for seed in rng.integers(0, 2**31, 60).tolist()]
    found = find_pairs(frames, CARBON_ONLY, max_environments=10)
    assert (found.n_environments, found.n_seen, found.complete) == (10, 60, False)
    assert "They were drawn from 60." in found.summary()


def test_the_list_of_pairs_is_bounded() -> None:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(12):  # all lengths agree
        directions = rng.normal(size=(4, 3))
        frames.append(around_carbon(directions / np.linalg.norm(directions, axis=1)[:, None]))
    found = find_pairs(frames, RADIAL, max_pairs=20)
    listed = [pair for pair in found.degenerate if pair.first.center is not None]
    assert len(listed) == 20
    assert not found.complete
    assert len(find_pairs(frames, RADIAL).degenerate) >= 12 * 11 / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "`epsilon` is 0.0"),
        ({"epsilon": 0.1}, "at most 0.01"),
        ({"delta": -1.0}, "`delta` is -1.0"),
        ({"delta": "x"}, "`delta` is 'x' but must be a number"),
        ({"force_tolerance": np.nan}, "`force_tolerance` is nan"),
        ({"max_environments": 0}, "`max_environments` is 0"),
        ({"max_pairs": 1.5}, "`max_pairs` is 1.5"),
        ({"units": "furlong"}, "furlong"),
        ({"forces_key": "dft"}, "no forces entry 'dft'"),
    ],
)
def test_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        find_pairs([PLUS, MINUS], CARBON_ONLY, **options)


def test_progress_is_told() -> None:
    seen: list[int] = []
    find_pairs(iter([PLUS, MINUS, PLUS]), CARBON_ONLY, progress=seen.append)
    assert seen == [1, 2, 3]
    bounded: list[tuple[int, int]] = []
    frames = [labelled(atoms, 0.0, np.eye(5, 3)) for atoms in (PLUS, MINUS)]
    find_pairs(frames, CARBON_ONLY, joint_progress=lambda *done: bounded.append(done))
    assert bounded == [(1, 2), (2, 2)]  # of environments and of structures
