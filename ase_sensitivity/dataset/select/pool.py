"""The pool as a design sees it: one array of rows of forces and energy for each frame."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.dataset.select.row_store import BLOCK, Records
from ase_sensitivity.types import Floats, Ints

ENERGY_SHARE = 3.0
"""Sum of the squares of all energy rows over that of all force rows: how well an energy is known.
Of .1 to 10, where forces hardly depend on it, the energies were best with this (docs/select)."""

ROUNDING = 1e-6
"""Derivatives by 1 Å below this fraction of the energy's rows are rounding errors."""


class Pool:
    """Rows of frames. Energies have a parameter for each species besides those of the model.

    Parameters
    ----------
    records
        Of the frames to choose from, of shape (n,).
    usable
        The numbers of those without an error.
    learn_energies
        Whether the energies of chosen frames count. Otherwise their rows are zero.

    Attributes
    ----------
    forces, energies
        Mean squares of the rows of a frame, of shape (n_columns, n_columns), where the last columns
        are those of the species.
    """

    def __init__(self, records: Records, usable: Ints, learn_energies: bool) -> None:
        self._records = records
        self._learned = float(learn_energies)
        energies = records["energy"][usable].astype(float)
        fractions = records["fractions"][usable].astype(float)
        # What the species alone explain is moved to their own columns.
        self._offsets = np.linalg.lstsq(fractions, energies, rcond=None)[0]
        energies -= fractions @ self._offsets
        square = float((energies**2).sum()) / len(usable)
        self._size = float(np.sqrt(square)) or 1.0
        self._weight = 1.0
        n_columns = energies.shape[1] + fractions.shape[1]
        self.forces = np.zeros((n_columns, n_columns))
        for start in range(0, len(usable), BLOCK):
            rows = self._forces(records[usable[start : start + BLOCK]]).reshape(-1, n_columns)
            self.forces += rows.T @ rows / len(usable)
        if np.trace(self.forces) < ROUNDING**2 * float((self._offsets**2).sum()):
            self.forces[:] = 0.0  # symmetry forbids all forces
        share = ENERGY_SHARE * (float(np.trace(self.forces)) or 1.0)
        self._weight = np.sqrt(share) / self._size
        rows = self._energies(records[usable])
        self.energies = rows.T @ rows / len(usable)

    def rows(self, numbers: Ints, records: Records | None = None) -> Floats:
        """Rows of the forces and then the row of the energy, of shape (m, n_rows, n_columns).

        Parameters
        ----------
        numbers
            Which frames.
        records
            Of other frames than those of the pool.
        """
        some = (self._records if records is None else records)[numbers]
        energies = self._learned * self._energies(some)[:, None]
        return np.concatenate([self._forces(some), energies], axis=1)

    def _forces(self, some: Records) -> Floats:
        none = np.zeros((*some["forces"].shape[:2], some["fractions"].shape[1]))
        return np.concatenate([some["forces"].astype(float), none], axis=2)

    def _energies(self, some: Records) -> Floats:
        fractions = some["fractions"].astype(float)
        energies = some["energy"] - fractions @ self._offsets
        return self._weight * np.concatenate([energies, self._size * fractions], axis=1)
