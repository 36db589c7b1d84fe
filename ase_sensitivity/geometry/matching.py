"""The distance of two sets of points, minimal over rotations, reflections and permutations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from math import factorial, prod

import numpy as np
import scipy

from ase_sensitivity.linalg.canonical import DEGENERATE, canonical, multiplets
from ase_sensitivity.types import Floats, Ints

ALL = 720
"""Up to this number, all permutations of points of the same species are tried: six points of one
species have as many."""

FRAMES = 1500
"""The largest number of orientations that are tried if there are too many permutations."""

REFINED = 16
"""The number of the best of these orientations that are refined."""

COINCIDENT = 1e-9
"""Distances (Å) below this are zero."""


@dataclass(frozen=True, eq=False)
class Match:
    """The best match found of points a and points b.

    Attributes
    ----------
    rmsd
        Root mean square distance in Å between the points of b and those of a put on them; infinite
        if the species differ.
    maximum
        The largest of these distances, in Å.
    rotation
        Orthogonal matrix of shape (3, 3), determinant 1 or -1: ``a @ rotation.T`` is put on b.
    permutation
        The point of b that each point of a is put on, of shape (n,); empty if the species differ.
    exact
        Whether it is certain that no other match has a smaller rmsd. Otherwise ``rmsd`` is an upper
        bound; matches with a small rmsd are found nevertheless.
    """

    rmsd: float
    maximum: float
    rotation: Floats
    permutation: Ints
    exact: bool

    def __repr__(self) -> str:
        return f"Match(rmsd={self.rmsd:.3g}, maximum={self.maximum:.3g})"


def best_match(
    numbers_a: Ints, displacements_a: Floats, numbers_b: Ints, displacements_b: Floats
) -> Match:
    """The orthogonal matrix and the permutation that put points a on points b of the same species.

    Parameters
    ----------
    numbers_a, numbers_b
        Species of the points, of shape (n,).
    displacements_a, displacements_b
        The points in Å, relative to the origin that the two sets share, of shape (n, 3). Whole
        molecules are best matched about their centroids.

    Returns
    -------
    Match
        The one with the smallest rmsd.

    Notes
    -----
    For one permutation the best orthogonal matrix is U V^T, with U S V^T the singular value
    decomposition of the sum of the outer products of all pairs of points, and
    ``n rmsd^2 = |a|^2 + |b|^2 - 2 tr S`` (Kabsch). If there are few permutations, all are tried.
    Otherwise matrices are tried that put two points of a in the directions of two points of b, or
    the principal axes of a on those of b. The best of them are refined by optimizing the assignment
    and the matrix alternately.

    Examples
    --------
    A chain of four atoms and its mirror image, listed in the reverse order:

    >>> import numpy as np
    >>> chain = np.array([(0.9, 1.0, 0.4), (0.6, 0, 0), (-0.6, 0, 0), (-1.0, 1.1, 0.0)])
    >>> numbers = np.array([1, 6, 6, 1])
    >>> match = best_match(numbers, chain, numbers, (chain * [1, 1, -1])[::-1])
    >>> match.permutation
    array([3, 2, 1, 0])
    >>> round(float(np.linalg.det(match.rotation))), bool(match.rmsd < 1e-7)
    (-1, True)
    """
    a, b = np.asarray(displacements_a, dtype=float), np.asarray(displacements_b, dtype=float)
    species_a, species_b = np.asarray(numbers_a), np.asarray(numbers_b)
    if not np.array_equal(np.sort(species_a), np.sort(species_b)):
        return Match(np.inf, np.inf, np.eye(3), np.empty(0, dtype=np.intp), True)
    if len(a) == 0:
        return Match(0.0, 0.0, np.eye(3), np.empty(0, dtype=np.intp), True)
    counts = tuple(Counter(np.sort(species_a).tolist()).values())
    order_a, order_b = np.argsort(species_a, kind="stable"), np.argsort(species_b, kind="stable")
    sorted_a, sorted_b, species = a[order_a], b[order_b], species_a[order_a]
    exact = prod(factorial(count) for count in counts) <= ALL
    if exact:
        image = _over_all(sorted_a, sorted_b, counts)
    else:
        image = _over_orientations(sorted_a, sorted_b, species)
    rotation = kabsch(sorted_a, sorted_b[image])
    distance = np.linalg.norm(sorted_a @ rotation.T - sorted_b[image], axis=1)
    permutation = np.empty(len(a), dtype=np.intp)
    permutation[order_a] = order_b[image]
    rmsd = float(np.sqrt((distance**2).mean()))
    exact = exact or rmsd <= _bound(sorted_a, sorted_b, species) + COINCIDENT
    return Match(rmsd, float(distance.max()), rotation, permutation, exact)


def kabsch(a: Floats, b: Floats) -> Floats:
    """The orthogonal matrix that puts a closest to b."""
    u, _, vt = np.linalg.svd(b.T @ a)
    rotation: Floats = u @ vt
    return rotation


def _bound(a: Floats, b: Floats, species: Ints) -> float:
    """A lower bound of the rmsd, from the distances to the origin, which no match changes."""
    r, s = (np.linalg.norm(points, axis=1) for points in (a, b))
    return float(np.sqrt(((r[np.lexsort((r, species))] - s[np.lexsort((s, species))]) ** 2).mean()))


@lru_cache(maxsize=32)
def _permutations(counts: tuple[int, ...]) -> Ints:
    """All permutations within successive groups of ``counts`` points, of shape (any, n)."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    runs = [permutations(range(s, s + c)) for s, c in zip(starts.tolist(), counts, strict=False)]
    return np.array([sum(choice, ()) for choice in product(*runs)], dtype=np.intp)


