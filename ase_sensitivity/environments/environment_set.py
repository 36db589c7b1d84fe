"""All environments of a set of structures, in little memory: projected features, and points."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.environments.place import Place
from ase_sensitivity.environments.projection import AXES, Projection
from ase_sensitivity.environments.row_sets import RowSet, row_sets
from ase_sensitivity.geometry.neighbors import Neighborhoods, neighbor_pairs
from ase_sensitivity.io.references import Task
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Floats, Ints

logger = logging.getLogger(__name__)

FIRST = 64
"""Number of structures from whose features the axes of the projection are taken; of fewer, if
these have more than KEPT bytes."""

KEPT = 2**28
"""Bytes of full features that are kept in memory; others are computed again when needed."""

AT_ONCE = 256
"""Number of structures whose columns are joined."""

LISTED = 256
"""Number of structures with neighbor lists that are kept in memory."""

Points = tuple[Ints, Floats]
"""Atomic numbers of shape (n,) and displacements from the center in Å, of shape (n, 3)."""

Columns = dict[str, Any]
"""Arrays by name, with an entry for each of some environments."""

Axes = tuple[int, int]
"""Number of features, and atomic number of the centers, 0 for axes that all have."""

Rows = Callable[[Task], "tuple[Ints, list[RowSet]]"]
Drawn = Callable[[Columns, int], Ints]
Measured = Callable[[int, Atoms, Ints, "list[RowSet]", Ints], Columns]


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
    drawn
        Chooses ``limit`` of some environments; by default at random. It gets a dictionary with the
        columns ``random``, ``kind``, ``number`` and ``projected``, and returns indices.
    measured
        Gives further columns of the environments of a structure, ``measured(number, atoms, centers,
        features, kind)``: a dictionary of arrays of shape (n_centers, ...).
    rows
        Gives centers and features of a structure; by default the descriptor does.
    by_element
        Environments of different elements are not compared: each element has its own axes, and
        projections are in single precision.

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
    projected, beyond
        Features on a few orthonormal axes, of shape (n, 32), and their distance from these, of
        shape (n,); see :class:`~ase_sensitivity.environments.projection.Projection`.
    norm
        Norm of the full features, of shape (n,).
    n_frames, n_seen
        Number of structures read, and of environments in them.
    columns
        All columns by name, also those that ``measured`` gave.

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
        *,
        drawn: Drawn | None = None,
        measured: Measured | None = None,
        rows: Rows | None = None,
        by_element: bool = False,
    ) -> None:
        self._begin(descriptor, rows)
        self._measured, self._by_element = measured, by_element
        parts: list[Columns] = []
        waiting: list[tuple[Columns, list[RowSet]]] = []
        n_kept = n_bytes = n_joined = 0
        for task in tasks:
            evaluated = self._evaluated(task)
            if evaluated is None:
                continue
            n_kept += len(evaluated[1])
            waiting.append(evaluated)
            n_bytes += sum(one.nbytes for one in evaluated[1])
            if self._projections or len(waiting) == FIRST or n_bytes > KEPT:
                parts += self._projected(waiting)
            if len(parts) - n_joined > AT_ONCE:  # many small arrays take more memory
                parts[n_joined:] = [_joined(parts[n_joined:])]
                n_joined += 1
            if limit is not None and n_kept > 2 * limit and not waiting:
                parts, n_kept, n_joined = [self._drawn(parts, limit, drawn)], limit, 1
            if progress is not None:
                progress(self.n_frames)
        parts += self._projected(waiting)
        if not parts:
            why = f": {self.errors[0][1]}" if self.errors else ""
            raise ValueError(f"`frames` has no structure to compare{why}")
        self._finish(self._drawn(parts, self.n_seen if limit is None else limit, drawn))
        if not any(rows for shape, *_ in self._kinds for rows, _ in shape):
            raise ValueError(f"no atom is a center of {descriptor!r}; check its species")

    def _begin(self, descriptor: Descriptor, rows: Rows | None = None) -> None:
        self.descriptor = descriptor
        self._rows: Rows = rows or (lambda task: row_sets(descriptor, task.atoms))
        self.structures: dict[int, Task] = {}
        self.errors: list[tuple[Place, str]] = []
        self.n_frames = self.n_seen = 0
        self._projections: dict[Axes, Projection] = {}
        self._by_element = False
        self._kinds: dict[Any, int] = {}
        self._features: OrderedDict[int, tuple[Ints, list[RowSet]]] = OrderedDict()
        self._bytes = 0
        self._points: OrderedDict[tuple[int, float], list[Points]] = OrderedDict()
        self._rng = np.random.default_rng(0)

    @classmethod
    def restored(
        cls,
        descriptor: Descriptor,
        structures: dict[int, Task],
        columns: Columns,
        projections: dict[Axes, Projection],
        kinds: Sequence[Any],
        n_frames: int,
        n_seen: int,
    ) -> EnvironmentSet:
        """A set from what its attributes were; no features are computed."""
        found = cls.__new__(cls)
        found._begin(descriptor)
        found.structures, found._projections = structures, projections
        found._kinds = {kind: number for number, kind in enumerate(kinds)}
        found.n_frames, found.n_seen = n_frames, n_seen
        found._finish(columns)
        return found

    @property
    def kinds(self) -> list[Any]:
        """What each kind of environments is made of."""
        return list(self._kinds)

    @property
    def projections(self) -> dict[Axes, Projection]:
        """The projection of features, by their number and the atomic number of the center."""
        return dict(self._projections)

    def _finish(self, columns: Columns) -> None:
        self.columns = columns
        self.structure, self.center = columns["structure"], columns["center"]
        self.number, self.kind = columns["number"], columns["kind"]
        self.projected, self.beyond = columns["projected"], columns["beyond"]
        self.norm = columns["norm"]

    def _evaluated(self, task: Task) -> tuple[Columns, list[RowSet]] | None:
        """All columns of a structure but the projections, and the features; None if it failed."""
        number = self.n_frames
        self.n_frames += 1
        try:
            centers, features = self._read(number, task)
            atoms = self.structures[number].atoms
            atomic = np.where(centers >= 0, atoms.numbers[centers], 0)
            kind = np.array([self.kind_of(one, atoms, new=True) for one in features])
            more: Columns = {}
            if self._measured is not None:
                more = self._measured(number, atoms, centers, features, kind)
        except Exception as error:  # one structure must not stop the others
            logger.info("%s@%d failed", task.source, task.index, exc_info=True)
            self.structures.pop(number, None)
            self._failed(task, reason(error))
            return None
        if task.error is not None:
            self._failed(task, task.error)
        self.n_seen += len(centers)
        columns = {
            "structure": np.full(len(centers), number),
            "center": centers,
            "number": atomic,
            "kind": kind,
            "norm": np.array([one.norm for one in features]),
            "random": self._rng.random(len(centers)),
        }
        return columns | more, features

    def _projected(self, waiting: list[tuple[Columns, list[RowSet]]]) -> list[Columns]:
        """All columns of some structures, which are removed from the list."""
        samples: dict[Axes, list[Floats]] = {}
        for columns, features in waiting:
            for one, number in zip(features, columns["number"].tolist(), strict=True):
                axes = len(one.vector), number if self._by_element else 0
                samples.setdefault(axes, []).append(one.vector)
        for axes, vectors in samples.items():
            if axes not in self._projections:
                self._projections[axes] = Projection(vectors)
        done = []
        for columns, features in waiting:
            projected, beyond = self.project(features, columns["number"])
            if self._by_element:
                projected, beyond = projected.astype(np.float32), beyond.astype(np.float32)
            done.append(columns | {"projected": projected, "beyond": beyond})
        waiting.clear()
        return done

    def project(self, features: Sequence[RowSet], numbers: Ints) -> tuple[Floats, Floats]:
        """Coordinates on the axes, of shape (n, 32), and the distances from these, (n,).

        Parameters
        ----------
        features
            Those of environments of the same kinds as in the set.
        numbers
            Atomic numbers of their centers, of shape (n,).
        """
        members: dict[Axes, list[int]] = {}
        for k, (one, number) in enumerate(zip(features, numbers.tolist(), strict=True)):
            axes = len(one.vector), number
            members.setdefault(axes if axes in self._projections else (axes[0], 0), []).append(k)
        projected, beyond = np.zeros((len(features), AXES)), np.zeros(len(features))
        for axes, own in members.items():
            vectors = np.array([features[k].vector for k in own])
            projected[own], beyond[own] = self._projections[axes](vectors)
        return projected, beyond

    def __len__(self) -> int:
        return len(self.structure)

    @property
    def complete(self) -> bool:
        """Whether all environments were kept."""
        return len(self) == self.n_seen

    def features(self, environment: int) -> RowSet:
        """All features of an environment."""
        centers, features = self.features_of(int(self.structure[environment]))
        return features[int(np.searchsorted(centers, self.center[environment]))]

    def features_of(self, number: int) -> tuple[Ints, list[RowSet]]:
        """The centers of a structure, ascending, and the features of each."""
        if number in self._features:
            self._features.move_to_end(number)
        else:
            self._keep(number, *self._rows(self.structures[number]))
        return self._features[number]

    def rows_of(self, number: int) -> Ints:
        """The environments of a structure that are in the set."""
        first, last = np.searchsorted(self.structure, [number, number + 1]).tolist()
        return np.arange(first, last)

    def points(self, environment: int, radius: float) -> Points:
        """The points within ``radius`` (Å) of the center of an environment, nearest first.

        For the structure as a whole, all points about its centroid.
        """
        number, center = int(self.structure[environment]), int(self.center[environment])
        if center >= 0:
            return self.points_about(number, center, radius)
        return whole_points(self.structures[number].atoms)

    def points_about(self, structure: int, atom: int, radius: float) -> Points:
        """The points within ``radius`` (Å) of an atom of a structure, nearest first."""
        key = (structure, radius)
        if key not in self._points:
            self._points[key] = points_of(self.structures[structure].atoms, radius)
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
        centers, features = self._rows(task)
        self.structures[number] = task
        self._keep(number, centers, features)
        return centers, features

    def _failed(self, task: Task, why: str) -> None:
        self.errors.append((Place(task.index, None, task.source), why))

    def kind_of(self, features: RowSet, atoms: Atoms, *, new: bool = False) -> int:
        """The kind of an environment; -1 for one that is in no structure of the set."""
        made_of: tuple[Any, ...] = ()
        if len(features.vector) == 0:
            made_of = tuple(np.sort(atoms.numbers).tolist())
        key = (features.shape, made_of)
        if new:
            return self._kinds.setdefault(key, len(self._kinds))
        # A kind may be known from a structure alone that failed afterwards.
        known = any(len(features.vector) == length for length, _ in self._projections)
        return self._kinds.get(key, -1) if known else -1

    def _keep(self, number: int, centers: Ints, features: list[RowSet]) -> None:
        self._features[number] = centers, features
        self._bytes += sum(one.nbytes for one in features)
        while self._bytes > KEPT and len(self._features) > 1:
            removed = self._features.popitem(last=False)[1][1]
            self._bytes -= sum(one.nbytes for one in removed)

    def _drawn(self, parts: list[Columns], limit: int, drawn: Drawn | None) -> Columns:
        """The environments that are kept: by default a uniform sample at any time."""
        columns = _joined(parts)
        if len(columns["random"]) <= limit:
            return columns
        if drawn is None:
            chosen = np.argsort(columns["random"], kind="stable")[:limit]
        else:
            chosen = drawn(columns, limit)
        chosen = np.sort(chosen)
        columns = {name: column[chosen] for name, column in columns.items()}
        kept = set(columns["structure"].tolist())
        self.structures = {n: one for n, one in self.structures.items() if n in kept}
        return columns


def _joined(parts: list[Columns]) -> Columns:
    """The columns of several parts, which are emptied: there is one column twice at a time."""
    return {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}


def points_of(atoms: Atoms, radius: float) -> list[Points]:
    """The points about every atom."""
    near = neighborhoods(atoms, radius).by_distance()
    numbers = atoms.numbers[near.atom]
    return [(numbers[own], near.vectors[own]) for own in map(near.by_center, range(len(atoms)))]


def whole_points(atoms: Atoms) -> Points:
    """The points of a structure as a whole, about its centroid."""
    return atoms.numbers, atoms.positions - atoms.positions.mean(axis=0)


def near_centers(atoms: Atoms, centers: Ints, radius: float) -> Neighborhoods | None:
    """The neighbors of all atoms within a radius (Å); None if the center is the whole structure."""
    return neighborhoods(atoms, radius) if len(centers) == 0 or centers[0] >= 0 else None


def neighborhoods(atoms: Atoms, radius: float) -> Neighborhoods:
    """The neighbors of all atoms within a radius (Å)."""
    if atoms.pbc.any() and not np.isfinite(radius):
        raise ValueError(
            "environments of periodic structures need a descriptor with a finite cutoff"
        )
    pairs = neighbor_pairs(atoms, radius) if np.isfinite(radius) else None
    return Neighborhoods.of(atoms, pairs)
