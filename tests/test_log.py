"""The log and the flagged frames: whole at any time, whatever happens to process and disk."""

from __future__ import annotations

import errno
import io
import math
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.io.extxyz import XYZError

from ase_sensitivity import EvaluationWarning, SensitivityObserver, analyze, read_log
from ase_sensitivity.md.log import columns, line
from tests.conftest import Still, Told, ammonia, ours

FULL = Path("/dev/full")


def complete_frames(path):
    """All frames before the first that is torn."""
    frames = []
    with suppress(XYZError):
        for frame in ase.io.iread(path, ":"):
            frames.append(frame)  # what came before the error stays
    return frames


class TestFormat:
    def test_columns_stay_where_they_are(self):
        found = analyze(ammonia(), Told([0.123456789]), k=3)
        head = columns(3)
        for step, when in ((0, 0.0), (123456789, 1234567.8901), (7, math.nan)):
            for result, state in ((found, "singular"), (None, "failed")):
                text = line(step, when, 3, result, state)
                assert text.endswith(f" {state}\n")
                assert len(text) == len(head) - len("state") + len(state)
                # right-aligned: every column of numbers ends where its name ends
                ends = [i for i, c in enumerate(head[:-1]) if c != " " and head[i + 1] == " "]
                assert all(text[i] != " " and text[i + 1] == " " for i in ends)

    def test_units_are_in_the_header(self):
        assert columns(2).split() == [
            "Step",
            "Time[fs]",
            "sigma_1[1/A]",
            "sigma_2[1/A]",
            "sigma_max",
            "ratio",
            "n_null",
            "worst_atom",
            "distance[A]",
            "arrival[fs]",
            "cause",
            "harmful[A]",
            "harmful_cause",
            "state",
        ]

    def test_a_log_gives_back_what_was_found(self, still, soap, tmp_path):
        log = tmp_path / "log"
        observer = SensitivityObserver(still, soap, logfile=log, k=4, on_singular="log")
        observer()
        found, expected = read_log(log), analyze(still.atoms, soap, k=4)
        assert len(found) == 1
        assert found.sigma[0] == pytest.approx(expected.singular_values, rel=1e-6)
        assert found.sigma_max[0] == pytest.approx(expected.sigma_max, rel=1e-6)
        assert found.ratio[0] == pytest.approx(expected.ratio, rel=1e-5)
        assert found.n_null[0] == expected.n_null
        assert found.worst_atom[0] == expected.worst_atom

    def test_the_header_says_what_was_asked(self, still, tmp_path):
        log = tmp_path / "log"
        SensitivityObserver(still, Told(), logfile=log, scope="atom", center=2, threshold=0.01)
        lines = log.read_text().splitlines()
        assert lines[0] == "# Told"
        assert "scope=atom, center=2, k=3" in lines[1]
        assert lines[1].endswith("threshold=0.01, distance_threshold=0.1")
        assert lines[2] == columns(3).rstrip("\n")

    def test_no_header_on_request(self, still, tmp_path):
        log = tmp_path / "log"
        observer = SensitivityObserver(still, Told(), logfile=log, header=False)
        assert log.read_text() == ""
        observer()
        assert len(log.read_text().splitlines()) == len(read_log(log)) == 1

    def test_more_values_than_there_are(self, still, tmp_path):
        log = tmp_path / "log"
        SensitivityObserver(still, Told(), logfile=log, k=20)()
        sigma = read_log(log).sigma
        assert sigma.shape == (1, 20)
        assert np.isfinite(sigma[0, :6]).all()
        assert np.isnan(sigma[0, 6:]).all()

    def test_standard_output(self, still, capsys):
        SensitivityObserver(still, Told(), logfile="-")()
        assert len(read_log(capsys.readouterr().out.splitlines(keepends=True))) == 1

    def test_an_open_file(self, still, tmp_path):
        with open(tmp_path / "log", "w") as file:
            file.write("mine\n")
            observer = SensitivityObserver(still, Told(), logfile=file)
            observer()
            assert len(read_log(tmp_path / "log")) == 1  # flushed
            observer.close()
            assert not file.closed

    def test_no_log_at_all(self, still):
        observer = SensitivityObserver(still, Told())
        observer()
        assert observer.n_calls == 1
        assert observer.n_unwritten == 0


