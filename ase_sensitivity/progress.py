"""How far long work is: a bar on a terminal, elsewhere a line every so often."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

FIRST, LONGEST = 10.0, 300.0
"""Seconds to the first line where there is no terminal, and the most between two; each wait is
twice the one before."""

Total = int | Callable[[], int | None] | None


@contextmanager
def progress(
    what: str, total: Total = None, unit: str = "frames", *, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of units done, on the standard error.

    Parameters
    ----------
    what
        What is done, such as "Scanning".
    total
        The number of units, or a function that counts them; None if nobody knows.
    unit
        What is counted, or an empty text if nothing is: then only the time is shown.
    shown
        False for a function that does nothing.
    """
    if not shown:
        yield lambda done: None
        return
    console = Console(stderr=True)
    way = _bar(console, what, total, unit) if console.is_terminal else _lines(what, total, unit)
    with way as update:
        yield update


@contextmanager
def _bar(console: object, what: str, total: Total, unit: str) -> Iterator[Callable[[int], None]]:
    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} {unit}/s")

    columns: tuple[ProgressColumn, ...] = TextColumn("{task.description}"), BarColumn()
    columns += MofNCompleteColumn(), Rate(""), TimeRemainingColumn()
    if not unit:
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:  # type: ignore[arg-type]
        task = bar.add_task(what, total=_counted(total))
        begun = False

        def update(done: int) -> None:
            nonlocal begun
            if begun:
                bar.update(task, completed=done)
            else:  # what an earlier run has done does not count for the rate
                bar.reset(task, completed=done)
                begun = True

        yield update


@contextmanager
def _lines(what: str, total: Total, unit: str) -> Iterator[Callable[[int], None]]:
    begin = time.perf_counter()
    first: tuple[int, float] | None = None
    done = 0
    over = Event()

    def update(n: int) -> None:
        nonlocal first, done
        done = n
        first = first or (n, time.perf_counter() - begin)

    def tell() -> None:
        number = None
        wait = FIRST
        while not over.wait(wait):
            number = number or _counted(total)
            passed = time.perf_counter() - begin
            text = line(what, passed, unit, done, number, first)
            with suppress(OSError, ValueError):  # nobody listens any more
                print(text, file=sys.stderr, flush=True)  # noqa: T201
            wait = min(2 * wait, LONGEST)

    teller = Thread(target=tell, name=what, daemon=True)
    teller.start()
    try:
        yield update
    finally:
        over.set()
        teller.join()


def line(
    what: str,
    passed: float,
    unit: str,
    done: int,
    total: int | None,
    first: tuple[int, float] | None,
) -> str:
    """What is told after ``passed`` seconds.

    Parameters
    ----------
    what, unit
        As in :func:`progress`.
    passed
        Seconds since the beginning.
    done, total
        Number of units that are done, and of all.
    first
        The first number that was told, and after how many seconds: what was done before, and with
        it compilation, does not count for the rate.
    """
    text = f"{what}: {passed:.0f} s"
    if unit:
        text += f", {done}{'' if total is None else f' of {total}'} {unit}"
    if first is not None and done > first[0]:
        text += f", {(done - first[0]) / max(passed - first[1], 1e-9):.3g} {unit}/s"
    return text


def _counted(total: Total) -> int | None:
    return total() if callable(total) else total
