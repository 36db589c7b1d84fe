"""Kernel of the Gram matrix J^T J of one center after the other, without its features.

For one center and one l, C (channels x 2 l + 1) holds the density coefficients. The features are
P = C C^T / sqrt(2 l + 1), with sqrt 2 off the diagonal, so that products of features are Frobenius
products. A neighbor has a frame: along the bond, and two directions across. Each of these three
displacements changes C by a matrix of rank one in the rows of its species, dC = s y^T, with
(s, y) = (S', Y), (S, d1 Y) and (S, d2 Y), S the radial functions and Y the harmonics. With
Gamma = C^T C and q = C^T s the products of derivatives by two neighbors are

<dP, dP'> = 2 / (2 l + 1) [(s . s') (y^T Gamma y') + (y . q') (q . y')],

where the first term is for neighbors of one species only. Its cost does not depend on the number of
species. With P . dP = 2 / (2 l + 1) y^T Gamma q and |P|² = |Gamma|² / (2 l + 1), `normalise`
subtracts a matrix of rank one.

Neighbors of one species stand together, four in a tile. Lanes are the neighbors of a tile.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import add, fma, load, mul, splat, store, sub, total
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.descriptors.soap.density import INNER, OPTIONS, harmonics, radial
from ase_sensitivity.types import Ints

RECORD = 32
"""Numbers of a tile for one (l, m): y along three directions, q of S' and of S, and three w."""

SPARE = 32
"""Numbers behind those of a tile that may be overwritten."""


@njit(**INNER)
def _in_tiles(species, first, last, n_species, order, kind):
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
def _dot(a0, b0, a1, b1, a2, b2):
    return fma(a0, b0, fma(a1, b1, mul(a2, b2)))


@njit(**INNER)
def _fill_tile(first, t, order, vectors, basis, position, scratch, tiles, rays, frames):
    """Evaluate the radial functions, the harmonics and the frames of a tile; zeros without atom."""
    n_max, cutoff, width, per_length, degree, table = basis[1:7]
    l_max, recursion, smooth = basis[7][2], basis[8], basis[9]
    values, legendre, directions = scratch
    l_padded = 4 * (basis[7][0].size - 1)
    n_radial = n_max * l_padded
    ray = 8 * t * (l_max + 1) * n_max
    for lane in range(4):
        k = order[4 * t + lane]
        x, y, z, r = 0.0, 0.0, 1.0, 1.0
        present = 1.0 if k >= 0 else 0.0
        if k >= 0:
            x, y, z = vectors[first + k, 0], vectors[first + k, 1], vectors[first + k, 2]
            r = math.sqrt(x * x + y * y + z * z)
            x, y, z = x / r, y / r, z / r
        radial(r, cutoff, width, smooth, per_length, table, n_radial, degree, values, 0)
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
        frames[at + 12], frames[at + 16], frames[at + 20] = 1.0 + sign * x * x * a, sign * b, -sign * x
        frames[at + 24], frames[at + 28], frames[at + 32] = b, sign + y * y * a, -y
    at = t * (RECORD * (l_max + 1) ** 2 + SPARE)
    x, y, z, inverse = directions[0:4], directions[4:8], directions[8:12], directions[12:16]
    harmonics(x, y, z, inverse, position, l_max, recursion, legendre, tiles, at, 4, 1)
    x1, y1, z1 = load(frames, 36 * t + 12), load(frames, 36 * t + 16), load(frames, 36 * t + 20)
    x2, y2, z2 = load(frames, 36 * t + 24), load(frames, 36 * t + 28), load(frames, 36 * t + 32)
    for to in range(at, at + RECORD * (l_max + 1) ** 2, RECORD):
        x, y, z = load(tiles, to + 4), load(tiles, to + 8), load(tiles, to + 12)
        store(tiles, to + 4, _dot(x1, x, y1, y, z1, z))
        store(tiles, to + 8, _dot(x2, x, y2, y, z2, z))


@njit(**INNER)
def _add_density(begin, end, s, n_channels, n_max, l_max, tiles, rays, lanes, compact):
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
def _gamma(compact, n_channels, l_max, gamma):
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
def _project_tile(t, s, n_channels, n_max, l_max, compact, gamma, tiles, rays, factor, frames, to):
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
        store(to, 12 * t + x, _dot(c0, e0, c1, e1, c2, e2))


