"""Where the records of a scan are kept: in memory, or in a database that survives the process."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from ase_sensitivity.dataset.record import COLUMNS, OF_ATOMS, FrameRecord

PAGE = 256
"""Rows read from a database at a time."""

KEY = "ase_sensitivity"
"""Where the parameters are in the metadata of a database."""

SERVERS = ("postgresql://", "postgres://", "mysql://", "mariadb://")
"""How URLs begin that ASE can talk to."""

TABLE = ["id", "numbers", "key_value_pairs", "natoms", "energy"]
"""What an ASE database has to read for the table alone."""

MAY_DIFFER = ("version",)
"""Parameters that another part of the same scan may have."""


Known = dict[tuple[str, int], str]
"""Digests of frames by source and index."""


class Store(Protocol):
    """Keeps the records of a scan in the order in which they came."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Descriptor and options of the scan."""
        ...

    def __len__(self) -> int:
        """Number of records."""
        ...

    def write(self, records: Sequence[FrameRecord]) -> None:
        """Add records: all of them or, if that fails, none."""
        ...

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        ...

    def records(self) -> Iterator[FrameRecord]:
        """All records."""
        ...

    def record(self, number: int) -> FrameRecord:
        """One record."""
        ...


class MemoryStore:
    """A list of records."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = dict(parameters)
        self._records: list[FrameRecord] = []

    def __len__(self) -> int:
        return len(self._records)

    def write(self, records: Sequence[FrameRecord]) -> None:
        """Add records."""
        self._records.extend(records)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        return (record.row for record in self._records)

    def records(self) -> Iterator[FrameRecord]:
        """All records."""
        return iter(self._records)

    def record(self, number: int) -> FrameRecord:
        """One record."""
        return self._records[number]


class DatabaseStore:
    """An ASE database: one row for each frame, arrays in its data, parameters in its metadata.

    Parameters
    ----------
    name
        A file that ends in .db, or the URL of a database server that ASE can talk to.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or not a database.
    OSError
        If it cannot be opened.
    ImportError
        If ASE lacks its package for such servers.

    Notes
    -----
    The identity of a row is made from source and index, and the database allows it once: whatever
    happens, no frame is in it twice.
    """

    def __init__(self, name: str | Path) -> None:
        if not isinstance(name, str | os.PathLike):
            raise TypeError(f"`store` is {name!r} but must be a path or the URL of a database")
        self._address = os.fspath(name)
        self.name = re.sub("://[^@/]*@", "://", self._address)  # there may be a password
        self._is_file = "://" not in self.name
        if not self.name.startswith(SERVERS) and not (self._is_file and self.name.endswith(".db")):
            raise ValueError(
                f"`store` is {self.name!r} but must end in .db, or be the URL of a database such "
                "as postgresql://user@host/name"
            )
        folder = Path(self.name).parent
        if self._is_file and not folder.is_dir():
            raise FileNotFoundError(
                f"the database {self.name} cannot be used: there is no folder {folder}"
            )
        self._unread: dict[tuple[str, int], int] = {}
        self._ids: list[int] = []
        self._metadata: dict[str, Any] = {}
        if not self._is_file or (os.path.exists(self.name) and os.path.getsize(self.name)):
            self._open()

    def _open(self) -> None:
        with _told(self.name):
            self._database = _connected(self._address)
            self._metadata = self._database.metadata

    @property
    def exists(self) -> bool:
        """Whether there is a database already."""
        return hasattr(self, "_database")

    @property
    def parameters(self) -> dict[str, Any]:
        """Descriptor and options of the scan.

        Raises
        ------
        ValueError
            If the database is of something else.
        """
        if KEY not in self._metadata:
            raise ValueError(f"{self.name} is not the result of a scan")
        return dict(self._metadata[KEY])

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Take the parameters of a new scan, or compare them with those of the one to resume.

        Raises
        ------
        ValueError
            If the database is of a scan with other parameters, or of something else.
        """
        fresh = {KEY: dict(parameters)}
        if not self.exists:
            # Made under another name: a process that is killed must not leave half a database, and
            # of two that begin at once the second takes that of the first.
            beside = f"{self.name}.{os.getpid()}.new"
            with _told(self.name):
                if os.path.exists(beside):
                    os.remove(beside)
                _connected(beside).metadata = fresh
            if os.path.exists(self.name) and os.path.getsize(self.name) == 0:
                os.remove(self.name)
            try:
                os.link(beside, self.name)
                os.remove(beside)
            except FileExistsError:
                os.remove(beside)
            except OSError:  # a file system without links
                os.replace(beside, self.name)
            self._open()
        elif len(self) == 0:
            with _told(self.name):
                self._database.metadata = self._metadata = self._metadata | fresh
        elif KEY not in self._metadata:
            raise ValueError(f"{self.name} has rows that are not from a scan; use another file")
        for name, value in self.parameters.items():
            if name not in MAY_DIFFER and parameters.get(name) != value:
                raise ValueError(
                    f"{self.name} is of a scan with {name} = {value!r}, not "
                    f"{parameters.get(name)!r}; use another file, or the same options"
                )

    def done(self) -> Known:
        """Digests of the frames that are there, by source and index.

        Frames that could not be read are not among them: the file may be complete by now.
        """
        known: Known = {}
        self._unread = {}
        for row in self._pages(data=False):
            if row.natoms:
                known[row.source, row.index] = row.digest
            else:
                self._unread[row.source, row.index] = row.id
        return known

    def __len__(self) -> int:
        with _told(self.name):
            return self._database.count()

    def write(self, records: Sequence[FrameRecord]) -> None:
        """Add records in one transaction.

        Raises
        ------
        OSError
            If the database does not take them, as on a full disk.
        RuntimeError
            If somebody else has added one of them meanwhile.
        """
        after = "; what it holds is safe, and the same scan goes on from there"
        with _told(self.name, after), self._database:
            for record in records:
                key = record.row["source"], record.row["index"]
                self._database.write(
                    _as_row(record),
                    key_value_pairs=_pairs(record.row) | {"digest": digest(record.atoms)},
                    data=_data(record),
                    id=self._unread.get(key),
                )

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        return (_row(row) for row in self._pages(data=False))

    def records(self) -> Iterator[FrameRecord]:
        """All records."""
        return (_record(row) for row in self._pages(data=True))

    def record(self, number: int) -> FrameRecord:
        """One record."""
        with _told(self.name), self._database:
            if number >= len(self._ids):  # an offset would step over all rows before, data and all
                ids = self._database.select(sort="id", columns=["id"], include_data=False)
                self._ids = [row.id for row in ids]
            return _record(self._database.get(id=self._ids[number]))

    def _pages(self, data: bool) -> Iterator[Any]:
        """Rows of the database; it would read all of them at once if it was asked for all."""
        last = 0
        while True:
            with _told(self.name), self._database:
                page = list(
                    self._database.select(
                        f"id>{last}",
                        sort="id",
                        limit=PAGE,
                        include_data=data,
                        columns="all" if data else TABLE,
                    )
                )
            if not page:
                return
            yield from page
            last = page[-1].id


