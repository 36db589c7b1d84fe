"""Reference sets: exact nearest neighbors, twins that are and are not, one file."""

import weakref

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.spatial.transform import Rotation
from scipy.special import eval_legendre

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor, ReferenceSet
from ase_sensitivity.environments import environment_set, reference_set
from ase_sensitivity.environments.boxes import Boxes
from ase_sensitivity.environments.neighbor_centers import centers_about, have_partners
from ase_sensitivity.environments.overlay import overlay
from ase_sensitivity.environments.row_sets import RowSet, row_sets
from ase_sensitivity.environments.shape import _FREQUENCIES, _PHASES, fingerprints
from ase_sensitivity.environments.usual import matched
from ase_sensitivity.geometry.neighbors import neighbor_pairs
from ase_sensitivity.io.references import Task

THREE = [(0, 0, 0), (1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7)]
PLUS = Atoms("CH4", [*THREE, (-0.72, 0.96, 0.3)])
MINUS = Atoms("CH4", [*THREE, (0.72, -0.96, 0.3)])
CARBON = SOAP(["H"], cutoff=3.0, n_max=6, l_max=5, atom_sigma=0.3, centers=["C"])
ALL = SOAP(["C", "H"], cutoff=3.0, n_max=4, l_max=3)


def rattled(atoms: Atoms, size: float, n: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        frame = atoms.copy()
        frame.positions += size * rng.normal(size=frame.positions.shape)
        frames.append(frame)
    return frames


def labeled(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def turned(atoms: Atoms, seed: int) -> Atoms:
    atoms = atoms.copy()
    atoms.positions = atoms.positions @ Rotation.random(random_state=seed).as_matrix().T
    return atoms


@pytest.mark.parametrize("listed", [16, 1])
def test_novelty_is_that_of_brute_force(listed, monkeypatch):
    monkeypatch.setattr(reference_set, "LISTED", listed)
    frames = rattled(molecule("CH4"), 0.15, 90)
    reference = ReferenceSet(frames, ALL)
    features = [ALL.features(frame) for frame in frames]
    hydrogens = np.concatenate([some[1:] for some in features])
    carbons = np.array([some[0] for some in features])
    for query in rattled(molecule("CH4"), 0.3, 5, seed=1):
        found = []
        for group, own in ((carbons, [0]), (hydrogens, [1, 2, 3, 4])):
            apart = np.linalg.norm(group[:, None] - group, axis=2)
            spread = np.sqrt((apart**2).mean())
            rows = ALL.features(query)[own]
            found += list(np.linalg.norm(rows[:, None] - group, axis=2).min(axis=1) / spread)
        compared = reference.compare(query)
        assert compared.novelty == pytest.approx(max(found), rel=1e-9)
        assert compared.center == int(np.argmax(found))


def test_bounds_are_bounds_and_the_least_ones():
    rng = np.random.default_rng(0)
    size = 100.0 / np.arange(1, 41) ** 2
    counts = [1, 40, 64, 65, 1000]
    group = rng.permutation(np.repeat(np.arange(5), counts))
    points, queries = rng.normal(size=(2, len(group), 40)) * size
    asked = rng.permutation(np.repeat(np.arange(-1, 5), 8))
    queries = np.concatenate([queries[: len(asked) - 3], points[:3]])
    asked[-3:] = group[:3]
    beyond, there = (np.linalg.norm(some[:, 32:], axis=1) for some in (queries, points))
    boxes = Boxes(points[:, :32].astype(np.float32), there.astype(np.float32), group, 12)
    index, lower, upper = boxes.nearest(asked, queries[:, :32], beyond, 16)
    for m, number in enumerate(asked.tolist()):
        n = min(16, counts[number]) if number >= 0 else 0
        assert (index[m, n:] == -1).all()
        assert np.isinf([lower[m, n:], upper[m, n:]]).all()
        found, own = index[m, :n], np.flatnonzero(group == number)
        assert len(np.unique(found)) == n
        apart = np.linalg.norm(queries[m] - points[found], axis=1)
        assert (lower[m, :n] <= apart).all()
        assert (apart <= upper[m, :n]).all()
        square = ((queries[m, :32] - points[own, :32]) ** 2).sum(axis=1)
        least = np.sort(np.sqrt(square + (beyond[m] - there[own]) ** 2))[:n]
        np.testing.assert_allclose(lower[m, :n], least, rtol=1e-4, atol=2e-4)


def test_copies_are_no_news_and_no_twins():
    frames = rattled(molecule("CH3OH"), 0.1, 30)
    reference = ReferenceSet(frames, SOAP(["C", "H", "O"], 3.0, 4, 3))
    for seed, frame in enumerate(frames[:10]):
        copy = frame.copy()
        turn = Rotation.random(random_state=seed).as_matrix()
        copy.positions = (1 - 2 * (seed % 2)) * frame.positions @ turn.T
        copy = copy[np.random.default_rng(seed).permutation(len(copy))]
        found = reference.compare(copy)
        assert found.novelty < 1e-6
        assert found.twin is None


@pytest.mark.parametrize("n_copies", [1, 3])
def test_novelty_where_the_set_has_no_spread(n_copies):
    methane = molecule("CH4")
    reference = ReferenceSet([turned(methane, seed) for seed in range(n_copies)], CARBON)
    assert reference.compare(turned(methane, 7)).novelty == 0
    # The unit is what a displacement by .05 Å does on average.
    near = [reference.compare(one).novelty for one in rattled(methane, 0.05 / np.sqrt(3), 20)]
    assert 0.5 < np.median(near) < 2
    small = [reference.compare(one).novelty for one in rattled(methane, 0.005 / np.sqrt(3), 20)]
    assert np.median(small) == pytest.approx(0.1 * np.median(near), rel=0.5)


def test_novelty_of_features_that_do_not_change():
    counted = FiniteDifferenceDescriptor(
        lambda atoms: np.full((1, 1), float(len(atoms))),
        cutoff=4.0,
        centers=[0],
        species=["C", "H"],
        body_order=2,
    )
    reference = ReferenceSet([molecule("CH4")], counted)
    assert reference.compare(rattled(molecule("CH4"), 0.1, 1)[0]).novelty == 0
    assert reference.compare(molecule("CH3")).novelty == pytest.approx(1 / 4)


def test_an_element_that_is_not_in_the_set():
    reference = ReferenceSet([molecule("CH4")], ALL)
    found = ReferenceSet([molecule("H2")], ALL).compare(molecule("CH4"))
    assert np.isinf(found.novelty)
    assert found.center == 0
    assert found.nearest is None
    assert reference.compare(molecule("CH4")).novelty == 0


@pytest.mark.parametrize(("query", "others"), [(PLUS, MINUS), (MINUS, PLUS)])
def test_a_degenerate_pair_is_found_from_both_sides(query, others):
    reference = ReferenceSet([*rattled(query, 0.3, 20), others], CARBON)
    twin = reference.compare(query).twin
    assert twin is not None
    assert (twin.frame, twin.center) == (20, 0)
    assert twin.ratio < 1e-9
    assert twin.features < 1e-9
    assert twin.distance > 0.5


def test_twins_are_found_though_displaced():
    reference = ReferenceSet([*rattled(PLUS, 0.3, 20), MINUS], CARBON)
    for size in (0.01, 0.05):
        for query in rattled(PLUS, size / np.sqrt(15), 5, seed=2):
            twin = reference.compare(query).twin
            assert twin is not None
            assert twin.frame == 20


def test_no_twin_if_other_centers_see_the_difference():
    reference = ReferenceSet([*rattled(PLUS, 0.3, 20), MINUS], ALL)
    assert reference.compare(PLUS).twin is None


def test_twins_of_distances_alone():
    def radial(atoms):
        distance = atoms.get_distances(0, range(1, len(atoms)))
        return np.exp(-(((distance[:, None] - np.linspace(0.5, 2, 6)) / 0.2) ** 2)).sum(axis=0)[
            None
        ]

    descriptor = FiniteDifferenceDescriptor(
        radial, cutoff=4.0, centers=[0], species=["H"], body_order=2
    )
    bent = Atoms("OH2", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])
    open_ = Atoms("OH2", [(0, 0, 0), (0.96, 0, 0), (-0.83, 0.48, 0)])
    reference = ReferenceSet([open_, *rattled(bent, 0.1, 10)], descriptor)
    twin = reference.compare(bent).twin
    assert twin is not None
    assert twin.distance > 0.15


def test_spread_of_the_labels_of_twins():
    turn = Rotation.from_rotvec([0.3, -1.0, 0.4]).as_matrix()
    pull = np.zeros((5, 3))
    pull[0] = [0.0, 0.0, 2.0]
    plus, minus = labeled(PLUS, -1.0, pull), labeled(MINUS, -1.7, -pull)
    minus.positions = MINUS.positions @ turn.T
    minus.calc = SinglePointCalculator(minus, energy=-1.7, forces=-pull @ turn.T)
    reference = ReferenceSet([*rattled(PLUS, 0.3, 10), plus, minus], CARBON)
    twin = reference.compare(PLUS).twin
    assert twin is not None
    assert twin.energies == pytest.approx(0.7)
    # The rotation is that of the best match, which is not that by `turn` alone.
    assert 0 < twin.forces <= 4 + 1e-9
    lone = ReferenceSet([*rattled(PLUS, 0.3, 10), minus], CARBON)
    assert lone.compare(PLUS).twin.forces is None
    with_own = lone.compare(PLUS, forces=pull, energy=-1.0).twin
    assert with_own.forces == pytest.approx(twin.forces)
    assert with_own.energies == pytest.approx(0.7)


def test_a_file_has_everything(tmp_path):
    frames = [labeled(one, -1.0, np.ones((5, 3))) for one in rattled(MINUS, 0.1, 5)]
    made = ReferenceSet([*frames, MINUS], CARBON)
    made.save(tmp_path / "set.npz")
    read = ReferenceSet.read(tmp_path / "set.npz", CARBON)
    assert (len(read), read.n_frames, read.n_seen) == (len(made), made.n_frames, made.n_seen)
    assert read.digest == made.digest
    for query in rattled(PLUS, 0.02, 3):
        one, other = made.compare(query), read.compare(query)
        assert one.novelty == other.novelty
        assert repr(one) == repr(other)
        assert one.twin.forces == other.twin.forces


def test_a_digest_is_of_structures_and_not_of_rounding_errors():
    frames = rattled(MINUS, 0.1, 5)
    made, other = ReferenceSet(frames, CARBON), ReferenceSet(frames, CARBON)
    other.environments.columns["projected"] += 1e-15
    assert made.digest == other.digest
    moved = [one.copy() for one in frames]
    moved[2].positions[0, 0] += 1e-9
    boxed = [one.copy() for one in frames]
    boxed[2].cell = [9.0, 9.0, 9.0]
    heavy = [one.copy() for one in frames]
    heavy[2].symbols[0] = "Si"
    known = [labeled(one, -1.0, np.ones((5, 3))) for one in frames]
    lower = [labeled(one, -2.0, np.ones((5, 3))) for one in frames]
    silane = SOAP(["H"], cutoff=3.0, n_max=6, l_max=5, atom_sigma=0.3, centers=["C", "Si"])
    digests = [ReferenceSet(some, CARBON).digest for some in (frames, moved, boxed, known, lower)]
    digests += [ReferenceSet(some, silane).digest for some in (frames, heavy)]
    assert len(set(digests)) == 7


def test_files_that_are_none(tmp_path):
    ReferenceSet([MINUS], CARBON).save(tmp_path / "set.npz")
    with pytest.raises(ValueError, match="made with"):
        ReferenceSet.read(tmp_path / "set.npz", ALL)
    unbound = ReferenceSet.read(tmp_path / "set.npz")
    with pytest.raises(ValueError, match=r"ReferenceSet\.read\(path, descriptor\)"):
        unbound.compare(PLUS)
    assert len(unbound) == 1
    data = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="no reference set, or is damaged"):
        ReferenceSet.read(tmp_path / "torn.npz")
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    with pytest.raises(ValueError, match="no reference set"):
        ReferenceSet.read(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        ReferenceSet.read(tmp_path / "none.npz")
    made = ReferenceSet([MINUS], CARBON)
    with pytest.raises(ValueError, match="must end in"):
        made.save(tmp_path / "set.json")


@pytest.mark.parametrize("thinning", ["random", "farthest"])
def test_thinning(thinning):
    frames = rattled(molecule("CH4"), 0.15, 300)
    whole = ReferenceSet(frames, ALL)
    thin = ReferenceSet(iter(frames), ALL, max_environments=100, thinning=thinning)
    assert (len(thin), thin.n_seen, thin.n_frames) == (100, 1500, 300)
    queries = rattled(molecule("CH4"), 0.15, 10, seed=5)
    assert all(thin.compare(q).novelty >= whole.compare(q).novelty for q in queries)


def test_farthest_thinning_covers_the_set():
    frames = [*rattled(molecule("CH4"), 0.01, 150), *rattled(molecule("CH4"), 0.4, 3, seed=7)]
    thin = ReferenceSet(frames, ALL, max_environments=30, thinning="farthest")
    assert max(thin.compare(frame).novelty for frame in frames[-3:]) < 0.1


def test_a_structure_that_failed_when_displaced_is_no_reference():
    methyl = molecule("CH3")

    def distances(atoms):
        if len(atoms) == 4 and not np.array_equal(atoms.positions, methyl.positions):
            raise ValueError("no features here")
        return np.sort(atoms.get_distances(0, range(1, len(atoms))))[None]

    descriptor = FiniteDifferenceDescriptor(
        distances, cutoff=4.0, centers=[0], species=["C", "H"], body_order=2
    )
    reference = ReferenceSet([methyl, *rattled(molecule("CH4"), 0.1, 3)], descriptor)
    assert [str(place) for place, _ in reference.errors] == ["frames@0"]
    assert len(reference) == 3
    assert np.isinf(reference.compare(methyl).novelty)
    assert np.isfinite(reference.compare(molecule("CH4")).novelty)


def test_no_twin_where_neighbors_have_a_number_of_rows_that_the_set_has_not():
    both = SOAP(["H"], cutoff=3.0, n_max=6, l_max=5, atom_sigma=0.3, centers=["C", "H"])
    reference = ReferenceSet([*rattled(PLUS, 0.3, 20), MINUS], both)
    centers, features = row_sets(both, PLUS)
    odd = RowSet(((2, 1),), np.ones(2), 2, ())
    found = reference.compare(PLUS, rows=(centers, [features[0], *[odd] * 4]))
    assert np.isinf(found.novelty)
    assert found.twin is None


def test_features_that_wait_for_a_projection_are_limited_in_bytes(monkeypatch):
    frames = rattled(molecule("CH4"), 0.15, 40)
    whole = ReferenceSet(frames, ALL)
    size = sum(one.nbytes for one in row_sets(ALL, frames[0])[1])
    monkeypatch.setattr(environment_set, "KEPT", 5 * size)
    living = weakref.WeakSet()
    most = 0

    def rows(task):
        nonlocal most
        most = max(most, len(living))
        centers, features = row_sets(ALL, task.atoms)
        living.update(features)
        return centers, features

    tasks = [Task("frames", number, frame) for number, frame in enumerate(frames)]
    made = ReferenceSet.of_tasks(tasks, ALL, rows)
    assert most <= 5 * 7  # centers of seven structures: six that wait and one that was before
    for query in rattled(molecule("CH4"), 0.3, 5, seed=1):
        assert made.compare(query).novelty == pytest.approx(whole.compare(query).novelty)


def test_bad_arguments():
    with pytest.raises(ValueError, match="`thinning` is 'best'"):
        ReferenceSet([MINUS], CARBON, thinning="best")
    with pytest.raises(ValueError, match="`max_environments` is 0"):
        ReferenceSet([MINUS], CARBON, max_environments=0)
    with pytest.raises(ValueError, match="no structure"):
        ReferenceSet([], CARBON)


def test_crystals():
    soap = SOAP(["Si"], 4.0, 4, 3)
    crystal = bulk("Si", cubic=True)
    frames = rattled(crystal, 0.05, 5)
    reference = ReferenceSet(frames, soap)
    supercell = frames[2] * (2, 1, 1)
    found = reference.compare(supercell)
    assert found.novelty < 1e-6
    assert found.twin is None
    assert reference.compare(rattled(crystal, 0.3, 1)[0]).novelty > 0.5


@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
def test_centers_about_an_atom_in_skewed_cells(pbc):
    rng = np.random.default_rng(4)
    for _ in range(10):
        cell = np.diag([3.0, 3.0, 4.0]) + np.tril(rng.uniform(-6, 6, (3, 3)), -1)
        atoms = Atoms("Si6", scaled_positions=rng.random((6, 3)), cell=cell, pbc=pbc)
        centers = np.array([0, 1, 3, 4, 5])
        pairs = neighbor_pairs(atoms, 2.5)
        for center in (0, 4):
            about = set(pairs.second[pairs.first == center].tolist()) - {center, 2}
            found = centers_about(atoms, centers, center, 2.5)
            assert set(centers[found].tolist()) == about


def test_fingerprints_of_shape():
    rng = np.random.default_rng(3)
    points, numbers = rng.normal(size=(7, 3)), np.array([1, 1, 6, 6, 8, 1, 1])
    turn = -Rotation.random(random_state=1).as_matrix()
    order = rng.permutation(7)
    same = np.concatenate([points, points[order] @ turn.T])
    both = np.concatenate([numbers, numbers[order]])
    one, other = fingerprints(both, same, np.array([0, 7]), np.array([7, 14]), 4.0)
    np.testing.assert_allclose(one, other, atol=1e-10)
    # Every point, in plain sums.
    radii = np.linalg.norm(points, axis=1)
    weight = (1 + 0.37 * np.sqrt(numbers)) * np.cos(np.pi * np.minimum(radii / 4, 1) / 2) ** 2
    cosines = (points / radii[:, None]) @ (points / radii[:, None]).T
    scale = np.sqrt((weight**2).sum())
    columns = [radii, *(eval_legendre(n, cosines) @ weight / scale for n in (1, 2, 3))]
    waves = np.cos(np.column_stack(columns) @ _FREQUENCIES.T + _PHASES)
    np.testing.assert_allclose(one, weight @ waves, atol=1e-10)
    pair = [
        fingerprints(a.numbers[1:], a.positions[1:], *np.array([[0], [4]]), 3.0)
        for a in (PLUS, MINUS)
    ]
    assert np.linalg.norm(pair[0] - pair[1]) > 0.1


def test_saturation_where_far_points_hardly_count():
    wide = SOAP(["H"], cutoff=4.0, n_max=6, l_max=2, atom_sigma=0.3, centers=["C"])
    near = rattled(molecule("CH4"), 0.1, 12)
    far, rng = [], np.random.default_rng(0)
    for frame in near:
        directions = rng.normal(size=(2, 3))
        outer = 2.7 * directions / np.linalg.norm(directions, axis=1)[:, None]
        far.append(frame + Atoms("H2", frame.positions[0] + outer))
    alone, both = (ReferenceSet(frames, wide).saturation(0, 0.15) for frames in (near, far))
    assert 0 < both < alone / 2


def test_centers_with_partners():
    mine, theirs = np.array([[0.0], [1.0], [5.0]]), np.array([[0.05], [1.05], [3.0]])
    numbers, allowed = np.array([1, 1, 6]), np.full(3, 0.1)
    assert have_partners(mine, numbers, allowed, theirs[:2], np.array([1, 1]))  # no carbon there
    assert not have_partners(mine, numbers, allowed, theirs, np.array([1, 1, 6]))
    assert have_partners(mine, numbers, allowed, theirs[:1], np.array([1]))  # one is too many
    assert not have_partners(mine, numbers, allowed, theirs[2:], np.array([1]))
    assert not have_partners(mine, numbers, allowed, theirs, np.array([1, 6, 6]))


@pytest.mark.parametrize("n", [6, 20])
def test_an_early_end_of_a_match_is_near_enough(n):
    """Otherwise no distance is larger than that of the match without an end."""
    rng = np.random.default_rng(n)
    numbers = np.array([1, 6] * (n // 2))
    ended = 0
    for size in np.linspace(0.05, 2.0, 20):
        points = rng.normal(size=(n, 3))
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        a, b = (numbers, points), (numbers, (points + size * rng.normal(size=(n, 3))) @ turn)
        whole = overlay(a, b, np.inf, np.inf)[0]
        for enough in (0.3, 1.0, 3.0):
            found = overlay(a, b, np.inf, np.inf, enough)[0]
            assert found <= max(enough, whole + 1e-9)
            ended += found > whole + 1e-9
    assert ended


def test_points_that_crossed_the_radius_make_no_structure_different():
    """Twelve neighbors as in copper, and six farther ones, of which any two came nearer."""
    near = 2.55 * np.array(
        [np.roll([x, y, 0], k) for k in range(3) for x in (1, -1) for y in (1, -1)]
    ) / np.sqrt(2)  # fmt: skip
    axes = np.vstack([np.eye(3), -np.eye(3)])

    def around(nearer):
        lengths = np.where(np.isin(range(6), nearer), 3.3, 3.9)
        points = np.vstack([near, axes * lengths[:, None]])
        return np.full(18, 29), points[np.linalg.norm(points, axis=1).argsort(kind="stable")]

    neighbors, opposite = around([0, 1]), around([2, 5])
    assert overlay(neighbors, opposite, 3.0, 4.0)[0] > 1
    assert matched(neighbors, opposite, 4.0, 0.15)[0] <= 0.15
    opposite[1][0] *= 1.4
    assert matched(neighbors, opposite, 4.0, 0.15)[0] > 0.5
