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
"""

from __future__ import annotations

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import add, load, splat, store, sub, total
from ase_sensitivity.compiled.sparse import place
from ase_sensitivity.descriptors.soap.density import INNER, OPTIONS
from ase_sensitivity.descriptors.soap.neighbor_products import products, turn
from ase_sensitivity.descriptors.soap.tiles import (
    RECORD,
    SPARE,
    add_density,
    fill_tile,
    gamma_of,
    in_tiles,
    project_tile,
)


@njit(**INNER)
def _add_center(local, end, step):
    """Add the row of the center, which moves against all neighbors: minus the sum of theirs.

    Products of neighbors i and j are valid where the tile of j is not beyond that of i.
    """
    last = 9 * step * end
    for k in range(last, last + 9 * step):
        local[k] = 0.0
    for number in range(9 * end):
        i, a = divmod(number, 9)
        tile, transposed = i - i % 4, 3 * (a % 3) + a // 3
        at, to = number * step, last + a * step
        others = splat(0.0)
        for j in range(0, tile, 4):
            value = load(local, at + j)
            others = add(others, value)
            store(local, to + j, sub(load(local, to + j), value))
        store(local, to + tile, sub(load(local, to + tile), load(local, at + tile)))
        local[last + transposed * step + i] -= total(others)
    for to in range(last, last + 9 * step, step):
        for j in range(end):
            local[to + end] -= local[to + j]


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
        Output of shape (n_rows, (width + 1) * 9 * (width + 4)). Of each row, the entry (i, x, y, j)
        of (width + 1, 3, 3, width + 4) is that of coordinate x of point i and y of point j <= i.
        The center is the last point.
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
        end = in_tiles(species, first, starts[row + 1], n_species, places, kind)
        for k in range(len(compact)):
            compact[k] = 0.0
        for s in range(n_species):
            if center_species[row] in (s, -2):
                for n in range(n_max):
                    compact[4 * (s * n_max + n)] = central[n]
        begin = np.intp(0)
        for t in range(end // 4):
            fill_tile(first, t, places, vectors, basis, position, values, tiles, rays, frames)
            if t + 1 == end // 4 or kind[t + 1] != kind[t]:
                add_density(
                    begin, t + 1, kind[t], n_channels, n_max, l_max, tiles, rays, lanes, compact
                )
                begin = t + 1
        square = gamma_of(compact, n_channels, l_max, gamma)
        squares[number] = square
        factor = 1.0 / square if normalise and square > 0.0 else 1.0
        projected = factor if normalise else 0.0
        for t in range(end // 4):
            project_tile(
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
        own = local[number]
        raw[number, end] = 0.0
        for t in range(end // 4):
            for i in range(4 * t, end):
                if places[i] < 0:
                    if t == 0:
                        for k in range(9 * step * i, 9 * step * (i + 1)):
                            own[k] = 0.0
                    continue
                one, lane = divmod(i, 4)
                products(
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
                to = 9 * step * i + 4 * t
                turn(block, frames, i, t, factor, changes, own, to, step)
        _add_center(own, end, step)


@njit(**OPTIONS)
def add_local(
    local,
    order,
    raw,
    rows,
    starts,
    centers,
    atom,
    column_of,
    first,
    others,
    gram,
    columns,
    counts,
    sums,
):
    """Add Gram matrices of environments to the lower triangle of that of the structure.

    Parameters
    ----------
    local, order, raw, rows, starts
        As in `local_grams`.
    centers
        Atom at the center of each row, of shape (n_rows,).
    atom
        The neighbor in each pair, of shape (n_pairs,).
    column_of
        The column of each atom, of shape (n_atoms,); negative to leave the atom out.
    first, others, gram
        The matrix: see :class:`Sparsity`.
    columns
        Scratch, of shape (width + 1,).
    counts
        Output: the number of points of each of the rows that have a column, of shape (n_rows,).
    sums
        Sums of the squares of the derivatives by all points, with and without the projection, are
        added to this array of shape (2,).
    """
    width = order.shape[1]
    step = width + 4
    for number in range(len(rows)):
        row, own = rows[number], local[number]
        end = 0
        while end < width and order[number, end] != -2:
            k = order[number, end]
            columns[end] = column_of[atom[starts[row] + k]] if k >= 0 else -1
            end += 1
        columns[end] = column_of[centers[row]]
        counts[number] = 0
        for i in range(end + 1):
            p = columns[i]
            if p < 0:
                continue
            at = 9 * step * i
            counts[number] += 1
            sums[0] += own[at + i] + own[at + 4 * step + i] + own[at + 8 * step + i]
            sums[1] += raw[number, i]
            for j in range(i + 1):
                q = columns[j]
                if q < 0:
                    continue
                high, low = place(first, others, max(p, q), min(p, q))
                for a in range(9):
                    value = own[at + a * step + j]
                    x, y = a // 3, a % 3
                    if q <= p:
                        gram[high + x, low + y] += value
                    if q > p or (q == p and j < i):  # two images of an atom both ways
                        gram[high + y, low + x] += value
