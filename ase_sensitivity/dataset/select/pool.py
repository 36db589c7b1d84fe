"""The pool as a design sees it: one array of rows of forces and energy for each frame."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.dataset.select.average_kernel import AverageKernel
from ase_sensitivity.dataset.select.design import ENERGY_WEIGHTS, PRIOR
from ase_sensitivity.dataset.select.row_store import BLOCK, Records
from ase_sensitivity.types import Floats, Ints, SelectionMethod

ENERGY_SHARE = 3.0
"""Sum of the squares of all energy rows over that of all force rows: how well an energy is known.
Of .1 to 10, where forces hardly depend on it, the energies were best with this (docs/select)."""

AVERAGE_NOISE = 1e-3
"""For energies as functions of average features, the square of how well one is known over its
variance without data. With 1e-5 the frames of Mo were as good."""

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
    method
        That of the design. If it is not balanced, the energies of chosen frames do not count, and
        their rows are zero. With ``"balanced-averages"`` there is one row more: the energy per atom
        as a smooth function of average features, with parameters of its own. Its variance is the
        one to lower.

    Attributes
    ----------
    forces, energies
        Mean squares of the rows of a frame, of shape (n_columns, n_columns). Those of the model
        come first, then those of the species, and then the same of average features.
    n_parameters
        Number of columns without those of average features.
    """

    def __init__(self, records: Records, usable: Ints, method: SelectionMethod) -> None:
        self._records = records
        fractions = records["fractions"][usable].astype(float)
        energies = records["energy"][usable].astype(float)
        self.n_parameters = energies.shape[1] + fractions.shape[1]
        self._of_energies = _Offset(energies, fractions)
        self._of_averages: _Offset | None = None
        self.forces = self._mean_square(usable, slice(0, -1))
        if np.trace(self.forces) < ROUNDING**2 * self._of_energies.square:
            self.forces[:] = 0.0  # symmetry forbids all forces
        scale = float(np.trace(self.forces)) or 1.0
        self._of_energies.weigh(ENERGY_SHARE * scale)
        if method == "balanced-averages":
            averages = records["average"][usable]
            self._kernel = AverageKernel.fit(averages)
            smooth = self._kernel.features(averages)
            self._of_averages = _Offset(smooth, fractions)
            self._of_averages.weigh(PRIOR / (AVERAGE_NOISE * self.n_parameters) * scale)
            size = self.n_parameters + smooth.shape[1] + fractions.shape[1]
            self.forces = np.pad(self.forces, (0, size - self.n_parameters))
        self.energies = self._mean_square(usable, slice(-1, None))
        if method not in ENERGY_WEIGHTS:
            self._of_energies.weigh(0.0)

    def _mean_square(self, usable: Ints, which: slice) -> Floats:
        """The mean square of some rows of all frames, without a copy of all of them."""
        total = 0.0
        for start in range(0, len(usable), BLOCK):
            rows = self.rows(usable[start : start + BLOCK])[:, which]
            rows = rows.reshape(-1, rows.shape[-1])
            total = total + rows.T @ rows / len(usable)
        return np.asarray(total)

    def rows(self, numbers: Ints, records: Records | None = None) -> Floats:
        """Rows of the forces and then of the energy, of shape (m, n_rows, n_columns).

        Parameters
        ----------
        numbers
            Which frames.
        records
            Of other frames than those of the pool.
        """
        of = self._records if records is None else records
        # Fields alone: a whole record is large, and most of it is not needed.
        forces, fractions = of["forces"][numbers], of["fractions"][numbers].astype(float)
        energies = [self._of_energies.rows(of["energy"][numbers], fractions)]
        if self._of_averages is not None:
            averages = of["average"][numbers]
            energies.append(self._of_averages.rows(self._kernel.features(averages), fractions))
        n_rows = forces.shape[1]
        n_columns = sum(part.shape[1] for part in energies)
        found = np.zeros((len(numbers), n_rows + len(energies), n_columns))
        found[:, :n_rows, : forces.shape[2]] = forces
        first = 0
        for row, part in enumerate(energies, n_rows):
            found[:, row, first : first + part.shape[1]] = part
            first += part.shape[1]
        return found


class _Offset:
    """Rows of energies, without what the species alone explain: that has columns of its own.

    Parameters
    ----------
    energies, fractions
        Of all frames, of shapes (n, any) and (n, n_species).
    """

    def __init__(self, energies: Floats, fractions: Floats) -> None:
        self._offsets = np.linalg.lstsq(
            fractions.T @ fractions, fractions.T @ energies, rcond=None
        )[0]
        energies = energies - fractions @ self._offsets
        self._size = float(np.sqrt(float((energies**2).sum()) / len(energies))) or 1.0
        self._weight = 1.0

    @property
    def square(self) -> float:
        """The sum of squares of what the species explain."""
        return float((self._offsets**2).sum())

    def weigh(self, square: float) -> None:
        """Make the mean square of the rows, without the columns of the species, this one."""
        self._weight = float(np.sqrt(square)) / self._size

    def rows(self, energies: Floats, fractions: Floats) -> Floats:
        """Rows of shape (m, any + n_species)."""
        return self._weight * np.hstack(
            [energies - fractions @ self._offsets, self._size * fractions]
        )
