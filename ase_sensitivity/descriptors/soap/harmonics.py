"""Real spherical harmonics with Cartesian gradients, and their memory layout in the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ase_sensitivity.compiled.simd import WIDTH
from ase_sensitivity.types import Floats, Ints


@dataclass(frozen=True)
class Harmonics:
    """Recursion coefficients and layout for all orders up to ``l_max``.

    Kernels sum over m for four values of l at a time. So l is the fastest index of every array, and
    m enumerates rows: row 0 is m = 0, rows 2|m| - 1 and 2|m| are the sine and cosine of |m|. Group
    g has l = 4 g .. 4 g + 3 and the number of rows of its largest l; entries beyond 2 l are zero.

    Attributes
    ----------
    l_max
        Highest order.
    rise, fall
        Recursion coefficients in l at constant m, of shape (l_max + 1, l_max + 1).
    diagonal
        Factors from (m - 1, m - 1) to (m, m), of shape (l_max + 1,).
    along, across
        Coefficients of the derivatives along z and across it, of shape (l_max + 1, l_max + 1).
    first_row
        First row of each group, of shape (n_groups + 1,).
    position
        Index of (l, row) in memory, of shape (l_max + 1, 2 l_max + 1); -1 where row > 2 l.
    """

    l_max: int
    rise: Floats
    fall: Floats
    diagonal: Floats
    along: Floats
    across: Floats
    first_row: Ints
    position: Ints

    @property
    def l_padded(self) -> int:
        """l_max + 1 rounded up to whole groups."""
        return WIDTH * (len(self.first_row) - 1)

    @property
    def size(self) -> int:
        """Number of doubles in memory for one function on the sphere."""
        return WIDTH * int(self.first_row[-1])

    @classmethod
    def build(cls, l_max: int) -> Harmonics:
        """Coefficients of fully normalised functions, free of overflow at any order."""
        n = l_max + 1
        rise, fall, along, across = np.zeros((4, n, n))
        diagonal = np.ones(n)
        for m in range(1, n):
            diagonal[m] = np.sqrt((2 * m + 1) / (2 * m))
        if n > 1:
            diagonal[1] *= np.sqrt(2.0)  # normalisation of sine and cosine, not of m = 0
        for l in range(1, n):  # noqa: E741
            for m in range(l):
                rise[l, m] = np.sqrt((4 * l * l - 1) / (l * l - m * m))
                if l > m + 1:
                    fall[l, m] = np.sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1))
                ratio = (2 * l + 1) / (2 * l - 1)
                along[l, m] = np.sqrt(ratio * (l - m) * (l + m))
                across[l, m] = -np.sqrt(ratio * (l - m) * (l - m - 1) / (2.0 if m == 0 else 1.0))
        groups = range(-(-n // WIDTH))
        rows = [2 * min(WIDTH * g + WIDTH - 1, l_max) + 1 for g in groups]
        first_row = np.concatenate(([0], np.cumsum(rows))).astype(np.intp)
        position = np.full((n, 2 * l_max + 1), -1, dtype=np.intp)
        for l in range(n):  # noqa: E741
            row = np.arange(2 * l + 1)
            position[l, row] = WIDTH * (first_row[l // WIDTH] + row) + l % WIDTH
        return cls(l_max, rise, fall, diagonal, along, across, first_row, position)

    def values(self, directions: Floats) -> Floats:
        """Evaluate at unit vectors (k, 3); of shape (k, l_max + 1, 2 l_max + 1), 0 beyond row 2 l.

        The kernels compute the same numbers in a faster way.
        """
        x, y, z = directions.T
        result = np.zeros((len(directions), self.l_max + 1, 2 * self.l_max + 1))
        top = np.full(len(directions), 1.0 / np.sqrt(4.0 * np.pi))
        azimuth = (x + 1j * y) ** np.arange(self.l_max + 1)[:, None]
        for m in range(self.l_max + 1):
            top = top * self.diagonal[m]
            before, current = np.zeros_like(z), top
            for l in range(m, self.l_max + 1):  # noqa: E741
                if l > m:
                    following = self.rise[l, m] * (z * current - self.fall[l, m] * before)
                    before, current = current, following
                if m > 0:
                    result[:, l, 2 * m - 1] = current * azimuth[m].imag
                result[:, l, 2 * m] = current * azimuth[m].real
        return result
