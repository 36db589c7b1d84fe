"""The store that a name stands for."""

from __future__ import annotations

import os
from pathlib import Path

from ase_sensitivity.dataset.parquet_store import SUFFIX, ParquetStore
from ase_sensitivity.dataset.records import DiskStore
from ase_sensitivity.dataset.store import DatabaseStore


def store_of(name: str | Path) -> DiskStore:
    """A folder of Parquet files for a name that ends in .parquet, otherwise an ASE database.

    Raises
    ------
    TypeError, ValueError, OSError, ImportError
        As :class:`DatabaseStore` and :class:`ParquetStore`.
    """
    given = os.fspath(name) if isinstance(name, str | os.PathLike) else ""
    if given.rstrip("/").endswith(SUFFIX) and "://" not in given:
        return ParquetStore(name)
    return DatabaseStore(name)
