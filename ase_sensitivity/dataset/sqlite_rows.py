"""Many records at a time for an ASE database in a file.

ASE's own ``write`` checks every name and value of every row, and compares every structure with that
of its calculator several times. For small molecules that takes a third of the time of an analysis.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.db.core import now
from ase.db.sqlite import SQLite3Database
from ase.io.jsonio import encode

from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.dataset.rows import data_of, pairs_of, unique_id

FORMAT = 9
"""The version of ASE's tables that is written here."""

PERIODIC = np.array([1, 2, 4])
"""The weight of each direction in ASE's number for those that are periodic."""


def takes_records(database: Any) -> bool:
    """Whether a database is a file with these tables; others have ASE's ``write``."""
    return type(database) is SQLite3Database and database.version == FORMAT


def insert(database: Any, records: Sequence[FrameRecord]) -> None:
    """Add records, as ``write`` would, within an open connection of the database.

    Parameters
    ----------
    database
        The database.
    records
        Structures of these have no more than species, positions, cell, energy and forces.
    """
    cursor = database.connection.cursor()
    species, texts, numbers, keys = [], [], [], []
    for record in records:
        pairs = pairs_of(record)
        values = _columns(database, record.atoms) | {
            "unique_id": unique_id(record.row),
            "key_value_pairs": encode(pairs),
            "data": database.encode(data_of(record), binary=True),
        }
        places = ", ".join("?" * len(values))
        cursor.execute(
            f"INSERT INTO systems ({', '.join(values)}) VALUES ({places})", (*values.values(),)
        )
        row = cursor.lastrowid
        counts = Counter(record.atoms.numbers.tolist())
        species += [(number, counts[number], row) for number in sorted(counts)]
        keys += [(name, row) for name in pairs]
        texts += [(name, text, row) for name, text in pairs.items() if isinstance(text, str)]
        numbers += [(name, float(x), row) for name, x in pairs.items() if not isinstance(x, str)]
    cursor.executemany("INSERT INTO species VALUES (?, ?, ?)", species)
    cursor.executemany("INSERT INTO text_key_values VALUES (?, ?, ?)", texts)
    cursor.executemany("INSERT INTO number_key_values VALUES (?, ?, ?)", numbers)
    cursor.executemany("INSERT INTO keys VALUES (?, ?)", keys)


def _columns(database: Any, atoms: Atoms) -> dict[str, Any]:
    """The columns of ASE's table that a structure fills."""
    cell, time = atoms.cell.array, now()
    volume = abs(float(np.linalg.det(cell))) if cell.any() else 0.0
    known: dict[str, Any] = {
        "ctime": time,
        "mtime": time,
        "username": os.getenv("USER"),
        "numbers": database.blob(atoms.numbers),
        "positions": database.blob(atoms.positions),
        "cell": database.blob(cell),
        "pbc": int(atoms.pbc @ PERIODIC),
        "natoms": len(atoms),
        "volume": volume or None,
        "mass": float(atomic_masses[atoms.numbers].sum()),
        "charge": 0.0,
    }
    if atoms.calc is None:
        return known
    results = atoms.calc.results
    known |= {
        "calculator": atoms.calc.name.lower(),
        "calculator_parameters": encode(atoms.calc.todict()),
    }
    if "energy" in results:
        known["energy"] = float(results["energy"])
    if "forces" in results:
        forces = results["forces"]
        largest = float((forces**2).sum(axis=1).max()) ** 0.5 if len(forces) else None
        known |= {"forces": database.blob(forces), "fmax": largest}
    return known
