"""All environments of a set of structures, in little memory: projected features, and points."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.environments.place import Place
from ase_sensitivity.environments.row_sets import RowSet, row_sets
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.geometry.neighbors import Neighborhoods, neighbor_pairs
from ase_sensitivity.io.references import Task
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

AXES = 16
"""Number of axes in feature space on which every environment is projected. A projection shortens
distances, so near environments stay near."""

KEPT = 2**28
"""Bytes of full features that are kept in memory; others are computed again when needed."""

LISTED = 256
"""Number of structures with neighbor lists that are kept in memory."""

Points = tuple[Ints, Floats]
"""Atomic numbers of shape (n,) and displacements from the center in Å, of shape (n, 3)."""


class EnvironmentSet:
    """The environments of a descriptor's centers in many structures.

    Parameters
    ----------
    tasks
        Structures with their labels; read once.
    descriptor
        A descriptor with any rows of features, of centers or of the structure as a whole.
    limit
        Largest number of environments to keep, chosen at random; None keeps all.
    progress
        Called with the number of structures read so far.

    Attributes
    ----------
    structures
        The structures with environments in this set, by their number in the input.
    structure, center, number
        For each environment, the number of its structure, the atom at its center and that atom's
        atomic number; -1 and 0 if the environment is the structure as a whole. Each of shape (n,).
    kind
        A number for each environment, of shape (n,). Environments of different kinds are not
        compared: they have different numbers of rows. Environments without rows differ in kind if
        the elements of their structures differ.
    errors
        Structures without environments or labels, and why.
    projected
        Features on a few orthonormal axes, of shape (n, at most 16).
    norm
        Norm of the full features, of shape (n,).
    n_frames, n_seen
        Number of structures read, and of environments in them.

    Raises
    ------
    ValueError
        If there is no environment to compare.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        descriptor: Descriptor,
        limit: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.structures: dict[int, Task] = {}
        self.errors: list[tuple[Place, str]] = []
        self.n_frames = self.n_seen = 0
        self._axes: dict[int, Floats] = {}
        self._kinds: dict[Any, int] = {}
        self._features: OrderedDict[int, tuple[Ints, list[RowSet]]] = OrderedDict()
        self._bytes = 0
        self._points: OrderedDict[tuple[int, float], list[Points]] = OrderedDict()
        rng = np.random.default_rng(0)
        parts: list[tuple[Any, ...]] = []
        n_kept = 0
        for task in tasks:
            number = self.n_frames
            self.n_frames += 1
            try:
                centers, features = self._read(number, task)
            except Exception as error:  # one structure must not stop the others
                logger.info("%s@%d failed", task.source, task.index, exc_info=True)
                self._failed(task, reason(error))
                continue
            if task.error is not None:
                self._failed(task, task.error)
            atomic = np.where(centers >= 0, self.structures[number].atoms.numbers[centers], 0)
            norm = np.array([one.norm for one in features])
            kind = np.array([self._kind_of(one, task.atoms) for one in features])
            projected = np.array([one.vector @ self._axes_of(len(one.vector)) for one in features])
            random = rng.random(len(centers))
            own = np.full(len(centers), number)
            parts.append((own, centers, atomic, kind, projected, norm, random))
            self.n_seen += len(centers)
            n_kept += len(centers)
            if limit is not None and n_kept > 2 * limit:
                parts, n_kept = [self._drawn(parts, limit)], limit
            if progress is not None:
                progress(self.n_frames)
        if not parts:
            why = f": {self.errors[0][1]}" if self.errors else ""
            raise ValueError(f"`frames` has no structure to compare{why}")
        columns = self._drawn(parts, self.n_seen if limit is None else limit)
        self.structure, self.center, self.number, self.kind, self.projected, self.norm, _ = columns
        if not any(rows for shape, *_ in self._kinds for rows, _ in shape):
            raise ValueError(f"no atom is a center of {descriptor!r}; check its species")

    def __len__(self) -> int:
        return len(self.structure)

    @property
    def complete(self) -> bool:
        """Whether all environments were kept."""
        return len(self) == self.n_seen

    def features(self, environment: int) -> RowSet:
        """All features of an environment."""
        number = int(self.structure[environment])
        if number in self._features:
            self._features.move_to_end(number)
        else:
            self._keep(number, *row_sets(self.descriptor, self.structures[number].atoms))
        centers, features = self._features[number]
        return features[int(np.searchsorted(centers, self.center[environment]))]

    def points(self, environment: int, radius: float) -> Points:
        """The points within ``radius`` (Å) of the center of an environment, nearest first.

        For the structure as a whole, all points about its centroid.
        """
        number, center = int(self.structure[environment]), int(self.center[environment])
        if center >= 0:
            return self.points_about(number, center, radius)
        atoms = self.structures[number].atoms
        return atoms.numbers, atoms.positions - atoms.positions.mean(axis=0)

    def points_about(self, structure: int, atom: int, radius: float) -> Points:
        """The points within ``radius`` (Å) of an atom of a structure, nearest first."""
        key = (structure, radius)
        if key not in self._points:
            self._points[key] = _points(self.structures[structure].atoms, radius)
            if len(self._points) > LISTED:
                self._points.popitem(last=False)
        return self._points[key][atom]

    def place(self, environment: int) -> Place:
        """The place of an environment."""
        structure = self.structures[int(self.structure[environment])]
        center = int(self.center[environment])
        return Place(structure.index, None if center < 0 else center, structure.source)

    def force(self, environment: int) -> Floats | None:
        """The reference force on the center in eV/Å, of shape (3,)."""
        forces = self.structures[int(self.structure[environment])].forces
        center = int(self.center[environment])
        return None if forces is None or center < 0 else forces[center]

    def _read(self, number: int, task: Task) -> tuple[Ints, list[RowSet]]:
        """Centers and features of a structure, which is added to the set."""
        if len(task.atoms) == 0:
            raise ValueError(task.error or "the frame has no atoms")
        centers, features = row_sets(self.descriptor, task.atoms)
        self.structures[number] = task
        self._keep(number, centers, features)
        return centers, features

    def _failed(self, task: Task, why: str) -> None:
        self.errors.append((Place(task.index, None, task.source), why))

    def _kind_of(self, features: RowSet, atoms: Atoms) -> int:
        made_of: tuple[Any, ...] = ()
        if len(features.vector) == 0:
            made_of = tuple(np.sort(atoms.numbers).tolist())
        return self._kinds.setdefault((features.shape, made_of), len(self._kinds))

    def _axes_of(self, length: int) -> Floats:
        """Orthonormal axes as columns, of shape (length, 16), and zeros beyond ``length``."""
        if length not in self._axes:
            random = np.random.default_rng(0).normal(size=(length, AXES))
            axes = np.zeros((length, AXES))
            axes[:, : min(length, AXES)] = np.linalg.qr(random)[0]
            self._axes[length] = axes
        return self._axes[length]

    def _keep(self, number: int, centers: Ints, features: list[RowSet]) -> None:
        self._features[number] = centers, features
        self._bytes += sum(one.nbytes for one in features)
        while self._bytes > KEPT and len(self._features) > 1:
            removed = self._features.popitem(last=False)[1][1]
            self._bytes -= sum(one.nbytes for one in removed)

    def _drawn(self, parts: list[tuple[Any, ...]], limit: int) -> tuple[Any, ...]:
        """The environments with the smallest random numbers: a uniform sample at any time."""
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        chosen = np.sort(np.argsort(columns[-1], kind="stable")[:limit])
        if len(chosen) < len(columns[0]):
            columns = [column[chosen] for column in columns]
            kept = set(columns[0].tolist())
            self.structures = {n: one for n, one in self.structures.items() if n in kept}
        return tuple(columns)


def _points(atoms: Atoms, radius: float) -> list[Points]:
    """The points about every atom."""
    if atoms.pbc.any() and not np.isfinite(radius):
        raise ValueError(
            "environments of periodic structures need a descriptor with a finite cutoff"
        )
    pairs = neighbor_pairs(atoms, radius) if np.isfinite(radius) else None
    near = Neighborhoods.of(atoms, pairs).by_distance()
    numbers = atoms.numbers[near.atom]
    return [(numbers[own], near.vectors[own]) for own in map(near.by_center, range(len(atoms)))]
