"""Progress of commands that read frames first and work on what they have found then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ase_sensitivity.progress import progress


@contextmanager
def two_bars(
    files: list[str], first: str, second: str, unit: str, *, shown: bool
) -> Iterator[tuple[Callable[[int], None], Callable[[int, int], None]]]:
    """What to call with the number of frames done, and with those of other units done and of all.

    Parameters
    ----------
    files
        The files with the frames.
    first, second
        What is done with the frames, such as "Reading", and what follows.
    unit
        What is counted then.
    shown
        Whether to show anything.
    """
    from ase_sensitivity.io.reading import count_frames

    with ExitStack() as shows:
        read = shows.enter_context(progress(first, lambda: count_frames(files), shown=shown))
        move: Callable[[int], None] | None = None

        def then(done: int, total: int) -> None:
            nonlocal move
            if move is None:
                shows.close()
                move = shows.enter_context(progress(second, total, unit, shown=shown))
            move(done)

        yield read, then