class TestWhileItRuns:
    def test_every_line_is_there_at_once(self, still, tmp_path):
        log = tmp_path / "log"
        observer = SensitivityObserver(still, Told(), logfile=log)
        for calls in range(1, 4):
            still.play(observer, 1)
            assert len(read_log(log)) == calls

    @pytest.mark.parametrize("torn", ["", "        3 ", "# Tol"])
    def test_append(self, still, torn, tmp_path):
        log = tmp_path / "log"
        with SensitivityObserver(still, Told(), logfile=log) as observer:
            still.play(observer, 2)
        with open(log, "a") as file:
            file.write(torn)
        with SensitivityObserver(still, Told(), logfile=log, append=True) as observer:
            still.play(observer, 2)
        assert read_log(log).step.tolist() == [1, 2, 3, 4]
        assert log.read_text().count("Step") == 1

    @pytest.mark.parametrize("torn", ["#", "        3 ", "        3       4.0000  1.0e-01", " ok"])
    def test_a_torn_line_is_ended_before_the_next(self, still, torn, tmp_path):
        """Nothing but the torn line is lost, without a header in between as well."""
        log = tmp_path / "log"
        with SensitivityObserver(still, Told(), logfile=log) as observer:
            still.play(observer, 2)
        with open(log, "a") as file:
            file.write(torn)
        settings = {"logfile": log, "append": True, "header": False}
        with SensitivityObserver(still, Told(), **settings) as observer:
            still.play(observer, 2)
        found = read_log(log)
        assert found.step.tolist() == [1, 2, 3, 4]
        assert np.isfinite(found.sigma).all()
        assert torn in log.read_text().splitlines()

    def test_append_to_nothing_writes_a_header(self, still, tmp_path):
        log = tmp_path / "log"
        SensitivityObserver(still, Told(), logfile=log, append=True)
        assert "Step" in log.read_text()

    def test_without_append_a_new_log_is_begun(self, still, tmp_path):
        log = tmp_path / "log"
        for _ in range(2):
            with SensitivityObserver(still, Told(), logfile=log) as observer:
                observer()
        assert len(read_log(log)) == 1

    def test_append_with_another_k(self, still, tmp_path):
        log = tmp_path / "log"
        for k in (2, 3, 1):
            with SensitivityObserver(still, Told(), logfile=log, k=k, append=True) as observer:
                still.play(observer, 1)
        found = read_log(log)
        assert found.step.tolist() == [1, 2, 3]
        assert np.isfinite(found.sigma).sum(axis=1).tolist() == [2, 3, 1]

    def test_cut_anywhere_all_complete_lines_are_read(self, still, tmp_path):
        log = tmp_path / "log"
        ratios = [0.5, 1e-5, ValueError("no\nreason"), 0.4, 1e-5, 0.3]
        settings = {"threshold": "auto", "calibration": 2, "patience": 2, "on_singular": "log"}
        observer = SensitivityObserver(still, Told(ratios), logfile=log, **settings)
        with pytest.warns(EvaluationWarning):
            still.play(observer, len(ratios))
        whole, expected = log.read_bytes(), read_log(log)
        assert set(expected.state) >= {"calibrating", "failed", "ok"}
        ends = np.cumsum([len(text) for text in whole.splitlines(keepends=True)])
        rows = [not text.lstrip().startswith((b"#", b"Step")) for text in whole.splitlines()]
        cut = tmp_path / "cut"
        for size in range(len(whole) + 1):
            cut.write_bytes(whole[:size])
            complete = int(sum(row and end <= size for row, end in zip(rows, ends, strict=True)))
            found = read_log(cut)
            assert found.step.tolist() == expected.step[:complete].tolist(), size
            assert np.array_equal(found.ratio, expected.ratio[:complete], equal_nan=True)

    def test_cut_anywhere_it_can_be_continued(self, still, tmp_path):
        log = tmp_path / "log"
        with SensitivityObserver(still, Told(), logfile=log) as observer:
            still.play(observer, 2)
        whole = log.read_bytes()
        for size in range(0, len(whole) + 1, 3):
            log.write_bytes(whole[:size])
            before = read_log(log).step.tolist()
            # A line that lacks nothing but its end is complete once something follows.
            if whole[:size].endswith(b" ok"):
                before.append(len(before) + 1)
            still.nsteps = 7
            with SensitivityObserver(still, Told(), logfile=log, append=True) as observer:
                observer()
            assert read_log(log).step.tolist() == [*before, 7], size

    @pytest.mark.slow
    def test_cut_anywhere_frames_can_be_continued(self, still, tmp_path):
        path = tmp_path / "frames.xyz"
        settings = {"trajectory": path, "threshold": 1e-3, "on_singular": "record"}
        still.atoms.calc = None
        with SensitivityObserver(still, Told([1e-5]), **settings) as observer:
            still.play(observer, 2)
        whole = path.read_bytes()
        one = len(whole) // 2
        for size in range(0, len(whole) + 1, 7):
            path.write_bytes(whole[:size])
            still.nsteps = 7
            with SensitivityObserver(still, Told([1e-5]), append=True, **settings) as observer:
                observer()
            steps = [frame.info["step"] for frame in ase.io.read(path, ":")]
            assert steps == [*range(1, size // one + 1), 7], size

    def test_other_peoples_files_are_not_cut(self, still, tmp_path):
        path = tmp_path / "frames.xyz"
        path.write_text("precious\ntext\n")
        with pytest.raises(ValueError, match=r"frames\.xyz.*other frames than flagged ones"):
            SensitivityObserver(still, Told(), trajectory=path, append=True)
        assert path.read_text() == "precious\ntext\n"


class TestForeignText:
    def test_empty(self, tmp_path):
        (tmp_path / "log").touch()
        found = read_log(tmp_path / "log")
        assert len(found) == 0
        assert found.sigma.shape == (0, 0)

    def test_header_only(self, still, tmp_path):
        SensitivityObserver(still, Told(), logfile=tmp_path / "log")
        assert len(read_log(tmp_path / "log")) == 0

    def test_no_log(self, tmp_path):
        (tmp_path / "log").write_text("some\nother text\nof three lines\n")
        with pytest.raises(ValueError, match="is not a log"):
            read_log(tmp_path / "log")

    def test_bytes_that_are_no_text(self, still, tmp_path):
        log = tmp_path / "log"
        SensitivityObserver(still, Told(), logfile=log)()
        with open(log, "ab") as file:
            file.write(b"\xff\xfe\x00\x00 ok\n\x80")
        assert len(read_log(log)) == 1

    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_log(tmp_path / "none")


class TestFullDisk:
    @pytest.fixture
    def disk(self, monkeypatch, tmp_path):
        """A disk that takes so many bytes of the files in `tmp_path`, and then no more."""

        class Disk:
            room: float = math.inf
            write = staticmethod(os.write)

            def __call__(self, descriptor, data):
                if not self.is_ours(descriptor):
                    return self.write(descriptor, data)
                if self.room < 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written = self.write(descriptor, data[: int(min(self.room, len(data)))])
                self.room -= written
                return written

            def is_ours(self, descriptor):
                inode = os.fstat(descriptor).st_ino
                return any(path.stat().st_ino == inode for path in tmp_path.iterdir())

        disk = Disk()
        monkeypatch.setattr(os, "write", disk)
        return disk

    @pytest.mark.parametrize("room", [0, 1, 50, 110, 111, 112, 230, 10_000])
    def test_nothing_is_lost_or_torn_once_it_recovers(self, still, disk, room, tmp_path):
        log, frames = tmp_path / "log", tmp_path / "frames.xyz"
        observer = SensitivityObserver(
            still,
            Told([1e-5]),
            logfile=log,
            trajectory=frames,
            threshold=1e-3,
            on_singular="record",
        )
        still.play(observer, 1)
        disk.room = room
        if room < 5_000:
            with pytest.warns(EvaluationWarning, match="could not be written") as caught:
                still.play(observer, 3)
            assert len(ours(caught)) == 1
            assert observer.n_unwritten > 0
        else:
            still.play(observer, 3)
        assert still.nsteps == 4
        while_full = read_log(log).step.tolist()
        assert while_full == list(range(1, len(while_full) + 1))
        disk.room = math.inf
        still.play(observer, 1)
        assert read_log(log).step.tolist() == [1, 2, 3, 4, 5]
        assert [frame.info["step"] for frame in ase.io.read(frames, ":")] == [1, 2, 3, 4, 5]

    def test_closing_writes_the_rest(self, still, disk, tmp_path):
        log = tmp_path / "log"
        observer = SensitivityObserver(still, Told(), logfile=log)
        disk.room = 20
        with pytest.warns(EvaluationWarning):
            observer()
        disk.room = math.inf
        observer.close()
        assert len(read_log(log)) == 1

    def test_closing_on_a_full_disk_tells(self, still, disk, tmp_path, caplog):
        observer = SensitivityObserver(still, Told(), logfile=tmp_path / "log")
        disk.room = 20
        with pytest.warns(EvaluationWarning):
            observer()
        observer.close()
        assert "bytes could not be written" in caplog.text

    @pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
    def test_a_log_on_a_full_device_stops_no_run(self, still):
        with pytest.warns(EvaluationWarning, match="could not be written") as caught:
            observer = SensitivityObserver(
                still, Told([1e-5]), logfile=FULL, threshold=1e-3, on_singular="halt"
            )
        still.play(observer, 5)
        assert len(ours(caught)) == 1
        assert still.nsteps == 1
        assert observer.halted
        assert observer.n_unwritten == 2

    @pytest.mark.parametrize("suffix", ["xyz", "traj"])
    @pytest.mark.parametrize("extra", [0, 10, 300, 900])
    def test_frames_wait_until_there_is_room(self, still, suffix, extra, tmp_path):
        """The size limit of a process stands for a disk that is really full."""
        resource = pytest.importorskip("resource", reason="needs Unix")
        path = tmp_path / f"frames.{suffix}"
        observer = SensitivityObserver(
            still, Told([1e-5]), trajectory=path, threshold=1e-3, on_singular="record"
        )
        still.play(observer, 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + extra, hard))
        try:
            with pytest.warns(EvaluationWarning, match="could not be written"):
                still.play(observer, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        still.play(observer, 1)
        observer.close()
        assert [frame.info["step"] for frame in ase.io.read(path, ":")] == [1, 2, 3, 4]

    def test_a_stream_that_fails(self, still):
        class Broken(io.StringIO):
            def write(self, text):
                raise OSError(errno.EPIPE, "Broken pipe")

        with pytest.warns(EvaluationWarning, match="could not be written"):
            observer = SensitivityObserver(still, Told(), logfile=Broken())
        observer()
        assert observer.n_unwritten == 2


RUN = """
import sys
from ase import units
from ase.md import VelocityVerlet
from ase_sensitivity import QUIPDescriptor, SensitivityObserver
from tests.conftest import SMALL_SOAP, ammonia, warm

directory, suffix = sys.argv[1:]
atoms = ammonia()
warm(atoms, 300)
dyn = VelocityVerlet(atoms, 0.2 * units.fs)
observer = SensitivityObserver(
    dyn,
    QUIPDescriptor(SMALL_SOAP, species=["N", "H"]),
    logfile=f"{directory}/log",
    trajectory=f"{directory}/frames.{suffix}",
    threshold=10.0,
    on_singular="record",
    append=True,
)
dyn.attach(observer)
dyn.run(10**9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", ["xyz", "traj"])
def test_a_killed_run_leaves_all_its_complete_lines(seed, suffix, tmp_path):
    log, frames = tmp_path / "log", tmp_path / f"frames.{suffix}"
    at_least = random.Random(seed).randint(3, 40)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path), suffix],
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.PIPE,
    )
    try:
        while not log.exists() or len(read_log(log)) < at_least:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.001)
    finally:
        process.kill()
        process.communicate()
    found = read_log(log)
    assert len(found) >= at_least
    assert found.step.tolist() == list(range(len(found)))
    assert (found.state == "singular").all()
    recorded = [frame.info["step"] for frame in complete_frames(frames)]
    # The line comes before its frame; the kill may fall between.
    assert recorded in (list(range(len(found))), list(range(len(found) - 1)))
    # And the next run goes on from there.
    dyn = Still(ammonia())
    settings = {"trajectory": frames, "threshold": 10.0, "on_singular": "record", "append": True}
    with SensitivityObserver(dyn, Told(), logfile=log, **settings) as observer:
        observer()
    assert len(read_log(log)) == len(found) + 1
    assert len(ase.io.read(frames, ":")) == len(recorded) + 1
