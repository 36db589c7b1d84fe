"""The frames of a set with labels, the most doubtful first, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity.dataset.doubt.judgement import GROUNDS, THRESHOLD, judged, undecided
from ase_sensitivity.environments.place import Place
from ase_sensitivity.io.csv_file import write_csv
from ase_sensitivity.io.json_file import read_json, write_json
from ase_sensitivity.plain_text import many
from ase_sensitivity.types import Floats, Ints

SHOWN = 10
"""Number of frames that a summary lists."""

MOST = 100_000
"""Number of frames up to which a scan's summary looks for doubtful ones."""

FEW = 3
"""Number of frames that the summary of a scan names."""

COLUMNS = (
    "source",
    "index",
    "score",
    "reasons",
    "rms_force",
    *(ground.name for ground in GROUNDS),
    "residual_atom",
)
"""Columns of the table."""

OF_A_SCAN = ("source", "index", "formula", "rms_force", "required_slope", "net_force", "net_torque")
"""Columns of the table of a scan from which one may doubt forces."""


@dataclass(frozen=True, eq=False)
class Doubts:
    """The result of :func:`~ase_sensitivity.doubt`.

    Attributes
    ----------
    rows
        One dictionary for each frame with forces, the most doubtful first, with the columns
        ``source``, ``index``, ``score``, ``reasons`` (a list), ``rms_force`` and the measured
        values ``required_slope``, ``residual``, ``worst_residual`` (on the atom ``residual_atom``),
        ``net_force`` in eV/Å and ``net_torque`` in eV; None where a value is not known.
    undecided
        What could not be decided, and why.
    errors
        Frames that could not be judged, and why.
    n_frames
        Number of all frames.
    fitted
        Whether forces were fitted.
    """

    rows: list[dict[str, Any]]
    n_frames: int
    fitted: bool
    undecided: list[str] = field(default_factory=list)
    errors: list[tuple[Place, str]] = field(default_factory=list)

    @property
    def doubtful(self) -> list[dict[str, Any]]:
        """The rows of frames to look at: those with a reason."""
        return [row for row in self.rows if row["reasons"]]

    @property
    def frames(self) -> list[Place]:
        """The places of the doubtful frames, the most doubtful first."""
        return [Place(row["index"], None, row["source"]) for row in self.doubtful]

    @property
    def reasons(self) -> list[list[str]]:
        """The reasons for each of ``frames``, the strongest first."""
        return [row["reasons"] for row in self.doubtful]

    @property
    def indices(self) -> Ints:
        """The numbers of ``frames`` in their sources, of shape (n_doubtful,)."""
        return np.array([place.frame for place in self.frames], dtype=np.intp)

    @property
    def scores(self) -> Floats:
        """The score of each row, descending, of shape (n_rows,); nan where nothing was decided.

        It is the largest distance above the median of like frames, in robust standard deviations of
        the logarithm.
        """
        return np.array(
            [np.nan if row["score"] is None else row["score"] for row in self.rows], dtype=float
        )

    def __len__(self) -> int:
        return len(self.doubtful)

    def todict(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "n_frames": self.n_frames,
            "n_doubtful": len(self),
            "fitted": self.fitted,
            "threshold": THRESHOLD,
            "rows": self.rows,
            "undecided": self.undecided,
            "errors": [
                {"source": place.source, "index": place.frame, "error": why}
                for place, why in self.errors
            ],
        }

    def save(self, path: str | Path) -> None:
        """Write everything to a file of JSON.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_json(path, {"doubts": self.todict()})

    @classmethod
    def read(cls, path: str | Path) -> Doubts:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it has no doubts.
        """

        def result(content: Any) -> Doubts:
            found = content["doubts"]
            return cls(
                rows=[{name: row[name] for name in COLUMNS} for row in found["rows"]],
                n_frames=int(found["n_frames"]),
                fitted=bool(found["fitted"]),
                undecided=[str(text) for text in found["undecided"]],
                errors=[
                    (Place(int(one["index"]), None, str(one["source"])), str(one["error"]))
                    for one in found["errors"]
                ],
            )

        return read_json(path, "result of doubt", result)

    def to_csv(self, path: str | Path) -> None:
        """Write ``rows`` as comma-separated values; nothing where a value is missing."""
        rows = (row | {"reasons": "; ".join(row["reasons"])} for row in self.rows)
        write_csv(path, COLUMNS, rows)

    def summary(self) -> str:
        """Some lines of text."""
        lines = [self.headline()]
        lines += [
            f"  {place}: {'; '.join(reasons)}."
            for place, reasons in zip(self.frames[:SHOWN], self.reasons, strict=False)
        ]
        if len(self) > SHOWN:
            lines.append(f"  ... and {len(self) - SHOWN} more.")
        others = [row for row in self.rows[len(self) :] if row["score"] is not None][:FEW]
        if others:
            scores = [f"{row['score']:.1f} of {row['source']}@{row['index']}" for row in others]
            lines.append(
                f"The highest of the other scores: {', '.join(scores)}; above {THRESHOLD:g} is "
                "doubtful."
            )
        if not self.fitted:
            lines.append("Forces were not fitted, which finds more.")
        if self.undecided:
            lines.append(f"Not decided: {'; '.join(self.undecided)}.")
        if self.errors:
            place, why = self.errors[0]
            lines.append(f"{many(len(self.errors), 'frame')} with errors; {place}: {why}")
        return "\n".join(lines)

    def notes(self) -> list[str]:
        """The doubtful frames in a line, for the summary of a scan; none if there are none."""
        if not self:
            return []
        first = ", ".join(map(str, self.frames[:FEW]))
        rest = f" and {len(self) - FEW} more" if len(self) > FEW else ""
        return [
            f"Forces to look at first: {first}{rest}. In {self.frames[0]} {self.reasons[0][0]}. "
            "`ase-sensitivity doubt` fits the forces and finds more."
        ]

    def headline(self) -> str:
        """How many frames have doubtful forces."""
        if not self:
            return f"No forces stand out among those of {many(len(self.rows), 'frame')}."
        return (
            f"{len(self)} of {many(len(self.rows), 'frame')} with forces or an energy that do not "
            "fit to the others; look at these first:"
        )

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"Doubts({len(self)} of {many(len(self.rows), 'frame')} doubtful)"


