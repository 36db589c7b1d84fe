"""Labels that do not fit to the others: scores, the fit, and what is said of a frame."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_sensitivity import SOAP, Doubts, doubt, scan, write_report
from ase_sensitivity.dataset.doubt import residuals
from ase_sensitivity.dataset.doubt.fit import N_FOLDS, RobustFit, _solutions
from ase_sensitivity.dataset.doubt.judgement import THRESHOLD, judged
from ase_sensitivity.dataset.doubt.scores import (
    FEWEST,
    above_expected,
    expected,
    groups_of,
    z_scores,
)
from ase_sensitivity.dataset.select.model import LinearModel
from tests.structures import rattled
from tests.test_select import Other

N = 30
WRONG = 7


def displaced(seed: int) -> Atoms:
    """A crystal of copper whose atoms are displaced by 0.15 Å, in all, in random directions."""
    atoms = bulk("Cu", cubic=True)
    shift = np.random.default_rng(seed).normal(size=(4, 3))
    shift -= shift.mean(axis=0)
    atoms.positions += 0.15 * shift / np.linalg.norm(shift)
    return atoms


def labeled(atoms: Atoms, *, reverse: int | None = None, scale: float = 1.0) -> Atoms:
    """A structure with energy and forces of EMT, with some noise; one is perhaps reversed."""
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), scale * atoms.get_forces()
    rng = np.random.default_rng(np.abs(1e6 * atoms.positions).astype(int).sum())
    noise = 0.02 * rng.normal(size=forces.shape)
    forces += noise - noise.mean(axis=0)
    if reverse is not None:
        forces[reverse] *= -1.0
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def a_set(wrong: int | None = WRONG) -> list[Atoms]:
    """Copper with labels. The force on atom 2 of one frame may be reversed."""
    return [labeled(displaced(k), reverse=2 if k == wrong else None) for k in range(N)]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """A small model, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residuals, "N_FOURIER", 80)
        yield


@pytest.fixture(scope="module")
def soap() -> SOAP:
    return SOAP(["Cu"], cutoff=4.0, n_max=4, l_max=3, threads=1)


@pytest.fixture(scope="module")
def found(soap: SOAP) -> Doubts:
    return doubt(a_set(), soap)


def test_a_reversed_force_comes_first_and_its_atom_is_named(found: Doubts) -> None:
    assert [str(place) for place in found.frames[:1]] == [f"frames@{WRONG}"]
    assert found.rows[0]["residual_atom"] == 2
    assert "misses the force on atom 2" in "; ".join(found.reasons[0])
    assert found.scores[0] > THRESHOLD
    assert "the forces add up to" in "; ".join(found.reasons[0])
    assert (np.diff(found.scores[len(found) :]) <= 0).all()
    assert len(found.rows) == found.n_frames == N
    other = found.rows[len(found)]
    text = f"The highest of the other scores: {other['score']:.1f} of frames@{other['index']}"
    assert text in str(found)


def test_right_labels_are_hardly_doubted(soap: SOAP) -> None:
    """One frame of thirty may stand out by chance; that of the wrong label does not."""
    found = doubt(a_set(wrong=None), soap)
    assert len(found) <= 1
    assert WRONG not in found.indices
    assert found.undecided == []


def test_the_model_has_the_forces_of_its_rows(soap: SOAP) -> None:
    """One ``adjoint`` gives what rows along all coordinates give."""
    frames = a_set()
    model = LinearModel(soap, frames, 0, n_columns=None)
    weights = np.random.default_rng(0).normal(size=model.columns.shape[1])
    atoms = frames[3]
    expected = model.rows(atoms, np.eye(12).reshape(12, 4, 3)).forces @ weights
    forces, average = model.forces(atoms, weights)
    assert forces.ravel() == pytest.approx(expected, abs=1e-10 * np.abs(expected).max())
    assert average == pytest.approx(model.average(atoms))


@pytest.mark.parametrize("kind", ["products", "streamed"])
def test_any_jacobian_with_apply_and_adjoint_will_do(soap: SOAP, found: Doubts, kind: str) -> None:
    other = doubt(a_set(), Other(soap, kind))
    assert other.frames == found.frames
    assert other.scores == pytest.approx(found.scores, rel=1e-6)


