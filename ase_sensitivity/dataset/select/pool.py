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
        energies = records["energy"][usable].astype(float)
        fractions = records["fractions"][usable].astype(float)
        # What the species alone explain is moved to their own columns.
        self._offsets = np.linalg.lstsq(
            fractions.T @ fractions, fractions.T @ energies, rcond=None
        )[0]
        energies -= fractions @ self._offsets
        square = float((energies**2).sum()) / len(usable)
        self._size = float(np.sqrt(square)) or 1.0
        self._weight = 1.0
        self.forces = self._mean_square(usable, slice(0, -1))
        if np.trace(self.forces) < ROUNDING**2 * float((self._offsets**2).sum()):
            self.forces[:] = 0.0  # symmetry forbids all forces
        share = ENERGY_SHARE * (float(np.trace(self.forces)) or 1.0)
        self._weight = np.sqrt(share) / self._size
        self.energies = self._mean_square(usable, slice(-1, None))
        self._weight *= float(learn_energies)

    def _mean_square(self, usable: Ints, which: slice) -> Floats:
        """The mean square of some rows of all frames, without a copy of all of them."""
        total = 0.0
        for start in range(0, len(usable), BLOCK):
            rows = self.rows(usable[start : start + BLOCK])[:, which]
            rows = rows.reshape(-1, rows.shape[-1])
            total = total + rows.T @ rows / len(usable)
        return np.asarray(total)

    def rows(self, numbers: Ints, records: Records | None = None) -> Floats:
        """Rows of the forces and then the row of the energy, of shape (m, n_rows, n_columns).

        Parameters
        ----------
        numbers
            Which frames.
        records
            Of other frames than those of the pool.
        """
        of = self._records if records is None else records
        # Fields alone: a whole record is large, and most of it is not needed.
        forces, energies = of["forces"][numbers], of["energy"][numbers]
        fractions = of["fractions"][numbers].astype(float)
        n_rows, n_columns = forces.shape[1:]
        found = np.zeros((len(numbers), n_rows + 1, n_columns + fractions.shape[1]))
        found[:, :-1, :n_columns] = forces
        found[:, -1, :n_columns] = self._weight * (energies - fractions @ self._offsets)
        found[:, -1, n_columns:] = self._weight * self._size * fractions
        return found
