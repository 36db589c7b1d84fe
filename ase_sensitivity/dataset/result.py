"""The result of a scan: a table, the record of each row, and sums over the set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.causes.next_steps import Origin, next_steps
from ase_sensitivity.dataset.chemiscope import write_chemiscope
from ase_sensitivity.dataset.doubt.result import MOST, OF_A_SCAN, Doubts, without_fit
from ase_sensitivity.dataset.forces import THRESHOLDS
from ase_sensitivity.dataset.parquet_rows import table_fields
from ase_sensitivity.dataset.record import COLUMNS, TEXT, WHOLE, FrameRecord, rows_alone
from ase_sensitivity.dataset.records import Store
from ase_sensitivity.dataset.stores import store_of
from ase_sensitivity.dataset.summary import LARGE_LOSS, Summary
from ase_sensitivity.io.csv_file import write_csv
from ase_sensitivity.io.reading import MEMORY
from ase_sensitivity.io.whole_file import whole_file
from ase_sensitivity.plain_text import as_html, many
from ase_sensitivity.types import Floats
from ase_sensitivity.validation import check_exists

ROWS = 4096
"""Number of rows that are converted to Parquet at a time."""


def check_result(result: object) -> None:
    """Raise TypeError if ``result`` is not a :class:`ScanResult`."""
    if not isinstance(result, ScanResult):
        raise TypeError(f"`result` is {result!r} but must be a ScanResult, as of ScanResult.read")


class ScanResult:
    """The result of :func:`scan`.

    Parameters
    ----------
    store
        The store of the records.
    n_besides
        Number of frames in the database that do not belong to this result.

    Notes
    -----
    A database is read only when needed: ``rows`` takes about 2 kB of memory for each frame,
    ``column`` and ``records`` far less.
    """

    def __init__(self, store: Store, n_besides: int = 0) -> None:
        self._store = store
        self.parameters = store.parameters
        self.n_besides = n_besides

    @classmethod
    def read(cls, name: str | Path) -> ScanResult:
        """The result in a database or a folder of Parquet files, complete or not.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        TypeError, ValueError
            If it is not the result of a scan.
        """
        if not isinstance(name, str | os.PathLike):
            raise TypeError(f"`name` is {name!r} but must be a path or the URL of a database")
        if "://" not in str(name):
            check_exists(name)
        return cls(store_of(name))

    def __len__(self) -> int:
        return len(self._store)

    def __repr__(self) -> str:
        return f"ScanResult({len(self)} frames, {self.totals.n_failed} with an error)"

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each frame, with the columns of the table, None where missing."""
        return list(self._store.rows())

    def record(self, number: int) -> FrameRecord:
        """The record of a row of the table.

        Parameters
        ----------
        number
            The number of the row, from 0; negative from the end.
        """
        if not isinstance(number, int | np.integer):
            raise TypeError(f"`number` is {number!r} but must be an integer")
        if not -len(self) <= number < len(self):
            raise IndexError(f"there is no row {number} among {len(self)}")
        return self._store.record(int(number) % len(self))

    def records(self) -> Iterator[FrameRecord]:
        """The record of each row, one after the other."""
        return self._store.records()

    def column(self, name: str) -> NDArray[Any]:
        """A column of the table, of shape (n_frames,); nan, -1 or "" where missing."""
        if name not in COLUMNS:
            raise ValueError(f"`name` is {name!r} but must be one of {', '.join(COLUMNS)}")
        return self._columns(name)[0]

    def _columns(self, *names: str) -> list[NDArray[Any]]:
        values: list[list[Any]] = [[] for _ in names]
        missing = ["" if n in TEXT else -1 if n in WHOLE else np.nan for n in names]
        for row in self._store.rows():
            for name, without, column in zip(names, missing, values, strict=True):
                column.append(without if row[name] is None else row[name])
        kinds = [str if n in TEXT else np.int64 if n in WHOLE else np.float64 for n in names]
        return [np.array(column, kind) for column, kind in zip(values, kinds, strict=True)]

    @cached_property
    def _sums(self) -> tuple[Floats, dict[str, float], dict[str, int], int]:
        curve, squares = np.zeros(len(THRESHOLDS)), Counter[str]()
        numbers, n_coordinates = Counter[str](), 0
        for record in self.records():
            if record.lost_forces is None or record.curve is None:
                continue
            curve += record.curve
            n_coordinates += 3 * len(record.atoms)
            each = (record.lost_forces**2).sum(axis=1)
            for symbol, square in zip(record.atoms.symbols, each.tolist(), strict=True):
                squares[symbol] += square
                numbers[symbol] += 1
        return curve, dict(squares), dict(numbers), n_coordinates

    @property
    def curve(self) -> tuple[Floats, Floats]:
        """Irreducible force error of the set against the smallest sigma / sigma_max used.

        Returns
        -------
        thresholds, error
            Both of shape (m,). The error is the root mean square over all force components in eV/Å
            of the part that a model cannot learn if it uses no direction below the threshold; nan
            without forces.
        """
        squares, _, _, n_coordinates = self._sums
        return THRESHOLDS, np.sqrt(squares / n_coordinates) if n_coordinates else squares * np.nan

    @property
    def irreducible_force_error(self) -> float | None:
        """Root mean square over all force components of the set, in eV/Å; None without forces.

        No model on these features can have a smaller error on these frames.
        """
        return self.totals.rms("irreducible_force_error")

    @property
    def rms_force(self) -> float | None:
        """Root mean square of all force components of the set, in eV/Å; None without forces."""
        return self.totals.rms("rms_force")

    @property
    def totals(self) -> Summary:
        """Numbers over all rows, which the summary, the report and the commands show."""
        return self._one_pass[0]

    @cached_property
    def _one_pass(self) -> tuple[Summary, list[dict[str, Any]]]:
        """The totals, and of the rows with forces what their doubts need: reading costs most."""
        totals, labeled, few = Summary(), [], len(self) <= MOST
        for row in self._store.rows():
            totals.add(row)
            if few and row["rms_force"] is not None:
                labeled.append({name: row[name] for name in OF_A_SCAN})
        return totals, labeled

    @property
    def species_loss(self) -> dict[str, float]:
        """Root mean square of the lost force components of each species, in eV/Å."""
        _, squares, numbers, _ = self._sums
        return {s: float(np.sqrt(squares[s] / (3 * numbers[s]))) for s in sorted(squares)}

    @property
    def alone(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of each of several descriptors by itself, by name; empty if there is only one.

        They have the same columns as ``rows``.
        """
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self._store.rows():
            for name, own in rows_alone(row)[0].items():
                found.setdefault(name, []).append(own)
        return found

    def summary(self, option: str = "") -> str:
        """What was found, in words.

        Parameters
        ----------
        option
            How the command line gives the descriptor, as in ``"-d soap.toml"``, for the commands at
            the end. A QUIP string is known without.
        """
        notes = [*self.doubts.notes(), *self.besides, *self._next_steps(option)]
        return "\n".join([self.totals.summary(), *notes])

    @cached_property
    def doubts(self) -> Doubts:
        """Forces that do not fit to the others, as far as this table tells.

        :func:`~ase_sensitivity.doubt` finds more, by a fit.
        """
        return without_fit(self._one_pass[1], len(self))

    @property
    def next_steps(self) -> list[str]:
        """What to do next, each a line that ends with a command to paste."""
        return self._next_steps("")

    def _next_steps(self, option: str) -> list[str]:
        found, known = self.totals, self.parameters
        error = found.rms("irreducible_force_error")
        frames = {
            f"with the {text}": f"{row['source']}@{row['index']}"
            for name, text, wanted in (
                ("irreducible_force_error", "largest lost force", (error or 0.0) >= LARGE_LOSS),
                ("net_force", "largest net force", found.n_net > 0),
            )
            if wanted and (row := found.worst.get(name))
        }
        if "incompleteness" in found.first:
            frames["where the body order hides something"] = found.first["incompleteness"]
        origin = Origin(
            files=tuple(name for name in found.sources if name != MEMORY),
            descriptor=str(known.get("descriptor", "")),
            forces_key=known.get("forces_key"),
            units=str(known.get("units", "eV")),
            option=option,
        )
        return next_steps(found.causes, origin, frames)

    @property
    def besides(self) -> list[str]:
        """A line about other frames in the database; empty if there are none."""
        if not self.n_besides:
            return []
        return [f"The database has {many(self.n_besides, 'more frame')}, not included here."]

    @property
    def irreducible_alone(self) -> dict[str, float | None]:
        """The irreducible force error in eV/Å of each of several descriptors by itself, by name."""
        return {name: own.rms("irreducible_force_error") for name, own in self.totals.alone.items()}

    @property
    def masking(self) -> list[str]:
        """Names of descriptors with a row of features for each pair or triplet."""
        return self.totals.masking

    @property
    def notes(self) -> list[str]:
        """What pair terms mask, and what each of several descriptors by itself does not see."""
        return self.totals.notes()

    def __str__(self) -> str:
        failure = self.totals.first_error
        return self.summary() + (f"\nFirst failure: {failure}" if failure else "")

    def _repr_html_(self) -> str:
        """The worst frames and the summary, as notebooks show them."""
        rows = [
            [name.replace("_", " "), f"{row[name]:.3g}", f"{row['source']}@{row['index']}"]
            for name, row in self.totals.worst.items()
        ]
        return as_html(str(self), [["worst", "value", "frame"], *rows])

    def to_numpy(self) -> NDArray[np.void]:
        """The table as a structured array, of shape (n_frames,); missing values as in a column."""
        columns = self._columns(*COLUMNS)
        kinds = [(name, array.dtype) for name, array in zip(COLUMNS, columns, strict=True)]
        table = np.empty(len(columns[0]), dtype=kinds)
        for name, array in zip(COLUMNS, columns, strict=True):
            table[name] = array
        return table

    def to_csv(self, path: str | Path) -> None:
        """Write the table as comma-separated values; nothing where a value is missing."""
        write_csv(path, COLUMNS, self._store.rows())

    def to_parquet(self, path: str | Path) -> None:
        """Write the table in Parquet format; nulls where a value is missing.

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        """
        fields = table_fields()
        import pyarrow.parquet

        schema = pyarrow.schema(fields)
        rows = self._store.rows()
        with whole_file(path) as whole, pyarrow.parquet.ParquetWriter(whole, schema) as writer:
            while some := list(islice(rows, ROWS)):
                writer.write_table(pyarrow.Table.from_pylist(some, schema))

    def to_chemiscope(self, path: str | Path, *, n_modes: int = 1, scale: float = 2.0) -> None:
        """Write the analyzed frames for chemiscope, a viewer that runs in a browser.

        It shows the softest modes and the lost forces as arrows, and the frames by ratio, number of
        invisible directions, cause, irreducible force error and required slope.

        Parameters
        ----------
        path
            The file, of which the name ends in ``.json`` or ``.json.gz``.
        n_modes
            Number of modes; the scan has ``k``.
        scale
            Length of an arrow in Å for a component 1 of a mode, or a lost force of 1 eV/Å.

        Raises
        ------
        ImportError
            If chemiscope is not installed, the extra ``chemiscope``.
        TypeError, ValueError
            If an argument makes no sense, or no frame was analyzed.
        """
        write_chemiscope(self, path, n_modes=n_modes, scale=scale)
