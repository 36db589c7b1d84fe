"""Files that appear when they are complete: what was there before is not lost to a full disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, which becomes ``path`` when the block ends without an error.

    Raises
    ------
    OSError
        If it cannot be written, with the name of the file itself.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a device, a pipe
        yield path
        return
    partial = Path(os.path.realpath(path))  # a symbolic link stays one
    partial = partial.with_name(f".{partial.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(os.path.realpath(path))
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
