"""A Jacobian that is computed a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np

from ase_sensitivity.geometry.neighbors import NeighborPairs
from ase_sensitivity.geometry.ranges import Range, as_reach
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import BlockJacobian
from ase_sensitivity.types import Floats, Ints


class StreamedJacobian(BlockJacobian):
    """A Jacobian that is never in memory as a whole: it is computed a few rows at a time.

    Parameters
    ----------
    compute
        ``compute(start, stop)`` gives the Jacobian of a range of rows.
    bounds
        Ascending row numbers that separate the ranges, from 0 to the number of rows.
    n_atoms, cutoff, center_atoms, precision, pairs, per_image, reach
        As in :class:`FeatureJacobian`.
    """

    n_atoms: int
    precision: float
    per_image: bool
    ranges: tuple[Range, ...]
    spares_blocks: ClassVar[bool] = False
    """Whether each row is that of a center, and its Gram matrix and products need no blocks."""

    def __init__(
        self,
        compute: Callable[[int, int], FeatureJacobian],
        bounds: Sequence[int],
        *,
        n_atoms: int,
        cutoff: float,
        center_atoms: Ints,
        precision: float = 1e-15,
        pairs: NeighborPairs | None = None,
        per_image: bool = True,
        reach: float = 0.0,
    ) -> None:
        self._compute = compute
        self._bounds = tuple(bounds)
        self.n_atoms = n_atoms
        self.precision = precision
        self.per_image = per_image
        self.ranges = (Range(cutoff, center_atoms, pairs, reach=as_reach(reach, cutoff)),)

    @property
    def features(self) -> Floats:
        """All features; computed again at each access."""
        return np.concatenate([part.features for part in self.parts])

    @property
    def parts(self) -> Iterator[FeatureJacobian]:
        """The Jacobian, one range of rows after the other; computed again at each access.

        Raises
        ------
        ValueError
            If a part is less accurate than ``precision``.
        """
        for start, stop in pairwise(self._bounds):
            part = self._compute(start, stop)
            if part.precision > self.precision:
                raise ValueError(
                    f"`precision` is {self.precision:g} but rows {start} to {stop - 1} are good to "
                    f"{part.precision:.2g} only; give that to StreamedJacobian"
                )
            yield part
