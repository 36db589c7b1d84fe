"""What a person may get wrong: told by name and value, and nothing else is harmed."""

from __future__ import annotations

import io
import math
import warnings

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.mep import NEB
from ase.optimize import BFGS

from ase_sensitivity import (
    EvaluationWarning,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    ReadingWarning,
    SensitivityObserver,
    analyze,
    read_log,
    replay,
)
from tests.conftest import SMALL_SOAP, Still, Told, ammonia

NAN = math.nan

# (the argument, its value, further arguments, words of the message beside the argument's name)
OBSERVER = [
    ("scope", "global", {}, ["'global'", "structure, environment, atom"]),
    ("scope", None, {}, ["None"]),
    ("center", 0, {}, ["structure"]),
    ("center", 4, {"scope": "atom"}, ["4", "0 to 3"]),
    ("center", -1, {"scope": "environment"}, ["-1"]),
    ("center", 1.5, {"scope": "atom"}, ["1.5"]),
    ("k", 0, {}, ["0"]),
    ("k", -2, {}, ["-2"]),
    ("k", 2.5, {}, ["2.5"]),
    ("k", "3", {}, ["'3'"]),
    ("k", None, {}, ["None"]),
    ("k", True, {}, ["True"]),
    ("threshold", 0, {}, ["0"]),
    ("threshold", -1e-3, {}, ["-0.001"]),
    ("threshold", NAN, {}, ["nan"]),
    ("threshold", math.inf, {}, ["inf"]),
    ("threshold", "automatic", {}, ["'automatic'"]),
    ("threshold", [1e-3], {}, ["[0.001]"]),
    ("threshold", True, {}, ["True"]),
    ("calibration", 0, {"threshold": "auto"}, ["0"]),
    ("calibration", -5, {"threshold": "auto"}, ["-5"]),
    ("calibration", 2.5, {"threshold": "auto"}, ["2.5"]),
    ("calibration", None, {"threshold": "auto"}, ["None"]),
    ("calibration", "run.traj", {"threshold": "auto"}, ["'run.traj'"]),
    ("calibration", ammonia(), {"threshold": "auto"}, ["Atoms("]),
    ("calibration", [], {"threshold": "auto"}, ["[]"]),
    ("calibration", [ammonia(), 7], {"threshold": "auto"}, ["frame 1", "int"]),
    ("calibration", [Atoms()], {"threshold": "auto"}, ["frame 0", "no atoms"]),
    ("quantile", 1.5, {"threshold": "auto"}, ["1.5"]),
    ("quantile", NAN, {"threshold": "auto"}, ["nan"]),
    ("quantile", "low", {"threshold": "auto"}, ["'low'"]),
    ("patience", 0, {}, ["0"]),
    ("patience", -1, {}, ["-1"]),
    ("patience", 1.0, {}, ["1.0"]),
    ("patience", "3", {}, ["'3'"]),
    ("on_singular", "stop", {}, ["'stop'", "halt"]),
    ("on_singular", ["warn", "stop"], {}, ["'stop'"]),
    ("on_singular", ["warn", 3], {}, ["3"]),
    ("on_singular", {"bug": "warn"}, {}, ["bug", "symmetry"]),
    ("on_singular", 5, {}, ["5"]),
    ("on_singular", "record", {}, ["record", "trajectory"]),
    ("on_failure", "ignore", {}, ["'ignore'"]),
    ("on_failure", None, {}, ["None"]),
    ("trajectory", "frames.db", {}, ["'frames.db'", ".traj"]),
    ("trajectory", "frames", {}, ["'frames'"]),
    ("trajectory", 5, {}, ["5"]),
    ("trajectory", "log.xyz", {"logfile": "log.xyz"}, ["logfile", "'log.xyz'"]),
    ("logfile", 5, {}, ["5"]),
    ("logfile", io.BytesIO(), {}, ["BytesIO"]),
    ("logfile", True, {}, ["True"]),
    ("comm", None, {}, ["None"]),
    ("atoms", "NH3", {}, ["'NH3'"]),
    ("atoms", [ammonia()], {}, ["Atoms("]),
]


def name_of(case):
    value = case[1]
    plain = isinstance(value, int | float | str | list | None)
    return f"{case[0]}={value if plain else type(value).__name__}"


