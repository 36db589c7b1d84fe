"""Scans of a data set, against the script a user would write; and two workers against one."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread

from ase_sensitivity import SOAP
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.dataset.workers import processes
from ase_sensitivity.io.reading import read_frames
from ase_sensitivity.io.references import Task, tasks_of
from benchmarks.cases import BASIS, CUTOFF, cases
from benchmarks.gram import CLOSE
from benchmarks.jacobian import Row, quip_string
from benchmarks.pipeline import script
from benchmarks.small_molecules import ELEMENTS, file_of
from benchmarks.timing import paired

SETS = {"Si64": (8, 240), "ethanol": (50, 1500)}
"""Case, and frames of the comparison with the script and of that of workers."""


def data_set(base: Atoms, number: int) -> list[Atoms]:
    """Rattled copies with random forces."""
    frames = []
    for seed in range(number):
        atoms = base.copy()
        atoms.rattle(0.05, seed=seed)
        atoms.arrays["f"] = np.random.default_rng(seed).normal(size=(len(atoms), 3))
        frames.append(atoms)
    return frames


def measure(budget: float) -> list[Row]:
    """A row for each set and what is asked for; the first one does what the script does."""
    from quippy.descriptors import Descriptor

    rows: list[Row] = []
    for name, (number, _) in SETS.items():
        base, species = cases()[name]
        frames = data_set(base, number)
        soap = SOAP(species, CUTOFF, *BASIS, threads=1)
        quip = Descriptor(quip_string(species, *BASIS))
        found = scan(frames, soap).column("ratio")
        expected = [values[-1 - 3 * (1 + (name == "ethanol"))] / values[0] for values in
                    (script(atoms, quip) for atoms in frames)]  # fmt: skip
        agreement = float(np.abs(found / expected - 1).max())
        with tempfile.TemporaryDirectory() as directory:
            store = Path(directory) / "results.db"
            for asked, options in {
                "singular values": {"causes": False},
                "and causes": {},
                "and forces": {"forces_key": "f"},
                "and a database": {"forces_key": "f", "store": store},
            }.items():
                ours = partial(_fresh_scan, frames, soap, options)
                theirs = partial(_scripts, frames, quip)
                mine, other, ratio = paired(ours, theirs, budget)
                cpu = [_cpu(theirs) / _cpu(ours) for _ in range(3)]
                rows.append(
                    {
                        "frames": name,
                        "asked for": asked,
                        "ours / ms per frame": round(1e3 * mine / number, 2),
                        "script / ms per frame": round(1e3 * other / number, 2),
                        "ratio": round(ratio, 1),
                        "ratio of processor times": round(median(cpu), 1),
                        "ratios agree to": f"{agreement:.0e}",
                    }
                )
    return rows


def _fresh_scan(frames: list[Atoms], soap: SOAP, options: dict[str, Any]) -> None:
    if "store" in options:
        options["store"].unlink(missing_ok=True)
    scan(frames, soap, **options)


def _scripts(frames: list[Atoms], quip: object) -> None:
    for atoms in frames:
        script(atoms, quip)


def _cpu(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def molecules(number: int = 20_000, at_once: int = 1000) -> list[Row]:
    """Small molecules from files, with causes and forces; parts alternate, so many at a time."""
    spent: dict[str, list[float]] = {}
    soap = SOAP(ELEMENTS, CLOSE, *BASIS, threads=1)
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(number // at_once):
            some = str(file_of(at_once, Path(directory), seed))
            parts: dict[str, Callable[[], object]] = {
                "ase.io.iread": lambda file=some: deque(iread(file), 0),
                "structures and references": lambda file=some: deque(_tasks(file), 0),
                "scan, in memory": partial(scan, some, soap),
                "scan, database": partial(scan, some, soap, store=f"{some}.db"),
                "scan, Parquet": partial(scan, some, soap, store=f"{some}.parquet"),
            }
            if seed == 0:
                scan(f"{some}@:40", soap)
            for name, part in parts.items():
                spent.setdefault(name, []).append(1e3 * _cpu(part) / at_once)
    reference = median(spent["ase.io.iread"])
    return [
        {
            "what": name,
            "ms per frame": round(median(each), 2),
            "least": round(min(each), 2),
            "frames per second": round(1e3 / median(each)),
            "times ase.io.iread": round(median(each) / reference, 1),
        }
        for name, each in spent.items()
    ]


def _tasks(frames: str) -> Iterator[Task]:
    return tasks_of(read_frames(frames), None, None, (1.0, 1.0), strict=False)


def cpu_seconds(executor: Executor) -> float:
    """Processor time of this process and of the executor's."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    found = own.ru_utime + own.ru_stime
    for pid in getattr(executor, "_processes", {}):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        found += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def workers(tries: int = 3) -> list[Row]:
    """Two processes against one; the load of the machine says what to think of it."""
    rows: list[Row] = []
    for name, (_, number) in SETS.items():
        base, species = cases()[name]
        frames = data_set(base, number)
        soap = SOAP(species, CUTOFF, *BASIS, threads=1)
        with processes(1) as one, processes(2) as two:
            for executor in (one, two):
                scan(frames[:40], soap, executor=executor)
            for _ in range(tries):
                row: Row = {"frames": name, "number": number}
                spent = {}
                for label, executor in {"one": one, "two": two}.items():
                    begin, start = cpu_seconds(executor), time.perf_counter()
                    scan(frames, soap, executor=executor)
                    wall = time.perf_counter() - start
                    spent[label] = wall, cpu_seconds(executor) - begin
                    row[f"{label} / s"] = round(wall, 1)
                    row[f"cores used by {label}"] = round(spent[label][1] / wall, 2)
                # What is lost to a second worker; the rest of the speedup is up to the machine.
                row["processor time, one / two"] = round(spent["one"][1] / spent["two"][1], 2)
                row["speedup"] = round(spent["one"][0] / spent["two"][0], 2)
                row["load"] = round(os.getloadavg()[0], 1)
                rows.append(row)
    return rows
