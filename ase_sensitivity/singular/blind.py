"""Blind geometries near a given one: where features of a body order cannot tell neighbors apart.

Distances and cosines that are nearly equal are made equal, and the sums over the classes of equal
ones are made stationary along one displacement, by Newton steps of least displacement. All
groupings that may be near are treated at once, as stacks of small matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy

from ase_sensitivity.singular.conditions import conditions, gradients
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
        shell, pair, cost = self._groupings(limit)
        here = np.zeros((1, self._moves.shape[2]))
        gram = _gram(self._conditions(shell, pair, here[:, None])[0][:, 0])
        # Differences in Å, and sums that change by some 1 for each Å.
        total = cost + np.linalg.eigvalsh(gram)[:, 0]
        chosen = total.argsort(kind="stable")[:MOST_TRIED]
        softest = np.linalg.eigh(gram[chosen])[1][:, :, 0]
        u = np.repeat(here, len(chosen), axis=0)
        found = self._solved(shell[chosen], pair[chosen], u, softest, limit)
        needed = {}
        for one in found:
            finer = self._finest(one)
            if finer is not None:
                shell, pair = finer
                needed[shell.tobytes() + pair.tobytes()] = shell, pair, one.u, one.v
        if needed:
            shell, pair, u, v = (np.array(arrays) for arrays in zip(*needed.values(), strict=True))
            found += self._solved(shell, pair, u, v, limit)
        return found

    def _solved(self, shell: Ints, pair: Ints, u: Floats, v: Floats, limit: float) -> list[_Solved]:
        """The geometries where groupings are exact and hide a displacement like ``v``.

        The class of each neighbor, of shape (g, n), and of each pair, of shape (g, p).
        """
        found: list[_Solved] = []
        for turn in range(TURNS):
            step, v, length, wrong = self._steps(shell, pair, u, v, any_mode=turn < 3)
            u = u + step
            far = np.hypot(np.linalg.norm(u - self._origin, axis=1), self._aside)
            ended = length < EXACT
            for k in np.flatnonzero(ended & (wrong < RESIDUAL) & (far < limit)):
                found.append(_Solved(float(far[k]), u[k], v[k], shell[k], pair[k]))
            going = np.flatnonzero(~ended & (far < (2.0 if turn == 0 else 1.0) * limit))
            if turn == 0:
                going = going[far[going].argsort(kind="stable")[:MOST_SOLVED]]
            shell, pair, u, v = shell[going], pair[going], u[going], v[going]
            if len(u) == 0:
                break
        return found

    def _finest(self, found: _Solved) -> tuple[Ints, Ints] | None:
        """The classes that are needed to hide the displacement; None if these are all."""
        i, j, shell = self._i, self._j, found.shell
        n, p, d = len(shell), len(i), len(found.u)
        r, cosine, distances, along = np.empty(n), np.empty(p), np.empty((n, d)), np.empty((p, d))
        gradients(self._points, self._moves, i, j, found.u, r, cosine, distances, along)
        turns = np.abs(distances @ found.v) > STILL
        moves = (np.abs(along @ found.v) > STILL) | turns[i] | turns[j]
        linked = (shell[:, None] == shell) & (turns[:, None] | turns)
        same = (found.pair[:, None] == found.pair) & moves[:, None] & moves
        first, second = np.where(shell[i] <= shell[j], (i, j), (j, i))
        one, other = np.nonzero(np.triu(same, 1))
        linked[first[one], first[other]] = linked[second[one], second[other]] = True
        one = one[shell[first[one]] == shell[second[one]]]
        linked[first[one], second[one]] = True
        linked |= linked.T | np.eye(len(shell), dtype=bool)
        while (more := linked @ linked).sum() > linked.sum():
            linked = more
        finer = _labels(linked.argmax(axis=1))
        low, high = np.sort([finer[i], finer[j]], axis=0)
        alone = np.where(moves, found.pair, len(i) + np.arange(len(i)))
        pair = _labels(alone + 2 * len(i) * (high + len(shell) * low))
        if finer.max() == shell.max() and pair.max(initial=0) == found.pair.max(initial=0):
            return None
        return finer, pair

    def _groupings(self, limit: float) -> tuple[Ints, Ints, Floats]:
        """Groupings that may be near: the classes of `_solved`, and what they cost at least, in Å².

        For each grouping of the distances those of the cosines between each two shells combine.
        """
        r = np.linalg.norm(self._points, axis=1)
        unit, i, j = self._points / r[:, None], self._i, self._j
        cosine = (unit[i] * unit[j]).sum(axis=1)
        arm = 0.5 * (r[i] + r[j])  # changes of a cosine are this much smaller than displacements
        shell, pair, cost = [], [], []
        known: dict[bytes, tuple[Floats, Ints]] = {}
        by_distance = _chain(r, self._species, np.ones(len(r)), limit, MOST_GAPS)
        for least, shells in zip(*by_distance, strict=True):
            kind = _labels(shells[i] * len(r) + shells[j])
            total, pairs = np.array([least]), np.zeros((1, len(i)), dtype=np.intp)
            n = np.zeros((1, 1), dtype=np.intp)
            for k in range(kind.max(initial=-1) + 1):
                part = np.flatnonzero(kind == k)
                if part.tobytes() not in known:
                    alike = np.zeros(len(part), int)
                    known[part.tobytes()] = _chain(cosine[part], alike, 0.5 * arm[part], limit)
                more, labels = known[part.tobytes()]
                total, before, chosen = _cheapest(total[:, None] + more, limit)
                pairs = pairs[before]
                pairs[:, part] = labels[chosen] + n[before]
                n = pairs[:, part].max(axis=1, keepdims=True) + 1
            shell.append(np.repeat(shells[None], len(total), axis=0))
            pair.append(pairs)
            cost.append(total)
        total, _, chosen = _cheapest(np.concatenate(cost)[None], limit)
        return np.concatenate(shell)[chosen], np.concatenate(pair)[chosen], total

    def _conditions(
        self, shell: Ints, pair: Ints, u: Floats, *, differences: bool = False
    ) -> tuple[Floats, Floats, Floats]:
        """Sums over classes, of shape (g, any, m, d), differences within and their derivatives.

        At displacements ``u`` of shape (g, any, d); the differences at the first of each.
        """
        (g, n), p, d = shell.shape, pair.shape[1], u.shape[2]
        sums, of = np.zeros((g, u.shape[1], n + 3 * p, d)), g if differences else 0
        changes, off = np.empty((of, n + p, d)), np.empty((of, n + p))
        around = self._points, self._moves, self._i, self._j
        conditions(*around, shell, pair, u, sums, changes, off)
        return sums, changes, off

    def _steps(
        self, shell: Ints, pair: Ints, u: Floats, v: Floats, *, any_mode: bool
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Of each grouping the step, the displacement to be hidden, the step's length, the error.

        The error is what the conditions are off by before the step.
        """
        every = np.arange(len(u))
        at, changes, off = self._conditions(shell, pair, u[:, None], differences=True)
        at = at[:, 0]
        values, modes = np.linalg.eigh(_gram(at))
        overlap = np.einsum("gd,gdk->gk", v, modes)
        soft = overlap.shape[1] if any_mode else 4
        k = np.abs(overlap[:, :soft]).argmax(axis=1)
        v = modes[every, :, k] * np.sign(overlap[every, k])[:, None]
        aside = u[:, None] + STEP * np.array([1.0, -1.0])[:, None] * v[:, None]
        sums = self._conditions(shell, pair, aside)[0]
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
) -> tuple[Floats, Ints]:
    """Groupings by single linkage at each height that is a gap: their costs (c,) and labels (c, n).

    The cost is the sum of squares of what values of a class differ from their mean. Where there are
    few gaps, any of them are closed.
    """
    if len(values) == 1:
        return np.zeros(1), np.zeros((1, 1), dtype=np.intp)
    order = np.lexsort((values, groups))
    gaps = np.where(np.diff(groups[order]) == 0, np.diff(values[order]), np.inf)
    finite = np.flatnonzero(np.isfinite(gaps))
    if len(finite) <= most_gaps:
        opened = np.ones((2 ** len(finite), len(gaps)), dtype=bool)
        opened[:, finite] = list(product((True, False), repeat=len(finite)))
    else:
        opened = gaps > np.concatenate([[-1.0], np.sort(gaps[finite])])[:, None]
    labels = np.zeros((len(opened), len(values)), dtype=np.intp)
    labels[:, order[1:]] = opened.cumsum(axis=1)
    same = (labels[:, :, None] == labels[:, None, :]).astype(float)
    off = weights * (values - same @ values / same.sum(axis=2))
    cost = (off**2).sum(axis=1)
    return cost[cost < limit**2], labels[cost < limit**2]


def _cheapest(costs: Floats, limit: float) -> tuple[Floats, Ints, Ints]:
    """The smallest of costs that are summed in a table, with their rows and columns."""
    best = costs.argsort(axis=None, kind="stable")[:MOST_GROUPINGS]
    best = best[costs.ravel()[best] < limit**2]
    return costs.ravel()[best], *np.divmod(best, costs.shape[1])


def _labels(kinds: Ints) -> Ints:
    """Numbers from 0 for kinds that are whole numbers, in their order."""
    labels: Ints = np.unique(kinds, return_inverse=True)[1].reshape(-1).astype(np.intp)
    return labels
