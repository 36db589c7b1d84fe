"""Which frames are worth a calculation: the design, its rows, and what a selection says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from ase_sensitivity import SOAP, QUIPDescriptor, Selection, StreamedJacobian, select
from ase_sensitivity.dataset.select.average_kernel import AverageKernel
from ase_sensitivity.dataset.select.choice import by_design, cur, farthest_points
from ase_sensitivity.dataset.select.design import DESIGNS, Design
from ase_sensitivity.dataset.select.idle import first_copies
from ase_sensitivity.dataset.select.model import LinearModel
from ase_sensitivity.dataset.select.pool import Pool
from ase_sensitivity.dataset.select.row_store import RowStore, record_type
from ase_sensitivity.types import SELECTION_METHODS
from tests.structures import rattled

SPECIES = ["C", "H", "O"]


def a_pool(number: int = 40, name: str = "CH3OH") -> list[Atoms]:
    """Molecules that are more and more distorted."""
    return [rattled(molecule(name), 0.02 + 0.2 * k / number, k) for k in range(number)]


@pytest.fixture(scope="module")
def soap() -> SOAP:
    return SOAP(SPECIES, cutoff=4.0, n_max=3, l_max=2, threads=1)


class Products:
    """The Jacobian of another descriptor with its products alone."""

    def __init__(self, jacobian) -> None:
        self._whole = jacobian
        for name in ("n_atoms", "precision", "per_image", "ranges", "features", "gram"):
            setattr(self, name, getattr(jacobian, name))
        self.apply, self.adjoint = jacobian.apply, jacobian.adjoint


class Other:
    """A descriptor whose Jacobian is of another kind."""

    body_order = None

    def __init__(self, soap: SOAP, kind: str) -> None:
        self.soap, self.kind = soap, kind
        self.species, self.cutoff = soap.species, soap.cutoff

    def features(self, atoms: Atoms):
        return self.soap.features(atoms)

    def jacobian(self, atoms: Atoms):
        whole = self.soap.jacobian(atoms)
        if self.kind == "products":
            return Products(whole)
        return StreamedJacobian(
            whole.of_rows,
            [0, 1, len(whole.features)],
            n_atoms=len(atoms),
            cutoff=whole.cutoff,
            center_atoms=whole.center_atoms,
        )


@pytest.mark.parametrize("several", [False, True])
def test_force_rows_are_derivatives_of_the_energy_row(soap: SOAP, several: bool) -> None:
    """Central differences of the energy row, with all coordinates of few atoms as directions."""
    text = "soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.4"
    two = QUIPDescriptor([text, "distance_2b cutoff=3 Z1=6 Z2=1"], species=SPECIES)
    model = LinearModel(two if several else soap, a_pool(6), 3)
    atoms = a_pool(7)[6]
    found = model.rows(atoms).forces
    step, expected = 1e-4, []
    for k in range(3 * len(atoms)):
        ends = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[k // 3, k % 3] += sign * step
            ends.append(len(atoms) * model.rows(moved).energy)
        expected.append(-(ends[0] - ends[1]) / (2 * step))
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize("kind", ["products", "streamed"])
def test_any_jacobian_gives_the_same_rows(soap: SOAP, kind: str) -> None:
    frames = a_pool(5)
    mine, other = LinearModel(soap, frames, 3), LinearModel(Other(soap, kind), frames, 3)
    for name in ("forces", "energy", "average"):
        one, two = (getattr(model.rows(frames[2]), name) for model in (mine, other))
        np.testing.assert_allclose(np.abs(two), np.abs(one), atol=1e-8 * np.abs(one).max())


def test_sketched_forces_have_the_squares_of_all_forces_on_average(soap: SOAP) -> None:
    """Over many frames the mean of the squares is right, in every column."""
    frames = [rattled(molecule("C2H6"), 1e-4, k) for k in range(300)]  # 24 coordinates
    apart = [atoms + Atoms("He", [(50, 0, 0)]) for atoms in frames]  # 27 with one that is unseen
    model = LinearModel(soap, a_pool(6, "C2H6"), 3)
    every = np.mean([(model.rows(atoms).forces ** 2).sum(axis=0) for atoms in frames], axis=0)
    drawn = np.mean([(model.rows(atoms).forces ** 2).sum(axis=0) for atoms in apart], axis=0)
    assert model.rows(apart[0]).forces.shape[0] == 24
    np.testing.assert_allclose(drawn, every, rtol=0.05)


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(1)
    sizes = 10.0 ** rng.uniform(-2, 0, (60, 1, 1))
    return rng.normal(size=(60, 5, 12)) * sizes * 0.7 ** np.arange(12)


def design_of(rows: np.ndarray, method="balanced") -> Design:
    forces, energies = rows[:, :-1].reshape(-1, 12), rows[:, -1]
    return Design(forces.T @ forces / 60, energies.T @ energies / 60, method, 1.0, 1.0)


def test_falls_are_those_of_the_variances(rows: np.ndarray) -> None:
    design = design_of(rows)
    for number in range(5):
        fall = design.falls(rows[[number]])[0]
        before = design.variances
        expected = np.linalg.inv(np.linalg.inv(design.covariance) + rows[number].T @ rows[number])
        design.add(rows[number])
        np.testing.assert_allclose(before - design.variances, fall, rtol=1e-6)
        np.testing.assert_allclose(design.covariance, expected, rtol=1e-5, atol=1e-9)


def test_energies_may_have_parameters_of_their_own(rows: np.ndarray) -> None:
    """The last row of a frame has none but these, and the others have none of them."""
    rows[:, :-1, 8:] = 0.0
    rows[:, -1, :8] = 0.0
    forces, energies = rows[:, :-1].reshape(-1, 12), rows[:, -1]
    squares = forces.T @ forces / 60, energies.T @ energies / 60
    design = Design(*squares, "balanced-averages", 1.0, 1.0, 8)
    for number in range(5):
        fall = design.falls(rows[[number]])[0]
        before = design.variances
        design.add(rows[number])
        np.testing.assert_allclose(before - design.variances, fall, rtol=1e-6)


def test_d_optimal_gain_is_the_determinant(rows: np.ndarray) -> None:
    design = design_of(rows, "d-optimal")
    gain = design.gains(design.falls(rows[[3]]))[0]
    before = np.linalg.slogdet(design.covariance)[1]
    design.add(rows[3])
    assert gain == pytest.approx(before - np.linalg.slogdet(design.covariance)[1], rel=1e-6)


@pytest.fixture(scope="module")
def rows_of_molecules(soap: SOAP) -> np.ndarray:
    frames = a_pool(60)
    model = LinearModel(soap, frames, 3)
    real = np.zeros((60, 19, 64))
    for number, atoms in enumerate(frames):
        found = model.rows(atoms)
        real[number, :18], real[number, 18] = found.forces, found.energy
    return real[:, :, :12]


@pytest.mark.parametrize("method", DESIGNS)
def test_the_lazy_choice_is_the_exact_one(
    rows: np.ndarray, rows_of_molecules: np.ndarray, method
) -> None:
    for some in (rows, rows_of_molecules):
        orders = [
            by_design(
                design_of(some, method),
                some.__getitem__,
                np.arange(60),
                25,
                np.random.default_rng(0),
                lazy=lazy,
            )
            for lazy in (True, False)
        ]
        assert orders[0].chosen.tolist() == orders[1].chosen.tolist()
        np.testing.assert_allclose(orders[0].gains, orders[1].gains, rtol=1e-6)


def test_columns_of_averages_are_their_gaussian_kernel() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3))
    kernel = AverageKernel.fit(np.vstack([points, points[:5]]))  # copies do not matter
    columns = kernel.features(points)
    square = ((points[:, None] - points) ** 2).sum(axis=-1)
    expected = np.exp(-square / 2 / kernel.length**2)
    np.testing.assert_allclose(columns @ columns.T, expected, atol=1e-6)
    assert kernel.length == pytest.approx(np.median(np.sqrt(square[square > 0])), rel=0.05)


def test_energies_of_single_atoms_do_not_matter() -> None:
    """A constant for each species in every column of the energy rows changes no other row."""
    rng = np.random.default_rng(0)
    records = np.zeros(30, record_type(6, 2, 2))
    counts = rng.integers(1, 5, (30, 2))
    records["fractions"] = counts / counts.sum(axis=1, keepdims=True)
    records["forces"], records["energy"] = rng.normal(size=(30, 24, 6)), rng.normal(size=(30, 6))
    shifted = records.copy()
    shifted["energy"] += records["fractions"] @ rng.normal(size=(2, 6)).astype("f4")
    one, two = (
        Pool(some, np.arange(30), "balanced").rows(np.arange(30)) for some in (records, shifted)
    )
    np.testing.assert_allclose(two, one, atol=1e-4)


def test_given_frames_continue_a_selection(soap: SOAP) -> None:
    frames = a_pool()
    whole = select(frames, soap, 8)
    more = select(frames, soap, 3, given=whole.frames[:5])
    assert more.indices.tolist() == whole.indices.tolist()[5:]
    np.testing.assert_allclose(more.predicted_error, whole.predicted_error[5:], rtol=1e-4)
    assert more.n_given == 5
    assert sum("a copy of" in one.reason for one in more.idle) == 5


@pytest.mark.parametrize("method", SELECTION_METHODS)
def test_every_method_chooses_different_frames(soap: SOAP, method) -> None:
    frames = a_pool(20)
    found, again = (select(frames, soap, 6, method=method, seed=4) for _ in range(2))
    assert len(set(found.indices.tolist())) == len(found) == 6
    assert found.indices.tolist() == again.indices.tolist()
    assert [atoms.positions.tolist() for atoms in found.frames] == [
        frames[k].positions.tolist() for k in found.indices
    ]
    assert (method in DESIGNS) == (len(found.predicted_error) == 7)
    if method in DESIGNS:
        assert (np.diff(found.predicted_error[:, 0]) < 0).all()


def test_farthest_points_and_cur() -> None:
    line = np.array([[0.0], [1.0], [4.0], [10.0]])
    rng = np.random.default_rng(0)
    found = farthest_points(line, np.arange(4), 3, np.array([[0.1]]), rng)
    assert found.chosen.tolist() == [3, 2, 1]
    np.testing.assert_allclose(found.gains, [9.9, 3.9, 0.9])
    three = np.array([[3.0, 0, 0], [2.9, 0.1, 0], [0, 2.0, 0], [0, 0, 1.0]])
    assert cur(three, np.arange(4), 3, np.empty((0, 3))).chosen.tolist() == [0, 2, 3]
    assert cur(three, np.arange(4), 1, three[[0]]).chosen.tolist() == [2]


def test_copies_are_named_and_never_chosen(soap: SOAP) -> None:
    frames = a_pool(20, "CH4")
    turned = frames[3].copy()
    turned.rotate(70, (1, 2, 3))
    found = select([*frames, turned[[0, 4, 2, 3, 1]], frames[7]], soap, 22)
    assert [(one.place.frame, one.reason) for one in found.idle] == [
        (20, "a copy of frames@3"),
        (21, "a copy of frames@7"),
    ]
    assert sorted(found.indices.tolist()) == list(range(20))
    assert "There are no more different frames: 22 were asked for" in found.summary()
    assert "Copies, which are never chosen: 2. frames@20: a copy of frames@3." in found.summary()


def test_copies_of_given_frames_say_so(soap: SOAP) -> None:
    """In memory, frame 0 of the pool and frame 0 of those that are given have one name."""
    frames = a_pool(5)
    found = select(frames, soap, 2, given=frames[:1])
    assert found.idle[0].reason == "a copy of frames@0, which is given"


@pytest.mark.parametrize("method", ["balanced", "farthest-points"])
def test_frames_without_a_center_are_left_out(method) -> None:
    """Nothing is known of them: they are neither copies of each other nor worth a calculation."""
    of_carbon = SOAP(SPECIES, cutoff=4.0, n_max=3, l_max=2, centers=["C"], threads=1)
    frames = [molecule("H2O"), *a_pool(4, "CH4"), molecule("OH")]
    found = select(frames, of_carbon, 6, given=[molecule("H2")], method=method)
    assert sorted(found.indices.tolist()) == [1, 2, 3, 4]
    assert [place.frame for place, _ in found.errors] == [0, 0, 5]
    assert found.errors[1][1] == "no atom of H2O is a center of the descriptor; check its species"
    assert found.idle == []
    with pytest.raises(ValueError, match=r"can be evaluated: no atom is a center of SOAP"):
        select([molecule("H2O")], of_carbon, 1, method=method)


@pytest.mark.parametrize("method", SELECTION_METHODS)
def test_nothing_is_left_to_choose(soap: SOAP, method) -> None:
    frames = a_pool(4)
    found = select(frames[1:3], soap, 2, given=frames, method=method)
    assert (len(found), len(found.idle)) == (0, 2)
    assert found.summary().startswith("0 frames of 2 chosen")


def test_frames_that_add_nothing_are_named() -> None:
    """The perfect crystal has no forces, and gains nothing by a design of forces alone."""
    perfect = bulk("Si", cubic=True)
    frames = [*(rattled(perfect, 0.05 + 0.01 * k, k) for k in range(12)), perfect]
    silicon = SOAP(["Si"], cutoff=4.0, n_max=3, l_max=2)
    found = select(frames, silicon, 4, method="i-optimal")
    (idle,) = found.idle
    assert idle.place.frame == 12
    assert idle.gain < 1e-6
    assert idle.reason.startswith("symmetric: ")
    assert "Frames that would add next to nothing, symmetric: 1. frames@12: " in found.summary()


def test_copies_of_copies_have_the_first_one() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4))
    points[[9, 30, 31]] = points[40] = points[5]
    expected = np.arange(50)
    expected[[9, 30, 31, 40]] = 5
    assert first_copies(points).tolist() == expected.tolist()


def test_a_bad_frame_costs_itself_only(soap: SOAP, tmp_path: Path) -> None:
    frames = a_pool(20)
    bad = frames[4].copy()
    bad.positions[0] = np.nan
    found = select([*frames[:4], bad, Atoms(), *frames[4:]], soap, 5)
    assert [place.frame for place, _ in found.errors] == [4, 5]
    assert "not finite" in found.errors[0][1]
    assert found.errors[1][1] == "the frame has no atoms"
    assert not {4, 5} & set(found.indices.tolist())
    with pytest.raises(ValueError, match="no usable frames"):
        select([Atoms()], soap, 1)
    with pytest.raises(ValueError, match=r"no frame of `frames` can be evaluated: .*not finite"):
        select([bad], soap, 1)


class Stopped(Exception):  # noqa: N818
    pass


def test_a_selection_is_resumed(soap: SOAP, tmp_path: Path) -> None:
    """After an interruption, and after a process was killed in the middle of a record."""
    frames, store = a_pool(30), tmp_path / "rows"
    expected = select(frames, soap, 5)

    def stop(done: int) -> None:
        if done > 10:
            raise Stopped

    with pytest.raises(Stopped):
        select(frames, soap, 5, store=store, progress=stop)
    with store.open("r+b") as file:
        file.truncate(store.stat().st_size - 100)
    done: list[int] = []
    found = select(frames, soap, 5, store=store, progress=done.append)
    assert done[0] > 5
    assert found.indices.tolist() == expected.indices.tolist()
    done.clear()
    again = select(frames, soap, 7, method="d-optimal", store=store, progress=done.append)
    assert (done, len(again)) == ([], 7)
    with pytest.raises(ValueError, match="of a selection with seed = 0, not 1"):
        select(frames, soap, 5, store=store, seed=1)
    with pytest.raises(ValueError, match="of a selection with sample"):
        select(frames[1:], soap, 5, store=store)


def test_a_store_has_one_writer(soap: SOAP, tmp_path: Path) -> None:
    store = RowStore(record_type(1, 1, 1), tmp_path / "rows")
    with pytest.raises(OSError, match="another selection writes to"):
        RowStore(record_type(1, 1, 1), tmp_path / "rows")
    store.close()
    with pytest.raises(ValueError, match="selection with length of energy = 1, not 2"):
        RowStore(record_type(2, 1, 1), tmp_path / "rows")


def test_another_file_is_not_taken_for_a_store(soap: SOAP, tmp_path: Path) -> None:
    store = tmp_path / "notes.txt"
    store.write_text("what I must not lose")
    with pytest.raises(ValueError, match=r"notes\.txt', which is not of a selection"):
        select(a_pool(5), soap, 2, store=store)
    assert store.read_text() == "what I must not lose"


def test_executors_and_files_give_the_same(soap: SOAP, tmp_path: Path) -> None:
    frames = a_pool(20)
    write(tmp_path / "pool.xyz", frames)
    expected = select(tmp_path / "pool.xyz", soap, 4)
    with ThreadPoolExecutor(2) as executor:
        found = select(str(tmp_path / "pool.xyz"), soap, 4, executor=executor)
    assert found.indices.tolist() == expected.indices.tolist()
    assert select(iter(frames), soap, 4).indices.tolist() == expected.indices.tolist()
    assert select([str(tmp_path / "pool.xyz")], soap, 4).places == expected.places


def test_crystals_without_forces_can_be_chosen_by_energy() -> None:
    """By symmetry no force of a perfect crystal depends on the model."""
    crystals = [bulk("Cu", a=a) for a in np.linspace(3.4, 3.8, 9)]
    found = select(crystals, SOAP(["Cu"], cutoff=4.0, n_max=3, l_max=2), 3)
    assert len(found) == 3
    assert np.isnan(found.predicted_error[:, 0]).all()
    assert "over the pool: of energies to" in found.summary()
    assert (np.diff(found.predicted_error[:, 1]) < 0).all()


def test_a_selection_is_saved_and_read(soap: SOAP, tmp_path: Path) -> None:
    frames = [*a_pool(20), Atoms()]
    for method in ("balanced", "farthest-points"):
        found = select(frames, soap, 5, method=method)
        found.save(tmp_path / "selection.json")
        back = Selection.read(tmp_path / "selection.json")
        assert back.todict() == found.todict()
        assert back.summary() == found.summary()
        assert all(one == other for one, other in zip(back.frames, found.frames, strict=True))
    (tmp_path / "selection.json").write_text('{"selection": {}}')
    with pytest.raises(ValueError, match="which is no selection"):
        Selection.read(tmp_path / "selection.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "`n` is 0 but must be a positive integer"),
        ({"method": "best"}, "`method` is 'best' but must be one of balanced, "),
        ({"force_weight": -1}, "`force_weight` is -1 but must be not negative"),
        ({"force_weight": 0, "energy_weight": 0}, "but one must be positive"),
        ({"seed": -1}, "`seed` is -1 but must be an integer from 0"),
        ({"given": ["missing.xyz"]}, "there is no file missing.xyz"),
        ({"executor": 2}, "`executor` is 2 but must be"),
    ],
)
def test_wrong_arguments(soap: SOAP, arguments, message: str) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        select(a_pool(3), soap, **({"n": 2} | arguments))
