"""Kernels that look for orthogonal matrices which map points onto each other, and fit them."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.compiled.njit import njit

OPTIONS = {"nogil": True, "error_model": "numpy"}

FEW = 32
"""Operations that there is room for at first."""

UNTOLD = 1e-10
"""Weight of the matrix before in a fit, which decides what points do not tell."""

SWEEPS = 30
"""Sweeps of Jacobi rotations at most; 4 x 4 matrices take about five."""


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
def fitted(d, matrices, images, tolerance):
    """Change matrices so that they fit all points; which of them map these to a tolerance (Å)."""
    n = len(d)
    good = np.ones(len(matrices), dtype=np.bool_)
    for g in range(len(matrices)):
        pull = np.zeros((3, 3))
        for j in range(n):
            add_pull(d[j], d[images[g, j]], pull)
        fit(pull, pull, matrices[g])
        for j in range(n):
            good[g] &= missed_square(d[j], matrices[g], d[images[g, j]]) < tolerance**2
    return good


@njit(**OPTIONS)
def missed_square(point, matrix, image):
    """The squared distance of a point, after an operation, from its image."""
    square = 0.0
    for x in range(3):
        along = matrix[x, 0] * point[0] + matrix[x, 1] * point[1] + matrix[x, 2] * point[2]
        square += (along - image[x]) ** 2
    return square


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


@njit(**OPTIONS)
def add_pull(point, image, pull):
    """Add what pulls a matrix to take a point to an image, for `fit`."""
    for x in range(3):
        for y in range(3):
            pull[x, y] += image[x] * point[y]


@njit(**OPTIONS)
def fit(pull, like, matrix):
    """Fit an orthogonal matrix to points, with its determinant kept.

    What points do not tell stays as it is.

    Parameters
    ----------
    pull
        Sum of the products of images and points, of shape (3, 3), as `add_pull` adds them; it is
        changed.
    like
        Of the four matrices at which the sum of squares is stationary, the one most like this is
        taken: ``pull`` for the one that fits best, or ``matrix``. Then a turn by more than 90°
        stays one, as points near a line do not tell half a turn from none.
    matrix
        Of shape (3, 3); is changed.

    Notes
    -----
    B. K. P. Horn, J. Opt. Soc. Am. A 4, 629 (1987): stationary rotations are the eigenvectors of a
    4 x 4 matrix, as quaternions.
    """
    size, determinant = 0.0, 0.0
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        across = matrix[1, y] * matrix[2, z] - matrix[1, z] * matrix[2, y]
        determinant += matrix[0, x] * across
        for y in range(3):
            size += pull[x, y] ** 2
    size, sign = np.sqrt(size), 1.0 if determinant > 0.0 else -1.0
    for x in range(3):
        for y in range(3):
            pull[x, y] += UNTOLD * size * matrix[x, y]
    wanted, horn, vectors = np.empty((4, 4)), np.empty((4, 4)), np.empty((4, 4))
    _set_horn(like, sign, wanted)
    _set_horn(pull, sign, horn)
    diagonalize(horn, vectors)
    chosen, most = 0, -np.inf
    for k in range(4):
        alike = 0.0
        for a in range(4):
            for b in range(4):
                alike += vectors[a, k] * wanted[a, b] * vectors[b, k]
        if alike > most:
            chosen, most = k, alike
    w = vectors[0, chosen]
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        a, b, c = vectors[x + 1, chosen], vectors[y + 1, chosen], vectors[z + 1, chosen]
        matrix[x, x] = sign * (w * w + a * a - b * b - c * c)
        matrix[x, y] = sign * 2.0 * (a * b - w * c)
        matrix[y, x] = sign * 2.0 * (a * b + w * c)


@njit(**OPTIONS)
def diagonalize(symmetric, vectors):
    """Turn a 4 x 4 matrix into its eigenvalues, and fill the columns of another with eigenvectors.

    By Jacobi rotations. A last row of zeros stays as it is, so that smaller matrices have room.
    """
    for i in range(4):
        for j in range(4):
            vectors[i, j] = 1.0 if i == j else 0.0
    for _ in range(SWEEPS):
        off, size = 0.0, 0.0
        for i in range(4):
            size += symmetric[i, i] ** 2
            for j in range(i):
                off += symmetric[i, j] ** 2
        if off <= 1e-30 * size:
            return
        for i in range(3):
            for j in range(i + 1, 4):
                mixed = symmetric[i, j]
                if mixed == 0.0:
                    continue
                half = 0.5 * (symmetric[j, j] - symmetric[i, i])
                tangent = mixed / (abs(half) + np.hypot(half, mixed))
                if half < 0.0:
                    tangent = -tangent
                cosine = 1.0 / np.sqrt(tangent * tangent + 1.0)
                sine = tangent * cosine
                for k in range(4):
                    a, b = symmetric[k, i], symmetric[k, j]
                    symmetric[k, i], symmetric[k, j] = cosine * a - sine * b, sine * a + cosine * b
                for k in range(4):
                    a, b = symmetric[i, k], symmetric[j, k]
                    symmetric[i, k], symmetric[j, k] = cosine * a - sine * b, sine * a + cosine * b
                    a, b = vectors[k, i], vectors[k, j]
                    vectors[k, i], vectors[k, j] = cosine * a - sine * b, sine * a + cosine * b


@njit(**OPTIONS)
def _set_horn(pull, sign, horn):
    """The matrix whose largest eigenvector, as quaternion, turns points onto others."""
    horn[0, 0] = sign * (pull[0, 0] + pull[1, 1] + pull[2, 2])
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        horn[0, x + 1] = horn[x + 1, 0] = sign * (pull[z, y] - pull[y, z])
        horn[x + 1, x + 1] = sign * (pull[x, x] - pull[y, y] - pull[z, z])
        horn[x + 1, y + 1] = horn[y + 1, x + 1] = sign * (pull[x, y] + pull[y, x])
