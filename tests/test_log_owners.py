"""A log or a trajectory has one observer at a time, in this process and in all others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest

from ase_sensitivity import SensitivityObserver, read_log
from tests.conftest import Still, Told, ammonia

ROOT = Path(__file__).parent.parent
FILES = ["log", "frames.xyz", "frames.traj"]


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def observed(dyn: Still, file: str, append: bool = True) -> SensitivityObserver:
    where = {"trajectory" if Path(file).suffix else "logfile": file}
    return SensitivityObserver(
        dyn, Told(), **where, threshold=10.0, on_singular="log", append=append
    )


def steps(file: str) -> list[int]:
    if file == "log":
        return read_log(file).step.tolist()
    return [frame.info["step"] for frame in ase.io.iread(file, ":")]


@pytest.mark.parametrize("append", [True, False])
@pytest.mark.parametrize("file", FILES)
def test_the_second_observer_is_refused(file: str, append: bool) -> None:
    dyn = Still(ammonia())
    first = observed(dyn, file)
    dyn.play(first, 3)
    os.symlink(file, f"link{Path(file).suffix}")
    for name in (file, os.path.abspath(file), f"link{Path(file).suffix}"):
        with pytest.raises(OSError, match=f"another observer writes to .*{name}"):
            observed(dyn, name, append)
    dyn.play(first, 2)
    first.close()
    assert steps(file) == [1, 2, 3, 4, 5]
    with observed(dyn, file) as second:
        dyn.play(second, 1)
    assert steps(file) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("file", FILES)
def test_a_cell_run_again_starts_anew(file: str) -> None:
    """The run of before is gone, though its observer has a name still."""
    for _ in range(3):
        dyn = Still(ammonia())
        observer = observed(dyn, file, append=False)
        dyn.observers = [observer]
        dyn.itself = dyn  # as a logger of a dynamics may have it
        dyn.play(observer, 2)
        del dyn
    observer.close()
    assert steps(file) == [1, 2]


def test_neither_file_is_emptied_if_one_is_in_use() -> None:
    dyn = Still(ammonia())
    with observed(dyn, "log") as observer:
        dyn.play(observer, 2)
    with (
        observed(dyn, "frames.xyz"),
        pytest.raises(OSError, match=r"another observer writes to frames\.xyz"),
    ):
        SensitivityObserver(dyn, Told(), logfile="log", trajectory="frames.xyz")
    assert steps("log") == [1, 2]


def test_log_and_trajectory_are_not_one_file() -> None:
    os.symlink("frames.xyz", "log")
    with pytest.raises(ValueError, match="are both 'log'"):
        SensitivityObserver(
            Still(ammonia()), Told(), logfile="log", trajectory="frames.xyz", on_singular="record"
        )


RUN = """
import sys
from tests.conftest import Still, ammonia
from tests.test_log_owners import observed

dyn = Still(ammonia())
observer = observed(dyn, sys.argv[1])
dyn.play(observer, 3)
print("there", flush=True)
sys.stdin.read()
dyn.play(observer, 3)
"""


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_another_process_is_refused_until_this_one_ends(file: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, file],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "there\n"
        dyn = Still(ammonia())
        with pytest.raises(OSError, match="another observer writes"):
            observed(dyn, file)
        process.stdin.close()
        assert process.wait(timeout=300) == 0
    assert steps(file) == [1, 2, 3, 4, 5, 6]
    with observed(dyn, file) as observer:
        dyn.play(observer, 1)
    assert steps(file) == [1, 2, 3, 4, 5, 6, 1]


def test_what_cannot_be_locked_is_written_all_the_same(monkeypatch) -> None:
    def without(*_) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("ase_sensitivity.io.line_file.fcntl.flock", without)
    dyn = Still(ammonia())
    with observed(dyn, "log") as observer:
        dyn.play(observer, 2)
    assert steps("log") == [1, 2]
