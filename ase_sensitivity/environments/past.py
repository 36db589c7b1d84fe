"""The past of a run as the reference of its present."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.environments.comparison import Comparison
from ase_sensitivity.environments.reference_set import ReferenceSet
from ase_sensitivity.environments.row_sets import RowSet, row_sets
from ase_sensitivity.io.references import Task
from ase_sensitivity.types import Floats, Ints

SOURCE = "run"
"""The source of frames of the run's own past."""

MOST_FRAMES = 1000
"""Most frames of the past that are kept."""

MOST_BYTES = 2**27
"""Most bytes of their features."""

GROWTH = 1.25
"""The set is made anew when the past has grown by this factor."""

BEGIN = 4
"""Number of frames of the first set."""


class Past:
    """Some frames of a run so far, at equal distances.

    When there are too many, every second one goes, and only every second of the further ones is
    kept. So memory does not grow, and the whole past is there.
    """

    def __init__(self, descriptor: Descriptor, most: int = MOST_FRAMES) -> None:
        self.descriptor = descriptor
        self._most = most
        self._frames: list[tuple[Task, tuple[Ints, list[RowSet]]]] = []
        self._n_seen, self._every, self._n_indexed = 0, 1, 0
        self._set: ReferenceSet | None = None
        self._before: tuple[Atoms, tuple[Ints, list[RowSet]]] | None = None
        self.secant = float("nan")

    @property
    def n_frames(self) -> int:
        """Number of frames that are kept."""
        return len(self._frames)

    def compare(self, atoms: Atoms, number: int) -> Comparison | None:
        """Compare a structure with the past, and add it; None as long as there is no past.

        Parameters
        ----------
        atoms
            The structure.
        number
            Its number, by which it is called later on, also as ``twin.frame``: the step of the run.
        """
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        rows = row_sets(self.descriptor, bare)
        found = None if self._set is None else self._set.compare(bare, rows=rows)
        if found is not None and (twin := found.twin) is not None:
            # Its number among the kept frames would change with each thinning.
            found = replace(found, twin=replace(twin, frame=twin.place.frame))
        self.secant = self._secant(bare, rows)
        self._before = bare, rows
        if self._n_seen % self._every == 0:
            self._frames.append((Task(SOURCE, number, bare), rows))
            self._thin(sum(one.nbytes for one in rows[1]))
        self._n_seen += 1
        if len(self._frames) >= max(BEGIN, GROWTH * self._n_indexed):
            self._index()
        return found

    def _thin(self, nbytes: int) -> None:
        most = min(self._most, max(2 * BEGIN, MOST_BYTES // max(nbytes, 1)))
        if len(self._frames) > most:
            self._frames = self._frames[::2]
            self._every *= 2
            self._index()

    def _index(self) -> None:
        rows = {id(task): one for task, one in self._frames}
        tasks = [task for task, _ in self._frames]
        self._set = ReferenceSet.of_tasks(tasks, self.descriptor, lambda task: rows[id(task)])
        self._n_indexed = len(tasks)

    def _secant(self, atoms: Atoms, rows: tuple[Ints, list[RowSet]]) -> float:
        """How much the features changed since the call before, over what is usual for the step."""
        if self._before is None or self._set is None:
            return float("nan")
        before, (centers, features) = self._before
        same = np.array_equal(before.numbers, atoms.numbers) and np.array_equal(centers, rows[0])
        moved = _displaced(before, atoms) if same else 0.0
        changes = []
        for center, old, new in zip(centers.tolist(), features, rows[1], strict=same):
            kind = self._set.environments.kind_of(new, atoms)
            group = 0 if center < 0 else int(atoms.numbers[center]), kind
            scale = self._set.scales.by_group.get(group)
            if scale is not None and scale.slope > 0 and old.shape == new.shape:
                changes.append(old.distance(new) / scale.slope)
        if not changes or moved < 1e-9:
            return float("nan")
        return float(np.sqrt(np.mean(np.square(changes))) / moved)


def _displaced(before: Atoms, after: Atoms) -> float:
    """Root mean square displacement of the atoms in Å, without translation and rotation."""
    moved: Floats = after.positions - before.positions
    if after.pbc.any():
        moved = find_mic(moved, after.cell, after.pbc)[0]
        moved = moved - moved.mean(axis=0)
    else:
        a = before.positions - before.positions.mean(axis=0)
        b = after.positions - after.positions.mean(axis=0)
        u, _, vt = np.linalg.svd(b.T @ a)
        moved = a @ (u @ vt).T - b
    return float(np.sqrt((moved**2).sum(axis=1).mean()))
