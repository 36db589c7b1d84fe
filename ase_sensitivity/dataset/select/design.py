"""Optimal design: how much a frame lowers the predicted variance of forces and energies."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.types import Floats, SelectionMethod

ENERGY_WEIGHTS: dict[SelectionMethod, float] = {"balanced": 1.0, "balanced-averages": 10.0}
"""Factors of the relative fall of the energies' variance, chosen on carbon and Mo (docs/select)."""

DESIGNS: tuple[SelectionMethod, ...] = (*ENERGY_WEIGHTS, "i-optimal", "d-optimal")

PRIOR = 1e-4
"""Prior precision of the model's parameters, relative to the mean information of a frame. Values
from 1e-6 to 1e-2 choose equally well (docs/select)."""


class Design:
    """The posterior covariance P of a linear model, and what a frame would do to it.

    Parameters
    ----------
    forces, energies
        Mean squares F and E of the rows of the pool, of shape (n_columns, n_columns). The mean
        variance of the pool's forces is tr(P F), that of its energies tr(P E).
    method
        ``"balanced"``: the gain of a frame is the sum of the relative falls of the two variances.
        ``"balanced-averages"``: that of the energies counts ten times. ``"i-optimal"``: that of
        the forces alone. ``"d-optimal"``: the fall of the logarithm of the determinant of P.
    force_weight, energy_weight
        Further factors of the two falls (balanced designs only).
    n_parameters
        Number of parameters that the mean information of a frame belongs to; all by default. If
        there are more, these are those of ``energies`` alone, and of the last row of each frame,
        which has none but them.
    """

    def __init__(
        self,
        forces: Floats,
        energies: Floats,
        method: SelectionMethod,
        force_weight: float,
        energy_weight: float,
        n_parameters: int | None = None,
    ) -> None:
        self.forces, self.energies = forces, energies
        self._determinant = method == "d-optimal"
        self._weights = np.array([1.0, 0.0])
        if method in ENERGY_WEIGHTS:
            self._weights = np.array([force_weight, ENERGY_WEIGHTS[method] * energy_weight])
        self._n = n_parameters or len(forces)
        scale = np.trace(forces) or np.trace(energies)
        self.covariance = np.eye(len(forces)) * (self._n / (PRIOR * scale))

    @property
    def variances(self) -> Floats:
        """Mean variances of the pool's forces and energies, of shape (2,), in units of the rows."""
        return np.array(
            [np.vdot(self.covariance, self.forces), np.vdot(self.covariance, self.energies)]
        )

    def falls(self, rows: Floats) -> Floats:
        """How far each of several frames would lower the two variances, of shape (m, 2).

        With the determinant, its logarithm and zero.

        Parameters
        ----------
        rows
            Of shape (m, n_rows, n_columns).
        """
        n, p, f, e = self._n, self.covariance, self.forces, self.energies
        if self._determinant:
            noisy = rows @ p @ rows.swapaxes(1, 2) + np.eye(rows.shape[1])
            return np.column_stack([np.linalg.slogdet(noisy)[1], np.zeros(len(rows))])
        if n == len(p):
            return _falls(rows, p, f, e)
        of_forces = _falls(rows[:, :-1, :n], p[:n, :n], f[:n, :n])
        return np.hstack([of_forces, _falls(rows[:, -1:, n:], p[n:, n:], e[n:, n:])])

    def gains(self, falls: Floats) -> Floats:
        """The gains of frames, of shape (m,), with falls of shape (m, 2)."""
        if self._determinant:
            return falls[:, 0]
        variances = self.variances
        scaled = np.divide(self._weights, variances, out=np.zeros(2), where=variances > 0)
        return falls @ scaled

    def add(self, rows: Floats) -> None:
        """Add a frame with rows of shape (n_rows, n_columns)."""
        seen = rows @ self.covariance
        noisy = seen @ rows.T + np.eye(len(rows))
        self.covariance -= seen.T @ np.linalg.solve(noisy, seen)
        self.covariance = (self.covariance + self.covariance.T) / 2


def _falls(rows: Floats, covariance: Floats, *squares: Floats) -> Floats:
    """Falls of mean variances, whose mean squares are given, by rows (m, n_rows, n_columns)."""
    seen = rows @ covariance
    noisy = seen @ rows.swapaxes(1, 2) + np.eye(rows.shape[1])
    solved = np.linalg.inv(noisy) @ seen  # half the time of a solution
    return np.column_stack([np.einsum("mrc,mrc->m", solved, seen @ square) for square in squares])
