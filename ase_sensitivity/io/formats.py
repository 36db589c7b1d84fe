"""The format of a file; that of a compressed file follows from its inner suffix."""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from typing import Any

from ase.io.formats import filetype, get_compression, ioformats

from ase_sensitivity.io.compressed import fault_of, opened

LAMMPS_DATA = re.compile(rb"^\s*\d+\s+atoms\s*$", re.MULTILINE)

PEEK = 2**12
"""Number of bytes at the beginning of a file that are read to find its format."""


def format_of(name: str) -> str:
    """The name that ASE gives to the format of a file.

    Raises
    ------
    ValueError
        If ASE knows no format for it.
    """
    try:
        found = str(filetype(name))
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, EOFError):
            raise
        found = ""
    known = found in ioformats
    if (not known or found == "runnerdata") and os.path.isfile(name):
        with opened(name) as file:
            head = file.read(PEEK)
        if LAMMPS_DATA.search(head):
            return "lammps-data"
        if not head:
            raise ValueError(f"{name} is empty{because(fault_of(file))}")
        if not known:  # such as a compressed file that is torn
            with suppress(Exception):
                found = filetype(named(io.BytesIO(head), get_compression(name)[0]))
            known = found in ioformats
    if not known:
        suffix = os.path.splitext(get_compression(name)[0])[1]
        raise ValueError(
            f"{name}: ASE knows no format for {f'files that end in {suffix}' if suffix else 'it'}; "
            "convert it to extended XYZ, or give it the suffix of its format"
        )
    return found


def named(file: Any, name: str) -> Any:
    """The file with a name attribute, which some of ASE's readers need."""
    file.name = name
    return file


def because(fault: str | None) -> str:
    """The end of a sentence that gives a reason; empty if there is none."""
    return "" if fault is None else f"; {fault}"