def test_results_do_not_depend_on_where_they_are_computed(soap: SOAP, found: Doubts) -> None:
    steps: list[tuple[int, int]] = []
    with ThreadPoolExecutor(2) as pool:
        scanned = scan(a_set(), soap, executor=pool)
        other = doubt(scanned, soap, executor=pool, fit_progress=lambda *done: steps.append(done))
    assert other.frames == found.frames
    assert other.scores == pytest.approx(found.scores)
    assert steps[-1] == (2 * N, 2 * N)


def test_without_a_fit(soap: SOAP) -> None:
    """A net force tells of the reversed one; the table of a scan is enough for it."""
    scanned = scan(a_set(), soap)
    found = doubt(scanned, soap, fit=False)
    assert found.rows[0]["index"] == WRONG
    assert found.rows[0]["residual"] is None
    assert "the forces add up to" in found.reasons[0][0]
    assert "Forces were not fitted" in str(found)
    assert scanned.doubts.rows == found.rows
    assert f"Forces to look at first: frames@{WRONG}" in str(scanned)
    assert f" In frames@{WRONG} the forces add up to" in str(scanned)


def test_a_report_lists_them(soap: SOAP, tmp_path: Path) -> None:
    for frames, there in ((a_set(), True), (a_set()[:5], False)):
        write_report(scan(frames, soap), tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        assert ("Labels to look at first" in page) == there
        assert (f"<b>frames@{WRONG}</b>: the forces add up to" in page) == there


def test_copies_with_other_labels(soap: SOAP) -> None:
    """Both are listed, first of all; copies with the same labels are not."""
    frames = a_set(wrong=None)
    frames.append(labeled(frames[4].copy(), scale=1.5))
    frames.append(labeled(frames[9].copy()))
    found = doubt(frames, soap)
    assert {place.frame for place in found.frames[:2]} == {4, N}
    assert not {9, N + 1} & set(found.indices.tolist())
    reasons = dict(zip((place.frame for place in found.frames), found.reasons, strict=True))
    assert "frames@30 has the same structure, and another force by" in reasons[4][0]
    assert "frames@4 has the same structure" in reasons[N][0]
    told = [
        reason for reason in reasons[N] if "has the same structure, and another force" in reason
    ]
    assert len(told) == 1  # not one for each atom


def test_a_result_is_saved_and_read(found: Doubts, tmp_path: Path) -> None:
    found.save(tmp_path / "doubts.json")
    again = Doubts.read(tmp_path / "doubts.json")
    assert again.todict() == found.todict()
    assert (str(again), again.frames) == (str(found), found.frames)
    found.to_csv(tmp_path / "doubts.csv")
    lines = (tmp_path / "doubts.csv").read_text().splitlines()
    assert lines[0].startswith("source,index,score,reasons")
    assert lines[1].startswith(f"frames,{WRONG},")
    assert len(lines) == N + 1
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Doubts.read(tmp_path / "nothing.json")
    for text in ("no JSON", "{}", '{"doubts": {"rows": [{}]}}', "[]"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="no result of doubt"):
            Doubts.read(tmp_path / "other.json")


def test_too_few_frames_are_told(soap: SOAP) -> None:
    few = doubt(a_set()[:5], soap)
    assert (len(few), few.fitted) == (0, False)
    assert "No forces stand out among those of 5 frames" in str(few)
    assert np.isnan(few.scores).all()
    assert "what is usual: fewer than 10 frames have forces" in few.undecided
    assert "fewer than 20 frames have forces" in str(few)
    some = [labeled(rattled(bulk("Cu"), 0.1, 0) * (1, 1, 2)) for _ in range(3)]
    mixed = doubt([*a_set(), *some], soap)
    assert mixed.undecided == [
        "what is usual for 3 of the frames: fewer than 10 frames have a composition like theirs"
    ]


def test_frames_that_cannot_be_judged(soap: SOAP) -> None:
    frames = a_set()
    frames[3] = Atoms()
    frames[11].calc = None
    found = doubt(frames, soap)
    assert [place.frame for place, _ in found.errors] == [3]
    assert (len(found.rows), found.n_frames, found.frames[0].frame) == (N - 2, N, WRONG)


def test_bad_arguments(soap: SOAP) -> None:
    bare = [displaced(k) for k in range(2)]
    with pytest.raises(ValueError, match="have no forces to doubt; name them with `forces_key`"):
        doubt(bare, soap)
    with pytest.raises(ValueError, match="the scan is of"):
        doubt(scan(a_set()[:2], soap), SOAP(["Cu"], cutoff=3.0, n_max=2, l_max=1))
    with pytest.raises(TypeError, match="`fit` is 1 but must be True or False"):
        doubt(bare, soap, fit=1)
    with pytest.raises(ValueError, match="`seed` is -1"):
        doubt(bare, soap, seed=-1)


def test_frames_without_forces_do_not_stop_the_fit(soap: SOAP) -> None:
    """Half of the frames are in equilibrium."""
    frames = a_set()
    for _ in range(N + 2):
        frames.append(labeled(bulk("Cu", cubic=True)))
        forces = np.zeros((4, 3))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=0.0, forces=forces)
        frames[-1].rattle(1e-9, seed=len(frames))
    found = doubt(frames, soap)
    assert found.fitted
    assert all(row["residual"] is not None for row in found.rows)