def _over_all(a: Floats, b: Floats, counts: tuple[int, ...]) -> Ints:
    """The best of all permutations."""
    every = _permutations(counts)
    correlation = np.einsum("pni,nj->pij", b[every], a)
    return every[np.linalg.svd(correlation, compute_uv=False).sum(axis=1).argmax()]


def _over_orientations(a: Floats, b: Floats, species: Ints) -> Ints:
    """The best permutation found from many orientations."""
    apart = species[:, None] != species
    # Lower bounds of the assignments' costs select the orientations to refine.
    rotations = np.concatenate([_principal(a, b), *_paired(a, b, species)])
    moved = np.einsum("hij,nj->hni", rotations, a)
    squares = ((b**2).sum(axis=1) - 2 * moved @ b.T) + (moved**2).sum(axis=2)[:, :, None]
    squares[:, apart] = np.inf
    nearest = np.maximum(squares.min(axis=2).sum(axis=1), squares.min(axis=1).sum(axis=1))
    best, least, tried = np.arange(len(a)), np.inf, set()
    far = 10.0 * (np.linalg.norm(a, axis=1).max() + np.linalg.norm(b, axis=1).max()) ** 2 + 1.0
    limit = max(_bound(a, b, species), COINCIDENT) ** 2 * len(a) * (1 + 1e-9)
    for start in np.argsort(nearest, kind="stable")[:REFINED]:
        rotation = rotations[start]
        image = np.arange(len(a))
        for _ in range(30):
            moved_a = a @ rotation.T
            cost = np.where(apart, far, ((moved_a[:, None] - b) ** 2).sum(axis=2))
            image = scipy.optimize.linear_sum_assignment(cost)[1]
            if image.tobytes() in tried:
                break
            tried.add(image.tobytes())
            rotation = kabsch(a, b[image])
            total = float(((a @ rotation.T - b[image]) ** 2).sum())
            if total < least:
                best, least = image, total
        if least <= limit:
            break
    return best


def _principal(a: Floats, b: Floats) -> Floats:
    """Matrices that put the principal axes of a on those of b, all orders and signs; (48, 3, 3)."""
    axes_a, axes_b = (_axes(points) for points in (a, b))
    signed = np.array(
        [
            np.eye(3)[list(order)] * signs
            for order in permutations(range(3))
            for signs in product((1.0, -1.0), repeat=3)
        ]
    )
    matrices: Floats = axes_b @ signed @ axes_a.T
    return matrices


def _axes(points: Floats) -> Floats:
    """Principal axes as columns; where moments are equal, the choice of :func:`canonical`."""
    moments, axes = np.linalg.eigh(points.T @ points)
    return canonical(axes, multiplets(moments, DEGENERATE * float(moments[-1])))


def _paired(a: Floats, b: Floats, species: Ints) -> list[Floats]:
    """Matrices that put the directions of two points of a on those of two points of b."""
    r, s = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    if min(r.max(), s.max()) < COINCIDENT:
        return []
    u, v = a / np.maximum(r, COINCIDENT)[:, None], b / np.maximum(s, COINCIDENT)[:, None]
    counts = (species[:, None] == species).sum(axis=1)
    sine = np.sqrt((1 - (u @ u.T) ** 2).clip(0.0))
    usable = (r > 0.3 * r.max())[:, None] & (r > 0.3 * r.max()) & (sine > 0.5 * sine.max())
    usable &= (sine > 0.05) & ~np.eye(len(a), dtype=bool)
    # Pairs with few images come first, and among these the more independent directions.
    choices = np.outer(counts, counts) - sine
    choices[~usable] = np.inf
    found: list[Floats] = []
    room = FRAMES // 2
    for pair in np.argsort(choices, axis=None, kind="stable")[:3].tolist():
        i, j = divmod(pair, len(a))
        if not np.isfinite(choices[i, j]) or room <= 0:
            break
        k, m = np.nonzero(np.outer(species == species[i], species == species[j]))
        cosine = np.einsum("ij,ij->i", v[k], v[m])
        miss = (r[i] - s[k]) ** 2 + (r[j] - s[m]) ** 2 + (u[i] @ u[j] - cosine) ** 2 * r[i] * r[j]
        miss[(1 - cosine**2 < 1e-3) | (np.minimum(s[k], s[m]) < COINCIDENT)] = np.inf
        order = np.argsort(miss, kind="stable")[:room]
        order = order[np.isfinite(miss[order])]
        room -= len(order)
        rotated = _frames(v[k[order]], v[m[order]])
        frame = _frames(u[[i]], u[[j]])[0]
        found += [
            rotated @ frame.T,
            (rotated * np.array([1.0, 1.0, -1.0])) @ frame.T,
        ]
    return found


def _frames(first: Floats, second: Floats) -> Floats:
    """Orthonormal right-handed frames as columns, the first vector along ``first``, (m, 3, 3).

    The two directions are treated alike: the x axis bisects the angle between them.
    """
    x = first + second
    x /= np.linalg.norm(x, axis=1)[:, None]
    y = first - second
    y /= np.linalg.norm(y, axis=1)[:, None]
    return np.stack([x, y, np.cross(x, y)], axis=2)
