"""Exact singular geometries near a given one, found from positions alone (:doc:`/approach`).

Two kinds of geometry hide a displacement v from every basis of a descriptor. In a symmetric one,
operations of the environments reverse the change along v. In a blind one, distances and angles are
equal that features of the body order cannot tell apart. Both are zeros of smooth functions of the
positions, which Newton steps of least displacement find to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product

import numpy as np
import scipy

from ase_sensitivity.causes.environments import Environment, receptive_fields
from ase_sensitivity.geometry.clusters import clusters
from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.geometry.symmetry import PointGroup, point_group
from ase_sensitivity.singular.point import Point
from ase_sensitivity.singular.system import System
from ase_sensitivity.types import Floats, Ints

EDGE = 0.02
"""In Å: neighbors nearer to the end of the reach have no weight."""

SYMMETRIC = 1e-9
"""In Å: a point that an operation puts this near to another one is put on it."""

EQUAL = 1e-12
"""In Å and for cosines: what differs by less is equal."""

CLOSE = 1e-5
"""In Å: a step shorter than this is the last one."""

STILL = 1e-7
"""A distance or cosine with a smaller derivative along a displacement does not change."""

MOST_ELEMENTS = 120
"""Elements of a point group, the largest of which is that of the icosahedron."""

HIDDEN_PART = 0.7
"""Of the change of the environments along a mode, the part that a symmetric geometry hides. As the
mode is that of another geometry, it is not hidden as a whole."""

POWERS = 12
"""Powers of an operation that are averaged: rotations of order 1, 2, 3, 4, 6 and 12 close."""

MOST_OPERATIONS = 3
"""Operations of one environment that are made exact. Two generate any point group."""

REMAINS = 0.15
"""Part of a change that may remain when the operations of an environment are enough."""

FLAT = 2e-3
"""Combinations of conditions with eigenvalues below this fraction of the largest are left free."""

FLAT_BLIND = 2e-2
"""The same for singular values of the conditions of a blind geometry."""

WIDTHS = (0.02, 0.045, 0.09, 0.2)
"""Distances (Å) and cosines that differ by less may be made equal."""

MOST_COORDINATES = 150
"""Larger systems have too many environments, each too far from any symmetry, to search."""

MOST_NEIGHBORS = 10
"""Neighbors of a center whose classes are searched."""

MOST_CENTERS = 2
"""With more centers, a displacement that is hidden from all of them is symmetric or truncated."""


Operation = tuple[Floats, Ints]
"""An orthogonal matrix, and the point that it takes to each point."""


@dataclass(frozen=True, eq=False)
class ExactGeometry:
    """A geometry that hides a displacement.

    Attributes
    ----------
    cause
        "symmetry" or "incompleteness".
    displacement
        From the geometry where the search began to this one, of shape (3 n_columns,), in Å.
    null
        Displacements that are hidden there, orthonormal, of shape (3 n_columns, m); rigid motions
        may be among them.
    hidden
        Squared length of the part of the displacement v that is hidden.
    """

    cause: str
    displacement: Floats
    null: Floats
    hidden: float


@dataclass(frozen=True, eq=False)
class _Neighborhood:
    """Points about a center.

    ``moves`` is how the coordinates of a system move them, of shape (3 n, n_coordinates).
    """

    numbers: Ints
    points: Floats
    moves: Floats

    @cached_property
    def rotations(self) -> Floats:
        """Orthonormal rotations of the points."""
        return _rotations(self.points)

    @cached_property
    def groups(self) -> dict[float, PointGroup]:
        """Point groups by tolerance."""
        return {}

    def group(self, tolerance: float) -> PointGroup:
        """The point group up to a tolerance (Å)."""
        if tolerance not in self.groups:
            self.groups[tolerance] = point_group(self.points, self.numbers, tolerance)
        return self.groups[tolerance]


class ExactGeometries:
    """Searches for exact geometries near one configuration.

    Parameters
    ----------
    system
        The system.
    at
        The configuration to start from.
    origin
        Positions of the points that the result shall be near to, of shape (n_points, 3), in Å.
    reach
        How far from there the result may be, in Å.
    """

    def __init__(self, system: System, at: Point, origin: Floats, reach: float) -> None:
        n = 3 * at.view.n_columns
        self._trivial, self._reach, self._limit = at.view.trivial, reach, reach
        self._start = (origin - at.atoms.positions)[system.moving].ravel()
        self.n_coordinates = n
        fields = receptive_fields(at.view, at.atoms, system.descriptor, EDGE)
        unit = np.eye(n).reshape(-1, 3, n)

        def of(environments: Sequence[Environment]) -> list[_Neighborhood]:
            return [
                _Neighborhood(e.numbers, e.displacements, e.relative(unit))
                for e in environments
                if len(e.numbers)
            ]

        self._whole = of([e for field in fields for e in field.environments])
        self._known = all(field.symmetry_known for field in fields)
        self._resolved: list[_Neighborhood] = []
        self._nu = 0
        environments = [e for field in fields for e in field.resolved]
        order = fields[0].body_order if len({field.body_order for field in fields}) == 1 else None
        few = len(environments) <= MOST_CENTERS
        if few and all(len(e.numbers) <= MOST_NEIGHBORS for e in environments) and order in (2, 3):
            self._nu = order - 1
            self._resolved = of(environments)

    def near(
        self, modes: Floats, number: int, tolerance: float, hidden: float, limit: float
    ) -> list[ExactGeometry]:
        """Geometries that hide a displacement v, the nearest to the origin first.

        Parameters
        ----------
        modes
            The lowest modes, of shape (n_coordinates, m).
        number
            Which of them is v.
        tolerance
            Operations are looked for that map points to within this, in Å; 0: none are.
        hidden
            Least squared length of the part of v that has to be hidden.
        limit
            How far from the origin they may be, in Å.
        """
        self._limit = min(limit, self._reach)
        found = []
        if tolerance and self.searches_symmetry:
            found += [*filter(None, [self._symmetric(modes, number, tolerance)])]
        found += islice((one for one in self._blind(modes[:, number]) if one.hidden > hidden), 1)
        found = [one for one in found if one.hidden > hidden]
        found.sort(key=lambda one: self._distance(one.displacement))
        return found

    @property
    def searches_symmetry(self) -> bool:
        """Whether symmetric geometries are searched; otherwise the system is too large."""
        return self._known and self.n_coordinates <= MOST_COORDINATES

    def _distance(self, u: Floats) -> float:
        return float(np.linalg.norm(u - self._start))

    def _towards(self, u: Floats) -> Floats:
        """From u to the origin, without rigid motions."""
        return _without(self._trivial, self._start - u)

    # Symmetric geometries

    def _symmetric(self, modes: Floats, number: int, tolerance: float) -> ExactGeometry | None:
        mode = modes[:, number]
        chosen: list[list[Operation]] = []
        lost = total = 0.0
        for around in self._whole:
            change = _without(around.rotations, around.moves @ mode)
            operations, left = _reversing(around, change, tolerance)
            chosen.append(operations)
            total += float(change @ change)
            lost += left
        if not lost <= 0.5 * total:
            return None
        u = self._symmetrised(chosen)
        if u is None:
            return None
        seen, whole = np.zeros((2, modes.shape[1], modes.shape[1]))
        for around, operations in zip(self._whole, chosen, strict=True):
            points = around.points + (around.moves @ u).reshape(-1, 3)
            change = _without(_rotations(points), around.moves @ modes)
            whole += change.T @ change
            if operations:
                change = _average(points, operations, change)
            seen += change.T @ change
        floor = 1e-12 * np.trace(whole) * np.eye(len(whole))
        shares, vectors = scipy.linalg.eigh(seen, whole + floor)
        null = np.linalg.qr(modes @ vectors[:, shares < 1 - HIDDEN_PART])[0]
        hidden = 1 - float(seen[number, number] / whole[number, number])
        return ExactGeometry("symmetry", u, null, hidden)

    def _symmetrised(self, chosen: list[list[Operation]]) -> Floats | None:
        """The displacement that makes operations exact, by Newton steps; None if there is none."""
        n = self.n_coordinates
        u = np.zeros(n)
        for _ in range(8):
            gram, pull, worst = np.zeros((n, n)), np.zeros(n), 0.0
            for around, operations in zip(self._whole, chosen, strict=True):
                if not operations:
                    continue
                points = around.points + (around.moves @ u).reshape(-1, 3)
                q = _rotations(points)
                moves = around.moves.reshape(len(points), 3, n)
                for matrix, order in operations:
                    matrix = _refitted(matrix, points, order)
                    off = (points - points[order] @ matrix.T).ravel()
                    changes = moves - np.einsum("ab,nbm->nam", matrix, moves[order])
                    changes = _without(q, changes.reshape(-1, n))
                    off = _without(q, off)
                    worst = max(worst, float(np.abs(off).max()))
                    gram += changes.T @ changes / len(points)
                    pull += changes.T @ off / len(points)
            if worst < SYMMETRIC:
                return u
            gram = _without(self._trivial, _without(self._trivial, gram).T)
            values, vectors = np.linalg.eigh(gram)
            kept = values > FLAT * values[-1]
            steep, values = vectors[:, kept], values[kept]
            u = u - steep @ ((steep.T @ pull) / values) + _without(steep, self._towards(u))
            if self._distance(u) > self._limit:
                return None
        return None

    # Blind geometries

    def _blind(self, mode: Floats) -> Iterator[ExactGeometry]:
        if not self._resolved:
            return
        tried: set[bytes] = set()
        for width, narrow in product(WIDTHS, (False, True)):
            angles = WIDTHS[0] if narrow else width
            classes = [
                _Classes.within(around, width, angles, self._nu) for around in self._resolved
            ]
            key = b"".join(one.key for one in classes)
            if key in tried:
                continue
            tried.add(key)
            found = self._made_blind(classes, mode)
            if found is not None:
                yield found

    def _made_blind(self, classes: list[_Classes], mode: Floats) -> ExactGeometry | None:
        n, t = self.n_coordinates, self._trivial
        inner = np.linalg.svd(t)[0][:, t.shape[1] :]
        u, v, last = np.zeros(n), mode, np.inf
        for turn in range(12):
            sums, changes, off = _conditions(classes, u)
            s, vectors = np.linalg.svd(sums @ inner)[1:]
            s = np.concatenate([s, np.zeros(n)])[: len(vectors)]
            modes = inner @ vectors.T
            overlap = np.abs(v @ modes)
            # The mode itself at first; near the end one of the softest.
            k = int(overlap.argmax()) if turn < 3 else len(s) - 4 + int(overlap[-4:].argmax())
            v = modes[:, k] * np.sign(v @ modes[:, k])
            there = s[k] < EQUAL * s[0] and np.abs(off).max(initial=0.0) < EQUAL
            if there and last < CLOSE:
                found = ExactGeometry("incompleteness", u, v[:, None], float((v @ mode) ** 2))
                return self._relaxed(found, classes, mode)
            rest = (s > 1e-7 * s[0]) & (np.arange(len(s)) != k)
            left = np.linalg.qr(sums @ modes[:, rest])[0]
            h = 1e-4
            ahead, behind = (_conditions(classes, u + sign * h * v)[0] for sign in (1, -1))
            slope = _without(left, (ahead - behind) / (2 * h))
            a = np.concatenate([slope, changes])
            b = np.concatenate([_without(left, sums @ v), off])
            w, m, z = np.linalg.svd(_without(t, a.T).T, full_matrices=False)
            kept = m > FLAT_BLIND * m[0]
            z = z[kept].T
            step = -z @ ((w[:, kept].T @ b) / m[kept]) + _without(z, self._towards(u))
            last = float(np.linalg.norm(step))
            u = u + step * min(1.0, 0.1 / max(float(np.linalg.norm(step)), 1e-12))
            if self._distance(u) > self._limit:
                return None
        return None

    def _relaxed(
        self, found: ExactGeometry, classes: list[_Classes], mode: Floats
    ) -> ExactGeometry:
        """The nearer geometry without conditions that are not needed to hide the displacement."""
        finer = [one.finest(found.displacement, found.null[:, 0]) for one in classes]
        if [one.key for one in finer] == [one.key for one in classes]:
            return found
        nearer = self._made_blind(finer, mode)
        near = nearer is not None and (
            self._distance(nearer.displacement) < self._distance(found.displacement)
        )
        return nearer if nearer is not None and near else found


class _Classes:
    """Neighbors and pairs of neighbors that features take for equal.

    Parameters
    ----------
    around
        The neighborhood.
    shell
        The class of each neighbor, of shape (n,).
    i, j
        The pairs of neighbors, of shape (n_pairs,), the one of the smaller class first.
    pair
        The class of each pair.
    """

    def __init__(self, around: _Neighborhood, shell: Ints, i: Ints, j: Ints, pair: Ints) -> None:
        self._around, self._shell, self._pair = around, shell, pair
        self._i, self._j, self._alike = i, j, (shell[i] == shell[j])[:, None]
        self._shells, self._pairs = _members(shell), _members(pair)
        self._derivatives = np.zeros((len(shell),) * 2 + (3,)), np.zeros((len(i), len(shell), 3))
        self.key = shell.tobytes() + pair.tobytes() + i.tobytes()

    @classmethod
    def within(cls, around: _Neighborhood, width: float, angles: float, nu: int) -> _Classes:
        """Classes of distances within a width (Å), and of cosines."""
        n = len(around.points)
        r = np.linalg.norm(around.points, axis=1)
        shell = clusters(r, width, around.numbers)
        i, j = np.triu_indices(n, 1) if nu > 1 else (np.empty(0, int), np.empty(0, int))
        i, j = np.where(shell[i] <= shell[j], i, j), np.where(shell[i] <= shell[j], j, i)
        cosine = np.einsum("pa,pa->p", around.points[i], around.points[j]) / r[i] / r[j]
        return cls(around, shell, i, j, clusters(cosine, angles, shell[i] * n + shell[j]))

    def finest(self, u: Floats, v: Floats) -> _Classes:
        """Classes that hide v as well, without equalities that are not needed for it at u."""
        best = self
        for member in range(len(self._shell)):
            if (best._shell == best._shell[member]).sum() > 1:
                finer = best._split(u, v, member)
                best = finer if finer is not None else best
        return best

    def _split(self, u: Floats, v: Floats, member: int) -> _Classes | None:
        """With a class of its own for one neighbor; None if v is not hidden then."""
        shell = self._shell.copy()
        shell[member] = shell.max() + 1
        i, j = self._i, self._j
        i, j = np.where(shell[i] <= shell[j], i, j), np.where(shell[i] <= shell[j], j, i)
        pair = self._pair
        if len(pair):
            distances, cosines = (array @ v for array in self._gradients(u)[2:])
            changes = np.abs([cosines, distances[i], distances[j]]).max(axis=0)
            alone = np.where(changes < STILL, pair.max() + 1 + np.arange(len(pair)), pair)
            keys = np.column_stack([shell[i], shell[j], alone])
            pair = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
        finer = _Classes(self._around, np.unique(shell, return_inverse=True)[1], i, j, pair)
        sums = np.concatenate(finer.conditions(u)[0])
        return finer if np.abs(sums @ v).max() < STILL else None

    def _gradients(self, u: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Distances and cosines at u, and their derivatives by the coordinates."""
        around, i, j = self._around, self._i, self._j
        points = around.points + (around.moves @ u).reshape(-1, 3)
        n, r = len(points), np.linalg.norm(points, axis=1)
        unit, every, pair = points / r[:, None], np.arange(n), np.arange(len(i))
        cosine = np.einsum("pa,pa->p", unit[i], unit[j])
        by_distance, by_cosine = (array.copy() for array in self._derivatives)
        by_distance[every, every] = unit
        by_cosine[pair, i] = (unit[j] - cosine[:, None] * unit[i]) / r[i, None]
        by_cosine[pair, j] = (unit[i] - cosine[:, None] * unit[j]) / r[j, None]
        distances = by_distance.reshape(n, 3 * n) @ around.moves
        return r, cosine, distances, by_cosine.reshape(len(i), 3 * n) @ around.moves

    def conditions(self, u: Floats) -> tuple[list[Floats], list[Floats], list[Floats]]:
        """Class sums of gradients, differences within classes and their derivatives, at u."""
        i, j = self._i, self._j
        r, cosine, distances, cosines = self._gradients(u)
        shells, pairs = self._shells, self._pairs
        sums = [shells @ distances]
        if len(i):
            sums += [
                pairs @ cosines,
                pairs @ (distances[i] + self._alike * distances[j]),
                pairs @ (distances[j] * ~self._alike),
            ]
        changes, off = [], []
        for value, derivative, members in ((r, distances, shells), (cosine, cosines, pairs)):
            if len(value):
                mean = members.T / members.sum(axis=1) @ members
                changes.append(derivative - mean @ derivative)
                off.append(value - mean @ value)
        return sums, changes, off


