"""Frames of a set with features in common, and the unavoidable force error on them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import scipy

from ase_sensitivity.dataset.pairs.joint import BoundedFrame, bounded_frame, jointly_lost
from ase_sensitivity.dataset.pairs.joint_bound import FrameClass, JointBound
from ase_sensitivity.dataset.pairs.result import Conflict, Pair
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.environments.place import Place
from ase_sensitivity.io.references import Task

logger = logging.getLogger(__name__)

MOST = 1200
"""Limit of the coordinates of frames that are bounded jointly: that takes about a second."""

AT_ONCE = 450
"""Number of coordinates of a class that are bounded at a time. The losses of groups of frames add
up to a bound for all of them."""


class Bounds:
    """The lost forces of each frame by itself, and of frames with features in common.

    Parameters
    ----------
    descriptor, epsilon, joint_progress
        As in :func:`~ase_sensitivity.find_pairs`.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        epsilon: float,
        joint_progress: Callable[[int, int], object] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._epsilon = epsilon
        self._progress = joint_progress
        self._frames: dict[Place, BoundedFrame] = {}
        self._known: dict[tuple[Place, ...], float | None] = {}

    def bounding(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Yield the tasks; bound each frame that has forces."""
        for task in tasks:
            if task.forces is not None:
                try:
                    self._frames[Place(task.index, None, task.source)] = bounded_frame(
                        task.atoms, task.forces, self._descriptor, self._epsilon
                    )
                except Exception:  # reported when the frame is compared
                    logger.info("%s@%d has no bound", task.source, task.index, exc_info=True)
            yield task

    def with_bounds(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Pairs with their joint force errors."""
        found = []
        for pair in pairs:
            found.append(replace(pair, joint_force_error=self._error(_frames_of(pair))))
            if self._progress is not None and self._frames:
                self._progress(len(found), len(pairs))
        return found

    def of_set(
        self,
        degenerate: Sequence[Pair],
        conflicts: Sequence[Conflict],
        duplicates: Sequence[Pair],
    ) -> JointBound | None:
        """The bounds of all classes of frames connected by pairs or conflicts, and of the set.

        Copies of whole frames belong to the class of their first one. None without forces.
        """
        if not self._frames:
            return None
        ends: list[Pair | Conflict] = [*degenerate, *conflicts]
        edges = [_frames_of(two) for two in ends]
        connected = {place for edge in edges for place in edge}
        copies = [_frames_of(pair) for pair in duplicates if pair.first.center is None]
        edges += [edge for edge in copies if connected & set(edge)]
        classes = [self._class(members) for members in self._components(edges)]
        alone = sum(frame.lost for frame in self._frames.values())
        more = sum(
            (one.joint_force_error**2 - one.irreducible_force_error**2) * self._size(one.frames)
            for one in classes
        )
        size = self._size(self._frames)
        squares = sum(float((frame.forces**2).sum()) for frame in self._frames.values())
        return JointBound(
            n_frames=len(self._frames),
            rms_force=math.sqrt(squares / size),
            irreducible_force_error=math.sqrt(alone / size),
            joint_force_error=math.sqrt((alone + more) / size),
            n_unbounded=sum(len(one.frames) for one in classes if not one.complete),
            classes=sorted(classes, key=lambda one: -one.joint_force_error),
        )

    def _size(self, places: Iterable[Place]) -> int:
        """Number of force components."""
        return sum(self._frames[place].forces.size for place in places)

    def _error(self, places: tuple[Place, ...]) -> float | None:
        if not set(places) <= self._frames.keys():
            return None
        lost = self._lost(places)
        return None if lost is None else math.sqrt(lost / self._size(places))

    def _lost(self, places: tuple[Place, ...]) -> float | None:
        """Sum of squares that is lost jointly; None if it takes too long, or fails."""
        if places not in self._known:
            self._known[places] = None
            if self._size(places) <= MOST:
                frames = [self._frames[place] for place in places]
                try:
                    self._known[places] = jointly_lost(frames, self._descriptor, self._epsilon)
                except Exception:  # the other results are kept
                    logger.info("%s have no joint bound", places, exc_info=True)
        return self._known[places]

    def _components(self, edges: Sequence[tuple[Place, ...]]) -> Iterator[list[Place]]:
        """Connected components of frames with bounds, each in breadth-first order."""
        edges = [edge for edge in edges if set(edge) <= self._frames.keys()]
        places = _ordered({place for edge in edges for place in edge})
        number = {place: n for n, place in enumerate(places)}
        ends = np.array([(number[edge[0]], number[edge[-1]]) for edge in edges], dtype=np.intp)
        first, second = ends.reshape(-1, 2).T
        shape = (len(places), len(places))
        graph = scipy.sparse.csr_array((np.ones(len(edges)), (first, second)), shape=shape)
        seen: set[int] = set()
        for n in range(len(places)):
            if n not in seen:
                order = scipy.sparse.csgraph.breadth_first_order(
                    graph, n, directed=False, return_predecessors=False
                ).tolist()
                seen.update(order)
                yield [places[k] for k in order]

    def _class(self, members: list[Place]) -> FrameClass:
        alone = sum(self._frames[place].lost for place in members)
        groups: list[list[Place]] = [[]]
        for place in members:
            if len(groups[-1]) > 1 and self._size([*groups[-1], place]) > AT_ONCE:
                groups.append([])
            groups[-1].append(place)
        lost, complete = 0.0, True
        for group in groups:
            found = self._lost(_ordered(group))
            complete &= found is not None
            lost += sum(self._frames[place].lost for place in group) if found is None else found
        size = self._size(members)
        return FrameClass(
            frames=list(_ordered(members)),
            joint_force_error=math.sqrt(max(lost, alone) / size),
            irreducible_force_error=math.sqrt(alone / size),
            complete=complete,
        )


def _ordered(places: Iterable[Place]) -> tuple[Place, ...]:
    return tuple(sorted(places, key=lambda place: (place.source, place.frame)))


def _frames_of(ends: Pair | Conflict) -> tuple[Place, ...]:
    """The frame or the two frames of a pair, in order."""
    return _ordered({end._replace(center=None) for end in (ends.first, ends.second)})
