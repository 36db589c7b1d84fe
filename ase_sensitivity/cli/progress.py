"""How far a scan is: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice


@contextmanager
def progress_bar(names: Sequence[str], shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of frames done, which moves a bar.

    Parameters
    ----------
    names
        The files, to know how many frames there are.
    shown
        False for a function that does nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn
    from rich.progress import TimeRemainingColumn as TimeRemaining
    from rich.text import Text

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda done: None
        return

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} frames/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""))
    with Progress(*columns, TimeRemaining(), console=console, transient=True) as bar:
        task = bar.add_task("Scanning", total=frame_count(names))
        begun = False

        def update(done: int) -> None:
            nonlocal begun
            if begun:
                bar.update(task, completed=done)
            else:  # frames of an earlier run do not count for the rate
                bar.reset(task, completed=done)
                begun = True

        yield update


def frame_count(names: Sequence[str]) -> int | None:
    """Number of frames in files, None if that is not quickly known."""
    total = 0
    for name in names:
        try:
            count = _count(name)
        except Exception:  # only the bar would be better with it; the scan says what is wrong
            return None
        if count is None:
            return None
        total += count
    return total


def _count(name: str) -> int | None:
    from ase_sensitivity.dataset.reading import split_name

    path, chosen = split_name(name)
    if isinstance(chosen, str):
        return None
    kind = os.path.splitext(path)[1]
    if kind == ".traj":
        from ase.io import Trajectory

        with Trajectory(path) as trajectory:
            count = len(trajectory)
    elif kind == ".db":
        from ase.db import connect

        count = connect(path, use_lock_file=False).count()
    elif kind in (".xyz", ".extxyz"):
        count = _count_xyz(path)
    else:
        return None
    return len(range(*chosen.indices(count)))


def _count_xyz(path: str) -> int:
    count = 0
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                count += 1
                for _ in islice(file, int(line) + 1):
                    pass
    return count
