"""Scans on a Dask cluster whose scheduler and workers are programs of their own, and get killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ase.io
import pytest

from ase_sensitivity import SOAP
from ase_sensitivity.dataset.executors import LostCluster
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from tests.scanning import stream

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CODE = "import sys; from ase_sensitivity.cli.app import main; sys.exit(main())"
SMALL = "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"
OPTIONS = ["-d", SMALL, "--species", "H,O", "--forces-key", "f"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def soap() -> SOAP:
    return SOAP(["H", "O"], cutoff=3.0, n_max=2, l_max=1, threads=1)


class Cluster:
    """A scheduler with two workers on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = str(folder / "scheduler.json")
        self.running: list[subprocess.Popen] = []
        self.scheduler = self.start("scheduler", "--port", "0")
        self.workers = [self.add_worker(), self.add_worker()]

    def start(self, what: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--host", "127.0.0.1"]
        command += ["--scheduler-file", self.told, "--no-dashboard", *options]
        with open(self.folder / "log", "a") as log:
            process = subprocess.Popen(command, env=ENVIRONMENT, stderr=log, cwd=self.folder)
        self.running.append(process)
        return process

    def add_worker(self) -> subprocess.Popen:
        """One that nobody starts again."""
        return self.start("worker", "--no-nanny", "--nthreads", "1", "--death-timeout", "60")

    def client(self):
        client = distributed.Client(scheduler_file=self.told, timeout=300, set_as_default=False)
        client.wait_for_workers(2, timeout=300)
        return client

    def address(self) -> str:
        with self.client() as client:
            return client.scheduler_info()["address"]

    def end(self) -> None:
        for process in self.running:
            process.kill()
        for process in self.running:
            process.wait(timeout=300)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.end()


def test_a_cluster_gives_the_same_table(cluster: Cluster, soap: SOAP, tmp_path: Path) -> None:
    expected = scan(stream(60), soap, forces_key="f")
    with cluster.client() as client:
        executor = client.get_executor()
        pids = set(client.run(os.getpid).values())
        assert len(pids) == 2
        assert os.getpid() not in pids
        result = scan(
            stream(60), soap, forces_key="f", executor=executor, store=tmp_path / "results.db"
        )
    assert result.rows == expected.rows


def begun(results: Path, *command: str) -> subprocess.Popen:
    """A scan that has begun to store frames."""
    before = stored(results)
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "scan", "data.xyz", *OPTIONS, "-o", results.name, *command],
        cwd=results.parent,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 300
    while stored(results) == before and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def stored(results: Path) -> int:
    return len(ScanResult.read(results)) if results.exists() else 0


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victims", ["scheduler", "workers"])
def test_a_lost_cluster_ends_the_scan_within_a_minute(
    victims: str, sign: signal.Signals, cluster: Cluster, tmp_path: Path
) -> None:
    if victims == "workers" and sign == signal.SIGSTOP:
        pytest.skip("workers that hang are Dask's own business")
    results = tmp_path / "results.db"
    ase.io.write(tmp_path / "data.xyz", list(stream(20_000)))
    process = begun(results, "--scheduler", cluster.address())
    for victim in [cluster.scheduler] if victims == "scheduler" else cluster.workers:
        victim.send_signal(sign)
    begin = time.monotonic()
    out, err = process.communicate(timeout=300)
    assert time.monotonic() - begin < 60
    assert process.returncode == 2
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("ase-sensitivity: error: the workers did not compute data.xyz@")
    assert "the Dask scheduler" in last
    assert "goes on from there" in last
    n_stored = stored(results)
    assert 0 < n_stored < 20_000
    with begun(results) as again:  # without the cluster
        again.terminate()
    assert stored(results) > n_stored
    indices = list(ScanResult.read(results).column("index"))
    assert indices == list(range(len(indices)))


def test_workers_killed_at_random_times(cluster: Cluster, soap: SOAP, tmp_path: Path) -> None:
    """Six times one of two; Dask sends what it had to the other, or to the one that comes next."""
    random.seed(0)
    results, kills = tmp_path / "results.db", 0
    with cluster.client() as client:
        executor = client.get_executor(retries=50)

        def kill(_: int) -> None:
            nonlocal kills
            if kills < 6 and random.random() < 0.3:
                victim = cluster.workers.pop(0)
                victim.kill()
                victim.wait(timeout=300)
                cluster.workers.append(cluster.add_worker())
                client.wait_for_workers(2, timeout=300)
                kills += 1

        n_frames = 0
        while kills < 6:
            n_frames += 400
            try:
                scan(
                    stream(n_frames), soap, forces_key="f", executor=executor, store=results,
                    progress=kill,
                )  # fmt: skip
            except LostCluster:
                raise
            except RuntimeError:  # Dask gave a task up whose workers died too often
                client.wait_for_workers(2, timeout=300)
    result = scan(stream(n_frames), soap, forces_key="f", store=results)
    assert kills == 6
    assert result.rows == scan(stream(n_frames), soap, forces_key="f").rows
