"""The environment of every center, and its change by displacements of a view's columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_sensitivity.descriptors.base import Descriptor, HasCorrelations
from ase_sensitivity.geometry.clusters import clusters
from ase_sensitivity.geometry.fragments import fragments
from ase_sensitivity.geometry.neighbors import Neighborhoods
from ase_sensitivity.geometry.ranges import Range
from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.geometry.structure import symbols_in
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.types import Floats, Ints

LOOSE = 0.01
"""In Å: the loosest tolerance in the search for symmetries of an environment is at least this."""

ANY_ANGLE = 0.1
"""In Å: within this distance from the center, angles of a neighbor do not restrict symmetries."""

MAX_MATCHES = 4e6
"""Limit of the pairs of points that a symmetry may map one pair onto: 1 GB, and 10 s. Distances and
angles exclude most of them. About 10 000 are left in a crystal with 500 neighbors, but n^3 if n
neighbors are too close to each other to be distinguished."""


@dataclass(frozen=True)
class Environment:
    """Points about a center, and the columns of a view that move them.

    Attributes
    ----------
    numbers
        Atomic numbers of the points, of shape (n,).
    displacements
        From the center to the points in Å, of shape (n, 3). Images of one atom are several points.
    columns
        The column that moves each point, of shape (n,); -1 for a point that stays in place.
    center_columns
        The column that moves the center of each point, of shape (n,). There is one center, unless
        several environments are superposed.
    about_centroid
        Whether the center is the centroid of the points instead of an atom.
    """

    numbers: Ints
    displacements: Floats
    columns: Ints
    center_columns: Ints
    about_centroid: bool = False

    def relative(self, modes: Floats) -> Floats:
        """Displacements of the points relative to the center, of shape (3 n, m).

        Parameters
        ----------
        modes
            Displacements of the columns, of shape (n_columns, 3, m).
        """
        padded = np.concatenate([modes, np.zeros((1, *modes.shape[1:]))])  # column -1: no motion
        moved: Floats = padded[self.columns]
        if self.about_centroid:
            moved = moved - moved.mean(axis=0)
        else:
            moved = moved - padded[self.center_columns]
        return moved.reshape(-1, modes.shape[2])

    def internal(self, modes: Floats, tolerance: float) -> Floats:
        """The displacements of :meth:`relative` without rotations about the center, (3 n, m)."""
        moved = self.relative(modes)
        generators = rotation_generators(self.displacements).reshape(3, -1).T
        u, s, _ = np.linalg.svd(generators, full_matrices=False)
        u = u[:, s > tolerance * np.sqrt(len(self.numbers))]  # not about the axis of a line
        return moved - u @ (u.T @ moved)

    def without(self, symbols: Sequence[str]) -> Environment:
        """The environment without the points of some species."""
        unseen = np.isin(self.numbers, [atomic_numbers[symbol] for symbol in symbols])
        return self._of(~unseen)

    def check_size(self, tolerance: float) -> None:
        """Raise ValueError if too many operations may be symmetries up to a tolerance (Å)."""
        n_points = len(self.numbers)
        if n_points**3 <= MAX_MATCHES:
            return
        distance = np.linalg.norm(self.displacements, axis=1)
        shells = np.bincount(clusters(distance, max(tolerance, LOOSE), self.numbers))
        away = distance[distance > 1e-9]
        share = np.clip(ANY_ANGLE / away.min(initial=np.inf), 0.04, 1.0)
        if share * shells.min(initial=n_points) * n_points**2 > MAX_MATCHES:
            raise ValueError(
                f"an environment of {n_points} neighbors, the nearest at {distance.min():.2g} Å, "
                "is too large and dense to look for its symmetries; reduce the cutoff, or check "
                "the cell"
            )

    def seen_by(self, species: tuple[str, ...] | None) -> Environment:
        """The points of some species. With None: all points, with the same species."""
        if species is None:
            return replace(self, numbers=np.zeros_like(self.numbers))
        chosen = (self.numbers[:, None] == [atomic_numbers[symbol] for symbol in species]).any(1)
        return self if chosen.all() else self._of(chosen)

    def _of(self, chosen: NDArray[np.bool_]) -> Environment:
        displacements = self.displacements[chosen]
        if self.about_centroid and len(displacements):
            displacements = displacements - displacements.mean(axis=0)
        return replace(
            self,
            numbers=self.numbers[chosen],
            displacements=displacements,
            columns=self.columns[chosen],
            center_columns=self.center_columns[chosen],
        )


@dataclass(frozen=True)
class ReceptiveField:
    """The environments that one part of a descriptor sees.

    Attributes
    ----------
    environments
        The environments that determine the symmetry of the features.
    resolved
        The environments with only the points that the features see; their tuples of neighbors enter
        the features.
    body_order
        Nu + 1, or None if unknown.
    symmetry_known
        False for a row of the whole structure if that is periodic: its symmetry is a space group.
    rotation_invariant
        Whether rotations change no feature. Otherwise nothing is known of what the features see.
    """

    environments: list[Environment]
    resolved: list[Environment]
    body_order: int | None
    symmetry_known: bool = True
    rotation_invariant: bool = True


def unseen_species(atoms: Atoms, descriptor: Descriptor, ranges: Sequence[Range]) -> list[str]:
    """Elements that the descriptor sees neither as neighbors nor as centers, sorted.

    Parameters
    ----------
    atoms
        The structure.
    descriptor
        The descriptor of the Jacobian. It sees the elements in its attribute ``elements`` if it has
        one, otherwise those in ``species``; None stands for all elements.
    ranges
        The ranges of the Jacobian of ``atoms``.
    """
    elements: Collection[str] | None = getattr(descriptor, "elements", descriptor.species)
    unseen = set() if elements is None else symbols_in(atoms) - set(elements)
    if unseen:
        centers = np.unique(np.concatenate([known.centers for known in ranges]))
        unseen -= set(atoms.symbols[centers])
    return sorted(unseen)


def receptive_fields(
    view: View, atoms: Atoms, descriptor: Descriptor, tolerance: float
) -> list[ReceptiveField]:
    """The environments that each part of the Jacobian of ``view`` sees.

    Parameters
    ----------
    view
        A view of the Jacobian of ``atoms``.
    atoms
        The structure.
    descriptor
        The descriptor of the Jacobian.
    tolerance
        Points within this distance (Å) of the end of the reach are left out. They have no weight,
        and rounding would decide which of several equivalent ones are inside.

    Raises
    ------
    ValueError
        If the structure is periodic and the cutoff or the reach unknown, or an environment is too
        large.
    """
    ranges = view.jacobian.ranges
    parts: list[FeatureJacobian | None] = [None] * len(ranges)
    if isinstance(view.jacobian, FeatureJacobian | StackedJacobian):
        parts = list(view.jacobian.parts)
    correlations: Sequence[tuple[int | None, Sequence[str] | None]]
    correlations = [(descriptor.body_order, descriptor.species)] * len(ranges)
    if isinstance(descriptor, HasCorrelations):
        correlations = descriptor.correlations
    found = []
    for part, known, (order, symbols) in zip(parts, ranges, correlations, strict=True):
        species = None if symbols is None else tuple(symbols)
        if not np.isfinite(known.reach) and atoms.pbc.any():
            raise ValueError(
                "causes in a periodic structure need a descriptor with a finite cutoff and a "
                "finite reach"
            )
        around = _of_centers(view, atoms, known, tolerance)
        for environment in around:
            environment.check_size(tolerance)
        resolved = [environment.seen_by(species) for environment in around]
        if part is not None and (part.centers < 0).any():
            whole = _whole(view, atoms, known)
            found.append(
                ReceptiveField(
                    whole or around,
                    [_superposed(resolved)],
                    order,
                    bool(whole),
                    known.rotation_invariant,
                )
            )
            continue
        if part is not None and len(np.unique(part.centers)) < len(part.centers):
            # Rows of pairs or triplets: each sees its own points, and there is no sum over rows.
            resolved = _of_rows(view, part, atoms)
            order = order if part.per_image else None  # the points are not known
        invariant = known.rotation_invariant
        found.append(ReceptiveField(around, resolved, order, rotation_invariant=invariant))
    return found


def _whole(view: View, atoms: Atoms, known: Range) -> list[Environment]:
    """The structure about its centroid; empty if the structure is not isolated."""
    pieces = fragments(atoms, [known])
    if atoms.pbc.any() and (len(pieces) > 1 or len(pieces[0].axes)):
        return []
    positions = np.concatenate([piece.positions for piece in pieces])
    order = np.concatenate([piece.atoms for piece in pieces])
    column = _column_of(view, len(atoms))[order]
    relative = positions - positions.mean(axis=0)
    return [Environment(atoms.numbers[order], relative, column, np.full_like(column, -1), True)]


def _superposed(environments: Sequence[Environment]) -> Environment:
    """All environments about one center, as QUIP averages the neighbor densities."""
    return Environment(
        numbers=np.concatenate([environment.numbers for environment in environments]),
        displacements=np.concatenate([environment.displacements for environment in environments]),
        columns=np.concatenate([environment.columns for environment in environments]),
        center_columns=np.concatenate([environment.center_columns for environment in environments]),
    )


def _column_of(view: View, n_atoms: int) -> Ints:
    column = np.full(n_atoms, -1, dtype=np.intp)
    column[view.atoms] = np.arange(view.n_columns)
    return column


def _fragment_of(atoms: Atoms, known: Range) -> Ints:
    """The fragment of each atom. No message comes from other fragments, even within the reach."""
    label = np.zeros(len(atoms), dtype=np.intp)
    if known.reach > known.cutoff:
        for number, piece in enumerate(fragments(atoms, [known])):
            label[piece.atoms] = number
    return label


def _of_centers(view: View, atoms: Atoms, known: Range, tolerance: float) -> list[Environment]:
    """The environment of each center, with all species."""
    radius = known.reach - tolerance
    label = _fragment_of(atoms, known)
    if view.displacements is not None:
        distance = np.linalg.norm(view.displacements, axis=1)
        if view.center is None or view.center not in known.centers:
            return []
        connected = label[view.atoms] == label[view.center]
        inside = np.flatnonzero((distance < radius) & (distance > 1e-9) & connected)
        return [
            Environment(
                numbers=atoms.numbers[view.atoms[inside]],
                displacements=view.displacements[inside],
                columns=inside,
                center_columns=np.full_like(inside, distance.argmin()),
            )
        ]
    column = _column_of(view, len(atoms))
    pairs = known.within_reach(atoms) if np.isfinite(radius) else None
    near = Neighborhoods.of(atoms, pairs)
    if pairs is not None:
        inside = np.linalg.norm(near.vectors, axis=1) < radius
        near = near.where(inside & (label[near.center] == label[near.atom]))
    found = []
    for i in known.centers.tolist():
        own = near.by_center(i)
        found.append(
            Environment(
                numbers=atoms.numbers[near.atom[own]],
                displacements=near.vectors[own],
                columns=column[near.atom[own]],
                center_columns=column[near.center[own]],
            )
        )
    return found


def _of_rows(view: View, part: FeatureJacobian, atoms: Atoms) -> list[Environment]:
    """The points that each row of features depends on."""
    columns = view.column(part)
    bounds = part.bounds
    distance = np.linalg.norm(part.displacement, axis=1)
    found = []
    for row in range(len(part.centers)):
        blocks = np.arange(bounds[row], bounds[row + 1])
        middle, points = blocks[distance[blocks] < 1e-9], blocks[distance[blocks] >= 1e-9]
        found.append(
            Environment(
                numbers=atoms.numbers[part.atom[points]],
                displacements=part.displacement[points],
                columns=columns[points],
                center_columns=np.full_like(points, columns[middle[0]] if len(middle) else -1),
            )
        )
    return found
