"""When the diagnosis of an earlier call still holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.causes.cause import EXPECTED
from ase_sensitivity.geometry.neighbors import neighbor_pairs
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.diagnosis import Diagnosis
from ase_sensitivity.types import Floats

ALIKE = 0.9
"""Squared overlap of a mode with those of an earlier call that makes it the same mode."""

FALLEN = 1 / 3
"""A singular value that has fallen to this fraction of what it was may do so for a new reason."""

EXCHANGING = 0.1
"""Singular values that differ by less than this fraction may have exchanged parts of their modes:
others belong to modes that only overlap a little."""

REFRESH = 50
"""Calls after which a diagnosis is made anew in any case."""


@dataclass(eq=False)
class Remembered:
    """A diagnosis, and by what to recognise the state it was made for.

    Attributes
    ----------
    diagnosis
        The diagnosis.
    number
        Which mode it is about.
    modes, values
        All modes that were asked, of shape (m, n_points, 3) in the order of the atoms, and their
        singular values.
    n_null, center
        Number of null vectors, and center.
    cutoff
        Of the descriptor, in Å: it decides which atoms are neighbors.
    atoms, slack
        Unless harmless, the diagnosis holds until the positions have changed by this, in Å.
    age
        Number of calls since then.
    neighbors
        All pairs of neighbors, listed when somebody asks.
    """

    diagnosis: Diagnosis
    number: int
    modes: Floats
    values: Floats
    n_null: int
    center: int | None
    cutoff: float
    atoms: Atoms
    slack: float
    age: int = 0
    neighbors: bytes | None = None

    def recalled(self, atoms: Atoms, found: Sensitivity, n_asked: int) -> Diagnosis | None:
        """The diagnosis, as it is now; None if the state is not the same any more.

        Parameters
        ----------
        atoms, found
            A later configuration, and its sensitivity.
        n_asked
            How many modes would be asked now.
        """
        if self.center != found.center:
            return None
        self.age += 1
        if self.age > REFRESH or self.n_null != found.n_null:
            return None
        before = self.diagnosis
        if found.n_null:
            if not self._same_neighbors(atoms):
                return None
            return Diagnosis(0.0, before.cause, None, before.points, "known")
        modes = found.modes[:, np.argsort(found.atoms, kind="stable")]
        if modes.shape[1:] != self.modes.shape[1:]:
            return None
        shares = np.einsum("kij,mij->km", modes, self.modes) ** 2
        share, values = shares[:, self.number], found.singular_values
        leading = values[share.argmax()]
        same = np.abs(values - leading) <= EXCHANGING * leading
        if share[same].sum() < ALIKE:
            return None
        if before.cause in EXPECTED:
            # Every mode that would be asked now must have been asked, and be what it was.
            shares_of = shares[:n_asked]
            expected = np.sqrt(shares_of @ self.values**2)
            if (shares_of.sum(axis=1) < ALIKE).any():
                return None
            if (values[: len(expected)] < FALLEN * expected).any():
                return None
        else:
            # No distance changes by more than the positions do.
            change = atoms.positions - self.atoms.positions
            if np.linalg.norm(change - change.mean(axis=0)) > self.slack:
                return None
        if not self._same_neighbors(atoms):
            return None
        # Of a combination of modes, singular values add up in squares.
        sigma = float(np.sqrt((share[same] * values[same] ** 2).sum() / share[same].sum()))
        change_of_value = sigma / float(self.values[self.number])
        slope = before.slope
        if slope is not None:
            # A singular value that has passed zero grows again: its slope has changed sign.
            change = (atoms.positions - self.atoms.positions)[before.points]
            passed = 1 + float((slope * change).sum()) < 0
            slope = slope / (-change_of_value if passed else change_of_value)
        distance = before.distance * change_of_value
        return Diagnosis(distance, before.cause, slope, before.points, "known")

    def _same_neighbors(self, atoms: Atoms) -> bool:
        if self.neighbors is None:
            self.neighbors = self._list(self.atoms)
        return self.neighbors == self._list(atoms)

    def _list(self, atoms: Atoms) -> bytes:
        if not np.isfinite(self.cutoff):
            return b""
        pairs = neighbor_pairs(atoms, self.cutoff)
        order = np.lexsort((*pairs.shift.T, pairs.second, pairs.first))
        both = np.column_stack([pairs.first, pairs.second, pairs.shift])[order]
        return both.tobytes()
