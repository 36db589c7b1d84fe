"""Only the frames that can be read, with a message about each of the others."""

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
    """The frames that can be read, with their places among all frames.

    Parameters
    ----------
    frames, type_map
        As in :func:`read_frames`.
    tell
        Called with a sentence about each frame that is left out. By default these sentences are
        logged, and a warning refers to the log.

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
    unreadable: list[Frame] = []  # before the first frame: if none follows, an error is raised
    found = left_out = False
    for place, frame in enumerate(read_frames(frames, type_map=type_map)):
        found = found or frame.error is None
        if frame.error is not None:
            unreadable.append(frame)
        if found and unreadable:
            for other in unreadable:
                (tell or _log)(f"{other.source}@{other.index} is left out: {other.error}")
            unreadable.clear()
            if tell is None and not left_out:
                warn(LEFT_OUT, ReadingWarning)
                left_out = True
        if frame.error is None:
            yield place, frame
    if unreadable:
        error = str(unreadable[0].error)
        named = isinstance(frames, str | Path) and str(frames) not in error
        raise ValueError(f"{frames}: {error}" if named else error)


def _log(text: str) -> None:
    logger.warning("%s", text)


def selects(path: str) -> bool:
    """Whether the name of a file selects frames with an ``@``."""
    return split_name(path, "0") == split_name(path, "1")


def last_frame(
    path: str,
    *,
    type_map: Sequence[str] | None = None,
    tell: Callable[[str], object],
) -> Frame:
    """The last frame of a file that can be read.

    Parameters
    ----------
    path, type_map
        As in :func:`read_frames`.
    tell
        Called with a sentence if that is not the last frame of the file.

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
