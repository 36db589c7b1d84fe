"""Results in files of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ase_sensitivity.io.whole_file import whole_file
from ase_sensitivity.validation import check_exists

Result = TypeVar("Result")


def write_json(path: str | Path, content: Mapping[str, Any], **layout: Any) -> None:
    """Write strict JSON; the file appears when it is complete.

    Parameters
    ----------
    path
        The file.
    content
        Numbers, strings, lists and dictionaries.
    layout
        As :func:`json.dumps` has it.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    text = json.dumps(content, allow_nan=False, **layout)
    with whole_file(path) as file:
        file.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path, what: str, result: Callable[[Any], Result]) -> Result:
    """Read what :func:`write_json` wrote.

    Parameters
    ----------
    path
        The file.
    what
        What it has to be, for the error.
    result
        Makes it of the content.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is something else.
    """
    check_exists(path)
    try:
        return result(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"`path` is {str(path)!r}, which is no {what}: {error}") from error
