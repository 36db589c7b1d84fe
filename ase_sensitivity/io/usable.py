"""Frames of a file for those who want structures only, with a word on what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ase_sensitivity.errors import ReadingWarning, warn
from ase_sensitivity.io.reading import Frame, Frames, check_frames, read_frames, split_name

logger = logging.getLogger(__name__)

LEFT_OUT = "some frames cannot be read and are left out; the log names them"


def usable_frames(
    frames: Frames,
    *,
    type_map: Sequence[str] | None = None,
    tell: Callable[[str], object] | None = None,
) -> Iterator[tuple[int, Frame]]:
    """The frames that can be read and their places among all, with a word on those that cannot.

    Parameters
    ----------
    frames, type_map
        As of :func:`read_frames`.
    tell
        Called with a sentence about each frame that is left out. By default the log has these, and
        a warning says so.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If there are frames, but none can be read.

    Warns
    -----
    ReadingWarning
        If some cannot.
    """
    check_frames(frames)
    held: list[Frame] = []  # until there is a frame: if there is none, the error says all
    found = left_out = False
    for place, frame in enumerate(read_frames(frames, type_map=type_map)):
        found = found or frame.error is None
        if frame.error is not None:
            held.append(frame)
        if found and held:
            for other in held:
                (tell or _log)(f"{other.source}@{other.index} is left out: {other.error}")
            held.clear()
            if tell is None and not left_out:
                warn(LEFT_OUT, ReadingWarning)
                left_out = True
        if frame.error is None:
            yield place, frame
    if held:
        error = str(held[0].error)
        named = isinstance(frames, str | Path) and str(frames) not in error
        raise ValueError(f"{frames}: {error}" if named else error)


def _log(text: str) -> None:
    logger.warning("%s", text)


def selects(path: str) -> bool:
    """Whether a name of a file says which of its frames are meant."""
    return split_name(path, "0") == split_name(path, "1")


def last_frame(
    path: str,
    *,
    type_map: Sequence[str] | None = None,
    tell: Callable[[str], object],
) -> Frame:
    """The last frame of a file that can be read, with a word on the last one if it cannot.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`usable_frames`.
    """
    check_frames(path)
    (last,) = read_frames(f"{path}@-1", type_map=type_map)
    if last.error is None:
        return last
    readable: Frame | None = None
    for frame in read_frames(path, type_map=type_map):
        readable = frame if frame.error is None else readable
    if readable is None:
        raise ValueError(last.error)
    tell(f"The last frame is left out, that before it is taken: {last.error}")
    return readable
