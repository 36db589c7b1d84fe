"""The basis of SOAP, computed once for each descriptor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ase_sensitivity.descriptors.soap.harmonics import Harmonics
from ase_sensitivity.descriptors.soap.radial import DEGREE, RadialTable
from ase_sensitivity.types import Floats


@dataclass(frozen=True)
class Basis:
    """Radial functions, cutoff function and spherical harmonics.

    Attributes
    ----------
    n_species, n_max, l_max
        Sizes.
    cutoff, width
        Radius and transition width of the cutoff function, in Å.
    smooth
        Whether the second and third derivatives of the cutoff function are continuous, too.
    table
        The radial functions without the cutoff function.
    harmonics
        The spherical harmonics.
    central
        Contribution of a center itself to the l = 0 coefficients of its species, of shape (n_max,).
    """

    n_species: int
    n_max: int
    l_max: int
    cutoff: float
    width: float
    smooth: bool
    table: RadialTable
    harmonics: Harmonics
    central: Floats

    @classmethod
    def build(
        cls,
        radial_basis: str,
        n_species: int,
        cutoff: float,
        width: float,
        n_max: int,
        l_max: int,
        sigma: float,
        central_weight: float,
        smooth: bool = False,
    ) -> Basis:
        """Compute the tables; lengths are in Å.

        Raises
        ------
        ValueError
            If the radial functions are linearly dependent in double precision.
        """
        harmonics = Harmonics.build(l_max)
        table = RadialTable.build(radial_basis, cutoff, n_max, l_max, sigma, harmonics.l_padded)
        central = central_weight * table.at_origin / np.sqrt(4.0 * np.pi)
        return cls(n_species, n_max, l_max, cutoff, width, smooth, table, harmonics, central)

    @property
    def n_channels(self) -> int:
        """Number of pairs (species, n)."""
        return self.n_species * self.n_max

    def arguments(self) -> tuple[Any, ...]:
        """The basis as the tuple that density.expand takes."""
        harmonics = self.harmonics
        return (
            self.n_species,
            self.n_max,
            self.cutoff,
            self.width,
            self.table.per_length,
            DEGREE,
            self.table.coefficients.reshape(-1),
            (harmonics.first_row, harmonics.position, self.l_max),
            (
                harmonics.rise,
                harmonics.fall,
                harmonics.diagonal,
                harmonics.along,
                harmonics.across,
            ),
            self.smooth,
        )

    def cutoff_function(self, r: Floats) -> tuple[Floats, Floats]:
        """The cutoff function at distances r (Å), and its derivative in 1/Å."""
        if self.width == 0.0:
            return np.where(r < self.cutoff, 1.0, 0.0), np.zeros_like(r)
        t = np.clip((r - self.cutoff) / self.width + 1.0, 0.0, 1.0)
        rise = np.ones_like(t)
        if self.smooth:
            t, rise = t**2 * (3.0 - 2.0 * t), 6.0 * t * (1.0 - t)
        slope = -0.5 * np.pi / self.width * rise * np.sin(np.pi * t)
        return 0.5 * (1.0 + np.cos(np.pi * t)), slope

    def radial(self, r: Floats) -> tuple[Floats, Floats]:
        """f_cut g_nl at distances r (Å) and its derivative, each (len(r), n_max, l_max + 1)."""
        coefficients = self.table.coefficients[..., : self.l_max + 1]
        scaled = r * self.table.per_length
        interval = np.minimum(scaled.astype(np.intp), len(coefficients) - 1)
        x = (2.0 * (scaled - interval) - 1.0)[:, None, None]
        value = coefficients[interval, DEGREE]
        derivative = np.zeros_like(value)
        for k in range(DEGREE - 1, -1, -1):
            derivative = derivative * x + value
            value = value * x + coefficients[interval, k]
        cut, slope = (part[:, None, None] for part in self.cutoff_function(r))
        derivative = slope * value + 2.0 * self.table.per_length * cut * derivative
        return cut * value, derivative


def normalised(features: Floats, blocks: Floats, starts: Any) -> None:
    """Divide each row by its norm, and change its blocks accordingly; in place.

    Parameters
    ----------
    features
        Of shape (n_rows, n_features).
    blocks
        Of shape (n_blocks, 3, n_features), or empty.
    starts
        First block of each row, of shape (n_rows + 1,).
    """
    for row, vector in enumerate(features):
        norm = float(np.linalg.norm(vector))
        if norm == 0.0:
            continue
        vector /= norm
        part = blocks[starts[row] : starts[row + 1]]
        part -= (part @ vector)[..., None] * vector
        part /= norm
