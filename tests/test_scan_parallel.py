"""Scans on executors: the same table, bounded memory, and what happens when a worker dies."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor
from ase_sensitivity.dataset import chunks, executors
from ase_sensitivity.dataset.chunks import Chunks
from ase_sensitivity.dataset.evaluation import Task
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.dataset.workers import processes
from tests.scanning import stream
from tests.structures import rattled

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def soap() -> SOAP:
    return SOAP(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)


@pytest.fixture(scope="module")
def two() -> Iterator[Executor]:
    with processes(2) as executor:
        yield executor


def water(n: int) -> list[Atoms]:
    return [rattled(molecule("H2O"), seed=seed) for seed in range(n)]


class Fatal(SOAP):
    """Kills the process that computes it at one geometry, as long as a file is there."""

    def __init__(self, fuse: Path, height: float) -> None:
        super().__init__(["H", "O"], 3.0, 2, 1, threads=1)
        self.fuse, self.height = fuse, height

    def jacobian(self, atoms: Atoms):
        if self.fuse.exists() and atoms.positions[0, 2] == self.height:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().jacobian(atoms)

    stream = jacobian


@pytest.mark.slow
def test_processes_give_the_same_table(two: Executor, soap: SOAP, tmp_path: Path) -> None:
    expected = scan(stream(150), soap, forces_key="f")
    in_memory = scan(stream(150), soap, forces_key="f", executor=two)
    stored = scan(stream(150), soap, forces_key="f", executor=two, store=tmp_path / "results.db")
    assert in_memory.rows == stored.rows == expected.rows
    assert in_memory.rows[3]["error"] is not None
    for one, other in zip(stored.records(), expected.records(), strict=True):
        assert np.array_equal(one.singular_values, other.singular_values)
        assert np.allclose(one.modes, other.modes, atol=1e-6)


@pytest.mark.slow
def test_a_dead_worker_is_told_and_the_scan_resumed(soap: SOAP, tmp_path: Path) -> None:
    structures, fuse = water(24), tmp_path / "fuse"
    fuse.touch()
    descriptor = Fatal(fuse, structures[13].positions[0, 2])
    with (
        processes(2) as executor,
        pytest.raises(RuntimeError, match=r"did not compute frames@\d+ to frames@\d+"),
    ):
        scan(structures, descriptor, executor=executor, store=tmp_path / "results.db")
    n_stored = len(ScanResult.read(tmp_path / "results.db"))
    assert n_stored <= 13
    fuse.unlink()
    with processes(2) as executor:
        result = scan(structures, descriptor, executor=executor, store=tmp_path / "results.db")
    assert result.rows == scan(structures, soap).rows


class Slow(Executor):
    """Does one thing after the other, later; counts what waits."""

    def __init__(self) -> None:
        self._max_workers = 2
        self._pool = ThreadPoolExecutor(1)
        self.waiting = self.most = 0
        self._lock = threading.Lock()

    def submit(self, function, /, *arguments, **settings) -> Future:
        with self._lock:
            self.waiting += len(arguments[-1])
            self.most = max(self.most, self.waiting)
        future = self._pool.submit(self._late, function, *arguments)
        return future

    def _late(self, function, *arguments):
        time.sleep(0.01)
        outcome = function(*arguments)
        with self._lock:
            self.waiting -= len(arguments[-1])
        return outcome


def test_few_chunks_are_on_their_way(soap: SOAP, monkeypatch) -> None:
    monkeypatch.setattr(chunks, "MOST_FRAMES", 4)
    executor, read = Slow(), []

    def counted() -> Iterator[Atoms]:
        for atoms in water(200):
            read.append(len(read))
            yield atoms

    ahead: list[int] = []
    result = scan(
        counted(), soap, executor=executor, progress=lambda n: ahead.append(len(read) - n)
    )
    assert list(result.column("index")) == list(range(200))
    assert 4 < executor.most <= 4 * 4  # two chunks for each worker
    assert max(ahead) <= 4 * 4


def test_chunks_take_about_half_a_second() -> None:
    """Twice as many frames as before at most, and half as many at least, but one."""
    tasks = [Task("frames", number, Atoms()) for number in range(100)]
    some = Chunks(iter(tasks))
    sizes = []
    for chunk in some:
        sizes.append(len(chunk))
        some.adapt(len(chunk), len(chunk) * (0.05 if len(sizes) < 8 else 2.0))
    assert sizes[:12] == [1, 2, 4, 8, 10, 10, 10, 10, 5, 2, 1, 1]
    assert sum(sizes) == 100


def test_what_cannot_be_sent_is_told(two: Executor) -> None:
    descriptor = FiniteDifferenceDescriptor(lambda atoms: atoms.get_all_distances())
    with pytest.raises(
        RuntimeError, match=r"did not compute frames@0 to frames@0: .*(pickle|get local)"
    ):
        scan(water(2), descriptor, executor=two)


def threads() -> list[int]:
    import numba
    from threadpoolctl import threadpool_info

    return [numba.config.NUMBA_NUM_THREADS, *(pool["num_threads"] for pool in threadpool_info())]


@pytest.mark.slow
def test_each_process_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with processes(1) as executor:
        found = executor.submit(threads).result()
    assert len(found) > 1
    assert set(found) == {1}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
            import os, time
            from ase_sensitivity.dataset.workers import processes

            if __name__ == "__main__":
                executor = processes(1)
                print(executor.submit(os.getpid).result(), flush=True)
                time.sleep(60)
        """)
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert Path(f"/proc/{worker}").exists()
    parent.kill()
    parent.communicate()
    end = time.monotonic() + 300
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists()


def dies_while_it_sends(_: object) -> None:
    """Begin a message of 100 bytes to the parent, as a result is sent, and end within it."""
    frame = sys._getframe()
    while frame.f_code.co_name != "_process_worker":
        assert frame.f_back is not None
        frame = frame.f_back
    queue = frame.f_locals["result_queue"]
    queue._wlock.acquire()
    os.write(queue._writer.fileno(), struct.pack("!i", 100))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_killed_while_it_sends_a_result(monkeypatch) -> None:
    """The pool waits forever for the rest, and so did a scan."""
    monkeypatch.setattr(executors, "INTERVAL", 0.2)
    pool = processes(2)
    try:
        future = pool.submit(dies_while_it_sends, None)
        with pytest.raises(BrokenProcessPool):
            executors.WatchedExecutor(pool).result(future)
    finally:
        pool.shutdown()


@pytest.mark.parametrize("n_workers", [0, -1, 1.5, True])
def test_number_of_workers(n_workers) -> None:
    with pytest.raises(ValueError, match="`n_workers` is"):
        processes(n_workers)
