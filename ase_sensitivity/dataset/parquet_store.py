"""A store for the records of a scan in a folder of Parquet files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node
from typing import Any

from ase_sensitivity.dataset.parameters import check_continued, difference, parameters_in
from ase_sensitivity.dataset.parquet_rows import (
    metadata_in,
    record_in,
    rows_in,
    schema_of,
    table_fields,
    table_of,
)
from ase_sensitivity.dataset.record import COLUMNS, FrameRecord
from ase_sensitivity.dataset.records import Digests
from ase_sensitivity.dataset.rows import check_values
from ase_sensitivity.plain_text import reason

SUFFIX = ".parquet"

PARAMETERS = "parameters.parquet"
"""A file without rows, with the parameters of the scan in its metadata."""

GROUP = 512
"""Number of rows that are read at a time."""

SMALL = (4096, 65536)
"""Parts with fewer rows are merged, first to middle-sized ones, and these to large ones."""

MANY = 16
"""Number of small parts that are merged."""

DAY = 86400.0
"""Time in s after which nobody is writing to an unfinished file any more."""


class ParquetStore:
    """A folder of Parquet files, which pandas and pyarrow read as one table.

    Each write adds a file that is named by the number of its first row. Many small files are merged
    to one that replaces the first of them. Files with rows that an earlier one has already are left
    from a merge that was interrupted. They are not read, and deleted when a scan begins.

    Parameters
    ----------
    name
        The folder, which ends in .parquet.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    OSError
        If there is no place for it.
    ValueError
        If it is a file, or has files of something else.
    """

    def __init__(self, name: str | Path) -> None:
        table_fields()  # raises without pyarrow
        self.name = os.fspath(name)
        self._folder = Path(os.path.realpath(name))
        if self._folder.is_file():
            raise ValueError(
                f"{self.name} is a single file, not the folder in which a scan keeps its results; "
                "use another name"
            )
        if not self._folder.parent.is_dir():
            raise FileNotFoundError(
                f"{self.name} cannot be used: there is no folder {self._folder.parent}"
            )
        self._unread: set[tuple[str, int]] = set()
        self._parts: dict[Path, int] = {}
        self._files: set[str] = set()
        self._schema: Any = None
        self._look()

    @property
    def exists(self) -> bool:
        """Whether there is a store already."""
        return (self._folder / PARAMETERS).exists()

    @property
    def parameters(self) -> dict[str, Any]:
        """Descriptor and options of the scan.

        Raises
        ------
        ValueError
            If the files are of something else.
        """
        import pyarrow.parquet

        if not self.exists:
            raise ValueError(f"{self.name} is not the result of a scan")
        file = self._folder / PARAMETERS
        with self._sound(file):
            metadata = metadata_in(pyarrow.parquet.read_schema(file))
        return parameters_in(metadata, self.name)

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Store the parameters of a new scan, or compare them with those of the scan to resume.

        Raises
        ------
        ValueError
            If the store is of a scan with other parameters, or of something else.
        RuntimeError
            If another process has added the first rows in the meantime.
        """
        if len(self) == 0:
            self._begin_without_rows(parameters)
        known = self.parameters
        check_continued(known, parameters, self.name)
        self._schema = schema_of(known)
        with suppress(OSError):  # another process does the same, or nothing is to be written
            self._delete_remains()

    def _begin_without_rows(self, parameters: Mapping[str, Any]) -> None:
        """Store the parameters, where another scan may do the same at this moment.

        The first one to write rows decides: all others find other parameters, or its rows.
        """
        self._folder.mkdir(exist_ok=True)
        self._schema = schema_of(parameters)
        with suppress(FileExistsError):
            self._put(self._folder / PARAMETERS, [], _link)
        if self._names() != self._files:
            raise self._taken()
        if self.parameters != dict(parameters):
            self._put(self._folder / PARAMETERS, [], os.replace)

    def done(self) -> tuple[Digests, set[str]]:
        """Digests of the frames in the store, by source and index, and all sources."""
        known: Digests = {}
        for part, table in self._tables(["source", "index", "n_atoms", "digest"]):
            with self._sound(part):
                for row in table.to_pylist():
                    key = row["source"], row["index"]
                    known[key] = row["digest"] if row["n_atoms"] else None
        self._unread = {key for key, digest in known.items() if digest is None}
        return known, {source for source, _ in known}

    def __len__(self) -> int:
        return sum(self._parts.values())

    def write(self, records: Sequence[FrameRecord]) -> None:
        """Add records, all or none.

        Raises
        ------
        OSError
            If they cannot be written, for example on a full disk.
        RuntimeError
            If another process has added some in the meantime.
        ValueError
            If another process has begun a scan with other parameters before the first row.
        """
        if self._names() != self._files:
            raise self._taken()
        if not self._parts:
            ours = parameters_in(metadata_in(self._schema), self.name)
            check_continued(self.parameters, ours, self.name)
        try:
            by_key = {(r.row["source"], r.row["index"]): r for r in records}
            again = {key: by_key.pop(key) for key in by_key.keys() & self._unread}
            if again:
                self._replace(again)
            if by_key:
                table = table_of([*by_key.values()], self._schema)
                part = self._folder / f"rows-{self._end:012d}{SUFFIX}"
                self._parts[part] = self._put(part, [table], _link)
                self._files.add(part.name)
            for limit in SMALL:
                self._merge(limit)
        except FileExistsError:
            self._look()
            raise self._taken() from None
        except BaseException:  # also Ctrl-C: some of it may be done
            self._look()
            raise

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        for part, table in self._tables(COLUMNS):
            for row in rows_in(table):
                with self._sound(part):
                    check_values(row)
                yield row

    def records(self) -> Iterator[FrameRecord]:
        """All records."""
        for part, table in self._tables([]):
            for number in range(len(table)):
                with self._sound(part):
                    record = record_in(table, number)
                yield record

    def record(self, number: int) -> FrameRecord:
        """One record."""
        part, table = next(self._tables([], number))
        with self._sound(part):
            return record_in(table, 0)

    @property
    def _end(self) -> int:
        """The number after that of the last row."""
        return max((_first(part) + n_rows for part, n_rows in self._parts.items()), default=0)

    def _names(self) -> set[str]:
        return {path.name for path in self._folder.glob(f"rows-*{SUFFIX}")}

    def _look(self) -> None:
        """Find the parts, for the first time or after something went wrong."""
        self._files, self._parts = self._found()

    def _found(self) -> tuple[set[str], dict[Path, int]]:
        """The names of all files with rows, and the parts and the numbers of their rows."""
        while True:
            names = self._names()
            try:
                return names, self._parts_of(names)
            except FileNotFoundError as error:  # merged in the meantime
                if self._names() == names:
                    raise ValueError(f"{self.name} cannot be read: {reason(error)}") from error

    def _parts_of(self, names: Iterable[str]) -> dict[Path, int]:
        """The parts among the files and the numbers of their rows.

        Raises
        ------
        FileNotFoundError
            If one does not exist any more.
        ValueError
            If one is damaged, or of a scan with other parameters than the store.
        """
        import pyarrow.parquet

        parts: dict[Path, int] = {}
        end = -1
        expected = self.parameters if names and self.exists else None
        for path in sorted(self._folder / name for name in names):
            if _first(path) < end:
                continue  # its rows were merged into an earlier part
            with self._sound(path):
                found = pyarrow.parquet.read_metadata(path)
                own = parameters_in(metadata_in(found), path.name)
                if expected is not None and (other := difference(own, expected)):
                    raise ValueError(f"its rows are of a scan with {other}")
            parts[path] = found.num_rows
            end = _first(path) + found.num_rows
        return parts

    def _delete_remains(self) -> None:
        """Delete what an interrupted process has left: other readers would find rows twice."""
        import pyarrow.parquet

        end = 0
        for path in sorted(self._folder / name for name in self._files):
            if path in self._parts:
                end = _first(path) + self._parts[path]
                continue
            with self._sound(path):
                n_rows = pyarrow.parquet.read_metadata(path).num_rows
            if _first(path) + n_rows <= end:
                path.unlink(missing_ok=True)
                self._files.remove(path.name)
        for path in self._folder.glob(f".*{SUFFIX}.*"):
            if _is_left(path):
                path.unlink(missing_ok=True)

    def _tables(self, columns: Sequence[str], start: int = 0) -> Iterator[tuple[Path, Any]]:
        """Some rows after the other from row ``start`` on; all columns if none is named.

        Another process may merge parts meanwhile, which changes neither rows nor their order. The
        number of rows stays that of the beginning.
        """
        parts, n_rows = self._parts.copy(), len(self)
        while start < n_rows:
            try:
                for part, table in self._tables_of(parts, columns, start):
                    table = table.slice(0, n_rows - start)  # there may be more by now
                    start += len(table)
                    yield part, table
                    if start == n_rows:
                        return
            except FileNotFoundError as error:
                before, (_, parts) = parts, self._found()
                if sum(parts.values()) < n_rows or parts == before:
                    raise ValueError(
                        f"{self.name} has lost rows while it was read: {reason(error)}; read it "
                        "again"
                    ) from error

    def _tables_of(
        self, parts: Mapping[Path, int], columns: Sequence[str], start: int = 0
    ) -> Iterator[tuple[Path, Any]]:
        """Some rows after the other of some parts; FileNotFoundError if one has been merged."""
        import pyarrow.parquet

        wanted = list(columns) or None
        for part, n_rows in parts.items():
            if start >= n_rows:
                start -= n_rows
                continue
            with self._sound(part):
                file = pyarrow.parquet.ParquetFile(part)
            with file:
                if file.metadata.num_rows != n_rows:
                    raise FileNotFoundError(f"{part.name} has other rows now")
                for group in range(file.num_row_groups):
                    n_here = file.metadata.row_group(group).num_rows
                    if start >= n_here:
                        start -= n_here
                        continue
                    with self._sound(part):
                        table = file.read_row_group(group, columns=wanted)
                    yield part, table.slice(start)
                    start = 0

    def _put(self, path: Path, tables: Iterable[Any], rename: Callable[[Path, Path], None]) -> int:
        """Make a file and return the number of its rows.

        It has another name first: a process that is killed leaves no half of it. A
        FileExistsError is that of ``rename``.
        """
        import pyarrow.parquet

        new = self._folder / f".{path.name}.{os.getpid()}@{node()}"
        n_rows = 0
        try:
            with pyarrow.parquet.ParquetWriter(new, self._schema) as writer:
                for table in tables:
                    writer.write_table(table, row_group_size=GROUP)
                    n_rows += len(table)
            with open(new, "rb") as file:
                os.fsync(file.fileno())
            rename(new, path)
        except FileExistsError:
            raise
        except OSError as error:
            raise OSError(
                f"{self.name} cannot be written: {reason(error)}; its rows are safe, and the same "
                "scan goes on from there"
            ) from error
        finally:
            new.unlink(missing_ok=True)
        return n_rows

    def _taken(self) -> RuntimeError:
        return RuntimeError(
            f"another process is writing frames of the same scan to {self.name}; wait for it, or "
            "stop it, and start again"
        )

    def _replace(self, records: dict[tuple[str, int], FrameRecord]) -> None:
        """Put records in the places of frames that could not be read before."""
        import pyarrow
        import pyarrow.parquet

        for part in self._parts:
            keys = pyarrow.parquet.read_table(part, columns=["source", "index"]).to_pylist()
            places = [(row["source"], row["index"]) for row in keys]
            if not records.keys() & set(places):
                continue
            old = pyarrow.parquet.read_table(part, schema=self._schema)
            slices = [
                table_of([records[key]], self._schema) if key in records else old.slice(number, 1)
                for number, key in enumerate(places)
            ]
            self._put(part, [pyarrow.concat_tables(slices).combine_chunks()], os.replace)
        self._unread -= records.keys()

    def _merge(self, limit: int) -> None:
        """Merge the parts at the end with fewer rows than ``limit``, if there are many."""
        small: list[Path] = []
        for part in reversed(self._parts):
            if self._parts[part] >= limit:
                break
            small.insert(0, part)
        if len(small) < MANY:
            return
        parts = {part: self._parts[part] for part in small}
        tables = _in_groups(table for _, table in self._tables_of(parts, []))
        self._parts[small[0]] = self._put(small[0], tables, os.replace)
        for part in small[1:]:
            part.unlink(missing_ok=True)  # a scan that begins deletes it as well
            del self._parts[part]
            self._files.remove(part.name)

    @contextmanager
    def _sound(self, part: Path) -> Iterator[None]:
        """Convert errors of a part to a ValueError that names it and the remedy.

        A FileNotFoundError stays: the part may have been merged.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # a file may have any content
            raise ValueError(
                f"{part.name} in {self.name} is damaged or not of a scan: {reason(error)}; delete "
                "it, and the same scan computes its frames again"
            ) from error


def _in_groups(tables: Iterable[Any]) -> Iterator[Any]:
    """The same rows in tables of at least `GROUP`, but the last."""
    import pyarrow

    waiting: list[Any] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= GROUP:
            yield pyarrow.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pyarrow.concat_tables(waiting).combine_chunks()


def _link(new: Path, path: Path) -> None:
    """Rename a file; FileExistsError if there is one of this name already."""
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(new, path)


def _is_left(path: Path) -> bool:
    """Whether the process that made an unfinished file is dead, as far as can be known."""
    number, _, computer = path.name.partition(f"{SUFFIX}.")[2].partition("@")
    if os.name == "posix" and computer == node() and number.isdecimal():
        try:
            os.kill(int(number), 0)  # no signal: it only fails without such a process
        except ProcessLookupError:
            return True
        except OSError:
            pass
    return time.time() - path.stat().st_mtime > DAY  # its number may be that of another one now


def _first(path: Path) -> int:
    """The number of the first row of a part."""
    return int(path.stem.removeprefix("rows-"))
