"""Blind geometries near a given one: where features of a body order cannot tell neighbors apart.

Distances and cosines that are nearly equal are made equal, and the sums over the classes of equal
ones are made stationary along one displacement, by Newton steps of least displacement. All
groupings that may be near are treated at once, as stacks of small matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
import scipy

from ase_sensitivity.singular.neighborhood import Neighborhood
from ase_sensitivity.types import Floats, Ints

MOST_GROUPINGS = 96
"""Groupings whose softest displacement is computed."""

MOST_TRIED = 20
"""Groupings of which the first step is computed: those that seem nearest."""

MOST_GAPS = 4
"""With more gaps between distances, only groupings by single linkage are tried."""

MOST_SOLVED = 6
"""Groupings that are made exact: those whose first step ends nearest."""

NEAR = 0.125
"""In Å: what is farther does not displace what is found within this."""

FLAT = 4e-4
"""Combinations of conditions whose eigenvalue is below this fraction of the largest stay free."""

STEP = 1e-4
"""In Å, of central differences."""

LONGEST = 0.1
"""In Å: the longest step."""

TURNS = 14
"""Steps at most."""

EXACT = 1e-8
"""In Å: after a step as short as this, which is one of Newton, all is exact to rounding."""

RESIDUAL = 1e-7
"""Differences and sums that are below this vanish."""

STILL = 1e-7
"""A distance or cosine with a smaller derivative along a displacement does not change."""

SAME = 1e-6
"""In Å: geometries that differ by less are one."""


@dataclass(frozen=True, eq=False)
class Blind:
    """A blind geometry.

    Attributes
    ----------
    displacement
        From the geometry where the search began, of shape (n_coordinates,), in Å.
    null
        The hidden displacement, of the same shape, normalised.
    """

    displacement: Floats
    null: Floats


@dataclass(frozen=True, eq=False)
class _Groupings:
    """Stacked groupings of neighbors and pairs of neighbors.

    Attributes
    ----------
    shell, pair
        The class of each neighbor, of shape (g, n), and of each pair, of shape (g, p).
    shells, pairs
        What belongs to each class, as matrices of zeros and ones, of shape (g, n, n), (g, p, p).
    alike, swapped
        Whether the two neighbors of a pair are of one class, and whether the first one is of the
        later class; of shape (g, p, 1).
    """

    shell: Ints
    pair: Ints
    shells: Floats
    pairs: Floats
    alike: Floats
    swapped: Floats

    @classmethod
    def of(cls, shell: Ints, pair: Ints, i: Ints, j: Ints) -> _Groupings:
        """From the classes of neighbors and of pairs (i, j)."""
        first, second = shell[:, i], shell[:, j]
        return cls(
            shell,
            pair,
            (np.arange(shell.shape[1])[:, None] == shell[:, None]).astype(float),
            (np.arange(pair.shape[1])[:, None] == pair[:, None]).astype(float),
            (first == second).astype(float)[:, :, None],
            (first > second).astype(float)[:, :, None],
        )

    def __getitem__(self, chosen: Ints) -> _Groupings:
        return _Groupings(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.shell)


@dataclass(frozen=True, eq=False)
class _Solved:
    """A geometry in inner coordinates, and the grouping that is exact there."""

    distance: float
    u: Floats
    v: Floats
    shell: Ints
    pair: Ints


class BlindGeometries:
    """Searches for blind geometries near one configuration.

    Parameters
    ----------
    around
        What the centers see.
    nu
        Number of neighbors that features correlate, 1 or 2.
    trivial
        Rigid motions, of shape (n_coordinates, any).
    origin
        Displacement to the geometry that the result shall be near to, of shape (n_coordinates,).
    """

    def __init__(
        self, around: Sequence[Neighborhood], nu: int, trivial: Floats, origin: Floats
    ) -> None:
        self._inner = scipy.linalg.null_space(trivial.T)
        self._origin = self._inner.T @ origin
        self._aside = float(np.linalg.norm(trivial.T @ origin))
        points, moves, groups, first, second, n = [], [], [], [], [], 0
        for number, one in enumerate(around):
            length = np.linalg.norm(one.points, axis=1)
            order = np.lexsort((length, one.numbers))  # classes are in this order as well
            points.append(one.points[order])
            moves.append((one.moves @ self._inner).reshape(len(order), 3, -1)[order])
            groups.append(1000 * number + one.numbers[order])
            i, j = np.triu_indices(len(order), 1) if nu > 1 else np.empty((2, 0), dtype=np.intp)
            first.append(i + n)
            second.append(j + n)
            n += len(order)
        self._points, self._moves = np.concatenate(points), np.concatenate(moves)
        self._species = np.concatenate(groups)
        self._i, self._j = np.concatenate(first), np.concatenate(second)

    def within(self, limit: float) -> list[Blind]:
        """Those within a distance (Å) of the origin, the nearest first."""
        found = [one for some in sorted({min(limit, NEAR), limit}) for one in self._found(some)]
        return [Blind(self._inner @ one.u, self._inner @ one.v) for one in _distinct(found)]

    def _found(self, limit: float) -> list[_Solved]:
        """Some within a distance: the wider, the more groupings compete."""
        groupings, cost = self._groupings(limit)
        here = np.zeros((1, self._moves.shape[2]))
        at = self._sums(groupings, self._gradients(here[:, None]))[:, 0]
        values, modes = np.linalg.eigh(_gram(at))
        # Differences in Å, and sums that change by some 1 for each Å.
        chosen = (cost + values[:, 0]).argsort(kind="stable")[:MOST_TRIED]
        u = np.repeat(here, len(chosen), axis=0)
        found = self._solved(groupings[chosen], u, modes[chosen, :, 0], limit)
        needed = {}
        for one in found:
            finer = self._finest(one)
            if finer is not None:
                shell, pair = finer
                needed[shell.tobytes() + pair.tobytes()] = shell, pair, one.u, one.v
        if needed:
            shell, pair, u, v = (np.array(arrays) for arrays in zip(*needed.values(), strict=True))
            groupings = _Groupings.of(shell, pair, self._i, self._j)
            found += self._solved(groupings, u, v, limit)
        return found

    def _solved(self, groupings: _Groupings, u: Floats, v: Floats, limit: float) -> list[_Solved]:
        """The geometries where groupings are exact and hide a displacement like ``v``."""
        found: list[_Solved] = []
        for turn in range(TURNS):
            step, v, length, wrong = self._steps(groupings, u, v, any_mode=turn < 3)
            u = u + step
            far = np.hypot(np.linalg.norm(u - self._origin, axis=1), self._aside)
            ended = length < EXACT
            for k in np.flatnonzero(ended & (wrong < RESIDUAL) & (far < limit)):
                found.append(
                    _Solved(float(far[k]), u[k], v[k], groupings.shell[k], groupings.pair[k])
                )
            going = np.flatnonzero(~ended & (far < (2.0 if turn == 0 else 1.0) * limit))
            if turn == 0:
                going = going[far[going].argsort(kind="stable")[:MOST_SOLVED]]
            groupings, u, v = groupings[going], u[going], v[going]
            if len(u) == 0:
                break
        return found

    def _finest(self, found: _Solved) -> tuple[Ints, Ints] | None:
        """The classes that are needed to hide the displacement; None if these are all."""
        i, j, shell = self._i, self._j, found.shell
        distances, along = (array[0, 0] for array in self._gradients(found.u[None, None])[2:])
        turns = np.abs(distances @ found.v) > STILL
        moves = (np.abs(along @ found.v) > STILL) | turns[i] | turns[j]
        linked = (shell[:, None] == shell) & (turns[:, None] | turns)
        same = (found.pair[:, None] == found.pair) & moves[:, None] & moves
        first, second = np.where(shell[i] <= shell[j], (i, j), (j, i))
        for one, other in np.argwhere(np.triu(same, 1)):
            linked[first[one], first[other]] = linked[second[one], second[other]] = True
            if shell[first[one]] == shell[second[one]]:
                linked[first[one], second[one]] = True
        linked |= linked.T | np.eye(len(shell), dtype=bool)
        while (more := linked @ linked).sum() > linked.sum():
            linked = more
        finer = np.unique(linked.argmax(axis=1), return_inverse=True)[1].reshape(-1)
        low, high = np.sort([finer[i], finer[j]], axis=0)
        alone = np.where(moves, found.pair, len(i) + np.arange(len(i)))
        pair = np.unique(np.column_stack([low, high, alone]), axis=0, return_inverse=True)[1]
        pair = pair.reshape(-1)
        if finer.max() == shell.max() and pair.max(initial=0) == found.pair.max(initial=0):
            return None
        return finer.astype(np.intp), pair.astype(np.intp)

    def _groupings(self, limit: float) -> tuple[_Groupings, Floats]:
        """Groupings that may be near, and what they cost at least, in Å²."""
        r = np.linalg.norm(self._points, axis=1)
        unit, i, j = self._points / r[:, None], self._i, self._j
        cosine = (unit[i] * unit[j]).sum(axis=1)
        arm = 0.5 * (r[i] + r[j])  # changes of a cosine are this much smaller than displacements
        made: list[tuple[float, Ints, list[Ints], tuple[Ints, ...]]] = []
        known: dict[bytes, list[tuple[float, Ints]]] = {}
        for cost, shells in _chain(r, self._species, np.ones(len(r)), limit, MOST_GAPS):
            kinds = np.unique(np.column_stack([shells[i], shells[j]]), axis=0, return_inverse=True)
            kind = kinds[1].reshape(-1)
            parts = [np.flatnonzero(kind == k) for k in range(len(kinds[0]))]
            for part in parts:
                if part.tobytes() not in known:
                    alike = np.zeros(len(part), int)
                    known[part.tobytes()] = _chain(cosine[part], alike, 0.5 * arm[part], limit)
            chains = [known[part.tobytes()] for part in parts]
            combined: list[tuple[float, tuple[Ints, ...]]] = [(cost, ())]
            for chain in chains:
                combined = [
                    (total + more, (*chosen, labels))
                    for total, chosen in combined
                    for more, labels in chain
                    if total + more < limit**2
                ]
                combined = sorted(combined, key=lambda one: one[0])[:MOST_GROUPINGS]
            made += [(total, shells, parts, chosen) for total, chosen in combined]
            made = sorted(made, key=lambda one: one[0])[:MOST_GROUPINGS]
        shell = np.array([shells for _, shells, _, _ in made])
        pair = np.empty((len(made), len(i)), dtype=np.intp)
        for pairs, (_, _, parts, chosen) in zip(pair, made, strict=True):
            n = 0
            for part, labels in zip(parts, chosen, strict=True):
                pairs[part] = labels + n
                n += int(labels.max()) + 1
        return _Groupings.of(shell, pair, i, j), np.array([one[0] for one in made])

    def _gradients(self, u: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Distances and cosines at u (g, any, d), and their derivatives."""
        i, j = self._i, self._j
        points = self._points + np.tensordot(u, self._moves, (2, 2))
        r = np.linalg.norm(points, axis=3)
        unit = points / r[..., None]
        a, b = unit[:, :, i], unit[:, :, j]
        cosine = (a * b).sum(axis=3)
        g, kinds, n = r.shape
        every, pair, moves = np.arange(n), np.arange(len(i)), self._moves.reshape(3 * n, -1)
        by_distance = np.zeros((g, kinds, n, n, 3))
        by_distance[:, :, every, every] = unit
        by_cosine = np.zeros((g, kinds, len(i), n, 3))
        by_cosine[:, :, pair, i] = (b - cosine[..., None] * a) / r[:, :, i, None]
        by_cosine[:, :, pair, j] = (a - cosine[..., None] * b) / r[:, :, j, None]
        distances = by_distance.reshape(g, kinds, n, 3 * n) @ moves
        return r, cosine, distances, by_cosine.reshape(g, kinds, len(i), 3 * n) @ moves

    def _sums(self, groupings: _Groupings, gradients: tuple[Floats, ...]) -> Floats:
        """Sums over classes of the derivatives of `_gradients`, of shape (g, any, m, d)."""
        i, j = self._i, self._j
        _, _, distances, along = gradients
        shells, pairs = groupings.shells[:, None], groupings.pairs[:, None]
        alike, swapped = groupings.alike[:, None], groupings.swapped[:, None]
        first, second = distances[:, :, i], distances[:, :, j]
        if swapped.any():
            between = swapped * (second - first)
            first, second = first + between, second - between
        sums = [shells @ distances]
        if len(i):
            sums += [
                pairs @ along,
                pairs @ (first + alike * second),
                pairs @ ((1 - alike) * second),
            ]
        return np.concatenate(sums, axis=2)

    def _conditions(self, groupings: _Groupings, u: Floats) -> tuple[Floats, Floats, Floats]:
        """Sums over classes, of shape (g, any, m, d), differences within and their derivatives.

        At displacements ``u`` of shape (g, any, d); the differences at the first of each.
        """
        gradients = self._gradients(u)
        r, cosine, distances, along = gradients
        changes, off = [], []
        for members, derivative, value in (
            (groupings.shells, distances[:, 0], r[:, 0]),
            (groupings.pairs, along[:, 0], cosine[:, 0]),
        ):
            size = np.maximum(members.sum(axis=2, keepdims=True), 1.0)
            mean = members.transpose(0, 2, 1) @ (members / size)
            changes.append(derivative - mean @ derivative)
            off.append(value - (mean @ value[:, :, None])[:, :, 0])
        sums = self._sums(groupings, gradients)
        return sums, np.concatenate(changes, axis=1), np.concatenate(off, 1)

    def _steps(
        self, groupings: _Groupings, u: Floats, v: Floats, *, any_mode: bool
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Of each grouping the step, the displacement to be hidden, the step's length, the error.

        The error is what the conditions are off by before the step.
        """
        every = np.arange(len(u))
        at, changes, off = self._conditions(groupings, u[:, None])
        at = at[:, 0]
        values, modes = np.linalg.eigh(_gram(at))
        overlap = np.einsum("gd,gdk->gk", v, modes)
        soft = overlap.shape[1] if any_mode else 4
        k = np.abs(overlap[:, :soft]).argmax(axis=1)
        v = modes[every, :, k] * np.sign(overlap[every, k])[:, None]
        aside = u[:, None] + STEP * np.array([1.0, -1.0])[:, None] * v[:, None]
        sums = self._sums(groupings, self._gradients(aside))
        slope = (sums[:, 0] - sums[:, 1]) / (2 * STEP)
        inverse = np.where(values > 1e-14 * values[:, -1:], 1 / np.maximum(values, 1e-300), 0.0)
        inverse[every, k] = 0.0
        steep = at @ modes  # of other modes: what they change can be made up for
        slope = slope - steep @ (inverse[:, :, None] * (steep.transpose(0, 2, 1) @ slope))
        rest = (at @ v[:, :, None])[:, :, 0]
        normal = _gram(slope) + _gram(changes)
        pull = np.einsum("gmd,gm->gd", slope, rest) + np.einsum("gmd,gm->gd", changes, off)
        values, vectors = np.linalg.eigh(normal)
        kept = values > FLAT * values[:, -1:]
        back = np.einsum("gd,gdk->gk", self._origin - u, vectors)
        pull = np.einsum("gd,gdk->gk", pull, vectors)
        step = np.where(kept, -pull / np.where(kept, values, 1.0), back)
        step = np.einsum("gdk,gk->gd", vectors, step)
        length = np.linalg.norm(step, axis=1)
        wrong = np.hypot(np.linalg.norm(rest, axis=1), np.linalg.norm(off, axis=1))
        return step * np.minimum(1, LONGEST / np.maximum(length, 1e-12))[:, None], v, length, wrong


def _distinct(found: list[_Solved]) -> list[_Solved]:
    """Different geometries, the nearest first."""
    distinct: list[_Solved] = []
    for one in sorted(found, key=lambda one: one.distance):
        if all(np.abs(one.u - other.u).max() > SAME for other in distinct):
            distinct.append(one)
    return distinct


def _gram(matrices: Floats) -> Floats:
    gram: Floats = matrices.transpose(0, 2, 1) @ matrices
    return gram


def _chain(
    values: Floats, groups: Ints, weights: Floats, limit: float, most_gaps: int = 0
) -> list[tuple[float, Ints]]:
    """Groupings by single linkage at each height that is a gap, with their costs.

    The cost is the sum of squares of what values of a class differ from their mean. Where there are
    few gaps, any of them are closed.
    """
    if len(values) == 1:
        return [(0.0, np.zeros(1, dtype=np.intp))]
    order = np.lexsort((values, groups))
    gaps = np.where(np.diff(groups[order]) == 0, np.diff(values[order]), np.inf)
    finite = np.flatnonzero(np.isfinite(gaps))
    chain = []
    if len(finite) <= most_gaps:
        opened = np.ones((2 ** len(finite), len(gaps)), dtype=bool)
        opened[:, finite] = list(product((True, False), repeat=len(finite)))
    else:
        opened = gaps > np.concatenate([[-1.0], np.sort(gaps[finite])])[:, None]
    for between in opened:
        labels = np.empty(len(values), dtype=np.intp)
        labels[order] = np.concatenate([[0], np.cumsum(between)])
        off = weights * (values - (np.bincount(labels, values) / np.bincount(labels))[labels])
        cost = float(off @ off)
        if cost < limit**2:
            chain.append((cost, labels))
    return chain
