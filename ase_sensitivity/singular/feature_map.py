"""The features of a structure as a function of its positions alone, with contacts guarded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.geometry.matching import Match
from ase_sensitivity.geometry.neighbors import shortest_distance
from ase_sensitivity.singular.nearest import NearestSingular, nearest_singular
from ase_sensitivity.singular.partner import matched
from ase_sensitivity.singular.point import Point
from ase_sensitivity.singular.system import system_of
from ase_sensitivity.types import Floats, Ints, Scope

CONTACT = 0.7
"""Two atoms nearer than this (Å) are nothing that a structure has."""

MAX_STEPS = 60
"""The most steps of a walk."""

TURNED = 0.1
"""A turned point is at least so far from where it was, in Å."""

AGAIN = 6
"""How often a walk is taken up at most."""


class FeatureMap:
    """Features and their derivatives at any positions of the points of a subject.

    Parameters
    ----------
    atoms
        The structure; its constraints play no part.
    descriptor
        The descriptor.
    scope
        ``"structure"`` or ``"environment"``.
    center
        The center of the environment; by default that with the smallest sigma_min / sigma_max.

    Attributes
    ----------
    center
        The only center of all features, None if there are several.
    seen
        Points that the features depend on, of shape (m,).
    start
        The system as it was given: the structure, or in environment scope the center and then its
        neighbors as a cluster.
    n_evaluations
        Number of Jacobians so far.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or no feature depends on the positions.
    """

    def __init__(self, atoms: Atoms, descriptor: Given, scope: Scope, center: int | None) -> None:
        if scope == "atom":
            raise ValueError('`scope` is "atom" but must be "structure" or "environment"')
        self._system = system_of(atoms, descriptor, scope, center)
        points = self._system.start
        self._atoms = Atoms(points.numbers, points.positions, cell=points.cell, pbc=points.pbc)
        self.n_evaluations = 0
        self.start = self.at(self._atoms.positions)
        self._least = min(CONTACT, 0.9 * self.closest(self.start.positions))
        centers = np.unique(np.concatenate([part.centers for part in self.start.jacobian.parts]))
        self.center = int(centers[0]) if len(centers) == 1 and centers[0] >= 0 else None
        column = np.linalg.norm(self.start.dense.reshape(-1, len(points), 3), axis=(0, 2))
        if not column.max(initial=0.0) > 0:
            raise ValueError(
                f"no feature of {atoms.get_chemical_formula()} depends on the positions of its "
                f"atoms; check the species and the cutoff of {descriptor!r}"
            )
        self.seen: Ints = np.flatnonzero(column > 1e-12 * column.max())

    def atoms(self, positions: Floats) -> Atoms:
        """The points at positions of shape (n, 3), without calculator or constraints."""
        moved = self._atoms.copy()
        moved.positions = positions
        return moved

    def at(self, positions: Floats) -> Point:
        """Features and derivatives at positions of shape (n, 3).

        Raises
        ------
        ValueError
            If atoms sit on top of each other.
        """
        moved = self.atoms(positions)
        self.n_evaluations += 1
        jacobian = self._system.jacobian(moved)
        return Point(moved, self._system.view(jacobian, moved))

    @property
    def start_atoms(self) -> Atoms:
        """The system as it was given."""
        return self.atoms(self.start.positions)

    def displaced(
        self, rng: np.random.Generator, length: float, here: Floats | None = None
    ) -> Floats:
        """Positions after a random displacement of a length in Å, without rigid motions.

        It starts ``here``, by default at the start, and is shorter where atoms would be in contact.
        """
        here = self.start.positions if here is None else here
        trivial = (
            self.start.view.trivial if here is self.start.positions else self.at(here).view.trivial
        )
        way = rng.normal(size=here.size)
        way -= trivial @ (trivial.T @ way)
        for _ in range(100):
            moved = here + (length / np.linalg.norm(way) * way).reshape(-1, 3)
            if self.allowed(moved):
                return moved
            length *= 0.9
        return here

    def redirected(self, rng: np.random.Generator) -> Floats:
        """The start with some points in other directions from the center, or the centroid."""
        movable = self.seen[self.seen != self.center] if self.center is not None else self.seen
        relative = self._from_origin(self.start.positions)
        origin = self.start.positions - relative
        for _ in range(1000):
            guess = relative.copy()
            chosen = rng.choice(movable, rng.integers(1, len(movable) + 1), replace=False)
            way = rng.normal(size=(len(chosen), 3))
            way /= np.linalg.norm(way, axis=1)[:, None]
            guess[chosen] = np.linalg.norm(relative[chosen], axis=1)[:, None] * way
            if self.allowed(origin + guess):
                return origin + guess
        return self.displaced(rng, 0.5)

    def half_turns(self) -> Iterator[Floats]:
        """The start with one point turned by 180° about the bisector of two others.

        The two are of one species and about as far from the center. If they are exactly so, the
        turned point sees them as before, and other points may not notice: that is how the known
        structures with the same features of three bodies are made. Pairs come by the difference of
        their distances. Nothing if there are several centers.
        """
        if self.center is None:
            return
        movable = self.seen[self.seen != self.center]
        relative = self._from_origin(self.start.positions)
        origin = self.start.positions - relative
        length = np.linalg.norm(relative, axis=1)
        like = [
            (abs(length[i] - length[j]), i, j)
            for i, j in combinations(movable.tolist(), 2)
            if self._atoms.numbers[i] == self._atoms.numbers[j]
        ]
        for _, i, j in sorted(like):
            axis = relative[i] / length[i] + relative[j] / length[j]
            if np.linalg.norm(axis) < 1e-3:  # opposite: any axis across would do
                continue
            axis /= np.linalg.norm(axis)
            for k in movable[(movable != i) & (movable != j)]:
                guess = relative.copy()
                guess[k] = 2 * (relative[k] @ axis) * axis - relative[k]
                if np.linalg.norm(guess[k] - relative[k]) > TURNED and self.allowed(origin + guess):
                    yield origin + guess

    def walk(
        self, positions: Floats, max_distance: float, cause: str | None = None
    ) -> tuple[Floats, NearestSingular]:
        """Go to a singular configuration: its positions, of shape (n, 3), and what was found.

        A walk that ends early is taken up again from there: it is drawn back to where it starts. Of
        several configurations one with ``cause`` is preferred.
        """
        system = self._system
        center = 0 if system.scope == "environment" else None
        end, last = positions, np.inf
        for _ in range(AGAIN):
            found = nearest_singular(
                self.atoms(end),
                system.descriptor,
                scope=system.scope,
                center=center,
                max_distance=max_distance,
                max_steps=MAX_STEPS,
                closest=CONTACT,
            )
            self.n_evaluations += found.n_jacobians
            if found.harmful is not None and cause == found.harmful.cause:
                found = found.harmful
            end = end.copy()
            end[found.points] = found.atoms.positions
            if found.found or not found.ratio < 0.5 * last:
                break
            last = found.ratio
        distance = float(np.linalg.norm(end - positions))
        if not found.found or distance > max_distance:
            return end, replace(found, found=False, cause=None, distance=distance)
        return end, replace(found, distance=distance)

    def allowed(self, positions: Floats) -> bool:
        """No two atoms are nearer than :data:`CONTACT`, or 0.9 times the nearest at the start."""
        return self.closest(positions) >= self._least

    def closest(self, positions: Floats) -> float:
        """The shortest distance between two atoms in Å."""
        return shortest_distance(self.atoms(positions), 2.0)

    def match(self, a: Floats, b: Floats) -> Match:
        """How far two structures are apart: see :func:`best_match`.

        Only atoms that the features depend on count. They are looked at from the center, or from
        their centroid. In periodic structures atoms keep their names, and only the translation is
        free.
        """
        chosen = self.seen[self.seen != self.center] if self.center is not None else self.seen
        return matched(self.atoms(a), self.atoms(b), chosen, self.center)

    def _from_origin(self, positions: Floats) -> Floats:
        if self.center is not None:
            return positions - positions[self.center]
        return positions - positions[self.seen].mean(axis=0)