def _conditions(classes: list[_Classes], u: Floats) -> tuple[Floats, Floats, Floats]:
    parts = [one.conditions(u) for one in classes]
    sums, changes, off = (
        np.concatenate([array for part in parts for array in part[k]]) for k in range(3)
    )
    return sums, changes, off


def _members(labels: Ints) -> Floats:
    """Which members each class has, as a matrix of zeros and ones."""
    return np.eye(int(labels.max(initial=-1)) + 1)[:, labels]


def _without(basis: Floats, x: Floats) -> Floats:
    rest: Floats = x - basis @ (basis.T @ x)
    return rest


def _rotations(points: Floats) -> Floats:
    """Orthonormal rotations about the origin, of shape (3 n, 3); (3 n, 2) on a line."""
    u, s, _ = np.linalg.svd(rotation_generators(points).reshape(3, -1).T, full_matrices=False)
    return u[:, s > 1e-6 * s[0]]


def _reversing(
    around: _Neighborhood, change: Floats, tolerance: float
) -> tuple[list[Operation], float]:
    """Operations whose averages remove a change of the points, and what remains of its square.

    Each is a matrix and the point that it takes to each point. Of those that remove enough, the one
    of least mismatch is taken.
    """
    size = float(change @ change)
    if size <= 1e-4:
        return [], size
    group = around.group(tolerance)
    matrices, permutations = group.matrices, group.permutations
    if group.axis is not None:
        half_turn = 2 * np.outer(group.axis, group.axis) - np.eye(3)
        matrices = np.concatenate([matrices, half_turn[None]])
        permutations = np.concatenate([permutations, np.arange(len(around.points))[None]])
    mapped = around.points @ matrices.transpose(0, 2, 1)
    mismatch = np.linalg.norm(mapped - around.points[permutations], axis=2).max(axis=1)
    by_mismatch = mismatch.argsort(kind="stable")
    matrices, orders = matrices[by_mismatch], permutations[by_mismatch].argsort(axis=1)
    found: list[Operation] = []
    left = size
    while left > REMAINS * size and len(found) < MOST_OPERATIONS:
        means = _averages(matrices, orders, change)
        squares = (means**2).sum(axis=1)
        enough = squares < REMAINS * size
        best = int(enough.argmax() if enough.any() else squares.argmin())
        if squares[best] > 0.8 * left:
            break
        found.append((matrices[best], orders[best]))
        change, left = means[best], float(squares[best])
    return found, left


