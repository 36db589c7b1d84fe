"""Runs, replays and scans that are compared with a reference."""

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from typer.testing import CliRunner

from ase_sensitivity import (
    SOAP,
    ReferenceSet,
    ScanResult,
    SensitivityObserver,
    SingularConfiguration,
    SingularWarning,
    read_log,
    replay,
    scan,
)
from ase_sensitivity.cli.app import app, main
from ase_sensitivity.cli.replay import statistics, summary
from ase_sensitivity.environments.past import Past
from ase_sensitivity.md.replay import Replay
from tests.test_reference_set import CARBON, MINUS, PLUS, labeled, rattled

TEXT = "soap cutoff=3 n_max=6 l_max=5 atom_sigma=0.3 n_Z=1 Z=6 n_species=1 species_Z=1"


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    """Eight rattled copies of one of two twins, and then the other one."""
    return [*rattled(MINUS, 0.005, 8), PLUS]


@pytest.fixture(scope="module")
def reference() -> ReferenceSet:
    return ReferenceSet([*rattled(MINUS, 0.02, 20), MINUS], CARBON)


def observed(frames: list[Atoms], **settings) -> tuple[SensitivityObserver, str]:
    run, log = Replay(None), io.StringIO()
    run.atoms, run.max_steps = frames[0], len(frames)
    settings = {"budget": None} | settings  # which depends on the load of the machine
    observer = SensitivityObserver(run, CARBON, logfile=log, **settings)
    for number, frame in enumerate(frames):
        run.atoms, run.nsteps = frame, number
        observer()
        if observer.halted:
            break
    return observer, log.getvalue()


def test_nothing_changes_without_a_reference(frames):
    settings = {"on_singular": "log", "distance_threshold": None}
    observer, text = observed(frames[:3], **settings)
    assert observer.comparison is None
    assert "novelty" not in text
    log = read_log(text.splitlines(keepends=True))
    assert np.isnan(log.novelty).all()
    assert (log.twin_frame == -1).all()


def test_columns_and_states(frames, reference):
    observer, text = observed(
        frames, reference=reference, on_singular="log", distance_threshold=None
    )
    assert "# compared with ReferenceSet(21 environments of 21 frames)" in text
    log = read_log(text.splitlines(keepends=True))
    assert len(log) == len(frames)
    assert log.twin_frame[-1] == 20
    assert (log.twin_frame[:-1] == -1).all()
    assert log.state.tolist() == ["ok"] * 8 + ["twin"]
    assert log.twin_features[-1] < 1e-9
    assert log.twin_distance[-1] == pytest.approx(observer.comparison.twin.distance, rel=1e-3)
    assert (log.novelty[:-1] > 0).all()
    assert np.isnan(log.secant).all()


def test_lines_of_all_versions_in_one_log(frames, reference, tmp_path):
    settings = {"on_singular": "log", "distance_threshold": None, "logfile": tmp_path / "a.log"}
    replay(frames[:2], CARBON, **settings)
    replay(frames[-1:], CARBON, reference=reference, append=True, **settings)
    log = read_log(tmp_path / "a.log")
    assert log.twin_frame.tolist() == [-1, -1, 20]


def test_actions_by_kind(frames, reference, tmp_path):
    called = []
    file = tmp_path / "flagged.xyz"
    on_singular = {
        "twin": ["halt", lambda found, atoms, step: called.append(step)],
        "novel": "record",
    }
    observer, _ = observed(
        [*frames, frames[0]],
        reference=reference,
        on_singular=on_singular,
        trajectory=file,
        novelty_threshold=1e-6,
    )
    observer.close()
    assert called == [8]
    assert "twin of frames@20 atom 0" in observer.halted
    flagged = read(file, ":")
    # Eight novel ones, and one that has the features of its twin, which is beside it.
    assert [frame.info["step"] for frame in flagged] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]
    np.testing.assert_allclose(flagged[9].positions, MINUS.positions, atol=1e-7)
    assert flagged[9].info["frame"] == flagged[8].info["twin_frame"] == 20
    assert all(frame.info["novelty"] > 1e-6 for frame in flagged[:8])


def test_warning_and_error(frames, reference):
    with pytest.warns(SingularWarning, match="a reference has nearly the same features"):
        observed(frames[-1:], reference=reference, distance_threshold=None)
    with pytest.raises(SingularConfiguration, match="twin of frames@20"):
        observed(frames[-1:], reference=reference, on_singular={"twin": "raise"})


