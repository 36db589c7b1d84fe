"""How far a scan is: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def progress_bar(names: Sequence[str], shown: bool = True) -> Iterator[Callable[..., None]]:
    """A function to call with the number of frames done, which moves a bar.

    For pairs of frames it is called with their total number as well.

    Parameters
    ----------
    names
        The files, to know how many frames there are.
    shown
        False for a function that does nothing.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from ase_sensitivity.dataset.reading import count_frames

    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda done, total=None: None
        return

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f} {task.fields['unit']}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(""))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("Scanning", total=count_frames(list(names)), unit="frames")
        begun = False

        def update(done: int, total: int | None = None) -> None:
            nonlocal begun
            if total is not None:
                described = {"description": "Bounding", "unit": "pairs"}
                bar.update(task, completed=done, total=total, **described)  # type: ignore[arg-type]
            elif begun:
                bar.update(task, completed=done)
            else:  # frames of an earlier run do not count for the rate
                bar.reset(task, completed=done)
                begun = True

        yield update
