"""Products of the derivatives of features by one neighbor and by four others (see local_gram)."""

from __future__ import annotations

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, splat, store
from ase_sensitivity.descriptors.soap.density import INNER
from ase_sensitivity.descriptors.soap.tiles import RECORD, dot


@njit(**INNER)
def products(tiles, at, i, rays, ray, j, like, n_max, l_max, block):
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
def turn(block, frames, one, t, factor, changes, local, to, step):
    """Turn products of one neighbor and of tile t to x, y, z, project and store.

    The nine results are stored `step` numbers apart. `one` is the tile of the one neighbor times
    12, plus its lane.
    """
    four = 36 * t
    for a in range(0, 36, 12):
        p0, p1, p2 = load(block, a), load(block, a + 4), load(block, a + 8)
        for y in range(four, four + 12, 4):
            e0, e1, e2 = load(frames, y), load(frames, y + 12), load(frames, y + 24)
            store(block, 36 + a + y - four, dot(p0, e0, p1, e1, p2, e2))
    own = one % 4 + one // 4 * 36
    change = one % 4 + one // 4 * 12
    for x in range(0, 12, 4):
        e0, e1 = splat(factor * frames[own + x]), splat(factor * frames[own + 12 + x])
        e2 = splat(factor * frames[own + 24 + x])
        moved = splat(-changes[change + x])
        for y in range(0, 12, 4):
            p0, p1, p2 = load(block, 36 + y), load(block, 48 + y), load(block, 60 + y)
            value = dot(p0, e0, p1, e1, p2, e2)
            store(local, to, fma(moved, load(changes, 12 * t + y), value))
            to += step
