"""What feature distances are compared with: their spread in a set, and their slope."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.environments.environment_set import Columns, near_centers
from ase_sensitivity.environments.row_sets import RowSet, row_sets
from ase_sensitivity.environments.shape import shapes
from ase_sensitivity.types import Floats, Ints

STEP = 0.05
"""Root mean square displacement in Å of each atom by which slopes are measured. By a much smaller
one, a perfect crystal would have none."""

FIRST = 8
"""The slopes are measured on so many first structures, and on those whose number is a power of 2.
"""

Group = tuple[int, int]
"""Atomic number of the center, and kind."""


@dataclass
class Scale:
    """Sums over the environments of one group."""

    n: int = 0
    origin: Floats | None = None
    total: Floats = field(default_factory=lambda: np.zeros(1))
    square: float = 0.0
    n_moved: int = 0
    features: float = 0.0
    shape: float = 0.0

    @property
    def spread(self) -> float:
        """Root mean square distance of the features of two environments."""
        mean: Floats = self.total / max(self.n, 1)
        return float(np.sqrt(2 * max(self.square / max(self.n, 1) - float(mean @ mean), 0.0)))

    @property
    def slope(self) -> float:
        """Change of the features for each Å that all atoms are displaced, root mean squares."""
        return float(np.sqrt(self.features / max(self.n_moved, 1)) / STEP)

    @property
    def shape_slope(self) -> float:
        """The same for the fingerprint of the shape."""
        return float(np.sqrt(self.shape / max(self.n_moved, 1)) / STEP)


class Scales:
    """Spread and slope of the features of each group of environments, from sums."""

    def __init__(self, descriptor: Descriptor, radius: float) -> None:
        self._descriptor = descriptor
        self._radius = radius
        self._rng = np.random.default_rng(0)
        self.by_group: dict[Group, Scale] = {}

    def measure(
        self, number: int, atoms: Atoms, centers: Ints, features: list[RowSet], kind: Ints
    ) -> Columns:
        """Add the environments of a structure; their fingerprints as a further column."""
        numbers = np.where(centers >= 0, atoms.numbers[centers], 0)
        groups = list(zip(numbers.tolist(), kind.tolist(), strict=True))
        new = any(group not in self.by_group for group in groups)
        for group in dict.fromkeys(groups):
            vectors = [
                one.vector for one, own in zip(features, groups, strict=True) if own == group
            ]
            self._add(self.by_group.setdefault(group, Scale()), np.array(vectors))
        shape = self._shapes(atoms, centers)
        if new or number < FIRST or number & (number - 1) == 0:
            self._move(atoms, centers, features, groups, shape)
        return {"shape": shape.astype(np.float32)}

    def slope_of(self, element: int) -> float:
        """The largest slope of centers of an element."""
        return max(scale.slope for group, scale in self.by_group.items() if group[0] == element)

    def _shapes(self, atoms: Atoms, centers: Ints) -> Floats:
        near = near_centers(atoms, centers, self._radius)
        return shapes(atoms, centers, near, self._radius)

    def _add(self, scale: Scale, vectors: Floats) -> None:
        if scale.origin is None:
            scale.origin, scale.total = vectors[0].copy(), np.zeros(vectors.shape[1])
        apart = vectors - scale.origin
        scale.n += len(vectors)
        scale.total += apart.sum(axis=0)
        scale.square += float(np.vdot(apart, apart))

    def _move(
        self,
        atoms: Atoms,
        centers: Ints,
        features: list[RowSet],
        groups: list[Group],
        shape: Floats,
    ) -> None:
        moved = atoms.copy()
        moved.positions += self._rng.normal(size=(len(atoms), 3)) * (STEP / np.sqrt(3))
        same, others = row_sets(self._descriptor, moved)
        if not np.array_equal(same, centers):
            return
        shape_of_moved = self._shapes(moved, centers)
        for k, group in enumerate(groups):
            if others[k].shape == features[k].shape:
                scale = self.by_group[group]
                scale.n_moved += 1
                scale.features += features[k].distance(others[k]) ** 2
                scale.shape += float(((shape_of_moved[k] - shape[k]) ** 2).sum())
