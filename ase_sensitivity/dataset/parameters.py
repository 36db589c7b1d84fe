"""The parameters of a scan, as a store keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEY = "ase_sensitivity"
"""Key of the parameters in the metadata of a store."""

MAY_DIFFER = ("version",)
"""Parameters that may differ when a scan is continued."""

OPTIONAL = ("reference",)
"""Parameters that only some scans have."""


def parameters_in(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Descriptor and options in the metadata of the store ``name``.

    Raises
    ------
    ValueError
        If the store is of something else.
    """
    if KEY not in metadata:
        raise ValueError(f"{name} is not the result of a scan")
    known = metadata[KEY]
    kinds = {"descriptor": str, "null_tolerance": float}
    if not isinstance(known, dict) or any(type(known.get(n)) is not kinds[n] for n in kinds):
        raise ValueError(
            f"{name} is damaged: its metadata {KEY!r} lack {' or '.join(kinds)}; "
            "scan into another file"
        )
    return dict(known)


def difference(known: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """The first parameter that must be the same and is not, in words; empty if there is none."""
    before = {option: None for option in OPTIONAL if option in given} | {**known}
    for option, value in before.items():
        if option not in MAY_DIFFER and given.get(option) != value:
            return f"{option} = {value!r}, not {given.get(option)!r}"
    return ""


def check_continued(known: Mapping[str, Any], given: Mapping[str, Any], name: str) -> None:
    """Raise ValueError unless a scan that is continued in ``name`` has the same parameters."""
    if found := difference(known, given):
        raise ValueError(f"{name} is of a scan with {found}; use another file, or the same options")
