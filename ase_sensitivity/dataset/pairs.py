"""What was found among the environments of a set: degenerate pairs, duplicates, label conflicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ase_sensitivity.dataset.reading import MEMORY


class Place(NamedTuple):
    """An environment, or a whole structure.

    Attributes
    ----------
    frame
        Number of the structure in its source.
    center
        The atom at the centre; None for the whole structure.
    source
        The file, or ``"frames"`` for structures that were given as such.
    """

    frame: int
    center: int | None
    source: str = MEMORY

    def __str__(self) -> str:
        atom = "" if self.center is None else f" atom {self.center}"
        return f"{self.source}@{self.frame}{atom}"


@dataclass(frozen=True)
class Pair:
    """Two environments, or two structures, with the same features.

    Attributes
    ----------
    first, second
        Where they are.
    feature_distance
        Distance of the feature vectors relative to the larger norm.
    match
        How far points of one are from those of the other in their best match over rotation,
        reflection and permutation: the largest distance, in Å. Infinite if there are other species
        or another number of neighbours; nan where periodic structures as a whole are meant.
    force_difference
        Between the reference forces on the two centres after that rotation, in eV/Å; None without
        forces or match.
    energy_difference
        Between the reference energies of two structures, in eV per atom; None for environments.
    """

    first: Place
    second: Place
    feature_distance: float
    match: float
    force_difference: float | None = None
    energy_difference: float | None = None


@dataclass(frozen=True)
class Conflict:
    """The same structure twice, with different labels.

    Attributes
    ----------
    first, second
        Where.
    quantity
        ``"energy"`` of the structures in eV per atom, or ``"force"`` on the centres in eV/Å.
    difference
        Between the two labels.
    """

    first: Place
    second: Place
    quantity: str
    difference: float


@dataclass(frozen=True)
class PairResult:
    """Degenerate pairs, duplicates and label conflicts of a set of structures.

    Attributes
    ----------
    degenerate
        Same features, different structure. Of many copies of a structure one stands for all.
    duplicates
        Same features, same structure: every further copy with the first one.
    conflicts
        Same structure, different labels.
    n_frames, n_seen, n_environments
        Structures read, environments in them, and environments compared.
    n_distinct
        Environments that differ from each other.
    complete
        Whether all environments were compared, and all pairs listed.
    epsilon, delta
        Features are the same within this fraction, structures within this distance in Å.
    errors
        Structures that could not be compared, or whose labels are missing, and why.
    """

    n_frames: int
    n_seen: int
    n_environments: int
    n_distinct: int
    complete: bool
    epsilon: float
    delta: float
    degenerate: list[Pair] = field(default_factory=list)
    duplicates: list[Pair] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    errors: list[tuple[Place, str]] = field(default_factory=list)

    @property
    def duplicate_frames(self) -> list[Pair]:
        """The duplicates that are whole structures."""
        return [pair for pair in self.duplicates if pair.first.center is None]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per pair and conflict, for a table."""
        pairs = [("degenerate", pair) for pair in self.degenerate]
        pairs += [("duplicate", pair) for pair in self.duplicates]
        rows = [
            _ends(kind, pair)
            | {
                "feature_distance": pair.feature_distance,
                "match": pair.match,
                "force_difference": pair.force_difference,
                "energy_difference": pair.energy_difference,
            }
            for kind, pair in pairs
        ]
        for conflict in self.conflicts:
            values = dict.fromkeys(("feature_distance", "match"))
            rows.append(
                _ends(f"{conflict.quantity} conflict", conflict)
                | values
                | {
                    f"{name}_difference": conflict.difference if conflict.quantity == name else None
                    for name in ("force", "energy")
                }
            )
        return rows

    def summary(self) -> str:
        """Some lines of text."""
        lines = [
            f"{self.n_environments} environments of {self.n_frames} structures, "
            f"{self.n_distinct} of them different."
        ]
        if self.n_environments < self.n_seen:
            lines[0] += f" They were drawn from {self.n_seen}."
        if self.degenerate:
            worst = max(self.degenerate, key=_force)
            lines.append(
                f"{_many(len(self.degenerate), 'degenerate pair')}: features within "
                f"{self.epsilon:g}, structures more than {self.delta:g} Å apart. What a model says "
                "of one it says of the other."
            )
            said = (
                ""
                if worst.force_difference is None
                else (f", forces {worst.force_difference:.3g} eV/Å apart")
            )
            lines.append(f"  {worst.first} and {worst.second}: {_far(worst.match)}{said}")
        else:
            lines.append("No degenerate pairs.")
        copies = len(self.duplicate_frames)
        lines.append(
            f"{_many(len(self.duplicates) - copies, 'duplicate')} of environments and {copies} of "
            "whole structures."
        )
        if self.conflicts:
            hardest = max(self.conflicts, key=lambda conflict: conflict.difference)
            unit = "eV per atom" if hardest.quantity == "energy" else "eV/Å"
            lines.append(
                f"{_many(len(self.conflicts), 'label conflict')}: same structure, different "
                f"labels; the largest in {hardest.quantity} by {hardest.difference:.3g} {unit}, "
                f"{hardest.first} and {hardest.second}."
            )
        if self.errors:
            where, why = self.errors[0]
            lines.append(f"{_many(len(self.errors), 'structure')} with errors; {where}: {why}")
        if not self.complete:
            lines.append("There may be more: not all was compared or listed.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def _ends(kind: str, ends: Pair | Conflict) -> dict[str, Any]:
    return {
        "kind": kind,
        "source_a": ends.first.source,
        "frame_a": ends.first.frame,
        "center_a": ends.first.center,
        "source_b": ends.second.source,
        "frame_b": ends.second.frame,
        "center_b": ends.second.center,
    }


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _force(pair: Pair) -> tuple[bool, float]:
    """The largest loss first; without forces the first pair."""
    return pair.first.center is not None, pair.force_difference or 0.0


def _far(match: float) -> str:
    if match == float("inf"):
        return "other species or another number of neighbours"
    return "different as a whole" if match != match else f"{match:.3g} Å apart at best"
