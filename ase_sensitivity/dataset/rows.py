"""Conversion of records to rows of an ASE database and back, with checks of the rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.db.core import now
from ase.db.row import AtomsRow

from ase_sensitivity.causes.cause import NULL_CAUSES
from ase_sensitivity.dataset.forces import THRESHOLDS
from ase_sensitivity.dataset.record import COLUMNS, OF_ATOMS, TEXT, WHOLE, FrameRecord
from ase_sensitivity.types import Floats

REQUIRED_WITH = {
    "ratio": ("sigma_min", "sigma_max", "n_null", "n_atoms"),
    "irreducible_force_error": ("rms_force", "net_force", "n_atoms"),
}
"""Columns, and for each the columns that a row must have too."""


def digest(atoms: Atoms) -> str:
    """A hash of a structure with its reference energy and forces."""
    known = {} if atoms.calc is None else atoms.calc.results
    parts = [atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc]
    parts += [np.asarray(known[name]) for name in ("energy", "forces") if name in known]
    text = hashlib.sha256()
    for part in parts:
        text.update(f"{_name(part.dtype)}{part.shape}".encode())
        text.update(part.tobytes())
    return f"x{text.hexdigest()[:16]}"  # a database would read digits alone as a number


_name = cache(str)  # the name of a type takes as long as the hash of a molecule


def as_row(record: FrameRecord) -> Any:
    """An ASE row with the structure. Its unique id is a hash of source and index."""
    row: Any = AtomsRow(record.atoms)
    row.unique_id = unique_id(record.row)
    row.ctime = now()
    row.user = os.environ.get("USER")
    return row


def unique_id(row: Mapping[str, Any]) -> str:
    """A hash of source and index."""
    return hashlib.sha256(f"{row['source']}@{row['index']}".encode()).hexdigest()[:32]


def pairs_of(record: FrameRecord) -> dict[str, Any]:
    """A database's key-value pairs: a digest, and the columns that it does not have anyway."""
    known = {
        name: value
        for name, value in record.row.items()
        if value is not None and name not in OF_ATOMS
    }
    return known | {"digest": digest(record.atoms)}


def data_of(record: FrameRecord) -> dict[str, Any]:
    """The arrays of a record, for a database's data."""
    data: dict[str, Any] = {
        "singular_values": record.singular_values,
        "modes": record.modes.astype(np.float32),
    }
    if record.causes is not None:
        data["causes"] = list(record.causes)
    if record.lost_forces is not None and record.curve is not None:
        data |= {"lost_forces": record.lost_forces.astype(np.float32), "curve": record.curve}
    return data


def values_of(row: Any) -> dict[str, Any]:
    """The values of :data:`~ase_sensitivity.dataset.record.COLUMNS` in an ASE row.

    Raises
    ------
    ValueError
        If the row is not that of a frame of a scan.
    """
    values = {name: row.get(name) for name in COLUMNS}
    values |= {"n_atoms": row.natoms, "formula": row.formula, "energy": row.get("energy")}
    if row.natoms == 0:
        values |= {"n_atoms": None, "formula": None}
    check_values(values)
    return values


def check_values(values: Mapping[str, Any]) -> None:
    """Raise ValueError if the values of a row are not those of a frame of a scan."""
    for name, value in values.items():
        kind = str if name in TEXT else int if name in WHOLE or name.startswith("n_") else float
        if value is not None and not _is(value, kind):
            raise ValueError(f"its {name} is {value!r}")
    needed = ["source", "index"]
    for name, more in REQUIRED_WITH.items():
        needed += more if values[name] is not None else ()
    for name in needed:
        if values[name] is None:
            raise ValueError(f"it has no {name}")
    # If only fragments can move, there is no singular value.
    nothing = values["n_null"] is None or values["sigma_min"] is not None
    if values["ratio"] is None and values["error"] is None and nothing:
        raise ValueError("it has neither a ratio nor an error")
    if values["cause"] is not None and values["cause"] not in NULL_CAUSES:
        raise ValueError(f"its cause is {values['cause']!r}")


def _is(value: object, kind: type) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, int | float if kind is float else kind)


def record_of(row: Any) -> FrameRecord:
    """The record in an ASE row that was read with its data.

    Raises
    ------
    ValueError
        As :func:`values_of`, and if the shapes of arrays do not agree.
    """
    return record_from(values_of(row), row.toatoms(), row.data)


def record_from(values: dict[str, Any], atoms: Atoms, data: Mapping[str, Any]) -> FrameRecord:
    """The record with these values of the table, structure and arrays.

    Raises
    ------
    ValueError
        If the shapes of arrays do not agree.
    """
    singular_values = _array(data, "singular_values", -1)
    causes = data.get("causes")
    if causes is not None:
        causes = tuple(causes)
        if len(causes) != len(singular_values) or not {*causes} <= {None, *NULL_CAUSES}:
            raise ValueError("its causes are not those of its singular values")
    lost = curve = None
    if "lost_forces" in data:
        lost = _array(data, "lost_forces", len(atoms), 3)
        curve = _array(data, "curve", len(THRESHOLDS))
    return FrameRecord(
        row=values,
        atoms=atoms,
        singular_values=singular_values,
        modes=_array(data, "modes", len(singular_values), len(atoms), 3),
        causes=causes,
        lost_forces=lost,
        curve=curve,
    )


def _array(data: Mapping[str, Any], name: str, *shape: int) -> Floats:
    """Finite numbers of this shape; -1 for any length."""
    found = np.asarray(data[name], dtype=float)
    if shape == (-1,):
        shape = (found.size,)
    if found.size != np.prod(shape) or not np.isfinite(found).all():
        raise ValueError(f"its {name} are not {' x '.join(map(str, shape))} numbers")
    return found.reshape(shape)