def digest(atoms: Atoms) -> str:
    """What tells a structure and its reference energy and forces from others."""
    known = {} if atoms.calc is None else atoms.calc.results
    parts = [atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc]
    parts += [np.asarray(known[name]) for name in ("energy", "forces") if name in known]
    text = hashlib.sha256()
    for part in parts:
        text.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    return f"x{text.hexdigest()[:16]}"  # a database would take digits for a number


def _connected(name: str) -> Any:
    from ase.db import connect  # loads much

    # ASE's lock file would outlive a process that is killed, and block the next one for good.
    kind = "extract_from_name" if "://" in name else "db"
    if "://" in name and find_spec("ase_db_backends") is None:
        raise ImportError("`store` is on a server, which needs the package ase-db-backends")
    return connect(name, type=kind, use_lock_file=False)


@contextmanager
def _told(name: str, after: str = "") -> Iterator[None]:
    """Say of errors of a database which one it is, and what to do."""
    try:
        yield
    except Exception as error:
        # Every driver of a database has classes of these names (PEP 249).
        kinds = {kind.__name__ for kind in type(error).__mro__}
        reason = " ".join(str(error).split())
        if "IntegrityError" in kinds:
            raise RuntimeError(
                f"another process is writing frames of the same scan to {name}; wait for it, or "
                "stop it, and start again"
            ) from error
        if "OperationalError" in kinds:
            raise OSError(f"the database {name} cannot be used: {reason}{after}") from error
        if "DatabaseError" in kinds:
            raise ValueError(f"{name} is not a database: {reason}") from error
        raise


def _as_row(record: FrameRecord) -> Any:
    from ase.db.core import now
    from ase.db.row import AtomsRow

    row: Any = AtomsRow(record.atoms)
    key = f"{record.row['source']}@{record.row['index']}"
    row.unique_id = hashlib.sha256(key.encode()).hexdigest()[:32]
    row.ctime = now()
    row.user = os.environ.get("USER")
    return row


def _pairs(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in row.items() if value is not None and name not in OF_ATOMS
    }


def _data(record: FrameRecord) -> dict[str, Any]:
    data: dict[str, Any] = {
        "singular_values": record.singular_values,
        "modes": record.modes.astype(np.float32),
    }
    if record.causes is not None:
        data["causes"] = list(record.causes)
    if record.lost_forces is not None and record.curve is not None:
        data |= {"lost_forces": record.lost_forces.astype(np.float32), "curve": record.curve}
    return data


def _row(row: Any) -> dict[str, Any]:
    values = {name: row.get(name) for name in COLUMNS}
    values |= {"n_atoms": row.natoms, "formula": row.formula, "energy": row.get("energy")}
    if row.natoms == 0:
        values |= {"n_atoms": None, "formula": None}
    return values


def _record(row: Any) -> FrameRecord:
    data = row.data
    causes = data.get("causes")
    atoms: Atoms = row.toatoms()
    lost = data.get("lost_forces")
    return FrameRecord(
        row=_row(row),
        atoms=atoms,
        singular_values=data["singular_values"].reshape(-1),
        modes=data["modes"].reshape(len(data["singular_values"]), len(atoms), 3).astype(float),
        causes=None if causes is None else tuple(causes),
        lost_forces=None if lost is None else lost.reshape(-1, 3).astype(float),
        curve=data.get("curve"),
    )
