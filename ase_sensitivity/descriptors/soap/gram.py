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

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import add, fma, load, mul, splat, store, sub, total
from ase_sensitivity.descriptors.soap.density import INNER, OPTIONS, expand
from ase_sensitivity.types import Floats

RECORD = 32
"""Numbers of a tile for one (l, m): y along three directions, q of S' and of S, and three w."""


@njit(**INNER)
def _in_tiles(species, n_species, order, kind):
    """Number the neighbors species by species, each from a new tile on; return the end.

    `order` gets the neighbor at each place, -1 for none, and `kind` the species of each tile.
    """
    end = 0
    for s in range(n_species):
        for k in range(len(species)):
            if species[k] == s:
                if end % 4 == 0:
                    kind[end // 4] = s
                    order[end : end + 4] = -1
                order[end] = k
                end += 1
        end = 4 * ((end + 3) // 4)
    return end


@njit(**INNER)
def _gamma(coefficients, layout, n_channels, compact, gamma):
    """Put C in `compact`, its rows padded to whole lanes, and Gamma in `gamma`; return |P|²."""
    first_row, position, l_max = layout
    size = 4 * first_row[-1]
    at, to = 0, 0
    square = 0.0
    for l in range(l_max + 1):  # noqa: E741
        n_m = 2 * l + 1
        width = 4 * ((n_m + 3) // 4)
        for a in range(n_channels):
            for m in range(n_m):
                compact[at + a * width + m] = coefficients[a * size + position[l, m]]
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
def _fill_tile(k, lane, vector, n_max, layout, radial, angular, at, tiles, radial_at, rays, frame):
    """Copy what belongs to neighbor k to its lane of a tile: S, S', Y and derivatives, frame."""
    first_row, position, l_max = layout
    size, l_padded = 4 * first_row[-1], 4 * (first_row.size - 1)
    r = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    x, y, z = vector[0] / r, vector[1] / r, vector[2] / r
    # Two directions across the bond, without a singular direction.
    sign = math.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    x1, y1, z1 = 1.0 + sign * x * x * a, sign * b, -sign * x
    x2, y2, z2 = b, sign + y * y * a, -y
    frame[lane], frame[4 + lane], frame[8 + lane] = x, y, z
    frame[12 + lane], frame[16 + lane], frame[20 + lane] = x1, y1, z1
    frame[24 + lane], frame[28 + lane], frame[32 + lane] = x2, y2, z2
    for l in range(l_max + 1):  # noqa: E741
        for n in range(n_max):
            value = 2 * k * n_max * l_padded + n * l_padded + l
            to = radial_at + 8 * (l * n_max + n) + lane
            rays[to] = radial[value + n_max * l_padded]
            rays[to + 4] = radial[value]
        for m in range(2 * l + 1):
            value = 4 * k * size + position[l, m]
            dx, dy, dz = angular[value + size], angular[value + 2 * size], angular[value + 3 * size]
            to = at + RECORD * (l * l + m) + lane
            tiles[to] = angular[value]
            tiles[to + 4] = x1 * dx + y1 * dy + z1 * dz
            tiles[to + 8] = x2 * dx + y2 * dy + z2 * dz


@njit(**INNER)
def _project_tile(s, n_channels, n_max, l_max, compact, gamma, at, tiles, radial_at, rays, change):
    """Put q and w = Gamma y of a tile in its record, and P . dP along its frame in `change`."""
    start, of_gamma = 0, 0
    c0, c1, c2 = splat(0.0), splat(0.0), splat(0.0)
    for l in range(l_max + 1):  # noqa: E741
        n_m = 2 * l + 1
        width = 4 * ((n_m + 3) // 4)
        weight, root = splat(2.0 / n_m), splat(math.sqrt(2.0 / n_m))
        own = start + s * n_max * width
        for m in range(n_m):
            q0, q1 = splat(0.0), splat(0.0)
            for n in range(n_max):
                c = splat(compact[own + n * width + m])
                place = radial_at + 8 * (l * n_max + n)
                q0 = fma(c, load(rays, place), q0)
                q1 = fma(c, load(rays, place + 4), q1)
            w0, w1, w2 = splat(0.0), splat(0.0), splat(0.0)
            for other in range(n_m):
                g = splat(gamma[of_gamma + m * width + other])
                place = at + RECORD * (l * l + other)
                w0 = fma(g, load(tiles, place), w0)
                w1 = fma(g, load(tiles, place + 4), w1)
                w2 = fma(g, load(tiles, place + 8), w2)
            w0, w1, w2 = mul(weight, w0), mul(weight, w1), mul(weight, w2)
            c0, c1, c2 = fma(w0, q0, c0), fma(w1, q1, c1), fma(w2, q1, c2)
            place = at + RECORD * (l * l + m)
            store(tiles, place + 12, mul(root, q0))
            store(tiles, place + 16, mul(root, q1))
            store(tiles, place + 20, w0)
            store(tiles, place + 24, w1)
            store(tiles, place + 28, w2)
        start += n_channels * width
        of_gamma += n_m * width
    store(change, 0, c0)
    store(change, 4, c1)
    store(change, 8, c2)


@njit(**INNER)
def _dot(a0, b0, a1, b1, a2, b2):
    return fma(a0, b0, fma(a1, b1, mul(a2, b2)))


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
def _turn(block, frame, lane, frames, factor, own, changes, local, to, step):
    """Turn products of one neighbor (a lane of `frame`) and of four to x, y, z, project and store.

    The nine results are stored `step` numbers apart.
    """
    for a in range(0, 36, 12):
        p0, p1, p2 = load(block, a), load(block, a + 4), load(block, a + 8)
        for y in range(0, 12, 4):
            e0, e1, e2 = load(frames, y), load(frames, y + 12), load(frames, y + 24)
            store(block, 36 + a + y, _dot(p0, e0, p1, e1, p2, e2))
    for x in range(0, 12, 4):
        e0, e1 = splat(factor * frame[x + lane]), splat(factor * frame[12 + x + lane])
        e2 = splat(factor * frame[24 + x + lane])
        change = splat(-own[x + lane])
        for y in range(0, 12, 4):
            p0, p1, p2 = load(block, 36 + y), load(block, 48 + y), load(block, 60 + y)
            value = _dot(p0, e0, p1, e1, p2, e2)
            store(local, to, fma(change, load(changes, y), value))
            to += step


@njit(**INNER)
def _add_center(local, end, step):
    """Add the row of the center, which moves against all neighbors: minus the sum of theirs.

    Products of neighbors i and j are valid where the tile of j is not beyond that of i.
    """
    row = 9 * step
    last = local[end * row : (end + 1) * row]
    last[:] = 0.0
    for i in range(end):
        tile = i // 4 * 4
        for x in range(3):
            for y in range(3):
                at = i * row + (3 * x + y) * step
                to = (3 * x + y) * step
                others = splat(0.0)
                for j in range(0, tile, 4):
                    value = load(local, at + j)
                    others = add(others, value)
                    store(last, to + j, sub(load(last, to + j), value))
                store(last, to + tile, sub(load(last, to + tile), load(local, at + tile)))
                last[(3 * y + x) * step + i] -= total(others)
    for x in range(3):
        for y in range(3):
            at = (3 * x + y) * step
            own = 0.0
            for j in range(end):
                own -= last[(3 * y + x) * step + j]
            last[at + end] = own


@njit(**OPTIONS)
def local_grams(
    rows,
    starts,
    vectors,
    species,
    center_species,
    central,
    basis,
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
    density, compact, gamma, kind, tiles, rays, frames, changes, block = work
    coefficients, radial, angular = density[0], density[1], density[2]
    n_species, n_max = basis[0], basis[1]
    layout = basis[7]
    l_max = layout[2]
    n_channels = n_species * n_max
    tile_size, ray_size = RECORD * (l_max + 1) ** 2, 8 * (l_max + 1) * n_max
    width = order.shape[1]
    step = width + 4
    for number in range(len(rows)):
        row = rows[number]
        first, last = starts[row], starts[row + 1]
        expand(first, last, vectors, species, density, basis, center_species[row], central)
        places = order[number]
        end = _in_tiles(species[first:last], n_species, places, kind)
        places[end:] = -2
        square = _gamma(coefficients, layout, n_channels, compact, gamma)
        squares[number] = square
        factor = 1.0 / square if normalise and square > 0.0 else 1.0
        for t in range(end // 4):
            at, ray = t * tile_size, t * ray_size
            frame, change = frames[36 * t : 36 * t + 36], changes[12 * t : 12 * t + 12]
            if places[4 * t + 3] < 0:
                tiles[at : at + tile_size] = 0.0
                rays[ray : ray + ray_size] = 0.0
                frame[:] = 0.0
            for lane in range(4):
                k = places[4 * t + lane]
                if k >= 0:
                    vector = vectors[first + k]
                    _fill_tile(
                        k, lane, vector, n_max, layout, radial, angular, at, tiles, ray, rays, frame
                    )
            _project_tile(
                kind[t], n_channels, n_max, l_max, compact, gamma, at, tiles, ray, rays, block
            )
            part = splat(factor if normalise else 0.0)
            c0, c1, c2 = mul(part, load(block, 0)), mul(part, load(block, 4)), mul(part, load(block, 8))
            for x in range(0, 12, 4):
                e0, e1, e2 = load(frame, x), load(frame, x + 12), load(frame, x + 24)
                store(change, x, _dot(c0, e0, c1, e1, c2, e2))
        begin = number * (width + 1) * 9 * step
        own = local[begin : begin + (width + 1) * 9 * step]
        raw[number, end] = 0.0
        for t in range(end // 4):
            for i in range(4 * t, end):
                one, lane = divmod(i, 4)
                if places[i] < 0:
                    own[9 * step * i : 9 * step * (i + 1)] = 0.0
                    continue
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
                _turn(
                    block,
                    frames[36 * one : 36 * one + 36],
                    lane,
                    frames[36 * t : 36 * t + 36],
                    factor,
                    changes[12 * one : 12 * one + 12],
                    changes[12 * t : 12 * t + 12],
                    own,
                    9 * step * i + 4 * t,
                    step,
                )
        _add_center(own, end, step)


def scratch(density: tuple[Floats, ...], n_channels: int, n_max: int, l_max: int, width: int):
    """Scratch arrays of `local_grams`, including those of the density."""
    padded = [4 * -(-(2 * l + 1) // 4) for l in range(l_max + 1)]  # noqa: E741
    n_tiles = width // 4
    return (
        density,
        np.zeros(n_channels * sum(padded)),
        np.zeros(sum((2 * l + 1) * n for l, n in enumerate(padded))),  # noqa: E741
        np.zeros(n_tiles, dtype=np.intp),
        np.zeros(n_tiles * RECORD * (l_max + 1) ** 2),
        np.zeros(n_tiles * 8 * (l_max + 1) * n_max),
        np.zeros(n_tiles * 36),
        np.zeros(n_tiles * 12),
        np.zeros(72),
    )


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
            for x in range(3):
                for y in range(3):
                    line = at + (3 * x + y) * step
                    for j in range(i + 1):
                        q = columns[j]
                        if q < 0:
                            continue
                        if q <= p:
                            gram[3 * p + x, 3 * q + y] += local[line + j]
                        if q >= p and j != i:
                            gram[3 * q + y, 3 * p + x] += local[line + j]
    return squares, before, counts
