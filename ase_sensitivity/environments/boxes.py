"""Nearest neighbors among points in boxes, by exact bounds; compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.sparse import OPTIONS
from ase_sensitivity.types import Floats, Ints

SIZE = 64
"""Number of points in a box."""

FIRST = 4
"""So many of the nearest boxes are visited first. Most others are too far then."""

ROUNDING = 2e-7
"""Largest error of a distance of points in single precision, over the sum of their norms."""

SUMMED = 1e-5
"""Largest relative error of the root of a sum of squares in single precision."""

Singles = NDArray[np.float32]


class Boxes:
    """Points, with coordinates of descending importance, in boxes of :data:`SIZE` points.

    Parameters
    ----------
    projected, beyond
        Coordinates of shape (n, n_axes), and distances of the points from these axes, of shape
        (n,); in single precision, and not copied.
    group
        The number of the group of each point, from 0; only points of one group are compared.
    n_searched
        On so many coordinates boxes are compared.

    Notes
    -----
    The points of a group are divided at the median of the coordinate with the largest range, again
    and again, as in a k-d tree with large leaves. A search compares the bounds of all boxes, and
    the points of those boxes that may have near ones, axis by axis for all points of a box.
    """

    def __init__(self, projected: Singles, beyond: Singles, group: Ints, n_searched: int) -> None:
        self._projected, self._beyond = projected, beyond
        rows = []
        counts = np.bincount(group)
        by_group = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
        for own in by_group:
            ordered = own[_in_boxes(projected[own, :n_searched])]
            rows.append(np.append(ordered, np.full(-len(own) % SIZE, -1)))
        self._rows = np.concatenate(rows)
        self._first = np.concatenate([[0], np.cumsum(-(-counts // SIZE))])
        points = projected[self._rows, :n_searched].reshape(-1, SIZE, n_searched)
        missing = self._rows.reshape(-1, SIZE) < 0
        points[missing] = np.inf
        self._low = np.ascontiguousarray(points.min(axis=1).T)
        self._points = np.ascontiguousarray(points.transpose(0, 2, 1))
        points[missing] = -np.inf
        self._high = np.ascontiguousarray(points.max(axis=1).T)
        squares = np.einsum("ij,ij->i", projected, projected) + beyond**2
        self._size = float(np.sqrt(squares.max()))

    def nearest(
        self, group: Ints, projected: Floats, beyond: Floats, k: int
    ) -> tuple[Ints, Floats, Floats]:
        """The ``k`` points with the least lower bounds of their distances.

        Parameters
        ----------
        group, projected, beyond
            Of the points that are searched for, of shape (m,), (m, n_axes) and (m,). Those of
            group -1 have no near points.
        k
            How many.

        Returns
        -------
        index, lower, upper
            The points, the nearest ones first, and bounds of their distances, each of shape (m, k).
            All other points of the group are farther than the last lower bound. If there are fewer
            points, the rest is -1, and infinite.
        """
        index = np.full((len(group), k), -1)
        square = np.full((len(group), k), np.inf, dtype=np.float32)
        _nearest(
            projected.astype(np.float32),
            beyond.astype(np.float32),
            np.where(group < 0, 0, self._first[group]),
            np.where(group < 0, 0, self._first[group + 1]),
            self._low,
            self._high,
            self._points,
            self._rows,
            self._projected,
            self._beyond,
            index,
            square,
        )
        # With b and c beyond the axes, (b + c)² is by 4 b c larger than (b - c)².
        larger = square + 4 * beyond[:, None] * self._beyond[index]
        size = np.sqrt(np.einsum("ij,ij->i", projected, projected) + beyond**2)
        slack = ROUNDING * (self._size + size)[:, None]
        lower = (1 - SUMMED) * np.sqrt(square) - slack
        upper = (1 + SUMMED) * np.sqrt(larger) + slack
        return index, np.maximum(lower, 0.0), upper


def _in_boxes(points: Singles) -> Ints:
    """An order in which each :data:`SIZE` points following each other are near."""
    order = np.arange(len(points))
    waiting = [(0, len(points))]
    while waiting:
        first, last = waiting.pop()
        n_boxes = -(-(last - first) // SIZE)
        if n_boxes < 2:
            continue
        some = order[first:last]
        own = points[some]
        column = own[:, np.ptp(own, axis=0).argmax()]
        middle = SIZE * (n_boxes // 2)
        order[first:last] = some[np.argpartition(column, middle)]
        waiting += [(first, first + middle), (first + middle, last)]
    return order


@njit(**OPTIONS)
def _nearest(
    queries, beyond, first, last, low, high, points, rows, projected, beyonds, index, square
):
    """Fill ``index`` and ``square`` (n_queries, k) with the nearest rows and squares of bounds.

    Parameters
    ----------
    queries, beyond
        Coordinates (n_queries, n_axes), and distances from the axes (n_queries,).
    first, last
        The range of boxes to search for each query.
    low, high
        Bounds of the boxes, (n_searched, n_boxes).
    points
        Coordinates of the points in each box, (n_boxes, n_searched, SIZE).
    rows
        The rows of these points in the next two arrays.
    projected, beyonds
        All coordinates, and distances from the axes.
    """
    n_axes, (n_searched, n_boxes), k = queries.shape[1], low.shape, index.shape[1]
    bounds = np.empty(n_boxes, dtype=np.float32)
    apart = np.empty(SIZE, dtype=np.float32)
    zero = np.float32(0.0)
    for m in range(len(queries)):
        own = bounds[first[m] : last[m]]
        own[:] = zero
        for a in range(n_searched):
            x = queries[m, a]
            lowest, highest = low[a, first[m] : last[m]], high[a, first[m] : last[m]]
            for b in range(len(own)):
                gap = max(max(lowest[b] - x, x - highest[b]), zero)
                own[b] += gap * gap
        for visit in range(min(FIRST, len(own)) + len(own)):
            b = visit - min(FIRST, len(own))
            if b < 0:
                b = int(np.argmin(own))
            if own[b] >= square[m, k - 1]:
                continue
            own[b] = np.inf
            box = first[m] + b
            apart[:] = zero
            for a in range(n_searched):
                x = queries[m, a]
                for j in range(SIZE):
                    step = x - points[box, a, j]
                    apart[j] += step * step
            for j in range(SIZE):
                if apart[j] < square[m, k - 1]:
                    row = rows[box * SIZE + j]
                    step = beyond[m] - beyonds[row]
                    total = apart[j] + step * step
                    for a in range(n_searched, n_axes):
                        step = queries[m, a] - projected[row, a]
                        total += step * step
                    at = k - 1
                    if total >= square[m, at]:
                        continue
                    while at > 0 and square[m, at - 1] > total:
                        square[m, at], index[m, at] = square[m, at - 1], index[m, at - 1]
                        at -= 1
                    square[m, at], index[m, at] = total, row
