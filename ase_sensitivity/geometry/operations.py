"""Kernels that look for orthogonal matrices which map points onto each other."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.compiled.njit import njit

OPTIONS = {"nogil": True}

FEW = 32
"""Operations that there is room for at first."""


@njit(**OPTIONS)
def matches(d, unit, shell, away, first, slack, reach):
    """Matrices that map all points onto points of the same shells, and their permutations.

    Each maps the first point and a second one, the one that leaves fewest choices, onto two of the
    same shells at the same angle. The normal of their plane may keep or change its sign: so planar
    environments are complete too.

    Parameters
    ----------
    d, unit, shell, away
        The points in Å, of shape (n, 3), their directions and shells, and whether they are away
        from the origin.
    first
        The first point.
    slack
        How much the cosines of the angles may differ.
    reach
        How far a point may be from where a matrix puts it, in Å.

    Returns
    -------
    matrices, images
        Of shape (g, 3, 3), and the point that each takes point j to, of shape (g, n).
    """
    n = len(d)
    images = np.flatnonzero(shell == shell[first])
    cosine = np.empty((len(images), n))
    own, sine, steepest = np.empty(n), np.empty(n), 0.0
    for j in range(n):
        for a in range(len(images)):
            cosine[a, j] = _product(unit[images[a]], unit[j])
        own[j] = _product(unit[first], unit[j])
        sine[j] = np.sqrt(max(1.0 - own[j] ** 2, 0.0))
        if away[j]:
            steepest = max(steepest, sine[j])
    second, fewest = -1, 0
    for j in range(n):
        if away[j] and sine[j] > min(0.3, 0.9 * steepest):
            count = 0
            for a in range(len(images)):
                for b in range(n):
                    count += _alike(cosine[a, b], own[j], sine[j], shell[b], shell[j], slack)
            if second < 0 or count < fewest:
                second, fewest = j, count
    frame, other = np.empty((3, 3)), np.empty((3, 3))
    _set_frame(unit[first], unit[second], frame)
    matrices, found = np.empty((FEW, 3, 3)), np.empty((FEW, n), dtype=np.intp)
    g = 0
    for sign in (1.0, -1.0):
        for a in range(len(images)):
            for b in range(n):
                angle, j = cosine[a, b], second
                if not _alike(angle, own[j], sine[j], shell[b], shell[j], slack):
                    continue
                if g == len(found):
                    matrices = np.concatenate((matrices, np.empty_like(matrices)))
                    found = np.concatenate((found, np.empty_like(found)))
                _set_frame(unit[images[a]], unit[b], other)
                for x in range(3):
                    for y in range(3):
                        matrices[g, x, y] = (
                            other[0, x] * frame[0, y]
                            + other[1, x] * frame[1, y]
                            + sign * other[2, x] * frame[2, y]
                        )
                if is_mapped(d, shell, matrices[g], found[g], reach):
                    g += 1
    return matrices[:g].copy(), found[:g].copy()


@njit(**OPTIONS)
def is_mapped(d, shell, matrix, image, reach):
    """Whether a matrix maps all points near other ones, which are written to ``image``."""
    n = len(d)
    taken = np.zeros(n, dtype=np.bool_)
    for j in range(n):
        x, y, z = (
            matrix[0, 0] * d[j, 0] + matrix[0, 1] * d[j, 1] + matrix[0, 2] * d[j, 2],
            matrix[1, 0] * d[j, 0] + matrix[1, 1] * d[j, 1] + matrix[1, 2] * d[j, 2],
            matrix[2, 0] * d[j, 0] + matrix[2, 1] * d[j, 1] + matrix[2, 2] * d[j, 2],
        )
        nearest, apart = -1, reach**2
        for k in range(n):
            if shell[k] == shell[j]:
                square = (x - d[k, 0]) ** 2 + (y - d[k, 1]) ** 2 + (z - d[k, 2]) ** 2
                if square <= apart:
                    nearest, apart = k, square
        if nearest < 0 or taken[nearest]:
            return False
        taken[nearest] = True
        image[j] = nearest
    return True


@njit(**OPTIONS)
def all_mapped(points, numbers, sizes, matrices, reach, images):
    """Which of g matrices map the points of which of e environments, of shape (e, g).

    Parameters
    ----------
    points, numbers, sizes
        The points in Å, of shape (e, n, 3), their species (e, n), and how many there are, (e,).
    matrices, reach
        As in `matches`.
    images
        The point that each takes point j to, of shape (e, g, n), is written here.
    """
    mapped = np.zeros(images.shape[:2], dtype=np.bool_)
    for k in range(len(points)):
        n = sizes[k]
        for g in range(len(matrices)):
            image = images[k, g, :n]
            mapped[k, g] = is_mapped(points[k, :n], numbers[k, :n], matrices[g], image, reach)
            if not mapped[k, g]:
                image[:] = np.arange(n)
    return mapped


@njit(**OPTIONS)
def _product(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**OPTIONS)
def _alike(angle, own, sine, shell, own_shell, slack):
    """Whether two points may be images, by the cosines of angles and by shells.

    Two directions that are nearly parallel do not define a frame.
    """
    return shell == own_shell and abs(angle - own) < slack and 1.0 - angle**2 > (0.5 * sine) ** 2


@njit(**OPTIONS)
def _set_frame(first, second, frame):
    """Orthonormal right-handed axes as rows, the first one along ``first``."""
    along = _product(first, second)
    square = 0.0
    for x in range(3):
        frame[0, x] = first[x]
        frame[1, x] = second[x] - along * first[x]
        square += frame[1, x] ** 2
    for x in range(3):
        frame[1, x] /= np.sqrt(square)
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        frame[2, x] = frame[0, y] * frame[1, z] - frame[0, z] * frame[1, y]
