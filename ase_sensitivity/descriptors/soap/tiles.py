"""Neighbors of a center four at a time, and what their products need (see local_gram).

Neighbors of one species stand together in tiles of four; lanes are the neighbors of a tile, and
those without an atom are zero. For each (l, m) a tile has a record of numbers, and for each (l, n)
the radial functions S' and S.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, mul, splat, store, total
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.density import INNER, harmonics, radial
from ase_sensitivity.types import Ints

RECORD = 32
"""Numbers of a tile for one (l, m): Y and its derivatives along two directions across the bond, q
of S' and of S, and w = Gamma y of each of the three y."""

SPARE = 32
"""Numbers behind those of a tile that may be overwritten."""


@njit(**INNER)
def in_tiles(species, first, last, n_species, order, kind):
    """Number the neighbors species by species, each from a new tile on; return the end.

    `order` gets the neighbor at each place, -1 for none and -2 from the end on, and `kind` the
    species of each tile.
    """
    end = 0
    for s in range(n_species):
        for k in range(first, last):
            if species[k] == s:
                kind[end // 4] = s
                order[end] = k - first
                end += 1
        while end % 4 > 0:
            order[end] = -1
            end += 1
    for place in range(end, len(order)):
        order[place] = -2
    return end


@njit(**INNER)
def dot(a0, b0, a1, b1, a2, b2):
    """The sum of three products."""
    return fma(a0, b0, fma(a1, b1, mul(a2, b2)))


@njit(**INNER)
def fill_tile(first, t, order, vectors, basis, position, scratch, tiles, rays, frames):
    """Evaluate the radial functions, the harmonics and the frames of a tile; zeros without atom."""
    n_max, cutoff, width, per_length, degree, table = basis[1:7]
    l_max, recursion, smooth = basis[7][2], basis[8], basis[9]
    values, legendre, directions = scratch
    l_padded = 4 * (basis[7][0].size - 1)
    n_radial = n_max * l_padded
    ray = 8 * t * (l_max + 1) * n_max
    # Literals have other types: functions would be compiled again.
    zero, one, four = np.intp(0), np.intp(1), np.intp(4)
    for lane in range(4):
        k = order[4 * t + lane]
        x, y, z, r = 0.0, 0.0, 1.0, 1.0
        present = 1.0 if k >= 0 else 0.0
        if k >= 0:
            x, y, z = vectors[first + k, 0], vectors[first + k, 1], vectors[first + k, 2]
            r = math.sqrt(x * x + y * y + z * z)
            x, y, z = x / r, y / r, z / r
            radial(r, cutoff, width, smooth, per_length, table, n_radial, degree, values, zero)
        for n in range(n_max):
            for l in range(l_max + 1):  # noqa: E741
                to = ray + 8 * (l * n_max + n) + lane
                rays[to] = present * values[n_radial + n * l_padded + l]
                rays[to + 4] = present * values[n * l_padded + l]
        at = 36 * t + lane
        directions[lane], directions[4 + lane], directions[8 + lane] = x, y, z
        directions[12 + lane] = 1.0 / r
        # Two directions across the bond, for any direction of it.
        sign = math.copysign(1.0, z)
        a = -1.0 / (sign + z)
        b = x * y * a
        frames[at], frames[at + 4], frames[at + 8] = x, y, z
        frames[at + 12], frames[at + 16], frames[at + 20] = (
            1.0 + sign * x * x * a,
            sign * b,
            -sign * x,
        )
        frames[at + 24], frames[at + 28], frames[at + 32] = b, sign + y * y * a, -y
    at = t * (RECORD * (l_max + 1) ** 2 + SPARE)
    x, y, z, inverse = directions[0:4], directions[4:8], directions[8:12], directions[12:16]
    harmonics(x, y, z, inverse, position, l_max, recursion, legendre, tiles, at, four, one)
    x1, y1, z1 = load(frames, 36 * t + 12), load(frames, 36 * t + 16), load(frames, 36 * t + 20)
    x2, y2, z2 = load(frames, 36 * t + 24), load(frames, 36 * t + 28), load(frames, 36 * t + 32)
    for to in range(at, at + RECORD * (l_max + 1) ** 2, RECORD):
        x, y, z = load(tiles, to + 4), load(tiles, to + 8), load(tiles, to + 12)
        store(tiles, to + 4, dot(x1, x, y1, y, z1, z))
        store(tiles, to + 8, dot(x2, x, y2, y, z2, z))


@njit(**INNER)
def add_density(begin, end, s, n_channels, n_max, l_max, tiles, rays, lanes, compact):
    """Put the coefficients of one species, from tiles `begin` to `end` - 1, in `compact`."""
    n_lm = (l_max + 1) ** 2
    lanes[:] = 0.0
    for t in range(begin, end):
        at, ray = t * (RECORD * n_lm + SPARE), 8 * t * (l_max + 1) * n_max
        for l in range(l_max + 1):  # noqa: E741
            for n in range(n_max):
                value = load(rays, ray + 8 * (l * n_max + n) + 4)
                for m in range(l * l, (l + 1) * (l + 1)):
                    to = 4 * (n * n_lm + m)
                    store(lanes, to, fma(value, load(tiles, at + RECORD * m), load(lanes, to)))
    at = 0
    for l in range(l_max + 1):  # noqa: E741
        width = 4 * ((2 * l + 4) // 4)
        for n in range(n_max):
            for m in range(2 * l + 1):
                value = load(lanes, 4 * (n * n_lm + l * l + m))
                compact[at + (s * n_max + n) * width + m] += total(value)
        at += n_channels * width


@njit(**INNER)
def gamma_of(compact, n_channels, l_max, gamma):
    """Put Gamma in `gamma`; return |P|²."""
    at, to = 0, 0
    square = 0.0
    for l in range(l_max + 1):  # noqa: E741
        n_m = 2 * l + 1
        width = 4 * ((n_m + 3) // 4)
        squares = splat(0.0)
        for m in range(n_m):
            for g in range(0, width, 4):
                value = splat(0.0)
                for a in range(n_channels):
                    row = at + a * width
                    value = fma(splat(compact[row + m]), load(compact, row + g), value)
                squares = fma(value, value, squares)
                store(gamma, to + m * width + g, value)
        square += total(squares) / n_m
        at += n_channels * width
        to += n_m * width
    return square


@njit(**INNER)
def project_tile(t, s, n_channels, n_max, l_max, compact, gamma, tiles, rays, factor, frames, to):
    """Put q and w = Gamma y of a tile in its record, and `factor` P . dP in `to`, in x, y, z.

    Two m are treated at a time. Behind an odd number of them the next l, or nothing, overwrites.
    """
    at, ray = t * (RECORD * (l_max + 1) ** 2 + SPARE), 8 * t * (l_max + 1) * n_max
    start, of_gamma = 0, 0
    c0, c1, c2 = splat(0.0), splat(0.0), splat(0.0)
    for l in range(l_max + 1):  # noqa: E741
        n_m = 2 * l + 1
        width = 4 * ((n_m + 3) // 4)
        weight, root = splat(2.0 / n_m), splat(math.sqrt(2.0 / n_m))
        for m in range(0, n_m, 2):
            p0, p1, q0, q1 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            own = start + s * n_max * width + m
            for place in range(ray + 8 * l * n_max, ray + 8 * (l + 1) * n_max, 8):
                slope, value = load(rays, place), load(rays, place + 4)
                c, d = splat(compact[own]), splat(compact[own + 1])
                p0, p1 = fma(c, slope, p0), fma(c, value, p1)
                q0, q1 = fma(d, slope, q0), fma(d, value, q1)
                own += width
            v0, v1, v2 = splat(0.0), splat(0.0), splat(0.0)
            w0, w1, w2 = splat(0.0), splat(0.0), splat(0.0)
            row = of_gamma + m
            for place in range(at + RECORD * l * l, at + RECORD * (l + 1) * (l + 1), RECORD):
                y0, y1, y2 = load(tiles, place), load(tiles, place + 4), load(tiles, place + 8)
                g, h = splat(gamma[row]), splat(gamma[row + 1])
                v0, v1, v2 = fma(g, y0, v0), fma(g, y1, v1), fma(g, y2, v2)
                w0, w1, w2 = fma(h, y0, w0), fma(h, y1, w1), fma(h, y2, w2)
                row += width
            v0, v1, v2 = mul(weight, v0), mul(weight, v1), mul(weight, v2)
            w0, w1, w2 = mul(weight, w0), mul(weight, w1), mul(weight, w2)
            c0, c1, c2 = fma(v0, p0, c0), fma(v1, p1, c1), fma(v2, p1, c2)
            c0, c1, c2 = fma(w0, q0, c0), fma(w1, q1, c1), fma(w2, q1, c2)
            place = at + RECORD * (l * l + m)
            store(tiles, place + 12, mul(root, p0))
            store(tiles, place + 16, mul(root, p1))
            store(tiles, place + 20, v0)
            store(tiles, place + 24, v1)
            store(tiles, place + 28, v2)
            store(tiles, place + RECORD + 12, mul(root, q0))
            store(tiles, place + RECORD + 16, mul(root, q1))
            store(tiles, place + RECORD + 20, w0)
            store(tiles, place + RECORD + 24, w1)
            store(tiles, place + RECORD + 28, w2)
        start += n_channels * width
        of_gamma += n_m * width
    part = splat(factor)
    c0, c1, c2 = mul(part, c0), mul(part, c1), mul(part, c2)
    for x in range(0, 12, 4):
        at = 36 * t + x
        e0, e1, e2 = load(frames, at), load(frames, at + 12), load(frames, at + 24)
        store(to, 12 * t + x, dot(c0, e0, c1, e1, c2, e2))


def scratch(basis: Basis, width: int) -> tuple[Any, ...]:
    """Scratch arrays of `local_grams`, for environments of up to `width` neighbors in tiles."""
    n_max, n_lm, n_tiles = basis.n_max, (basis.l_max + 1) ** 2, width // 4
    n_padded, n_gamma = _sizes(basis.l_max)
    return (
        (
            np.zeros(2 * n_max * basis.harmonics.l_padded),
            np.zeros(4 * (basis.l_max + 2) ** 2),
            np.zeros(16),
        ),
        np.zeros(4 * n_max * n_lm),
        np.zeros(basis.n_channels * n_padded),
        np.zeros(n_gamma),
        np.zeros(n_tiles, dtype=np.intp),
        np.zeros(n_tiles * (RECORD * n_lm + SPARE)),
        np.zeros(n_tiles * 8 * (basis.l_max + 1) * n_max),
        np.zeros(n_tiles * 36),
        np.zeros(n_tiles * 12),
        np.zeros(72),
    )


@cache
def _sizes(l_max: int) -> tuple[int, int]:
    """Numbers of the coefficients of one channel and of Gamma, rows of each l padded."""
    n_m = 2 * np.arange(l_max + 1) + 1
    padded = 4 * -(-n_m // 4)
    return int(padded.sum()), int(n_m @ padded)


@cache
def positions(l_max: int) -> Ints:
    """Place of each (l, m) in a tile, of shape (l_max + 1, 2 l_max + 1)."""
    l, m = np.indices((l_max + 1, 2 * l_max + 1))  # noqa: E741
    return RECORD * (l * l + m)
