"""All environments of a set of structures, in little memory: features on few axes, and points."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.dataset.evaluation import Task
from ase_sensitivity.dataset.pairs import Place
from ase_sensitivity.descriptors.base import Descriptor, Floats, Ints, rows_of
from ase_sensitivity.plain_text import reason
from ase_sensitivity.structure import neighbor_pairs

logger = logging.getLogger(__name__)

AXES = 16
"""Directions in feature space that are kept of every environment. A projection shortens distances,
so whoever is near is near there as well."""

KEPT = 2**28
"""Bytes of full features that are kept; others are computed again when needed."""

LISTED = 256
"""Structures whose neighbour lists are kept."""

Points = tuple[Ints, Floats]
"""Atomic numbers of shape (n,) and displacements from the centre in Å, of shape (n, 3)."""


class Surroundings:
    """The environments of a descriptor's centres in many structures.

    Parameters
    ----------
    tasks
        Structures with their labels; read once.
    descriptor
        With one row of features per centre, or one per structure.
    limit
        Environments kept at most, chosen at random from all of them; None keeps all.
    progress
        Called with the number of structures read so far.

    Attributes
    ----------
    structures
        Those that have environments here, by their number in the input.
    structure, center, number
        Of each environment the number of its structure, the atom at its centre (-1: the structure
        as a whole) and that atom's atomic number (0); each of shape (n,).
    errors
        Where environments or labels could not be had, and why.
    projected
        Features on a few orthonormal axes, of shape (n, at most 16).
    norm
        Norm of the full features, of shape (n,).
    n_frames, n_seen
        Structures read and environments in them.

    Raises
    ------
    ValueError
        If nothing is left to compare.
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
        self._axes: Floats | None = None
        self._features: OrderedDict[int, tuple[Ints, Floats]] = OrderedDict()
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
            norm = np.linalg.norm(features, axis=1)
            lot = rng.random(len(centers))
            own = np.full(len(centers), number)
            parts.append((own, centers, atomic, features @ self._axes_for(features), norm, lot))
            self.n_seen += len(centers)
            n_kept += len(centers)
            if limit is not None and n_kept > 2 * limit:
                parts, n_kept = [self._drawn(parts, limit)], limit
            if progress is not None:
                progress(self.n_frames)
        if not parts:
            why = f": {self.errors[0][1]}" if self.errors else ""
            raise ValueError(f"`frames` has no structure to compare{why}")
        self.structure, self.center, self.number, self.projected, self.norm, _ = self._drawn(
            parts, self.n_seen if limit is None else limit
        )
        if len(self.structure) == 0:
            raise ValueError(f"no atom is a centre of {descriptor!r}; check its species")

    def __len__(self) -> int:
        return len(self.structure)

    @property
    def complete(self) -> bool:
        """Whether all environments were kept."""
        return len(self) == self.n_seen

    def features(self, chosen: Ints) -> Floats:
        """Full features of some environments, of shape (m, n_features)."""
        found = []
        for i in chosen.tolist():
            number = int(self.structure[i])
            if number in self._features:
                self._features.move_to_end(number)
            else:
                self._keep(number, *self._rows(self.structures[number].atoms))
            centers, features = self._features[number]
            found.append(features[np.searchsorted(centers, self.center[i])])
        return np.array(found).reshape(len(found), -1)

    def points(self, environment: int, radius: float) -> Points:
        """The points within ``radius`` (Å) of the centre of an environment, nearest first."""
        number, center = int(self.structure[environment]), int(self.center[environment])
        key = (number, radius)
        if key not in self._points:
            self._points[key] = _points(self.structures[number].atoms, radius, center < 0)
            if len(self._points) > LISTED:
                self._points.popitem(last=False)
        return self._points[key][max(center, 0)]

    def place(self, environment: int) -> Place:
        """Where an environment is."""
        structure = self.structures[int(self.structure[environment])]
        center = int(self.center[environment])
        return Place(structure.index, None if center < 0 else center, structure.source)

    def force(self, environment: int) -> Floats | None:
        """The reference force on the centre in eV/Å, of shape (3,)."""
        forces = self.structures[int(self.structure[environment])].forces
        center = int(self.center[environment])
        return None if forces is None or center < 0 else forces[center]

    def _read(self, number: int, task: Task) -> tuple[Ints, Floats]:
        """Centres and features of a structure, which is put among the others."""
        if len(task.atoms) == 0:
            raise ValueError(task.error or "the frame has no atoms")
        centers, features = self._rows(task.atoms)
        self._axes_for(features)
        self.structures[number] = task
        self._keep(number, centers, features)
        return centers, features

    def _failed(self, task: Task, why: str) -> None:
        self.errors.append((Place(task.index, None, task.source), why))

    def _axes_for(self, features: Floats) -> Floats:
        """Orthonormal axes of shape (n_features, at most 16), chosen at random once."""
        if self._axes is None:
            random = np.random.default_rng(0).normal(size=(features.shape[1], AXES))
            self._axes = scipy.linalg.qr(random, mode="economic")[0]
        if features.shape[1] != len(self._axes):
            raise ValueError(
                f"there are {features.shape[1]} features per row, but {len(self._axes)} in the "
                "first structure"
            )
        return self._axes

    def _rows(self, atoms: Atoms) -> tuple[Ints, Floats]:
        """Centres, ascending, and their features, those of several parts side by side."""
        rows = rows_of(self.descriptor, atoms)
        centers = np.unique(np.concatenate([own for _, own in rows]))
        if len(centers) > 1 and centers[0] < 0:
            raise ValueError(
                "features of centres and of whole structures cannot be compared at once"
            )
        if centers.size and centers[0] < 0 and atoms.pbc.any():
            raise ValueError(
                "features of whole structures can be compared for isolated structures only"
            )
        side_by_side = []
        for features, own in rows:
            if len(np.unique(own)) < len(own):
                raise ValueError(
                    f"{self.descriptor!r} gives several rows of features per centre; environments "
                    "are compared with one row each"
                )
            wide = np.zeros((len(centers), features.shape[1]))
            wide[np.searchsorted(centers, own)] = features
            side_by_side.append(wide)
        found = np.concatenate(side_by_side, axis=1)
        if not np.isfinite(found).all():
            raise ValueError("the descriptor gave features that are not finite")
        return centers, found

    def _keep(self, number: int, centers: Ints, features: Floats) -> None:
        self._features[number] = centers, features
        self._bytes += features.nbytes
        while self._bytes > KEPT and len(self._features) > 1:
            self._bytes -= self._features.popitem(last=False)[1][1].nbytes

    def _drawn(self, parts: list[tuple[Any, ...]], limit: int) -> tuple[Any, ...]:
        """The environments with the smallest lots, which is a fair choice at any time."""
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        chosen = np.sort(np.argsort(columns[-1], kind="stable")[:limit])
        if len(chosen) < len(columns[0]):
            columns = [column[chosen] for column in columns]
            kept = set(columns[0].tolist())
            self.structures = {n: one for n, one in self.structures.items() if n in kept}
        return tuple(columns)


def _points(atoms: Atoms, radius: float, whole: bool) -> list[Points]:
    """The points about every atom, or about the centroid."""
    if whole:
        return [(atoms.numbers, atoms.positions - atoms.positions.mean(axis=0))]
    if np.isfinite(radius):
        pairs = neighbor_pairs(atoms, radius)
        first, second = pairs.first, pairs.second
        vectors = atoms.positions[second] - atoms.positions[first] + pairs.shift @ atoms.cell.array
    elif atoms.pbc.any():
        raise ValueError(
            "environments of periodic structures need a descriptor whose cutoff is finite"
        )
    else:
        first, second = np.nonzero(~np.eye(len(atoms), dtype=bool))
        vectors = atoms.positions[second] - atoms.positions[first]
    order = np.lexsort((np.linalg.norm(vectors, axis=1), first))
    bounds = np.searchsorted(first[order], np.arange(len(atoms) + 1))
    numbers, vectors = atoms.numbers[second[order]], vectors[order]
    return [
        (numbers[bounds[i] : bounds[i + 1]], vectors[bounds[i] : bounds[i + 1]])
        for i in range(len(atoms))
    ]