def test_scores_descend(found: Doubts) -> None:
    scores = found.scores
    known = scores[np.isfinite(scores)]
    assert (np.diff(known) <= 0).all()
    assert np.isfinite(scores[: len(known)]).all()


def test_few_wrong_labels_do_not_pull_the_fit() -> None:
    """Forces of a linear model, and a tenth of the frames with others."""
    rng = np.random.default_rng(1)
    true = rng.normal(size=20)
    rows = [rng.normal(size=(6, 20)) for _ in range(100)]
    forces = [own @ true for own in rows]
    wrong = rng.choice(100, 10, replace=False)
    for n in wrong:
        forces[n] = 5.0 * rng.normal(size=6)
    fold = np.arange(100) % N_FOLDS
    weights = RobustFit.of(rows, forces, fold).weights
    assert weights == pytest.approx(np.tile(true, (N_FOLDS, 1)), abs=0.01)
    plain = np.linalg.lstsq(np.concatenate(rows), np.concatenate(forces), rcond=None)[0]
    assert np.abs(plain - true).max() > 0.1


def test_a_frame_is_not_fitted_to_itself() -> None:
    """Forces of each fold do not change the weights with which they are compared."""
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(3, 4)) for _ in range(40)]
    forces = [rng.normal(size=3) for _ in rows]
    fold = np.arange(40) % N_FOLDS
    weight = np.ones(40)
    before = _solutions(rows, forces, weight, fold)
    forces = [own + 1.0 if k == 0 else own for own, k in zip(forces, fold, strict=True)]
    after = _solutions(rows, forces, weight, fold)
    assert after[0] == pytest.approx(before[0])
    assert not np.allclose(after[1], before[1])


def test_scores_are_relative_to_like_frames() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=200), 50.0 + 7.0 * rng.normal(size=200)])
    group = np.repeat([0, 1], 200)
    scores = z_scores(values, group)
    for number in (0, 1):
        own = scores[group == number]
        assert np.median(own) == pytest.approx(0.0, abs=1e-12)
        assert own.std() == pytest.approx(1.0, abs=0.15)
    assert scores == pytest.approx(z_scores(3.0 * values + 2.0, group))
    values[0] = np.nan
    assert np.isnan(z_scores(values, group)[0])
    assert np.isnan(z_scores(values, np.arange(400))).all()


def test_small_groups_are_put_together() -> None:
    formulas = ["C4"] * FEWEST + ["H2O"] * (FEWEST - 1) + ["N2"]
    group, sizes = groups_of(formulas)
    assert sizes.tolist() == [FEWEST, FEWEST]
    assert len(set(group[FEWEST:])) == 1


def test_residuals_are_relative_to_what_the_forces_let_expect() -> None:
    """On a power law of the forces none stands out, and one above it does."""
    forces = np.logspace(-1, 1, 50)
    rng = np.random.default_rng(0)
    values = 0.2 * forces**0.7 * np.exp(0.2 * rng.normal(size=50))
    values[5] *= 20.0
    group = np.zeros(50, dtype=np.intp)
    usual = expected(values, forces, group)
    assert usual[10] == pytest.approx(0.2 * forces[10] ** 0.7, rel=0.15)
    scores = above_expected(values, usual, group)
    assert np.argmax(scores) == 5
    assert scores[5] > THRESHOLD > np.delete(scores, 5).max()
    assert values[5] < values.max()


def test_equal_frames_have_no_scores_to_speak_of() -> None:
    row = {"formula": "Cu4", "rms_force": 0.0, "required_slope": 0.0, "net_force": 0.0}
    assert [one["score"] for one in judged([row] * 12)] == [0.0] * 12
