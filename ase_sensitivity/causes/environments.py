"""The surroundings of every centre, and how displacements of a view's columns change them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from ase import Atoms
from ase.data import atomic_numbers

from ase_sensitivity.descriptors.base import (
    Descriptor,
    FeatureJacobian,
    Floats,
    Ints,
    StreamedJacobian,
)
from ase_sensitivity.spectrum.rigid import fragments
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.structure import neighbor_pairs


@dataclass(frozen=True)
class Environment:
    """Points about a centre, and the columns of a view that move them.

    Attributes
    ----------
    center
        The atom in the middle; -1 for a whole fragment about its centroid.
    numbers
        Atomic numbers of the points, of shape (n,).
    displacements
        From the centre to the points in Å, of shape (n, 3). Images of one atom are several points.
    columns
        The column that moves each point, of shape (n,); -1 for a point that stays in place.
    center_column
        The column that moves the centre, or -1.
    """

    center: int
    numbers: Ints
    displacements: Floats
    columns: Ints
    center_column: int

    def relative(self, modes: Floats) -> Floats:
        """Displacements of the points relative to the centre, of shape (3 n, m).

        Parameters
        ----------
        modes
            Displacements of the columns, of shape (n_columns, 3, m).
        """
        moved: Floats = np.where(self.columns[:, None, None] < 0, 0.0, modes[self.columns])
        if self.center < 0:
            moved = moved - moved.mean(axis=0)
        elif self.center_column >= 0:
            moved = moved - modes[self.center_column]
        return moved.reshape(-1, modes.shape[2])

    def internal(self, modes: Floats, tolerance: float) -> Floats:
        """What remains of :meth:`relative` without the rotations about the centre, (3 n, m)."""
        moved = self.relative(modes)
        turns = np.cross(np.eye(3)[:, None], self.displacements[None]).reshape(3, -1).T
        u, s, _ = scipy.linalg.svd(turns, full_matrices=False)
        u = u[:, s > tolerance * np.sqrt(len(self.numbers))]  # not about the axis of a line
        return moved - u @ (u.T @ moved)

    def seen_by(self, species: tuple[str, ...] | None) -> Environment:
        """The points of the species told apart; None: of all of them, taken for one species."""
        if species is None:
            return replace(self, numbers=np.zeros_like(self.numbers))
        seen = np.isin(self.numbers, [atomic_numbers[symbol] for symbol in species])
        return replace(
            self,
            numbers=self.numbers[seen],
            displacements=self.displacements[seen],
            columns=self.columns[seen],
        )


@dataclass(frozen=True)
class Sight:
    """What one part of a descriptor looks at.

    Attributes
    ----------
    environments
        Those whose symmetry the features have.
    groups
        Those that enter the features, with the points that the features see; the contributions of
        the environments of one group are summed.
    body_order
        Nu + 1, or None.
    whole_crystal
        Whether there is a row of the whole structure and that is periodic: its symmetry is that of
        a space group, of which ``environments`` know a part.
    """

    environments: list[Environment]
    groups: list[list[Environment]]
    body_order: int | None
    whole_crystal: bool = False


def sights(view: View, atoms: Atoms, descriptor: Descriptor, tolerance: float) -> list[Sight]:
    """What each part of the Jacobian of ``view`` looks at.

    Parameters
    ----------
    view
        A view of the Jacobian of ``atoms``.
    atoms
        The structure.
    descriptor
        Where the Jacobian is from.
    tolerance
        Points nearer to the cutoff than this (Å) are left out: they have no weight, and rounding
        would decide which of several equivalent ones are inside.

    Raises
    ------
    ValueError
        If the structure is periodic and the cutoff unknown.
    """
    ranges = view.jacobian.ranges
    streamed = isinstance(view.jacobian, StreamedJacobian)
    parts = [None] * len(ranges) if streamed else list(view.jacobian.parts)
    default = [(descriptor.body_order, descriptor.species)] * len(ranges)
    found = []
    for part, (cutoff, centers), (order, told) in zip(
        parts, ranges, getattr(descriptor, "correlations", default), strict=True
    ):
        species = None if told is None else tuple(told)
        if not np.isfinite(cutoff) and atoms.pbc.any():
            raise ValueError(
                "causes in a periodic structure need a descriptor whose cutoff is finite"
            )
        around = _of_centers(view, atoms, cutoff - tolerance, centers)
        groups = [[environment.seen_by(species)] for environment in around]
        if part is not None and (part.centers < 0).any():
            pieces = fragments(atoms, [(cutoff, centers)])
            crystal = any(len(piece.axes) for piece in pieces)
            if not crystal:
                column = _column_of(view, len(atoms))
                around = [
                    Environment(
                        center=-1,
                        numbers=atoms.numbers[piece.atoms],
                        displacements=piece.positions - piece.positions.mean(axis=0),
                        columns=column[piece.atoms],
                        center_column=-1,
                    )
                    for piece in pieces
                ]
            pooled = [environment for group in groups for environment in group]
            found.append(Sight(around, [pooled], order, crystal))
            continue
        if part is not None and len(np.unique(part.centers)) < len(part.centers):
            # Rows of pairs or triplets: each sees its own points, and no sum is taken over them.
            groups = [[environment] for environment in _of_rows(view, part, atoms)]
        found.append(Sight(around, groups, order))
    return found


def _column_of(view: View, n_atoms: int) -> Ints:
    column = np.full(n_atoms, -1, dtype=np.intp)
    column[view.atoms] = np.arange(view.n_columns)
    return column


def _of_centers(view: View, atoms: Atoms, cutoff: float, centers: Ints) -> list[Environment]:
    """The environment of each centre, all species included."""
    if view.displacements is not None:
        distance = np.linalg.norm(view.displacements, axis=1)
        if view.center is None or view.center not in centers:
            return []
        inside = np.flatnonzero((distance < cutoff) & (distance > 1e-9))
        return [
            Environment(
                center=view.center,
                numbers=atoms.numbers[view.atoms[inside]],
                displacements=view.displacements[inside],
                columns=inside,
                center_column=int(distance.argmin()),
            )
        ]
    column = _column_of(view, len(atoms))
    if np.isfinite(cutoff):
        pairs = neighbor_pairs(atoms, cutoff)
        first, second = pairs.first, pairs.second
        vectors = atoms.positions[second] - atoms.positions[first] + pairs.shift @ atoms.cell.array
    else:
        first, second = np.nonzero(~np.eye(len(atoms), dtype=bool))
        vectors = atoms.positions[second] - atoms.positions[first]
    order = np.argsort(first, kind="stable")
    bounds = np.searchsorted(first[order], np.arange(len(atoms) + 1))
    found = []
    for i in centers.tolist():
        chosen = order[bounds[i] : bounds[i + 1]]
        found.append(
            Environment(
                center=i,
                numbers=atoms.numbers[second[chosen]],
                displacements=vectors[chosen],
                columns=column[second[chosen]],
                center_column=int(column[i]),
            )
        )
    return found


def _of_rows(view: View, part: FeatureJacobian, atoms: Atoms) -> list[Environment]:
    """The points that each row of features depends on."""
    columns = view.column(part)
    bounds = np.searchsorted(part.row, np.arange(len(part.centers) + 1))
    distance = np.linalg.norm(part.displacement, axis=1)
    found = []
    for row, center in enumerate(part.centers.tolist()):
        blocks = np.arange(bounds[row], bounds[row + 1])
        middle, points = blocks[distance[blocks] < 1e-9], blocks[distance[blocks] >= 1e-9]
        found.append(
            Environment(
                center=center,
                numbers=atoms.numbers[part.atom[points]],
                displacements=part.displacement[points],
                columns=columns[points],
                center_column=int(columns[middle[0]]) if len(middle) else -1,
            )
        )
    return found
