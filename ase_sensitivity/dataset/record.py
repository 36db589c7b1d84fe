"""The results of a scan for one frame."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.causes.cause import NULL_CAUSES
from ase_sensitivity.types import Floats

COLUMNS = (
    "source",
    "index",
    "formula",
    "n_atoms",
    "sigma_min",
    "sigma_max",
    "ratio",
    "n_null",
    "n_near_null",
    *(f"n_{cause}" for cause in NULL_CAUSES),
    "cause",
    "center",
    "worst_atom",
    "distance",
    "novelty",
    "not_in_reference",
    "twin_frame",
    "twin_features",
    "twin_distance",
    "twin_forces",
    "energy",
    "rms_force",
    "irreducible_force_error",
    "required_slope",
    "net_force",
    "net_torque",
    "unseen",
    "alone",
    "error",
)
"""Columns of the table of a scan, in order."""

TEXT = ("source", "formula", "cause", "not_in_reference", "unseen", "alone", "error")
WHOLE = ("index", "n_atoms", "center", "worst_atom", "twin_frame")
"""Columns of text, and columns of integers in addition to those that begin with ``n_``."""

OF_ATOMS = ("formula", "n_atoms", "energy")
"""Columns that every ASE database has, as ``formula``, ``natoms`` and ``energy``."""


@dataclass(eq=False)
class FrameRecord:
    """The results for one frame.

    Attributes
    ----------
    row
        The values of :data:`COLUMNS`, None where missing. "alone" is a text for
        :func:`rows_alone`.
    atoms
        Species, positions and cell, with energy (eV) and forces (eV/Å) if they are known. It has no
        atoms if the frame could not be read.
    singular_values
        The k smallest non-trivial ones, in 1/Å times the unit of the features, of shape (k,).
    modes
        Their displacements, of shape (k, n_atoms, 3).
    causes
        The cause of each mode or None, of length k; None if causes were not asked for.
    lost_forces
        The part of the forces that no model on the features has, in eV/Å, of shape (n_atoms, 3);
        None without forces.
    curve
        Sum of squares of the lost forces at each of
        :data:`~ase_sensitivity.dataset.forces.THRESHOLDS`, in eV²/Å²; None without forces.
    """

    row: dict[str, Any]
    atoms: Atoms
    singular_values: Floats = field(default_factory=lambda: np.empty(0))
    modes: Floats = field(default_factory=lambda: np.empty((0, 0, 3)))
    causes: tuple[str | None, ...] | None = None
    lost_forces: Floats | None = None
    curve: Floats | None = None

    @property
    def sigma_max(self) -> float | None:
        """The largest singular value."""
        return self.row["sigma_max"]

    @property
    def scale(self) -> float | None:
        """What singular values are compared with: the ratio is sigma_min over the scale."""
        ratio, largest = self.row["ratio"], self.sigma_max
        if not ratio or largest is None:
            return largest
        return max(largest, float(self.singular_values[0]) / ratio)

    @property
    def error(self) -> str | None:
        """The error of the frame, or None."""
        return self.row["error"]

    @property
    def force_loss(self) -> Floats | None:
        """Length of each atom's lost force in eV/Å, of shape (n_atoms,); None without forces."""
        return None if self.lost_forces is None else np.linalg.norm(self.lost_forces, axis=1)


def causes_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """All causes of the invisible directions of a frame, the worst first.

    In numbers of frames by cause, the frame counts once for each of these.
    """
    return tuple(cause for cause in NULL_CAUSES if row[f"n_{cause}"] or row["cause"] == cause)


def text_alone(rows: Mapping[str, Mapping[str, Any]], masking: Sequence[str]) -> str | None:
    """The results for each of several descriptors by itself, as JSON for a table.

    Parameters
    ----------
    rows
        Values of some of the columns, by the descriptors' names.
    masking
        The names of descriptors with a row of features for each pair or triplet.
    """
    if not rows and not masking:
        return None
    return json.dumps({"masking": list(masking), "rows": rows})


def rows_alone(row: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The row of each of several descriptors by itself, by name, and the names in ``masking``."""
    if row["alone"] is None:
        return {}, []
    found = json.loads(row["alone"])
    common = dict(row) | {"alone": None, "error": None}
    return {name: common | own for name, own in found["rows"].items()}, found["masking"]


def is_analyzed(row: Mapping[str, Any]) -> bool:
    """Whether a frame has results. There is no ratio if only fragments can move."""
    return row["ratio"] is not None or row["error"] is None


def is_blind(row: Mapping[str, Any]) -> bool:
    """Whether a frame has null or near-null directions."""
    return bool(row["n_null"] or row["n_near_null"] or causes_of(row))


def row_of(**values: Any) -> dict[str, Any]:
    """A row of the table, with None for what is not given."""
    return dict.fromkeys(COLUMNS) | values
