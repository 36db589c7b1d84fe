"""What the candidates of a sweep resolve, and which of them are sufficient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ase_sensitivity.causes.next_steps import IN_MEMORY, Origin
from ase_sensitivity.dataset.basis.candidates import DESCRIPTOR, Key, label
from ase_sensitivity.dataset.basis.evidence import CONFIDENCE, FALLS, N_LEAST
from ase_sensitivity.io.json_file import read_json, write_json
from ase_sensitivity.plain_text import as_html, many
from ase_sensitivity.sensitivity import pair_terms_text

SIZES = ("cost", "n_features")
"""Columns against which the slope has a Pareto front."""

FRONTS = {(): "", ("cost",): "cost", ("n_features",): "features", SIZES: "both"}

BASIS = ("n_max", "l_max")
"""Options of which larger values always see more."""

DECIDES = "Held-out frames decide: a low slope is no promise of a low error."

COLUMNS = {
    "n_features": ("features", "d"),
    "frames_truncated": ("truncated", "d"),
    "median_ratio": ("median ratio", ".2e"),
    "cost": ("cost (ms)", ".3g"),
    "irreducible_force_error": ("irreducible", ".2e"),
    "required_slope": ("slope", ".3g"),
}
"""Columns of the table, their headings and formats."""


@dataclass(frozen=True)
class Convergence:
    """What the candidates of a sweep resolve in a set of structures.

    A candidate is named by the values of its options, in the order of ``varied``: ``(8, 5)`` for
    n_max and l_max.

    Attributes
    ----------
    rows
        One dictionary per candidate, in the order of ``n_features``: the options that were tried,
        or ``descriptor`` for a list;
        ``n_features``, ``n_frames``, ``n_failed``; ``n_null``, ``n_symmetry``,
        ``n_incompleteness``, ``n_truncation``, ``n_fragment``, ``n_unknown`` and ``n_species``,
        summed over all structures; ``frames_truncated``, the number of structures with null
        directions that a larger basis would see; ``smallest_ratio`` and ``median_ratio`` of
        sigma_min / sigma_max; ``cost``, the processor time of the forces of a linear model in s per
        frame; and with forces ``irreducible_force_error``, the root mean square over all components
        in eV/Å, ``required_slope``, the median over structures in eV/Å, its 95 % interval
        ``slope_low`` to ``slope_high``, ``largest_slope``, and ``front``: whether it is on the
        Pareto front of slope against ``"cost"`` and against ``"n_features"``.
    resolving
        The smallest candidate without a null direction caused by truncation; None if none is large
        enough.
    flat
        If n_max and l_max alone were tried, the smallest of these after which the required slope
        does not decrease: by less than 10 % in any larger basis of the sweep. There must be a
        larger one. None without forces.
    recommended
        ``flat``, or ``resolving`` if there are no forces. Between other options than n_max and
        l_max the slope did not choose well (:doc:`/dataset_basis`).
    masking
        Names of further descriptors that have a row of features for each pair or triplet. They see
        nearly everything, whatever the basis.
    varied
        The names of the options that were tried, or ``("descriptor",)`` for a list.
    compared
        The candidates whose slopes are compared: those that truncate in as few structures as any
        and lose no more of the forces than the one that loses least, up to 1 % of the forces.
    alike
        Those of them with the lowest slope within noise. A slope is lower than another one if it is
        so by 10 %, and in 95 % of resampled sets of structures.
    cheapest
        The one of these with the lowest cost.
    n_compared
        The number of structures in which all of them have a slope. Less than 8 are no evidence.
    """

    rows: list[dict[str, Any]]
    resolving: Key | None
    flat: Key | None
    recommended: Key | None
    masking: tuple[str, ...] = ()
    varied: tuple[str, ...] = ("n_max", "l_max")
    compared: tuple[Key, ...] = ()
    alike: tuple[Key, ...] = ()
    cheapest: Key | None = None
    n_compared: int = 0

    def summary(self, origin: Origin = IN_MEMORY) -> str:
        """A table, and sentences about the candidates that are sufficient.

        Parameters
        ----------
        origin
            What the sweep was made of, for what to do next; by default structures in memory.
        """
        return "\n".join([*self.table(), *self.findings(origin)])

    def table(self) -> list[str]:
        """Lines of a table of all candidates; of a list, with the numbers of its descriptors."""
        cells = self.cells()
        widths = [max(len(line[n]) for line in cells) for n in range(len(cells[0]))]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
        return [*lines, *self._numbered()]

    def _numbered(self) -> list[str]:
        """The descriptors of a list with their numbers in the table."""
        if self.varied != (DESCRIPTOR,):
            return []
        return [f"{n}: {row[DESCRIPTOR]}" for n, row in enumerate(self.rows)]

    def cells(self) -> list[list[str]]:
        """The headings and the texts of each row of the table."""
        with_forces = self._has_forces
        shown = [name for name in COLUMNS if with_forces or name not in _OF_FORCES]
        several = len(self.compared) > 1
        lines = [[*self.varied, *(COLUMNS[name][0] for name in shown), *["front"] * several]]
        for n, row in enumerate(self.rows):
            own = [str(n)] if self.varied == (DESCRIPTOR,) else [str(row[v]) for v in self.varied]
            own += [
                _number(row[name], COLUMNS[name][1], 1e3 if name == "cost" else 1) for name in shown
            ]
            lines.append([*own, *[FRONTS[tuple(row["front"])]] * several])
        return lines

    def findings(self, origin: Origin = IN_MEMORY) -> list[str]:
        """Sentences about failures and the candidates that are sufficient, as in the summary."""
        lines = []
        failed = max(row["n_failed"] for row in self.rows)
        if failed:
            lines.append(f"{failed} of {self.rows[0]['n_frames']} structures had an error.")
        if len({row["n_features"] for row in self.rows}) == 1 < len(self.rows):
            number = sum(row["frames_truncated"] == 0 for row in self.rows)
            lines.append(f"{number} of {len(self.rows)} candidates truncate nothing.")
        else:
            lines.append(self._sentence(self.resolving, "is the smallest that truncates nothing"))
        basis_alone = {*self.varied} <= {*BASIS}
        if self._has_forces and self.resolving is not None and basis_alone:
            lines.append(self._sentence(self.flat, "is where the required slope stops falling"))
        lines += self._choice()
        if self.masking:
            lines.append(pair_terms_text(self.masking))
        return lines + self._next_steps(origin)

    def _next_steps(self, origin: Origin) -> list[str]:
        """What to do: larger values where the sweep was too small, or what to take."""
        basis = [name for name in self.varied if name in BASIS]
        alone = len(basis) == len(self.varied)
        if basis and (self.resolving is None or (alone and self.recommended is None)):
            largest = {name: max(row[name] for row in self.rows) for name in basis}
            larger = {name: f"{most + 2},{most + 4}" for name, most in largest.items()}
            return [f"Next: try larger values: {origin.sweep(**larger)}"]
        if not alone or self.recommended is None:
            return []
        taken = dict(zip(self.varied, self.recommended, strict=True))
        call = label(taken) if origin.files else f"descriptor.with_options({label(taken)})"
        return [f"Next: take this one: {call}"]

    def _choice(self) -> list[str]:
        """What the slopes say for a choice."""
        if self.cheapest is None or len(self.compared) < 2:
            return []
        number = f"{len(self.compared)} candidates that can be compared"
        if self.n_compared < N_LEAST:
            return [
                f"No evidence for a choice by slope: {many(self.n_compared, 'structure')} with "
                f"forces do not tell the noise, which takes {N_LEAST}."
            ]
        cheapest = self.label(self.cheapest)
        if len(self.alike) == len(self.compared):
            return [
                f"No evidence for a choice by slope: those of all {number} are equal within "
                f"{100 * FALLS:g} % or noise ({CONFIDENCE} %). The cheapest is {cheapest}."
            ]
        return [
            f"{cheapest} is the cheapest of {len(self.alike)} with the lowest slope within "
            f"{100 * FALLS:g} % or noise ({CONFIDENCE} %), of {number}. {DECIDES}"
        ]

    @property
    def _has_forces(self) -> bool:
        return any(row["required_slope"] is not None for row in self.rows)

    def label(self, key: Key) -> str:
        """A candidate as a text: ``n_max=8, l_max=5``."""
        if self.varied == (DESCRIPTOR,):
            return str(key[0])
        return label(dict(zip(self.varied, key, strict=True)))

    def _sentence(self, key: Key | None, words: str) -> str:
        return f"No candidate {words}." if key is None else f"{self.label(key)} {words}."

    def todict(self) -> dict[str, Any]:
        """The attributes as a dictionary, for programs."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def save(self, path: str | Path) -> None:
        """Write everything to a file of JSON.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_json(path, {"convergence": self.todict()})

    @classmethod
    def read(cls, path: str | Path) -> Convergence:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not the result of a sweep.
        """

        def result(content: Any) -> Convergence:
            found = content["convergence"]
            return cls(**{name: _read(name, value) for name, value in found.items()})

        return read_json(path, "result of converge", result)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """The same as notebooks show it."""
        return as_html("\n".join([*self._numbered(), *self.findings()]), self.cells())

    def __repr__(self) -> str:
        return f"Convergence({len(self.rows)} candidates, recommended={self.recommended})"


_OF_FORCES = ("irreducible_force_error", "required_slope")


def _read(name: str, value: Any) -> Any:
    """JSON has lists where a result has tuples."""
    if name == "rows":
        if not all(isinstance(row, Mapping) for row in value):
            raise ValueError("its rows are none")
        return value
    if isinstance(value, list):
        return tuple(tuple(one) if isinstance(one, list) else one for one in value)
    return value


def _number(value: float | None, form: str, factor: int | float) -> str:
    return "" if value is None else format(factor * value, form)