def ranked(
    rows: Sequence[Mapping[str, Any]], more: Sequence[tuple[int, float, str]] = ()
) -> list[dict[str, Any]]:
    """Rows of :class:`Doubts` from measured values, the most doubtful first.

    Parameters
    ----------
    rows
        For each frame its ``source``, ``index``, ``formula``, and the values of ``COLUMNS``, as far
        as they are known.
    more
        Further reasons: the number of the row, the score, and the reason.
    """
    found = judged(rows)
    for number, score, reason in sorted(more, key=lambda one: one[1]):
        own = found[number]
        own["score"] = max(score, own["score"] or 0.0)
        own["reasons"].insert(0, reason)
    whole = [{**row, **own} for row, own in zip(rows, found, strict=True)]
    whole.sort(key=lambda row: (not row["reasons"], row["score"] is None, -(row["score"] or 0.0)))
    return [{name: row.get(name) for name in COLUMNS} for row in whole]


def without_fit(labeled: Sequence[Mapping[str, Any]], n_frames: int) -> Doubts:
    """What the rows of a scan tell by themselves: slopes, net forces and torques.

    Parameters
    ----------
    labeled
        The columns :data:`OF_A_SCAN` of the rows with forces. Of more than :data:`MOST` frames
        nothing is said, as all have to be in memory for that, and there need not be any.
    n_frames
        Number of all frames.
    """
    if n_frames > MOST:
        text = f"which forces do not fit: there are more than {MOST} frames"
        return Doubts(rows=[], n_frames=n_frames, fitted=False, undecided=[text])
    return Doubts(
        rows=ranked(labeled),
        n_frames=n_frames,
        fitted=False,
        undecided=undecided(labeled),
    )