def _averages(matrices: Floats, orders: Ints, change: Floats) -> Floats:
    """The average of a change over the powers of each of g operations, of shape (g, 3 n)."""
    moved = np.broadcast_to(change.reshape(-1, 3), (len(matrices), len(change) // 3, 3))
    total, turned_back = moved.copy(), matrices.transpose(0, 2, 1)
    for _ in range(POWERS - 1):
        moved = np.take_along_axis(moved, orders[:, :, None], axis=1) @ turned_back
        total += moved
    return total.reshape(len(matrices), -1) / POWERS


def _refitted(matrix: Floats, points: Floats, order: Ints) -> Floats:
    """The orthogonal matrix of the same determinant that maps the points best (Kabsch)."""
    x, s, y = np.linalg.svd(points.T @ points[order])
    if s[1] < 1e-6 * s[0]:
        return matrix  # on a line
    sign = np.linalg.det(matrix) * np.linalg.det(x @ y)
    fitted: Floats = (x * [1.0, 1.0, sign]) @ y
    return fitted


def _average(points: Floats, operations: list[Operation], changes: Floats) -> Floats:
    """The average of changes (3 n, m) over the group that exact operations generate."""
    n = len(points)
    identity = np.arange(n)
    group = {_key(np.eye(3), identity): (np.eye(3), identity)}
    generators = [(_refitted(matrix, points, order), order) for matrix, order in operations]
    waiting = list(group.values())
    while waiting and len(group) < MOST_ELEMENTS:
        matrix, order = waiting.pop()
        for other, after in generators:
            product = other @ matrix, order[after]
            if _key(*product) not in group:
                group[_key(*product)] = product
                waiting.append(product)
    matrices = np.array([matrix for matrix, _ in group.values()])
    orders = np.array([order for _, order in group.values()])
    moved = changes.reshape(n, 3, -1)[orders]
    average: Floats = np.einsum("gab,gnbm->nam", matrices, moved) / len(group)
    return average.reshape(3 * n, -1)


def _key(matrix: Floats, order: Ints) -> bytes:
    """What an operation is told by: its matrix matters where points are in a plane."""
    return order.tobytes() + (np.rint(100 * matrix) + 0.0).tobytes()
