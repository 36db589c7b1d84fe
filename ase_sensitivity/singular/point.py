"""A configuration with its Jacobian: what walks and searches go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.linalg.canonical import canonical, multiplets
from ase_sensitivity.singular.system import System
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.spectrum.solvers import (
    MARGIN,
    NULL_TOLERANCE,
    Spectrum,
    by_svd,
    ratio_of,
    spectrum,
)
from ase_sensitivity.types import Floats

LOWEST = 3
"""Modes that are asked for their distance: the one with the smallest singular value need not be
the nearest to zero."""


@dataclass(frozen=True, eq=False)
class Point:
    """A configuration, and what follows from its Jacobian, computed when it is first asked for.

    Attributes
    ----------
    atoms
        The points.
    view
        What is looked at.
    blocks
        Computes the Jacobian there, if the view's does without blocks.
    """

    atoms: Atoms
    view: View
    blocks: Callable[[], StackedJacobian] | None = None

    @cached_property
    def jacobian(self) -> StackedJacobian:
        """The Jacobian."""
        known = self.view.jacobian
        if isinstance(known, StackedJacobian):
            return known
        assert self.blocks is not None
        return self.blocks()

    @property
    def positions(self) -> Floats:
        """In Å, of shape (n, 3)."""
        positions: Floats = self.atoms.positions
        return positions

    @cached_property
    def found(self) -> Spectrum:
        """The complete spectrum."""
        return spectrum(self.view)

    @cached_property
    def features(self) -> Floats:
        """All features, of shape (n_features,)."""
        return np.concatenate([part.features.ravel() for part in self.jacobian.parts])

    @cached_property
    def dense(self) -> Floats:
        """All derivatives, of shape (n_features, 3 n_columns), in 1/Å times the features' unit."""
        return self.view.dense()

    def internal(self) -> tuple[Floats, Floats]:
        """Singular values, ascending, and modes (3 n, any), rigid motions left out."""
        basis = scipy.linalg.null_space(self.view.trivial.T)
        values, modes = by_svd(self.dense @ basis, basis)
        zero = max(NULL_TOLERANCE, MARGIN * self.view.jacobian.precision) * values.max(initial=0.0)
        return values, canonical(modes, multiplets(values, zero))

    def mode_like(self, mode: Floats) -> int:
        """Which of the lowest modes is most like another one."""
        overlap: Floats = mode @ self.found.modes[:, : LOWEST + 1]
        return int(np.abs(overlap).argmax())

    def ratio(self, number: int) -> float:
        """A singular value relative to the scale."""
        return ratio_of(self.found.singular_values, self.found.scale, number)


def point_at(system: System, atoms: Atoms, *, in_blocks: bool = True) -> Point:
    """Evaluate a configuration.

    Parameters
    ----------
    system, atoms
        What is looked at, and where.
    in_blocks
        Compute the Jacobian as it is needed for another step. Otherwise its spectrum may do without
        blocks, which are computed when they are asked for.
    """
    view = system.view(system.jacobian(atoms), atoms) if in_blocks else system.quick_view(atoms)
    here = Point(atoms, view, lambda: system.jacobian(atoms))
    here.found  # noqa: B018  (part of what a budget measures)
    return here