@njit(**INNER)
def _products(tiles, at, i, rays, ray, j, like, n_max, l_max, block):
    """Products of the derivatives by one neighbor and by four, in their frames.

    `at` is the tile of the four and `i` the one, in `tiles`; `ray` and `j` the same in `rays`.
    """
    b00, b01, b02 = splat(0.0), splat(0.0), splat(0.0)
    b10, b11, b12 = splat(0.0), splat(0.0), splat(0.0)
    b20, b21, b22 = splat(0.0), splat(0.0), splat(0.0)
    for l in range(l_max + 1):  # noqa: E741
        z00, z01, z10 = splat(0.0), splat(0.0), splat(0.0)
        z11, z20, z21 = splat(0.0), splat(0.0), splat(0.0)
        x00, x01, x02 = splat(0.0), splat(0.0), splat(0.0)
        x10, x11, x12 = splat(0.0), splat(0.0), splat(0.0)
        for m in range(l * l, (l + 1) * (l + 1)):
            four, one = at + RECORD * m, i + RECORD * m
            q0, q1 = load(tiles, four + 12), load(tiles, four + 16)
            y = splat(tiles[one])
            z00, z01 = fma(y, q0, z00), fma(y, q1, z01)
            y = splat(tiles[one + 4])
            z10, z11 = fma(y, q0, z10), fma(y, q1, z11)
            y = splat(tiles[one + 8])
            z20, z21 = fma(y, q0, z20), fma(y, q1, z21)
            q0, q1 = splat(tiles[one + 12]), splat(tiles[one + 16])
            y = load(tiles, four)
            x00, x10 = fma(q0, y, x00), fma(q1, y, x10)
            y = load(tiles, four + 4)
            x01, x11 = fma(q0, y, x01), fma(q1, y, x11)
            y = load(tiles, four + 8)
            x02, x12 = fma(q0, y, x02), fma(q1, y, x12)
        b00, b01, b02 = fma(z00, x00, b00), fma(z01, x01, b01), fma(z01, x02, b02)
        b10, b11, b12 = fma(z10, x10, b10), fma(z11, x11, b11), fma(z11, x12, b12)
        b20, b21, b22 = fma(z20, x10, b20), fma(z21, x11, b21), fma(z21, x12, b22)
        if like:
            z00, z01, z10, z11 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for n in range(l * n_max, (l + 1) * n_max):
                s0, s1 = load(rays, j + 8 * n), load(rays, j + 8 * n + 4)
                s = splat(rays[ray + 8 * n])
                z00, z01 = fma(s, s0, z00), fma(s, s1, z01)
                s = splat(rays[ray + 8 * n + 4])
                z10, z11 = fma(s, s0, z10), fma(s, s1, z11)
            x00, x01, x02 = splat(0.0), splat(0.0), splat(0.0)
            x10, x11, x12 = splat(0.0), splat(0.0), splat(0.0)
            x20, x21, x22 = splat(0.0), splat(0.0), splat(0.0)
            for m in range(l * l, (l + 1) * (l + 1)):
                four, one = at + RECORD * m, i + RECORD * m
                y0, y1, y2 = load(tiles, four), load(tiles, four + 4), load(tiles, four + 8)
                w = splat(tiles[one + 20])
                x00, x01, x02 = fma(w, y0, x00), fma(w, y1, x01), fma(w, y2, x02)
                w = splat(tiles[one + 24])
                x10, x11, x12 = fma(w, y0, x10), fma(w, y1, x11), fma(w, y2, x12)
                w = splat(tiles[one + 28])
                x20, x21, x22 = fma(w, y0, x20), fma(w, y1, x21), fma(w, y2, x22)
            b00, b01, b02 = fma(z00, x00, b00), fma(z01, x01, b01), fma(z01, x02, b02)
            b10, b11, b12 = fma(z10, x10, b10), fma(z11, x11, b11), fma(z11, x12, b12)
            b20, b21, b22 = fma(z10, x20, b20), fma(z11, x21, b21), fma(z11, x22, b22)
    store(block, 0, b00)
    store(block, 4, b01)
    store(block, 8, b02)
    store(block, 12, b10)
    store(block, 16, b11)
    store(block, 20, b12)
    store(block, 24, b20)
    store(block, 28, b21)
    store(block, 32, b22)


