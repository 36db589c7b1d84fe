"""A scan for chemiscope, a viewer in the browser: structures, properties, modes as arrows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.types import Floats
from ase_sensitivity.validation import as_integer, as_number

if TYPE_CHECKING:
    from ase_sensitivity.dataset.result import ScanResult

PROPERTIES = {
    "ratio": "sigma_min over sigma_max",
    "n_null": "number of invisible directions",
    "irreducible_force_error": "force error that no model on these features avoids, eV/Å",
    "required_slope": "slope that a model needs, eV/Å",
}
"""Columns of the table that are shown, and what they are."""

LOST = "lost force"


def write_chemiscope(
    result: ScanResult, path: str | Path, *, n_modes: int = 1, scale: float = 2.0
) -> None:
    """Write the frames of a scan that were analyzed, with their softest modes as arrows.

    Parameters are those of :meth:`~ase_sensitivity.ScanResult.to_chemiscope`.
    """
    try:
        import chemiscope
    except ImportError as error:
        raise ImportError(
            'the export needs chemiscope: pip install "ase-sensitivity[chemiscope]"'
        ) from error
    n_modes, scale = as_integer("n_modes", n_modes, 1), as_number("scale", scale, "positive")
    if not isinstance(path, str | os.PathLike) or not str(path).endswith((".json", ".json.gz")):
        raise ValueError(f"`path` is {path!r} but must be a name that ends in .json or .json.gz")
    records = [record for record in result.records() if record.row["ratio"] is not None]
    if not records:
        raise ValueError("`result` has no frame that was analyzed")
    vectors = {f"mode {n}": [_mode(record, n) for record in records] for n in range(n_modes)}
    if any(record.lost_forces is not None for record in records):
        vectors[LOST] = [_lost(record) for record in records]
    frames = [
        Atoms(r.atoms.symbols, r.atoms.positions, cell=r.atoms.cell, pbc=r.atoms.pbc)
        for r in records
    ]
    for name, arrows in vectors.items():
        for atoms, arrow in zip(frames, arrows, strict=True):
            atoms.set_array(name, arrow)
    chemiscope.write_input(
        str(path),
        frames,
        properties=_properties(records),
        shapes={
            name: chemiscope.ase_vectors_to_arrows(frames, name, scale=scale) for name in vectors
        },
        settings={"structure": [{"shape": "mode 0"}]},
    )


def _mode(record: FrameRecord, number: int) -> Floats:
    if number < len(record.modes):
        return record.modes[number]
    return np.zeros((len(record.atoms), 3))


def _lost(record: FrameRecord) -> Floats:
    if record.lost_forces is None:
        return np.zeros((len(record.atoms), 3))
    return record.lost_forces


def _properties(records: Sequence[FrameRecord]) -> dict[str, dict[str, Any]]:
    """The columns that all frames have, where each is from, and the cause of what is invisible."""
    rows = [record.row for record in records]
    found: dict[str, dict[str, Any]] = {
        name: {"target": "structure", "values": [row[name] for row in rows], "description": text}
        for name, text in PROPERTIES.items()
        if all(row[name] is not None for row in rows)
    }
    found["cause"] = {"target": "structure", "values": [row["cause"] or "none" for row in rows]}
    found["frame"] = {
        "target": "structure",
        "values": [f"{row['source']}@{row['index']}" for row in rows],
    }
    return found