def test_the_past_of_the_run(frames):
    run = [*rattled(MINUS, 0.01, 30), PLUS, *rattled(MINUS, 0.01, 2, seed=9)]
    _, text = observed(run, reference="run", on_singular="log", distance_threshold=None)
    log = read_log(text.splitlines(keepends=True))
    assert np.isnan(log.novelty[:4]).all()
    assert (log.novelty[4:] > 0).all()
    assert log.state[30] == "twin"
    assert (log.twin_frame >= 0).sum() == 1
    assert 0.3 < np.nanmedian(log.secant) < 3


def test_the_past_is_bounded_and_whole():
    past = Past(CARBON, most=16)
    for step, frame in enumerate(rattled(MINUS, 0.05, 150)):
        past.compare(frame, step)
        assert past.n_frames <= 16
    kept = sorted(task.index for task in past._set.environments.structures.values())
    assert kept[0] == 0
    assert kept[-1] > 100
    assert len(set(np.diff(kept))) == 1


def test_the_twin_in_the_past_is_named_by_its_step():
    run = [MINUS, *rattled(MINUS, 0.3, 10), PLUS]
    log, atoms = io.StringIO(), Replay(None)
    atoms.atoms, atoms.max_steps = run[0], 7 * len(run)
    settings = {"on_singular": "log", "distance_threshold": None, "logfile": log}
    observer = SensitivityObserver(atoms, CARBON, reference="run", **settings)
    for number, frame in enumerate(run):
        atoms.atoms, atoms.nsteps = frame, 100 + 7 * number
        observer()
    found = read_log(log.getvalue().splitlines(keepends=True))
    assert found.step[-1] == 177
    assert found.twin_frame[-1] == observer.comparison.twin.place.frame == 100


def test_the_twin_in_a_thinned_past_is_named_by_its_step():
    past = Past(CARBON, most=16)
    for call, frame in enumerate(rattled(PLUS, 0.3, 48)):
        past.compare(MINUS if call == 32 else frame, 5 * call)
    assert past._every > 1
    twin = past.compare(PLUS, 240).twin
    assert twin.frame == twin.place.frame == 160
    np.testing.assert_array_equal(twin.atoms.positions, MINUS.positions)


def test_secant_is_small_along_a_direction_that_is_not_seen():
    past = Past(CARBON)
    for step, frame in enumerate(rattled(MINUS, 0.1, 8)):
        past.compare(frame, step)
    usual = past.secant
    past.compare(MINUS, 8)
    past.compare(PLUS, 9)  # the other one of a degenerate pair
    assert past.secant < 1e-6 < usual


def test_scan(frames, reference, tmp_path):
    force = np.zeros((5, 3))
    with_labels = [labeled(one, -1.0, force) for one in frames]
    alone = scan(with_labels, CARBON)
    assert alone.rows[0]["novelty"] is None
    assert alone.totals.n_compared == 0
    twin = labeled(MINUS, -1.5, force + np.array([0.0, 0.0, 1.0]))
    labels = ReferenceSet([*rattled(MINUS, 0.02, 20), twin], CARBON)
    store = tmp_path / "results.db"
    result = scan(with_labels, CARBON, reference=labels, store=store)
    assert result.rows[-1]["twin_frame"] == 20
    assert result.rows[-1]["twin_forces"] == pytest.approx(1.0)
    assert result.column("twin_frame").tolist() == [-1] * 8 + [20]
    assert (result.column("novelty")[:-1] > 0).all()
    assert result.rows[-1]["novelty"] == 0  # the features are those of the twin
    assert result.totals.n_twins == 1
    assert "with a twin in the reference" in result.summary()
    assert ScanResult.read(store).rows == result.rows
    with pytest.raises(ValueError, match="with reference ="):
        scan(with_labels, CARBON, reference=reference, store=store)
    scan(with_labels, CARBON, store=tmp_path / "without.db")
    with pytest.raises(ValueError, match="with reference = None"):
        scan(with_labels, CARBON, reference=reference, store=tmp_path / "without.db")


def test_commands(frames, reference, tmp_path):
    write(tmp_path / "run.xyz", frames)
    write(tmp_path / "train.xyz", [*rattled(MINUS, 0.02, 20), MINUS])
    common = [str(tmp_path / "run.xyz"), "-d", TEXT, "--reference", str(tmp_path / "train.xyz")]

    def command(*words: str):
        return CliRunner().invoke(app, [*words[:1], *common, *words[1:]])

    shown = command("replay")
    assert shown.exit_code == 0, shown.output
    assert "1 frame with a twin in the reference" in shown.output
    database = str(tmp_path / "a.db")
    assert "Largest novelty" in command("scan", "-o", database).output
    failed = CliRunner().invoke(app, ["check", *common, "--max-twins", "0"], standalone_mode=False)
    assert failed.return_value == 1
    assert "FAILED twins: 1" in failed.output
    passed = CliRunner().invoke(app, ["check", *common, "--max-twins", "1"], standalone_mode=False)
    assert passed.return_value == 0
    with pytest.raises(ValueError, match="--max-twins needs --reference"):
        CliRunner().invoke(app, ["check", *common[:3], "--max-twins", "0"], catch_exceptions=False)


