"""One line of an audit: what was measured, what was expected, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

OK, FINDING, FAILED, SKIPPED = "ok", "finding", "failed", "not applicable"
VERDICTS = (FAILED, FINDING, SKIPPED, OK)
"""All verdicts, the worst first."""


@dataclass(frozen=True)
class Check:
    """What one check of an audit found.

    Attributes
    ----------
    group
        The part of the audit that it belongs to.
    name
        What was checked.
    measured, expected
        In words.
    verdict
        ``"ok"``; ``"finding"``, a property of the descriptor that one should know; ``"failed"``, a
        fault; or ``"not applicable"``.
    note
        The reason of any other verdict than ok.
    values
        The numbers behind it, by name: numbers, strings, None, or lists of these.
    """

    group: str
    name: str
    measured: str
    expected: str
    verdict: str
    note: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(
                f"`verdict` is {self.verdict!r} but must be one of {', '.join(VERDICTS)}"
            )
        object.__setattr__(self, "values", {k: _finite(v) for k, v in self.values.items()})


def skipped(group: str, name: str, reason: str) -> Check:
    """A check that has no meaning for this descriptor."""
    return Check(group, name, "", "", SKIPPED, reason)


def raised(group: str, name: str, error: BaseException) -> Check:
    """A check that ended with an error."""
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return Check(group, name, "an error", "", FAILED, f"{kind}{' '.join(str(error).split())}")


def _finite(value: Any) -> Any:
    """A number that JSON knows."""
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
