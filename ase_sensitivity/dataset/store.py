"""Records of a scan in a database that survives the process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ase.db import connect

from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.dataset.rows import as_row, data_of, digest, pairs_of, record_of, values_of
from ase_sensitivity.plain_text import reason

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


Digests = dict[tuple[str, int], str | None]
"""Digests of frames by source and index; None for a frame that could not be read."""


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
        if self._is_file:
            self._address = os.path.realpath(self._address)  # a link may lead to no file yet
            folder = os.path.dirname(self._address)
            if not os.path.isdir(folder):
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
        # ASE before 3.29 reads metadata only where it is connected already.
        with _told(self.name, damaged=lambda: "in its metadata"), self._database:
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
        known = self._metadata[KEY]
        kinds = {"descriptor": str, "null_tolerance": float}
        if not isinstance(known, dict) or any(type(known.get(n)) is not kinds[n] for n in kinds):
            raise ValueError(
                f"{self.name} is damaged: its metadata {KEY!r} lack {' or '.join(kinds)}; "
                "scan into another file"
            )
        return dict(known)

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
            beside = f"{self._address}.{os.getpid()}.new"
            try:
                _remove(beside)
                with _told(self.name):
                    _connected(beside).metadata = fresh
                if os.path.exists(self._address) and os.path.getsize(self._address) == 0:
                    os.remove(self._address)
                try:
                    os.link(beside, self._address)
                except FileExistsError:
                    pass
                except OSError:  # a file system without links
                    os.replace(beside, self._address)
            finally:
                _remove(beside)
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

    def done(self) -> tuple[Digests, set[str]]:
        """Digests of the frames that are there, by source and index, and all sources."""
        known: Digests = {}
        self._unread = {}
        for row, values in self._checked():
            key = values["source"], values["index"]
            if row.natoms:
                known[key] = str(row.get("digest"))
            else:  # the file may be complete by now
                known[key] = None
                self._unread[key] = row.id
        return known, {source for source, _ in known}

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
                    as_row(record),
                    key_value_pairs=pairs_of(record.row) | {"digest": digest(record.atoms)},
                    data=data_of(record),
                    id=self._unread.get(key),
                )

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        return (values for _, values in self._checked())

    def records(self) -> Iterator[FrameRecord]:
        """All records."""
        for row in self._pages(data=True):
            with self._sound(row):
                record = record_of(row)
            yield record

    def record(self, number: int) -> FrameRecord:
        """One record."""
        with _told(self.name), self._database:
            if number >= len(self._ids):  # an offset would step over all rows before, data and all
                ids = self._database.select(sort="id", columns=["id"], include_data=False)
                self._ids = [row.id for row in ids]
            row = self._database.get(id=self._ids[number])
        with self._sound(row):
            return record_of(row)

    def _checked(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Rows of the database, and of the table."""
        for row in self._pages(data=False):
            with self._sound(row):
                values = values_of(row)
            yield row, values

    @contextmanager
    def _sound(self, row: Any) -> Iterator[None]:
        """Say of what is wrong with a row which one it is, and what to do."""
        try:
            yield
        except Exception as error:  # whatever somebody has put there
            raise ValueError(
                f"row {row.id} of {self.name} is damaged or not of a scan: {reason(error)}; delete "
                f"it with: ase db {self.name} id={row.id} --delete. The same scan computes its "
                "frame again"
            ) from error

    def _pages(self, data: bool) -> Iterator[Any]:
        """Rows of the database; it would read all of them at once if it was asked for all."""
        last = 0
        while page := self._page(last, data):
            yield from page
            last = page[-1].id

    def _page(self, last: int, data: bool) -> list[Any]:
        page: list[Any] = []

        def where() -> str:
            return f"after its row {page[-1].id if page else last}"

        with _told(self.name, damaged=where), self._database:
            page.extend(
                self._database.select(
                    f"id>{last}",
                    sort="id",
                    limit=PAGE,
                    include_data=data,
                    columns="all" if data else TABLE,
                )
            )
        return page


def _connected(name: str) -> Any:
    # ASE's lock file would outlive a process that is killed, and block the next one for good.
    kind = "extract_from_name" if "://" in name else "db"
    if "://" in name and find_spec("ase_db_backends") is None:
        raise ImportError("`store` is on a server, which needs the package ase-db-backends")
    return connect(name, type=kind, use_lock_file=False)


def _remove(name: str) -> None:
    for file in (name, f"{name}-journal"):
        Path(file).unlink(missing_ok=True)


@contextmanager
def _told(name: str, after: str = "", damaged: Callable[[], str] | None = None) -> Iterator[None]:
    """Say of errors of a database which one it is, and what to do.

    With ``damaged``, which tells where, all others are those of reading what is there.
    """
    try:
        yield
    except Exception as error:
        # Every driver of a database has classes of these names (PEP 249).
        kinds = {kind.__name__ for kind in type(error).__mro__}
        why = reason(error)
        if "IntegrityError" in kinds:
            raise RuntimeError(
                f"another process is writing frames of the same scan to {name}; wait for it, or "
                "stop it, and start again"
            ) from error
        if "OperationalError" in kinds:
            raise OSError(f"the database {name} cannot be used: {why}{after}") from error
        if "DatabaseError" in kinds:
            raise ValueError(f"{name} is not a database: {why}") from error
        if damaged is not None:
            raise ValueError(
                f"{name} is damaged {damaged()}: {why}; take a copy, or scan into another file"
            ) from error
        raise