def test_elements_that_the_reference_lacks_are_counted(tmp_path):
    soap = SOAP(["C", "H", "O"], 3.0, 4, 3)
    given = [molecule("CH4"), molecule("H2O"), molecule("CH3OH")]
    methane = ReferenceSet([molecule("CH4")], soap)
    store = tmp_path / "results.db"
    result = scan(given, soap, reference=methane, store=store)
    assert [row["novelty"] for row in result.rows] == [0, None, None]
    assert [row["not_in_reference"] for row in result.rows] == [None, "O", "O"]
    assert ScanResult.read(store).rows == result.rows
    said = "2 frames have elements that the reference does not have; first"
    assert f"{said} in frames@1." in result.summary()
    totals = result.totals.todict()
    assert (totals["n_compared"], totals["n_not_in_reference"]) == (3, 2)
    assert totals["first_not_in_reference"] == "first in frames@1"
    found = statistics(replay(given, soap, reference=methane, on_singular="log"), 1.0)
    assert (found["n_compared"], found["n_not_in_reference"]) == (3, 2)
    assert f"{said} frame 1." in summary(found)
    one = scan(given[:2], soap, reference=methane)
    assert "1 frame has elements that the reference does not have" in one.summary()
    none = scan(given[:1], soap, reference=methane)
    assert none.totals.todict()["first_not_in_reference"] is None
    assert "does not have" not in none.summary()


def test_replay_against_itself(frames, tmp_path):
    path = tmp_path / "run.xyz"
    write(path, [*rattled(MINUS, 0.01, 12), PLUS])
    words = ["replay", str(path), "-d", TEXT, "--reference", "run"]
    assert "1 frame with a twin" in CliRunner().invoke(app, words).output
    said = CliRunner().invoke(app, [*words, "--novelty-threshold", "1e-3"]).output
    assert "frames with a novelty above 0.001; first frame " in said
    with pytest.raises(ValueError, match="--novelty-threshold needs --reference"):
        CliRunner().invoke(app, [*words[:4], "--novelty-threshold", "2"], catch_exceptions=False)


def test_what_could_not_be_compared_is_told(tmp_path, capsys, monkeypatch):
    soap = SOAP(["C", "H", "O"], 3.0, 4, 3)
    ReferenceSet([molecule("CH4")], soap).save(tmp_path / "methane.npz")
    write(tmp_path / "water.xyz", molecule("H2O"))
    table = tmp_path / "soap.toml"
    table.write_text('[soap]\nspecies = ["C", "H", "O"]\ncutoff = 3.0\nn_max = 4\nl_max = 3\n')
    words = ["check", str(tmp_path / "water.xyz"), "-d", str(table), "--max-twins", "0"]
    words += ["--reference", str(tmp_path / "methane.npz")]
    assert main(words) == 0
    told = "1 frame has elements that the reference does not have; first in "
    assert told in capsys.readouterr().err

    def fails(*_, **__):
        raise ValueError("no features")

    monkeypatch.setattr(ReferenceSet, "compare", fails)
    assert main(words) == 2
    told = "no frame could be compared with --reference, which --max-twins is about; "
    said = capsys.readouterr().err
    assert told in said
    assert "no features" in said


def test_bad_references(frames, reference, tmp_path):
    soap = SOAP(["H"], 3.0, 4, 3, centers=["C"])
    reference.save(tmp_path / "set.npz")
    for given in (reference, tmp_path / "set.npz"):
        with pytest.raises(ValueError, match="`reference` was made with"):
            replay(frames, soap, reference=given)
    with pytest.raises(FileNotFoundError):
        replay(frames, CARBON, reference="none.xyz")
    with pytest.raises(ValueError, match="needs `reference`"):
        replay(frames, CARBON, on_singular={"twin": "halt"})
    with pytest.raises(ValueError, match="`novelty_threshold` is 0"):
        replay(frames, CARBON, reference=reference, novelty_threshold=0)
    log = replay(frames[-1:], CARBON, reference=tmp_path / "set.npz", on_singular="log")
    assert log.twin_frame.tolist() == [20]