@njit(**INNER)
def _turn(block, frames, one, t, factor, changes, local, to, step):
    """Turn products of one neighbor and of tile t to x, y, z, project and store.

    The nine results are stored `step` numbers apart. `one` is the tile of the one neighbor times
    12, plus its lane.
    """
    four = 36 * t
    for a in range(0, 36, 12):
        p0, p1, p2 = load(block, a), load(block, a + 4), load(block, a + 8)
        for y in range(four, four + 12, 4):
            e0, e1, e2 = load(frames, y), load(frames, y + 12), load(frames, y + 24)
            store(block, 36 + a + y - four, _dot(p0, e0, p1, e1, p2, e2))
    own = one % 4 + one // 4 * 36
    change = one % 4 + one // 4 * 12
    for x in range(0, 12, 4):
        e0, e1 = splat(factor * frames[own + x]), splat(factor * frames[own + 12 + x])
        e2 = splat(factor * frames[own + 24 + x])
        moved = splat(-changes[change + x])
        for y in range(0, 12, 4):
            p0, p1, p2 = load(block, 36 + y), load(block, 48 + y), load(block, 60 + y)
            value = _dot(p0, e0, p1, e1, p2, e2)
            store(local, to, fma(moved, load(changes, 12 * t + y), value))
            to += step


@njit(**INNER)
def _add_center(local, begin, end, step):
    """Add the row of the center, which moves against all neighbors: minus the sum of theirs.

    Products of neighbors i and j are valid where the tile of j is not beyond that of i.
    """
    last = begin + 9 * step * end
    for k in range(last, last + 9 * step):
        local[k] = 0.0
    for i in range(end):
        tile = i - i % 4
        for x in range(3):
            for y in range(3):
                at = begin + (9 * i + 3 * x + y) * step
                to = last + (3 * x + y) * step
                others = splat(0.0)
                for j in range(0, tile, 4):
                    value = load(local, at + j)
                    others = add(others, value)
                    store(local, to + j, sub(load(local, to + j), value))
                store(local, to + tile, sub(load(local, to + tile), load(local, at + tile)))
                local[last + (3 * y + x) * step + i] -= total(others)
    for a in range(9):
        own = 0.0
        for j in range(end):
            own -= local[last + a * step + j]
        local[last + a * step + end] = own


