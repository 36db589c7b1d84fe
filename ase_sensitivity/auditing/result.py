"""The result of an audit: rows, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase_sensitivity.auditing.check import FAILED, FINDING, SKIPPED, VERDICTS, Check
from ase_sensitivity.io.json_file import write_json
from ase_sensitivity.validation import check_exists

SHORT = {SKIPPED: "-"}
"""Verdicts in the table that are shorter there."""

COMPARED = {"n_null", "same", "predicted", "ratios"}
"""Values of the checks that audits are compared by."""

KIND = "ase_sensitivity audit"
"""What the file of an audit says that it is."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes
    ----------
    descriptor
        The descriptor, as text.
    version
        Of this package.
    full
        Whether all structures were looked at.
    checks
        The rows.
    """

    descriptor: str
    version: str
    full: bool
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not any(check.verdict == FAILED for check in self.checks)

    def of(self, verdict: str) -> list[Check]:
        """The rows with a verdict."""
        return [check for check in self.checks if check.verdict == verdict]

    def check(self, name: str) -> Check:
        """The row of a name.

        Raises
        ------
        KeyError
            If there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"there is no check {name!r}; there are {[c.name for c in self.checks]}")

    def counted(self) -> str:
        """How many rows have which verdict, in words."""
        numbers = {verdict: len(self.of(verdict)) for verdict in reversed(VERDICTS)}
        return ", ".join(f"{n} {verdict}" for verdict, n in numbers.items() if n)

    def summary(self) -> str:
        """A table of all rows, and the reasons of those that are not ok."""
        heads = ("verdict", "check", "measured", "expected")
        rows = [(SHORT.get(c.verdict, c.verdict), *_texts(c)) for c in self.checks]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = [f"Audit of {self.descriptor}", _line(heads, widths)]
        group = ""
        for check, row in zip(self.checks, rows, strict=True):
            if check.group != group:
                group = check.group
                lines.append(f"-- {group}")
            lines.append(_line(row, widths))
        lines.append(f"{self.counted()}.")
        lines += [
            f"{check.verdict}: {check.name}: {check.note}."
            for verdict in VERDICTS
            for check in self.of(verdict)
            if check.note
        ]
        return "\n".join(lines)

    def todict(self) -> dict[str, Any]:
        """The fields as numbers, strings and lists, as JSON knows them."""
        return {"kind": KIND, **asdict(self), "passed": self.passed}

    @classmethod
    def fromdict(cls, dictionary: Mapping[str, Any]) -> Audit:
        """The inverse of :meth:`todict`.

        Raises
        ------
        ValueError
            If it is none.
        """
        try:
            if dictionary["kind"] != KIND:
                raise ValueError(f"its kind is {dictionary['kind']!r}, not {KIND!r}")
            checks = tuple(Check(**check) for check in dictionary["checks"])
            named = {name: dictionary[name] for name in ("descriptor", "version", "full")}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is no audit: {type(error).__name__}: {error}") from error
        return cls(**named, checks=checks)

    def write(self, path: str | Path) -> None:
        """Write the audit as JSON.

        Raises
        ------
        OSError
            If that is not possible.
        """
        write_json(path, self.todict(), ensure_ascii=False, indent=1)

    @classmethod
    def read(cls, path: str | Path) -> Audit:
        """Read what :meth:`write` wrote.

        Raises
        ------
        OSError, ValueError
            If there is no such file, or it is no audit.
        """
        check_exists(path)
        try:
            return cls.fromdict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no audit: {error}") from error

    def __str__(self) -> str:
        return self.summary()


def compared(audits: Mapping[str, Audit]) -> str:
    """Which descriptor is blind where, as a table in Markdown.

    Parameters
    ----------
    audits
        Audits by the name of the column that they get.
    """
    by_name = [{check.name: check for check in audit.checks} for audit in audits.values()]
    names = list(
        dict.fromkeys(
            check.name
            for audit in audits.values()
            for check in audit.checks
            if check.values.keys() & COMPARED
        )
    )
    rows = [["", *audits], ["---"] * (len(audits) + 1)]
    rows += [[name, *(_cell(found.get(name)) for found in by_name)] for name in names]
    for verdict in (FINDING, FAILED):
        rows.append([verdict, *(str(len(audit.of(verdict))) for audit in audits.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(check: Check | None) -> str:
    """What a check counted: null directions, altogether and by layer, or what it found least."""
    if check is None:
        return "?"
    if "same" in check.values:
        return "the same" if check.values["same"] else f"{check.values['distance']:.0e}"
    if "predicted" in check.values:
        return f"{check.values['symmetry']} of {check.values['predicted']}"
    if "ratios" in check.values:
        return f"{min(check.values['ratios']):.1e}"
    if "n_null" not in check.values:
        return "-"
    *layers, together = check.values.get("n_null_by_layer") or [None]
    text = f"{check.values['n_null']} of {check.values['n_coordinates']}"
    return f"{text} ({', '.join(map(str, layers))}; {together})" if layers else text


def _texts(check: Check) -> tuple[str, str, str]:
    return check.name, check.measured, check.expected


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join(texts).rstrip()
