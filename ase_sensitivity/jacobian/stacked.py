"""Jacobians of several descriptors of one structure, combined to one."""

from __future__ import annotations

from dataclasses import dataclass

import scipy

from ase_sensitivity.geometry.ranges import Range
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import BlockJacobian
from ase_sensitivity.types import Floats


@dataclass(frozen=True, eq=False)
class StackedJacobian(BlockJacobian):
    """Jacobians of several descriptors of one structure, combined to that of one map.

    Their feature vectors differ in length, and their rows need not have the same centers. So they
    are not merged but kept as ``parts``, and all computations loop over these.
    """

    parts: tuple[FeatureJacobian, ...]

    @property
    def features(self) -> Floats:
        """All features, block-diagonal: each part has its own rows and its own columns."""
        return scipy.linalg.block_diag(*(part.features for part in self.parts))

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the structure."""
        return self.parts[0].n_atoms

    @property
    def precision(self) -> float:
        """Relative accuracy of the least accurate part."""
        return max(part.precision for part in self.parts)

    @property
    def per_image(self) -> bool:
        """Whether periodic images of an atom have blocks of their own in all parts."""
        return all(part.per_image for part in self.parts)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The centers of each part and how far they see."""
        return tuple(entry for part in self.parts for entry in part.ranges)

    def __repr__(self) -> str:
        return f"StackedJacobian({list(self.parts)!r})"


WholeJacobian = FeatureJacobian | StackedJacobian
