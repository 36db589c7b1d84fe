"""Degenerate pairs, duplicates and label conflicts of a set of structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase_sensitivity.dataset.pairs.joint_bound import JointBound
from ase_sensitivity.environments.place import Place
from ase_sensitivity.io.csv_file import write_csv
from ase_sensitivity.plain_text import many

ENDS = ("kind", "source_a", "frame_a", "center_a", "source_b", "frame_b", "center_b")
MEASURES = (
    "feature_distance",
    "match",
    "force_difference",
    "energy_difference",
    "joint_force_error",
)
PAIR_COLUMNS = (*ENDS, *MEASURES)
"""Columns of the table of pairs and conflicts."""


@dataclass(frozen=True)
class Pair:
    """Two environments, or two structures, with the same features.

    Attributes
    ----------
    first, second
        The places of the two.
    feature_distance
        Distance of the feature vectors relative to the larger norm.
    match
        The largest distance of matched points in Å, in the best match over rotation, reflection and
        permutation. Infinite if species or numbers of neighbors differ.
    force_difference
        Difference of the reference forces on the two centers after that rotation, in eV/Å; None
        without forces or match.
    energy_difference
        Difference of the reference energies of two structures, in eV per atom; None for
        environments.
    joint_force_error
        The smallest force error on the two frames, or the one frame, of a model that gives equal
        features equal values: root mean square over all their force components in eV/Å. None
        without forces, or if it was not asked for.
    """

    first: Place
    second: Place
    feature_distance: float
    match: float
    force_difference: float | None = None
    energy_difference: float | None = None
    joint_force_error: float | None = None


@dataclass(frozen=True)
class Conflict:
    """Two copies of a structure with different labels.

    Attributes
    ----------
    first, second
        The places of the two.
    quantity
        ``"energy"`` of the structures in eV per atom, or ``"force"`` on the centers in eV/Å.
    difference
        Difference of the two labels.
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
        Same features, different structure: environments and then whole structures, the largest
        difference in forces or energy first. One of several copies represents all of them.
    duplicates
        Same features, same structure: every further copy with the first one.
    conflicts
        Same structure, different labels.
    bound
        The unavoidable force error on all frames; None without forces, or if it was not asked for.
    n_frames, n_seen, n_environments
        Structures read, environments in them, and environments compared.
    n_distinct
        Number of different environments.
    complete
        Whether all environments were compared, and all pairs listed.
    epsilon, delta
        Features are the same within this fraction, structures within this distance in Å.
    errors
        Structures that could not be compared or have no labels, and why.
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
    bound: JointBound | None = None

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
            _ends(kind, pair) | {name: getattr(pair, name) for name in MEASURES}
            for kind, pair in pairs
        ]
        for conflict in self.conflicts:
            values = dict.fromkeys(MEASURES) | {
                f"{conflict.quantity}_difference": conflict.difference
            }
            rows.append(_ends(f"{conflict.quantity} conflict", conflict) | values)
        return rows

    def to_csv(self, path: str | Path) -> None:
        """Write ``rows`` as comma-separated values; nothing where a value is missing."""
        write_csv(path, PAIR_COLUMNS, self.rows)

    def summary(self) -> str:
        """Some lines of text."""
        lines = [
            f"{self.n_environments} environments of {self.n_frames} structures, "
            f"{self.n_distinct} of them different."
        ]
        if self.n_environments < self.n_seen:
            lines[0] += f" They were drawn from {self.n_seen}."
        if self.degenerate:
            lines.append(
                f"{many(len(self.degenerate), 'degenerate pair')}: features within "
                f"{self.epsilon:g}, structures more than {self.delta:g} Å apart. A model predicts "
                "the same for both of a pair."
            )
            whole = [pair for pair in self.degenerate if pair.first.center is None]
            centers = [pair for pair in self.degenerate if pair.first.center is not None]
            lines += [f"  {_described(pairs[0])}" for pairs in (centers, whole) if pairs]
        else:
            lines.append("No degenerate pairs.")
        copies = len(self.duplicate_frames)
        lines.append(
            f"{many(len(self.duplicates) - copies, 'duplicate')} of environments and {copies} of "
            "whole structures."
        )
        if self.conflicts:
            largest = []
            for quantity, unit in (("energy", "eV per atom"), ("force", "eV/Å")):
                some = [one for one in self.conflicts if one.quantity == quantity]
                if some:
                    hardest = max(some, key=lambda one: one.difference)
                    largest.append(
                        f"in {quantity} by {hardest.difference:.3g} {unit}, {hardest.first} and "
                        f"{hardest.second}"
                    )
            lines.append(
                f"{many(len(self.conflicts), 'label conflict')}: same structure, different "
                f"labels; the largest {'; '.join(largest)}."
            )
        if self.bound is not None:
            lines.append(self.bound.summary())
        if self.errors:
            where, why = self.errors[0]
            lines.append(f"{many(len(self.errors), 'structure')} with errors; {where}: {why}")
        if not self.complete:
            lines.append("There may be more: not all environments were compared or pairs listed.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return (
            f"PairResult({len(self.degenerate)} degenerate pairs, {len(self.duplicates)} "
            f"duplicates, {len(self.conflicts)} conflicts)"
        )


def _ends(kind: str, ends: Pair | Conflict) -> dict[str, Any]:
    a, b = ends.first, ends.second
    values = (kind, a.source, a.frame, a.center, b.source, b.frame, b.center)
    return dict(zip(ENDS, values, strict=True))


def severity(pair: Pair) -> tuple[bool, float, float, float]:
    """A key to sort pairs: environments first, the largest difference in energy or force first."""
    known = (pair.energy_difference, pair.force_difference, pair.joint_force_error)
    energy, force, joint = (1.0 if value is None else -value for value in known)
    return pair.first.center is None, energy, force, joint


def _described(pair: Pair) -> str:
    """The two places of a pair, and the differences of structures and labels."""
    text = f"{pair.first} and {pair.second}: {_far(pair.match)}"
    if pair.energy_difference is not None:
        text += f", energies {pair.energy_difference:.3g} eV per atom apart"
    if pair.force_difference is not None:
        text += f", forces {pair.force_difference:.3g} eV/Å apart"
    if pair.joint_force_error is not None:
        frames = {end._replace(center=None) for end in (pair.first, pair.second)}
        owner = "frame's" if len(frames) == 1 else "two frames'"
        text += f", {pair.joint_force_error:.3g} eV/Å of the {owner} forces lost jointly"
    return text


def _far(match: float) -> str:
    if match == float("inf"):
        return "other species or another number of neighbors"
    return f"{match:.3g} Å apart at best"
