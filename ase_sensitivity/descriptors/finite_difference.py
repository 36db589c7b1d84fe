"""Any function of a structure as a descriptor, with a Jacobian by finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Rows
from ase_sensitivity.descriptors.function import FunctionDescriptor, as_features
from ase_sensitivity.errors import CostWarning, warn
from ase_sensitivity.geometry.neighbors import check_apart
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.whole import in_rows
from ase_sensitivity.types import Floats

MANY_ATOMS = 32

PRECISION = 1e-10
"""Relative accuracy of the derivatives."""

WEIGHTS = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
"""Weights of the features by the number of steps, in a five-point derivative."""


class FiniteDifferenceDescriptor(FunctionDescriptor):
    """A callable as a descriptor; its Jacobian comes from central differences.

    Parameters
    ----------
    function
        ``function(atoms)`` returns features of shape (n_rows, n_features).
    cutoff
        Radius in Å beyond which a center does not see an atom directly. Infinite by default: the
        whole structure is then one fragment.
    reach
        Radius in Å beyond which a row does not depend on an atom, if that is more than the cutoff:
        with two hops of message passing, two times the cutoff.
    centers
        Atom at the center of each row. By default row i belongs to atom i. A single row belongs to
        the whole structure if that has several atoms.
    species, body_order
        As in :class:`~ase_sensitivity.Descriptor`.
    step
        Displacement h in Å. The five-point formula (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h has an
        error of h^4 f^(5) / 30 and a noise of 1e-16 f / h: at the default 1e-3 Å about 1e-12 each
        for features that vary over 0.5 Å.

    Notes
    -----
    A Jacobian takes 12 calls per atom. Images of an atom move together; so environment scope and
    strain are refused if a center sees two images of one atom. Derivatives are accurate to about
    1e-10; so singular values below 1e-9 of the largest count as zero.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> def inverse_distances(atoms):
    ...     distances = atoms.get_all_distances() + np.eye(len(atoms))
    ...     return np.sort(1 / distances, axis=1)
    >>> FiniteDifferenceDescriptor(inverse_distances).jacobian(molecule("H2O")).blocks.shape
    (9, 3, 3)
    """

    def __init__(
        self,
        function: Callable[[Atoms], Floats],
        *,
        cutoff: float = math.inf,
        centers: Sequence[int] | None = None,
        species: Sequence[str] | None = None,
        body_order: int | None = None,
        step: float = 1e-3,
        reach: float | None = None,
    ) -> None:
        super().__init__(function, cutoff, reach, centers, species, body_order)
        if not 0 < step < 0.1:
            raise ValueError(f"`step` is {step} but must be between 0 and 0.1 Å")
        self.step = float(step)

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features).

        Raises
        ------
        ValueError
            If the function does not return a two-dimensional array of finite numbers, or the
            structure is unusable.
        """
        check_apart(atoms)
        return self._call(atoms)

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row; one part."""
        features = self.features(atoms)
        return [(features, self._centers(len(features), len(atoms)))]

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """Features and their derivatives by central differences."""
        features = self.features(atoms)
        n_atoms, n_rows = len(atoms), len(features)
        if n_atoms > MANY_ATOMS:
            warn(
                "finite differences call the function 12 times per atom: slow for many atoms",
                CostWarning,
            )
        moving = atoms.copy()
        moving.set_constraint()
        gradient = np.empty((n_rows, n_atoms, 3, features.shape[1]))
        for a in range(n_atoms):
            for k in range(3):
                total = np.zeros_like(features)
                for steps, weight in WEIGHTS.items():
                    moving.positions[a, k] = atoms.positions[a, k] + steps * self.step
                    moved = self._call(moving)
                    if moved.shape != features.shape:
                        raise ValueError(
                            f"`function` gave {features.shape} features, then {moved.shape} "
                            f"after a displacement of {self.step} Å"
                        )
                    total += weight * moved
                moving.positions[a, k] = atoms.positions[a, k]
                gradient[:, a, k] = total / self.step
        return in_rows(
            atoms,
            features,
            gradient,
            self._centers(n_rows, n_atoms),
            cutoff=self.cutoff,
            reach=self.reach,
            precision=PRECISION,
        )

    def _call(self, atoms: Atoms) -> Floats:
        return as_features(self.function(atoms.copy()))
