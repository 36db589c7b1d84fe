"""The progress of long work: a bar on a terminal or in a notebook, elsewhere a line at times."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
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
"""Without a terminal: seconds to the first line, and the largest number of seconds between two
lines. Each wait is twice the one before."""

Total = int | Callable[[], int | None] | None


@contextmanager
def progress(
    what: str, total: Total = None, unit: str = "frames", *, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the number of units done; it shows them on the standard error.

    In a notebook it shows a bar if ipywidgets is installed.

    Parameters
    ----------
    what
        What is done, such as "Scanning".
    total
        The number of units, or a function that counts them; None if it is unknown.
    unit
        What is counted. If the text is empty, only the time is shown.
    shown
        If False, the function does nothing.
    """
    if not shown:
        yield lambda done: None
        return
    console = Console(stderr=True)
    bar = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    way = _bar(console, what, total, unit) if bar else _lines(what, total, unit)
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

    def print_lines() -> None:
        number = None
        wait = FIRST
        while not over.wait(wait):
            number = number or _counted(total)
            passed = time.perf_counter() - begin
            text = line(what, passed, unit, done, number, first)
            with suppress(OSError, ValueError):  # the standard error is closed
                print(text, file=sys.stderr, flush=True)  # noqa: T201
            wait = min(2 * wait, LONGEST)

    printer = Thread(target=print_lines, name=what, daemon=True)
    printer.start()
    try:
        yield update
    finally:
        over.set()
        printer.join()


def line(
    what: str,
    passed: float,
    unit: str,
    done: int,
    total: int | None,
    first: tuple[int, float] | None,
) -> str:
    """The line to print after ``passed`` seconds.

    Parameters
    ----------
    what, unit
        As in :func:`progress`.
    passed
        Seconds since the beginning.
    done, total
        The number of units done, and of all units.
    first
        The first number that was reported, and after how many seconds. What was done before it,
        such as compilation, does not count for the rate.
    """
    text = f"{what}: {passed:.0f} s"
    if unit:
        text += f", {done}{'' if total is None else f' of {total}'} {unit}"
    if first is not None and done > first[0]:
        text += f", {(done - first[0]) / max(passed - first[1], 1e-9):.3g} {unit}/s"
    return text


def _counted(total: Total) -> int | None:
    return total() if callable(total) else total
