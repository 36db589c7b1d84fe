"""The features of a structure as a function of its positions alone, with contacts guarded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from ase import Atoms

from ase_sensitivity.analysis import check_arguments
from ase_sensitivity.descriptors.base import Descriptor, Floats, Ints, StackedJacobian
from ase_sensitivity.explore.matching import Match, best_match
from ase_sensitivity.spectrum.scopes import environment_views, structure_view
from ase_sensitivity.structure import check_atoms, neighbor_pairs

CONTACT = 0.7
"""Two atoms nearer than this (Å) are nothing that a structure has."""


@dataclass(frozen=True, eq=False)
class Place:
    """The features at some positions, and how they change.

    Attributes
    ----------
    positions
        In Å, of shape (n, 3).
    features
        All of them, of shape (n_features,).
    jacobian
        Their derivatives of shape (n_features, 3 n), in 1/Å times their unit.
    trivial
        Orthonormal rigid motions of shape (3 n, n_trivial).
    """

    positions: Floats
    features: Floats
    jacobian: Floats
    trivial: Floats

    def internal(self) -> tuple[Floats, Floats]:
        """Singular values, ascending, and modes (3 n, any), rigid motions left out."""
        basis = scipy.linalg.null_space(self.trivial.T)
        reduced = scipy.linalg.qr(self.jacobian @ basis, mode="r", check_finite=False)[0]
        reduced = reduced[: basis.shape[1]]
        _, s, vt = np.linalg.svd(reduced, full_matrices=True)
        values = np.zeros(basis.shape[1])
        values[: len(s)] = s
        modes: Floats = basis @ vt.T
        return values[::-1], modes[:, ::-1]


class FeatureMap:
    """Features and their derivatives at any positions of the atoms of a structure.

    Parameters
    ----------
    atoms
        The structure; its constraints play no part.
    descriptor
        The descriptor.
    center
        Only the features of this centre; of all by default.

    Attributes
    ----------
    center
        The centre, also if it is the only one; None if there are several.
    seen
        Atoms that the features depend on, of shape (m,).
    start
        The structure as it was given.
    n_evaluations
        Number of Jacobians so far.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or no feature depends on the positions.
    """

    def __init__(self, atoms: Atoms, descriptor: Descriptor, center: int | None = None) -> None:
        check_atoms(atoms)
        scope = "structure" if center is None else "environment"
        check_arguments(atoms, descriptor, scope=scope, center=center, k=None)
        self._atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        self._descriptor = descriptor
        self.n_evaluations = 0
        self.center = None if center is None else int(center)
        parts = descriptor.jacobian(self._atoms).parts
        centers = np.unique(np.concatenate([part.centers for part in parts]))
        if center is not None and center not in centers:
            raise ValueError(f"`center` is {center} ({atoms.symbols[center]}) but no centre")
        if len(centers) == 1 and centers[0] >= 0:
            self.center = int(centers[0])
        self.start = self.at(self._atoms.positions)
        column = np.linalg.norm(self.start.jacobian.reshape(-1, len(atoms), 3), axis=(0, 2))
        if not column.max(initial=0.0) > 0:
            raise ValueError(
                f"no feature of {atoms.get_chemical_formula()} depends on the positions of its "
                "atoms; check the species and the cutoff of `descriptor`, and `center`"
            )
        self.seen: Ints = np.flatnonzero(column > 1e-12 * column.max())

    def atoms(self, positions: Floats) -> Atoms:
        """The structure at positions of shape (n, 3), without calculator or constraints."""
        moved = self._atoms.copy()
        moved.positions = positions
        return moved

    def at(self, positions: Floats) -> Place:
        """Features and derivatives at positions of shape (n, 3).

        Raises
        ------
        ValueError
            If atoms sit on top of each other.
        """
        moved = self.atoms(positions)
        self.n_evaluations += 1
        jacobian = self._descriptor.jacobian(moved)
        if self.center is not None:
            # What this centre does not see belongs to other fragments: it moves as it likes.
            own = np.array([self.center])
            rows = next(environment_views(jacobian, moved, self.center)).jacobian
            parts = tuple(replace(part, center_atoms=own, pairs=None) for part in rows.parts)
            jacobian = parts[0] if len(parts) == 1 else StackedJacobian(parts)
        view = structure_view(jacobian, moved)
        features = np.concatenate([part.features.ravel() for part in jacobian.parts])
        return Place(moved.positions, features, view.dense(), view.trivial)

    def allowed(self, positions: Floats) -> bool:
        """No two atoms are nearer than :data:`CONTACT`, or than the nearest were at the start."""
        return self.closest(positions) >= min(CONTACT, 0.999 * self.closest(self.start.positions))

    def closest(self, positions: Floats) -> float:
        """The shortest distance between two atoms in Å; infinite if none is below 2 Å."""
        try:
            pairs = neighbor_pairs(self.atoms(positions), 2.0)
        except ValueError:  # on top of each other
            return 0.0
        vectors = positions[pairs.second] - positions[pairs.first]
        vectors = vectors + pairs.shift @ self._atoms.cell.array
        return float(np.linalg.norm(vectors, axis=1).min(initial=np.inf))

    def match(self, a: Floats, b: Floats) -> Match:
        """How far two structures are apart: see :func:`best_match`.

        Only atoms that the features depend on count. They are looked at from the centre, or from
        their centroid. In periodic structures atoms keep their names, and only the translation is
        free.
        """
        chosen = self.seen[self.seen != self.center] if self.center is not None else self.seen
        a, b = self._from_origin(a)[chosen], self._from_origin(b)[chosen]
        numbers = self._atoms.numbers[chosen]
        if not self._atoms.pbc.any():
            return best_match(numbers, a, numbers, b)
        distance = np.linalg.norm(b - a, axis=1)
        return Match(
            rmsd=float(np.sqrt((distance**2).mean())),
            maximum=float(distance.max()),
            rotation=np.eye(3),
            permutation=np.arange(len(chosen)),
            exact=False,
        )

    def _from_origin(self, positions: Floats) -> Floats:
        if self.center is not None:
            return positions - positions[self.center]
        return positions - positions[self.seen].mean(axis=0)
