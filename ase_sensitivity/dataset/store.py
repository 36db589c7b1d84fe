"""A store for the records of a scan in a database."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ase.db import connect

from ase_sensitivity.dataset.parameters import KEY, check_continued, parameters_in
from ase_sensitivity.dataset.record import FrameRecord
from ase_sensitivity.dataset.records import Digests
from ase_sensitivity.dataset.rows import as_row, data_of, pairs_of, record_of, values_of
from ase_sensitivity.dataset.sqlite_rows import insert, takes_records
from ase_sensitivity.plain_text import reason

PAGE = 256
"""Number of rows that are read from a database at a time."""

SERVERS = ("postgresql://", "postgres://", "mysql://", "mariadb://")
"""Beginnings of URLs of database servers that ASE supports."""

TABLE = ["id", "numbers", "key_value_pairs", "natoms", "energy"]
"""Columns of an ASE database that are needed for the table."""


class DatabaseStore:
    """An ASE database: one row for each frame, arrays in its data, parameters in its metadata.

    Parameters
    ----------
    name
        A file that ends in .db, or the URL of a database server that ASE supports.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or not a database.
    OSError
        If it cannot be opened.
    ImportError
        If ASE's package for such servers is not installed.

    Notes
    -----
    The unique id of a row is a hash of source and index. As the database allows each id only once,
    no frame is ever in it twice.
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
        self._without_rows = False
        if not self._is_file or (os.path.exists(self.name) and os.path.getsize(self.name)):
            self._open()

    def _open(self) -> None:
        with _clear_errors(self.name):
            self._database = _connected(self._address)
        # ASE before 3.29 reads metadata only within a connection.
        with _clear_errors(self.name, damaged=lambda: "in its metadata"), self._database:
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
        return parameters_in(self._metadata, self.name)

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Store the parameters of a new scan, or compare them with those of the scan to resume.

        Raises
        ------
        ValueError
            If the database is of a scan with other parameters, or of something else.
        """
        fresh = {KEY: dict(parameters)}
        if not self.exists:
            # Created under another name: a process that is killed must not leave half a database,
            # and if two processes begin at once, the second one uses the database of the first.
            new = f"{self._address}.{os.getpid()}.new"
            try:
                _remove(new)
                with _clear_errors(self.name):
                    _connected(new).metadata = fresh
                if os.path.exists(self._address) and os.path.getsize(self._address) == 0:
                    os.remove(self._address)
                try:
                    os.link(new, self._address)
                except FileExistsError:
                    pass
                except OSError:  # a file system without links
                    os.replace(new, self._address)
            finally:
                _remove(new)
            self._open()
        elif len(self) == 0:
            self._begin_without_rows(fresh)
        else:
            with _clear_errors(self.name), self._database:
                self._read_metadata()
            if KEY not in self._metadata:
                raise ValueError(f"{self.name} has rows that are not from a scan; use another file")
        check_continued(self.parameters, parameters, self.name)
        self._without_rows = len(self) == 0

    def _begin_without_rows(self, fresh: dict[str, Any]) -> None:
        """Store the parameters, unless another scan adds the first rows at this moment."""
        with _clear_errors(self.name), self._database:
            self._read_metadata()
            if self._metadata | fresh == self._metadata:
                return
            self._database.metadata = self._metadata | fresh  # from now on no other can write
            if self._database.count():
                self._database.connection.rollback()
            self._read_metadata()

    def _read_metadata(self) -> None:
        """Read the metadata within an open connection; ASE reads them only once by itself."""
        self._database.initialized = False
        self._database.count()
        self._metadata = self._database.metadata

    def done(self) -> tuple[Digests, set[str]]:
        """Digests of the frames in the database, by source and index, and all sources."""
        known: Digests = {}
        self._unread = {}
        for row, values in self._checked():
            key = values["source"], values["index"]
            if row.natoms:
                known[key] = str(row.get("digest"))
            else:  # not read then; the file may be complete now
                known[key] = None
                self._unread[key] = row.id
        return known, {source for source, _ in known}

    def __len__(self) -> int:
        with _clear_errors(self.name):
            return self._database.count()

    def write(self, records: Sequence[FrameRecord]) -> None:
        """Add records in one transaction.

        Raises
        ------
        OSError
            If they cannot be written, for example on a full disk.
        RuntimeError
            If another process has added one of them in the meantime.
        ValueError
            If another process has begun a scan with other parameters before the first row.
        """
        after = "; its rows are safe, and the same scan goes on from there"
        with _clear_errors(self.name, after), self._database:
            if not self._unread and takes_records(self._database):
                insert(self._database, records)
            else:
                self._insert_one_by_one(records)
            if self._without_rows:  # in the same transaction: no other can change them now
                ours = self.parameters
                self._read_metadata()
                check_continued(self.parameters, ours, self.name)
        self._without_rows = False

    def _insert_one_by_one(self, records: Sequence[FrameRecord]) -> None:
        for record in records:
            key = record.row["source"], record.row["index"]
            self._database.write(
                as_row(record),
                key_value_pairs=pairs_of(record),
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
        with _clear_errors(self.name), self._database:
            if number >= len(self._ids):  # an offset would read all rows before, with their data
                ids = self._database.select(sort="id", columns=["id"], include_data=False)
                self._ids = [row.id for row in ids]
            row = self._database.get(id=self._ids[number])
        with self._sound(row):
            return record_of(row)

    def _checked(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Rows of the database, each with its row of the table."""
        for row in self._pages(data=False):
            with self._sound(row):
                values = values_of(row)
            yield row, values

    @contextmanager
    def _sound(self, row: Any) -> Iterator[None]:
        """Convert errors of a row to a ValueError that names the row and the remedy."""
        try:
            yield
        except Exception as error:  # a row may have any content
            raise ValueError(
                f"row {row.id} of {self.name} is damaged or not of a scan: {reason(error)}; delete "
                f"it with: ase db {self.name} id={row.id} --delete. The same scan computes its "
                "frame again"
            ) from error

    def _pages(self, data: bool) -> Iterator[Any]:
        """Rows of the database, page by page: without a limit, all are read at once."""
        last = 0
        while page := self._page(last, data):
            yield from page
            last = page[-1].id

    def _page(self, last: int, data: bool) -> list[Any]:
        page: list[Any] = []

        def where() -> str:
            return f"after its row {page[-1].id if page else last}"

        with _clear_errors(self.name, damaged=where), self._database:
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
    # Without ASE's lock file: it would remain if a process is killed, and block all later ones.
    kind = "extract_from_name" if "://" in name else "db"
    if "://" in name and find_spec("ase_db_backends") is None:
        raise ImportError("`store` is on a server, which needs the package ase-db-backends")
    return connect(name, type=kind, use_lock_file=False)


def _remove(name: str) -> None:
    for file in (name, f"{name}-journal"):
        Path(file).unlink(missing_ok=True)


@contextmanager
def _clear_errors(
    name: str, after: str = "", damaged: Callable[[], str] | None = None
) -> Iterator[None]:
    """Convert errors of a database to errors that name the database and the remedy.

    ``damaged`` returns the place that is read. If it is given, all other errors mean that the
    database is damaged there.
    """
    try:
        yield
    except Exception as error:
        # Every database driver has error classes with these names (PEP 249).
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