@njit(**OPTIONS)
def local_grams(
    rows,
    starts,
    vectors,
    species,
    center_species,
    central,
    basis,
    position,
    normalise,
    work,
    local,
    order,
    raw,
    squares,
):
    """Gram matrix of each of some rows, over the points of its environment.

    Parameters
    ----------
    rows
        The rows.
    starts, vectors, species, center_species, central, basis, normalise
        As in kernels.power_spectrum.
    position
        See `positions`.
    work
        Scratch arrays, see `scratch`.
    local
        Output, flat: (n_rows, width + 1, 3, 3, width + 4), entry (row, i, x, y, j) that of
        coordinate x of point i and y of point j <= i. The center is the last point.
    order
        Output: the pair that each point but the last belongs to, counted from the first of the row,
        of shape (n_rows, width); -1 for none, -2 from the center on.
    raw
        Output: sums of the squares of the derivatives by each point before the projection of
        `normalise`, of shape (n_rows, width + 1). For the center, the sum of those of the others.
    squares
        Output: the square of the norm of the features before `normalise`, of shape (n_rows,).
    """
    values, lanes, compact, gamma, kind, tiles, rays, frames, changes, block = work
    n_species, n_max = basis[0], basis[1]
    l_max = basis[7][2]
    n_channels = n_species * n_max
    tile_size, ray_size = RECORD * (l_max + 1) ** 2 + SPARE, 8 * (l_max + 1) * n_max
    width = order.shape[1]
    step = width + 4
    for number in range(len(rows)):
        row = rows[number]
        first = starts[row]
        places = order[number]
        end = _in_tiles(species, first, starts[row + 1], n_species, places, kind)
        compact[:] = 0.0
        for s in range(n_species):
            if center_species[row] in (s, -2):
                for n in range(n_max):
                    compact[4 * (s * n_max + n)] = central[n]
        begin = 0
        for t in range(end // 4):
            _fill_tile(first, t, places, vectors, basis, position, values, tiles, rays, frames)
            if t + 1 == end // 4 or kind[t + 1] != kind[t]:
                _add_density(
                    begin, t + 1, kind[t], n_channels, n_max, l_max, tiles, rays, lanes, compact
                )
                begin = t + 1
        square = _gamma(compact, n_channels, l_max, gamma)
        squares[number] = square
        factor = 1.0 / square if normalise and square > 0.0 else 1.0
        projected = factor if normalise else 0.0
        for t in range(end // 4):
            _project_tile(
                t,
                kind[t],
                n_channels,
                n_max,
                l_max,
                compact,
                gamma,
                tiles,
                rays,
                projected,
                frames,
                changes,
            )
        begin = number * (width + 1) * 9 * step
        raw[number, end] = 0.0
        for t in range(end // 4):
            for i in range(4 * t, end):
                one, lane = divmod(i, 4)
                _products(
                    tiles,
                    t * tile_size,
                    one * tile_size + lane,
                    rays,
                    one * ray_size + lane,
                    t * ray_size,
                    kind[t] == kind[one],
                    n_max,
                    l_max,
                    block,
                )
                if one == t:
                    raw[number, i] = factor * (block[lane] + block[16 + lane] + block[32 + lane])
                    raw[number, end] += raw[number, i]
                to = begin + 9 * step * i + 4 * t
                _turn(block, frames, i, t, factor, changes, local, to, step)
        _add_center(local, begin, end, step)


def scratch(basis: Basis, width: int) -> tuple[Any, ...]:
    """Scratch arrays of `local_grams`, for environments of up to `width` neighbors in tiles."""
    n_max, n_lm, n_tiles = basis.n_max, (basis.l_max + 1) ** 2, width // 4
    n_m = 2 * np.arange(basis.l_max + 1) + 1
    padded = 4 * -(-n_m // 4)
    return (
        (
            np.zeros(2 * n_max * basis.harmonics.l_padded),
            np.zeros(4 * (basis.l_max + 2) ** 2),
            np.zeros(16),
        ),
        np.zeros(4 * n_max * n_lm),
        np.zeros(basis.n_channels * int(padded.sum())),
        np.zeros(int(n_m @ padded)),
        np.zeros(n_tiles, dtype=np.intp),
        np.zeros(n_tiles * (RECORD * n_lm + SPARE)),
        np.zeros(n_tiles * 8 * (basis.l_max + 1) * n_max),
        np.zeros(n_tiles * 36),
        np.zeros(n_tiles * 12),
        np.zeros(72),
    )


def positions(l_max: int) -> Ints:
    """Place of each (l, m) in a tile, of shape (l_max + 1, 2 l_max + 1)."""
    l, m = np.indices((l_max + 1, 2 * l_max + 1))  # noqa: E741
    return RECORD * (l * l + m)


@njit(**INNER)
def _add_block(local, at, step, x, y, gram, row, column):
    """Add nine numbers of `local` to a block of `gram`; a row is `x` steps on, a column `y`."""
    for a in range(3):
        for b in range(3):
            gram[row + a, column + b] += local[at + (a * x + b * y) * step]


@njit(**OPTIONS)
def add_local(local, order, raw, rows, starts, centers, atom, column_of, gram):
    """Add Gram matrices of environments to the lower triangle of that of the structure.

    Returns
    -------
    squares, before
        Sums of the squares of the derivatives by all points, with and without the projection.
    counts
        Number of points of each row that have a column.
    """
    width = order.shape[1]
    step = width + 4
    columns = np.empty(width + 1, np.intp)
    counts = np.zeros(len(rows), np.intp)
    squares, before = 0.0, 0.0
    for number in range(len(rows)):
        row = rows[number]
        n = 0
        while n < width and order[number, n] != -2:
            k = order[number, n]
            columns[n] = column_of[atom[starts[row] + k]] if k >= 0 else -1
            n += 1
        columns[n] = column_of[centers[row]]
        for i in range(n + 1):
            p = columns[i]
            if p < 0:
                continue
            at = (number * (width + 1) + i) * 9 * step
            counts[number] += 1
            before += raw[number, i]
            squares += local[at + i] + local[at + 4 * step + i] + local[at + 8 * step + i]
            for j in range(i + 1):
                q = columns[j]
                if 0 <= q <= p:
                    _add_block(local, at + j, step, 3, 1, gram, 3 * p, 3 * q)
                if q >= p and j != i:
                    _add_block(local, at + j, step, 1, 3, gram, 3 * q, 3 * p)
    return squares, before, counts
