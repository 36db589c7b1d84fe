"""What goes to the screen: results to the standard output, remarks to the standard error."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ase_sensitivity.plain_text import printable


class Interrupted(Exception):  # noqa: N818 (what the user wanted, not a mistake)
    """A command was interrupted; the text says what is left of it."""


def say(text: str) -> None:
    """Print a result."""
    print(fit(text, sys.stdout))  # noqa: T201


def remark(text: str) -> None:
    """Print what is not the result itself."""
    print(fit(text, sys.stderr), file=sys.stderr)  # noqa: T201


def fit(text: str, stream: TextIO | None) -> str:
    """What a terminal can show of a text, and nothing that it would obey."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return printable(text).encode(encoding, "replace").decode(encoding)


class PlainFormatter(logging.Formatter):
    """Log messages without anything that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a message."""
        return printable(super().format(record))


def to_json(value: Any) -> str:
    """Strict JSON in one line: arrays as lists, what is not finite as null."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def check_place(option: str, path: Path, *suffixes: str) -> None:
    """Raise ValueError if no file of such a name can be written, before minutes of work."""
    if path.suffix not in suffixes:
        raise ValueError(f"{option} is {str(path)!r} but must end in {' or '.join(suffixes)}")
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise ValueError(f"{option} is {str(path)!r}, which is no place for a file")
