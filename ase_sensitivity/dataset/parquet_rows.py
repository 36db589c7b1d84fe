"""Conversion of records to columns of Parquet and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_sensitivity.dataset.parameters import KEY
from ase_sensitivity.dataset.record import COLUMNS, TEXT, WHOLE, FrameRecord
from ase_sensitivity.dataset.rows import check_values, data_of, digest, record_from

NEEDED = 'Parquet needs pyarrow: pip install "ase-sensitivity[parquet]"'

STRUCTURE = {"numbers": "int32", "positions": "double", "cell": "double", "pbc": "bool_"}
ARRAYS = STRUCTURE | {
    "forces": "double",
    "singular_values": "double",
    "modes": "float",
    "causes": "string",
    "lost_forces": "float",
    "curve": "double",
}
"""Types of the columns with arrays, each flat, in addition to those of the table."""


def table_fields() -> list[tuple[str, Any]]:
    """Names and types of the columns of the table.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(NEEDED) from error

    def kind(name: str) -> Any:
        if name in TEXT:
            return pyarrow.string()
        whole = name in WHOLE or name.startswith("n_")
        return pyarrow.int64() if whole else pyarrow.float64()

    return [(name, kind(name)) for name in COLUMNS]


def schema_of(parameters: Mapping[str, Any]) -> Any:
    """The schema of a store, with the parameters of the scan in its metadata."""
    fields = table_fields()
    import pyarrow

    fields.append(("digest", pyarrow.string()))
    kinds = {"float": pyarrow.float32(), "double": pyarrow.float64(), "int32": pyarrow.int32()}
    kinds |= {"string": pyarrow.string(), "bool_": pyarrow.bool_()}
    fields += [(name, pyarrow.list_(kinds[kind])) for name, kind in ARRAYS.items()]
    return pyarrow.schema(fields, metadata={KEY: json.dumps(dict(parameters))})


def metadata_in(schema: Any) -> dict[str, Any]:
    """The metadata in a schema, as a database has them."""
    text = (schema.metadata or {}).get(KEY.encode())
    return {} if text is None else {KEY: json.loads(text)}


def table_of(records: Sequence[FrameRecord], schema: Any) -> Any:
    """Records as a table of pyarrow."""
    import pyarrow

    arrays = [_arrays_of(record) for record in records]
    columns: dict[str, list[Any]] = {
        name: [record.row[name] for record in records] for name in COLUMNS
    }
    columns["digest"] = [digest(record.atoms) if len(record.atoms) else None for record in records]
    columns |= {name: [own[name] for own in arrays] for name in ARRAYS}
    return pyarrow.table(
        [pyarrow.array(columns[field.name], field.type) for field in schema], schema=schema
    )


def _arrays_of(record: FrameRecord) -> dict[str, Any]:
    """The arrays of a record, flat; None where there is none."""
    atoms, data = record.atoms, data_of(record)
    found = dict.fromkeys(ARRAYS) | data
    found |= {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "forces": None if atoms.calc is None else atoms.calc.results.get("forces"),
    }
    return {
        name: value.ravel() if isinstance(value, np.ndarray) else value
        for name, value in found.items()
    }


def rows_in(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of the table, not checked yet."""
    yield from table.select(COLUMNS).to_pylist()


def record_in(table: Any, number: int) -> FrameRecord:
    """The record in one row of a table.

    Raises
    ------
    ValueError
        If the row is not that of a frame of a scan.
    """
    values = {name: table.column(name)[number].as_py() for name in COLUMNS}
    check_values(values)
    found: dict[str, Any] = {}
    for name, kind in ARRAYS.items():
        entry = table.column(name)[number]
        if entry.is_valid:
            flat = entry.values
            found[name] = (
                flat.to_pylist() if kind == "string" else flat.to_numpy(zero_copy_only=False)
            )
    atoms = Atoms(
        found["numbers"],
        found["positions"].reshape(-1, 3),
        cell=found["cell"].reshape(3, 3),
        pbc=found["pbc"],
    )
    known = {"energy": values["energy"]} if values["energy"] is not None else {}
    if "forces" in found:
        known["forces"] = found["forces"].reshape(-1, 3)
    if known:
        atoms.calc = SinglePointCalculator(atoms, **known)
    return record_from(values, atoms, found)
