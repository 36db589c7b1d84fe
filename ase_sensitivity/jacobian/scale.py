"""What singular values are compared with, and how large rounding makes those that are zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

CANCELLED = 0.1
"""The largest singular value is a scale for small ones if it is above this fraction of a typical
value without cancellation. In ordinary cells it is, as derivatives by images cancel only partly."""


@dataclass
class ScaleSums:
    """Sums of squares over the blocks of a Jacobian; they give the scale of singular values.

    The largest singular value is no scale if blocks cancel. Examples are the images of an atom that
    is a center of inversion, and the derivatives of a norm that is always one.

    Attributes
    ----------
    squares
        The sum of the squares of all derivatives, before images are summed.
    features
        The sum of the squares of the features, counted once for each block of their row.
    """

    squares: float = 0.0
    features: float = 0.0

    def include(self, squares: float, features: float) -> None:
        """Add the sums over some blocks; ValueError if derivatives are not finite."""
        if not math.isfinite(squares):
            raise ValueError("the descriptor gave derivatives that are not finite")
        self.squares += squares
        self.features += float(features)

    def scale(self, n_columns: int) -> float:
        """The smallest scale: a tenth of the root mean square value without cancellation."""
        return CANCELLED * math.sqrt(self.squares / max(3 * n_columns, 1))

    def rounding(self, n_columns: int, precision: float) -> float:
        """The size of a computed singular value that is zero in exact arithmetic.

        Features f have rounding errors relative to their norm. So their derivatives have errors of
        that fraction of the norm per Å, as features vary over about 1 Å.
        """
        return 10 * precision * math.sqrt((self.squares + self.features) / max(n_columns, 1))
