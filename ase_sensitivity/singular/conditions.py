"""Kernels for what makes a geometry blind: sums over classes of distances and cosines."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.geometry.operations import OPTIONS


@njit(**OPTIONS)
def gradients(points, moves, i, j, u, r, cosine, distances, along):
    """Distances of neighbors, cosines of pairs, and their derivatives.

    Parameters
    ----------
    points, moves
        The neighbors, of shape (n, 3) in Å, and how coordinates move them, of shape (n, 3, d).
    i, j
        The neighbors of each pair, of shape (p,).
    u
        Coordinates, of shape (d,).
    r, cosine, distances, along
        Distances (n,) and cosines (p,), and their derivatives, of shape (n, d) and (p, d), are
        written here.
    """
    n, d = len(points), len(u)
    unit = points.copy()
    for k in range(n):
        square = 0.0
        for x in range(3):
            for c in range(d):
                unit[k, x] += moves[k, x, c] * u[c]
            square += unit[k, x] ** 2
        r[k] = np.sqrt(square)
        for c in range(d):
            distances[k, c] = 0.0
        for x in range(3):
            unit[k, x] /= r[k]
            for c in range(d):
                distances[k, c] += unit[k, x] * moves[k, x, c]
    for q in range(len(i)):
        a, b = i[q], j[q]
        angle = unit[a, 0] * unit[b, 0] + unit[a, 1] * unit[b, 1] + unit[a, 2] * unit[b, 2]
        cosine[q] = angle
        for c in range(d):
            along[q, c] = 0.0
        for x in range(3):
            of_a = (unit[b, x] - angle * unit[a, x]) / r[a]
            of_b = (unit[a, x] - angle * unit[b, x]) / r[b]
            for c in range(d):
                along[q, c] += of_a * moves[a, x, c] + of_b * moves[b, x, c]


@njit(**OPTIONS)
def conditions(points, moves, i, j, shell, pair, u, sums, changes, off):
    """Sums over classes of derivatives, and differences within classes.

    Parameters
    ----------
    points, moves, i, j
        As in `gradients`.
    shell, pair
        The class of each neighbor, of shape (g, n), and of each pair, of shape (g, p).
    u
        Coordinates, of shape (g, any, d); with (1, any, d) those of all groupings.
    sums
        Zeros of shape (g, any, n + 3 p, d): the sums are written here. They are over neighbors of
        their distances, and over pairs of their cosines and of the distances of both neighbors:
        added if these are of one class.
    changes, off
        Derivatives (g, n + p, d) and values (g, n + p) of distances and cosines less their means,
        at the first of each ``u``, are written here; nothing is if they are empty.
    """
    n, p, d = len(points), len(i), u.shape[2]
    r, cosine = np.empty(n), np.empty(p)
    distances, along = np.empty((n, d)), np.empty((p, d))
    for number in range(len(shell) * u.shape[1]):
        g, a = number // u.shape[1], number % u.shape[1]
        if g < len(u) or u.shape[1] > 1:
            gradients(points, moves, i, j, u[min(g, len(u) - 1), a], r, cosine, distances, along)
        total = sums[g, a]
        for k in range(n):
            for c in range(d):
                total[shell[g, k], c] += distances[k, c]
        for q in range(p):
            first, second, own = i[q], j[q], pair[g, q]
            if shell[g, first] > shell[g, second]:
                first, second = second, first
            later = n + 2 * p + own
            if shell[g, first] == shell[g, second]:
                later = n + p + own
            for c in range(d):
                total[n + own, c] += along[q, c]
                total[n + p + own, c] += distances[first, c]
                total[later, c] += distances[second, c]
        if a == 0 and len(off):
            _differ(shell[g], r, distances, total[:n], changes[g, :n], off[g, :n])
            _differ(pair[g], cosine, along, total[n : n + p], changes[g, n:], off[g, n:])


@njit(**OPTIONS)
def _differ(label, values, derivatives, sums, changes, off):
    """What values and their derivatives differ by from the means of their classes."""
    n = len(label)
    size, mean = np.zeros(n), np.zeros(n)
    for k in range(n):
        size[label[k]] += 1.0
        mean[label[k]] += values[k]
    for k in range(n):
        own = label[k]
        off[k] = values[k] - mean[own] / size[own]
        for c in range(derivatives.shape[1]):
            changes[k, c] = derivatives[k, c] - sums[own, c] / size[own]
