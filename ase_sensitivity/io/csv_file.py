"""Tables in files of comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase_sensitivity.io.whole_file import whole_file


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, with nothing where a value is missing; the file appears when it is complete.

    Parameters
    ----------
    path
        The file.
    columns
        Their names, which become the first line.
    rows
        Values by column.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with whole_file(path) as whole, open(whole, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