class TestObserver:
    @pytest.mark.parametrize(
        ("argument", "value", "others", "words"), OBSERVER, ids=map(name_of, OBSERVER)
    )
    def test_arguments(self, argument, value, others, words, still, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        log = tmp_path / "log"
        with SensitivityObserver(still, Told(), logfile=log) as observer:
            observer()
        before = log.read_bytes()
        settings = {"logfile": log} | others | {argument: value}
        with pytest.raises((TypeError, ValueError)) as caught:
            SensitivityObserver(still, Told(), **settings)
        for word in (f"`{argument}", *words):
            assert word in str(caught.value)
        assert log.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["log"]

    @pytest.mark.parametrize("descriptor", [None, b"soap cutoff=3", len, QUIPDescriptor, 3])
    def test_descriptor(self, descriptor, still):
        with pytest.raises(TypeError, match=f"`descriptor`.*{type(descriptor).__name__}"):
            SensitivityObserver(still, descriptor)

    @pytest.mark.parametrize("dyn", [None, 5, "NH3", ammonia(), BFGS])
    def test_dyn(self, dyn):
        with pytest.raises(TypeError, match=r"`dyn` is .* but must be a dynamics"):
            SensitivityObserver(dyn, Told())

    def test_a_chain_of_images_as_dyn(self):
        neb = NEB([ammonia(), ammonia(), ammonia()], method="improvedtangent")
        with pytest.raises(ValueError, match=r"`dyn` moves a NEB.*`atoms`"):
            SensitivityObserver(BFGS(neb, logfile=None), Told())

    def test_unknown_arguments(self, still):
        with pytest.raises(TypeError, match="treshold"):
            SensitivityObserver(still, Told(), treshold=1)

    def test_missing_arguments(self, still):
        with pytest.raises(TypeError, match="descriptor"):
            SensitivityObserver(still)

    @pytest.mark.parametrize("argument", ["logfile", "trajectory"])
    def test_files_that_cannot_be_opened(self, argument, still, tmp_path):
        path = tmp_path / "missing" / "file.xyz"
        with pytest.raises(FileNotFoundError, match="missing"):
            SensitivityObserver(still, Told(), **{argument: path})

    @pytest.mark.parametrize("argument", ["logfile", "trajectory"])
    def test_files_that_are_directories(self, argument, still, tmp_path):
        path = tmp_path / "directory.xyz"
        path.mkdir()
        with pytest.raises(IsADirectoryError, match="directory"):
            SensitivityObserver(still, Told(), **{argument: path})


class WrongShape(Told):
    def jacobian(self, atoms):
        return super().jacobian(atoms[:3])


class NotANumber(Told):
    def jacobian(self, atoms):
        found = super().jacobian(atoms)
        found.blocks[0, 0, 0] = NAN
        return found


class NoJacobian(Told):
    def jacobian(self, atoms):
        return np.zeros((3, 3))


def structure(change):
    atoms = ammonia()
    atoms.calc = None
    change(atoms)
    return atoms


def cell(vectors):
    def change(atoms):
        atoms.set_cell(vectors)
        atoms.pbc = True

    return structure(change)


def moved(index, position):
    return structure(lambda atoms: atoms.positions.__setitem__(index, position))


soap = QUIPDescriptor(SMALL_SOAP, species=["N", "H"])


def flawed(result):
    return FiniteDifferenceDescriptor(lambda atoms: result)


RUNS = {
    "no atoms": (Atoms(), soap, "no atoms"),
    "nan": (moved(1, NAN), soap, "position of atom 1"),
    "inf": (moved(2, math.inf), soap, "position of atom 2"),
    "on top": (moved(0, molecule("NH3").positions[1] * 0 + ammonia().positions[1]), soap, "on top"),
    "atomic number": (structure(lambda a: a.set_atomic_numbers([7, 1, 1, 200])), soap, "200"),
    "cell of zeros": (cell(np.zeros((3, 3))), soap, "cell"),
    "flat cell": (cell([[5, 0, 0], [0, 5, 0], [5, 5, 0]]), soap, "linearly dependent"),
    "nan cell": (cell([[NAN, 0, 0], [0, 5, 0], [0, 0, 5]]), soap, "cell"),
    "tiny cell": (cell(np.eye(3) * 0.01), soap, "cell"),
    "no center": (molecule("CO2"), soap, "no atom of CO2 is a center"),
    "other atoms": (ammonia(), WrongShape(), "3 atoms, not of 4"),
    "nan derivative": (ammonia(), NotANumber(), "not finite"),
    "no Jacobian": (ammonia(), NoJacobian(), "ndarray"),
    "text": (ammonia(), flawed("text"), "text"),
    "None": (ammonia(), flawed(None), "None|shape|float"),
    "a vector": (ammonia(), flawed(np.zeros(4)), r"\(4,\)"),
    "nan features": (ammonia(), flawed(np.full((4, 2), NAN)), "not finite"),
    "rows": (ammonia(), flawed(np.zeros((3, 2))), "3 rows for 4 atoms"),
}


class TestDuringARun:
    @pytest.mark.parametrize(("atoms", "descriptor", "words"), RUNS.values(), ids=RUNS)
    def test_it_is_logged_and_the_run_goes_on(self, atoms, descriptor, words, tmp_path):
        log = tmp_path / "log"
        dyn = Still(ammonia())
        observer = SensitivityObserver(dyn, descriptor, logfile=log, on_singular="log")
        dyn.atoms = atoms
        with pytest.warns(EvaluationWarning):
            dyn.play(observer, 2)
        dyn.atoms = ammonia()
        observer._descriptor = Told()
        dyn.play(observer, 1)
        found = read_log(log)
        assert found.state.tolist() == ["failed", "failed", "ok"]
        (reason, _) = [text for text in log.read_text().splitlines() if text.startswith("# step")]
        with pytest.raises((TypeError, ValueError, AttributeError), match=words):
            analyze(atoms, descriptor)
        assert "Error: " in reason
        assert len(reason) < 500


REPLAY = [
    ("frames", 5, {}, ["5"]),
    ("frames", None, {}, ["None"]),
    ("frames", ammonia(), {}, ["one ase.Atoms"]),
    ("frames", [], {}, ["[]", "no frames"]),
    ("frames", [ammonia(), 3], {}, ["has 3"]),
    ("frames", iter([ammonia(), 3]), {}, ["has 3", "at 1"]),
    ("timestep", 0, {}, ["0"]),
    ("timestep", -0.5, {}, ["-0.5"]),
    ("timestep", NAN, {}, ["nan"]),
    ("timestep", "0.5", {}, ["'0.5'"]),
]


class TestReplay:
    @pytest.mark.parametrize(
        ("argument", "value", "others", "words"), REPLAY, ids=map(name_of, REPLAY)
    )
    def test_arguments(self, argument, value, others, words):
        settings = {"frames": [ammonia()]} | others | {argument: value}
        with pytest.raises((TypeError, ValueError)) as caught:
            replay(descriptor=Told(), **settings)
        for word in (f"`{argument}`", *words):
            assert word in str(caught.value)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="none"):
            replay(tmp_path / "none.traj", Told())

    def test_not_a_trajectory(self, tmp_path):
        path = tmp_path / "text.traj"
        path.write_text("no frames here\n")
        with pytest.raises(
            ValueError, match=r"text\.traj cannot be read here: ASE's reader of traj files stops"
        ):
            replay(path, Told())

    def test_a_trajectory_that_breaks_off(self, tmp_path):
        path, log = tmp_path / "run.xyz", tmp_path / "log"
        ase.io.write(path, [ammonia(), ammonia()])
        path.write_bytes(path.read_bytes()[:-150])
        with pytest.warns(ReadingWarning):
            replay(path, Told(), logfile=log)
        assert len(read_log(log)) == 1

    def test_an_observers_argument(self, tmp_path):
        log = tmp_path / "log"
        log.write_text("precious\n")
        with pytest.raises(ValueError, match="`patience` is 0"):
            replay([ammonia()], Told(), logfile=log, patience=0)
        assert log.read_text() == "precious\n"


@pytest.mark.parametrize("file", [None, 5, 1.5])
def test_read_log(file):
    with pytest.raises(TypeError, match=f"`file` is {file}"):
        read_log(file)


def test_nothing_is_said_beside_the_error(still, capfd):
    """Neither by a half-made observer that is collected, nor by QUIP."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for settings in ({"k": 0}, {"trajectory": "a.db"}, {"treshold": 1}):
            with pytest.raises((TypeError, ValueError)):
                SensitivityObserver(still, Told(), **settings)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_appending_to_what_is_not_a_log(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("Groceries: milk\n")
    dyn = Still(ammonia())
    with pytest.raises(ValueError, match=r"notes.txt', which is not a log"):
        SensitivityObserver(dyn, soap, logfile=notes, append=True)
    assert notes.read_text() == "Groceries: milk\n"
