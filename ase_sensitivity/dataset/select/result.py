"""The chosen frames, what each of them gained, and the frames that add nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.dataset.select.idle import IdleFrame
from ase_sensitivity.environments.place import Place
from ase_sensitivity.io.json_file import read_json, write_json
from ase_sensitivity.plain_text import as_html, many
from ase_sensitivity.types import Floats, Ints

WORTHWHILE = 0.01
"""A frame is worthwhile if it lowers the predicted force error by at least this fraction."""

SHOWN = 10
"""Number of chosen frames that a notebook shows."""

HARDLY_BETTER = 1.1
"""A frame with less than this times the gain of a random one is hardly better."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The result of :func:`~ase_sensitivity.select`.

    Attributes
    ----------
    indices
        The numbers of the chosen frames among all frames that were read, in the order in which they
        were chosen, of shape (n,).
    places
        Their sources and the numbers there.
    frames
        The chosen structures as they were read; with species, positions and cell alone if the
        selection was read from a file.
    gain
        What each frame gained, of shape (n,). For balanced designs, the weighted sum of the
        relative falls of two predicted variances, those of the forces and of the energies of the
        pool. For i-optimal designs the fall of the first, for d-optimal designs the information in
        nats. For farthest points the distance to the nearest chosen frame, for CUR the share of the
        squared weights.
    usual_gain
        What random frames would have gained at each step on average, of shape (n,); nan without a
        design.
    predicted_error
        Predicted root mean square errors of forces and energies over the pool, relative to those
        without any data, before the first and after each chosen frame, of shape (n + 1, 2); empty
        without a design. It needs no labels, and knows nothing of the size of true errors.
    idle
        Frames that add nothing, and why.
    errors
        Frames that could not be read or evaluated, and why.
    method, seed
        As they were given.
    n_asked, n_frames, n_given
        Numbers of frames asked for, read, and there already.
    """

    indices: Ints
    places: list[Place]
    frames: list[Atoms]
    gain: Floats
    usual_gain: Floats
    predicted_error: Floats
    method: str
    seed: int
    n_asked: int
    n_frames: int
    n_given: int = 0
    idle: list[IdleFrame] = field(default_factory=list)
    errors: list[tuple[Place, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def enough(self) -> int | None:
        """The number of frames after which none lowered the predicted force error by 1 %.

        None without a design, or if the last chosen frame still did.
        """
        errors = self.predicted_error[:, 0]
        if len(errors) < 2:
            return None
        falls = 1.0 - errors[1:] / np.maximum(errors[:-1], np.finfo(float).tiny)
        last = int(np.flatnonzero(falls >= WORTHWHILE)[-1]) + 1 if falls.max() >= WORTHWHILE else 0
        return last if last < len(falls) else None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary for each chosen frame, None where a value is missing."""
        errors = self.predicted_error[1:] if len(self.predicted_error) else [[None] * 2] * len(self)
        return [
            {
                "source": place.source,
                "index": place.frame,
                "gain": _known(gain),
                "usual_gain": _known(usual),
                "predicted_force_error": _known(forces),
                "predicted_energy_error": _known(energies),
            }
            for place, gain, usual, (forces, energies) in zip(
                self.places, self.gain, self.usual_gain, errors, strict=True
            )
        ]

    def todict(self) -> dict[str, Any]:
        """Everything but the structures, for programs."""
        return {
            "method": self.method,
            "seed": self.seed,
            "n_asked": self.n_asked,
            "n_frames": self.n_frames,
            "n_given": self.n_given,
            "enough": self.enough,
            "initial_error": [_known(value) for value in self.predicted_error[:1].ravel()],
            "indices": self.indices.tolist(),
            "chosen": self.rows,
            "idle": [
                {"source": one.place.source, "index": one.place.frame}
                | {"reason": one.reason, "gain": one.gain}
                for one in self.idle
            ],
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
        frames = [
            {
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": atoms.cell.tolist(),
                "pbc": atoms.pbc.tolist(),
            }
            for atoms in self.frames
        ]
        write_json(path, {"selection": self.todict(), "frames": frames})

    @classmethod
    def read(cls, path: str | Path) -> Selection:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a selection.
        """

        def result(content: Any) -> Selection:
            frames = [Atoms(**one) for one in content["frames"]]
            return cls(frames=frames, **_read(content["selection"]))

        return read_json(path, "selection", result)

    def summary(self) -> str:
        """Some lines of text."""
        lines = [
            f"{many(len(self), 'frame')} of {self.n_frames} chosen ({self.method}"
            + (f"), besides {many(self.n_given, 'frame')} given." if self.n_given else ").")
        ]
        if len(self) < self.n_asked:
            lines[0] += f" There are no more different frames: {self.n_asked} were asked for."
        if len(self) and len(self.predicted_error):
            lines.append(self._predicted())
        copies = sum(one.gain is None for one in self.idle)
        kinds = Counter(one.reason.split(":")[0] for one in self.idle if one.gain is not None)
        if copies:
            first = next(one for one in self.idle if one.gain is None)
            lines.append(f"Copies, which are never chosen: {copies}. {_told(first)}.")
        for kind, number in kinds.most_common():
            first = next(one for one in self.idle if one.reason.split(":")[0] == kind)
            lines.append(
                f"Frames that would add next to nothing, {kind}: {number}. {_told(first)}."
            )
        if self.errors:
            place, why = self.errors[0]
            lines.append(f"{many(len(self.errors), 'frame')} with errors; {place}: {why}")
        return "\n".join(lines)

    def _predicted(self) -> str:
        before, after = self.predicted_error[0], self.predicted_error[-1]
        known = [
            f"of {name} to {100 * now / then:.2g} %"
            for name, then, now in zip(("forces", "energies"), before, after, strict=True)
            if then > 0
        ]
        text = f"They lower the predicted error over the pool: {' and '.join(known)}."
        if self.enough is not None:
            text += f" After {self.enough} no frame lowered that of forces by 1 %."
        ratio = self.gain[-1] / self.usual_gain[-1] if self.usual_gain[-1] else np.inf
        text += f" The last frame gained {ratio:.3g} times as much as a random one"
        return text + ("; random frames would do now." if ratio < HARDLY_BETTER else ".")

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """The first chosen frames and the summary, as notebooks show them."""
        rows = [
            [str(place), "" if np.isnan(gain) else f"{gain:.3g}"]
            for place, gain in zip(self.places[:SHOWN], self.gain, strict=False)
        ]
        return as_html(self.summary(), [["chosen", "gain"], *rows])

    def __repr__(self) -> str:
        return f"Selection({len(self)} of {self.n_frames} frames, {self.method})"


def _known(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _told(one: IdleFrame) -> str:
    return f"{one.place}: {one.reason}"


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a :class:`Selection` besides its frames."""
    chosen = values["chosen"]

    def column(name: str) -> list[float]:
        return [np.nan if row[name] is None else float(row[name]) for row in chosen]

    def place(row: Mapping[str, Any]) -> Place:
        return Place(int(row["index"]), None, str(row["source"]))

    errors = np.empty((0, 2))
    if values["initial_error"]:
        after = zip(column("predicted_force_error"), column("predicted_energy_error"), strict=True)
        errors = np.array([values["initial_error"], *after])
    return {
        "indices": np.array(values["indices"], dtype=np.intp),
        "places": [place(row) for row in chosen],
        "gain": np.array(column("gain")),
        "usual_gain": np.array(column("usual_gain")),
        "predicted_error": errors,
        "idle": [IdleFrame(place(row), row["reason"], row["gain"]) for row in values["idle"]],
        "errors": [(place(row), row["error"]) for row in values["errors"]],
    } | {name: values[name] for name in ("method", "seed", "n_asked", "n_frames", "n_given")}
