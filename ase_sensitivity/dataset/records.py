"""Stores for the records of a scan: their interface, a store in memory, and a part of a store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ase_sensitivity.dataset.record import FrameRecord

Digests = dict[tuple[str, int], str | None]
"""Digests of frames by source and index; None for a frame that could not be read."""


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
        """Add records: all or, if that fails, none."""
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


class DiskStore(Store, Protocol):
    """A store that outlives the process."""

    name: str
    """The name for messages."""

    @property
    def exists(self) -> bool:
        """Whether there is one of this name already."""
        ...

    def begin(self, parameters: Mapping[str, Any]) -> None:
        """Store the parameters of a new scan, or compare them with those of the scan to resume."""
        ...

    def done(self) -> tuple[Digests, set[str]]:
        """Digests of the frames in the store, by source and index, and all sources."""
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


class PartialStore:
    """A store without some of its records.

    Parameters
    ----------
    whole
        The store.
    others
        Source and index of the records to leave out.
    """

    def __init__(self, whole: Store, others: Collection[tuple[str, int]]) -> None:
        self._whole = whole
        self._others = others
        self.parameters = whole.parameters
        self._numbers = [number for number, row in enumerate(whole.rows()) if self._has(row)]

    def _has(self, row: Mapping[str, Any]) -> bool:
        return (row["source"], row["index"]) not in self._others

    def __len__(self) -> int:
        return len(self._numbers)

    def write(self, records: Sequence[FrameRecord]) -> None:
        """Refuse records."""
        raise TypeError("a part of a store is not written to")

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        return filter(self._has, self._whole.rows())

    def records(self) -> Iterator[FrameRecord]:
        """All records."""
        return (record for record in self._whole.records() if self._has(record.row))

    def record(self, number: int) -> FrameRecord:
        """One record."""
        return self._whole.record(self._numbers[number])
