"""What descriptors that are made from a function have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ase_sensitivity.descriptors.base import Shortcuts
from ase_sensitivity.jacobian.whole import centers_of
from ase_sensitivity.types import Floats, Ints


def as_features(found: Any) -> Floats:
    """What a function returned, as an array of shape (n_rows, n_features).

    Raises
    ------
    ValueError
        If it has another shape, or is not finite.
    """
    features = np.array(found, dtype=float)
    if features.ndim != 2 or features.size == 0:
        what = f"an array of shape {features.shape}" if features.ndim else repr(found)
        raise ValueError(
            f"`function` returned {what} but must return (n_rows, n_features); "
            "make one row of a vector by `vector[None, :]`"
        )
    if not np.isfinite(features).all():
        raise ValueError("`function` returned features that are not finite")
    return features


class FunctionDescriptor(Shortcuts):
    """Base of descriptors that are made from a function.

    Parameters
    ----------
    function
        The function.
    cutoff, reach, centers, species, body_order
        As of :class:`~ase_sensitivity.FiniteDifferenceDescriptor`.

    Raises
    ------
    TypeError, ValueError
        If an argument has no meaning.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        cutoff: float,
        reach: float | None,
        centers: Sequence[int] | None,
        species: Sequence[str] | None,
        body_order: int | None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"`function` must be callable, not {type(function).__name__}")
        if not cutoff > 0:
            raise ValueError(f"`cutoff` is {cutoff} but must be positive")
        if reach is not None and not reach >= cutoff:
            raise ValueError(f"`reach` is {reach} but must be no less than `cutoff`, {cutoff}")
        self.function = function
        self.cutoff = float(cutoff)
        self.reach = self.cutoff if reach is None else float(reach)
        self.centers = None if centers is None else tuple(int(i) for i in centers)
        self.species = None if species is None else tuple(species)
        self.body_order = body_order

    def __repr__(self) -> str:
        reach = "" if self.reach == self.cutoff else f", reach={self.reach:g}"
        return f"{type(self).__name__}({self.function!r}, cutoff={self.cutoff:g}{reach})"

    def _centers(self, n_rows: int, n_atoms: int) -> Ints:
        """The atom at the center of each row, of shape (n_rows,); -1 for the whole structure."""
        return centers_of(self.centers, n_rows, n_atoms)
