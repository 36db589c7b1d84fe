"""Kernels of the density coefficients: radial functions, harmonics and their gradients."""

from __future__ import annotations

import math

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, mul, scatter, splat, store, sub
from ase_sensitivity.descriptors.soap.basis import Basis
from ase_sensitivity.types import Floats

# Results must not depend on how the centers are divided among threads. Hence no fast-math, which
# allows the compiler to reorder sums.
OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
INNER = OPTIONS | {"no_cpython_wrapper": True}
"""Options of functions that only kernels call: these compile faster."""


@njit(**INNER)
def radial(r, cutoff, width, smooth, per_length, table, size, degree, values, at):
    """Store f_cut g_nl and its derivative at r (Å), `size` numbers each, in `values` from `at`."""
    n_intervals = table.size // ((degree + 1) * size)
    scaled = r * per_length
    interval = min(int(scaled), n_intervals - 1)
    x = splat(2.0 * (scaled - interval) - 1.0)
    cut, slope = 1.0, 0.0
    if r > cutoff - width:
        t, rise = (r - cutoff + width) / width, 1.0
        if smooth:
            t, rise = t * t * (3.0 - 2.0 * t), 6.0 * t * (1.0 - t)
        cut = 0.5 * (1.0 + math.cos(math.pi * t))
        slope = -0.5 * math.pi / width * rise * math.sin(math.pi * t)
    if r >= cutoff:
        cut, slope = 0.0, 0.0
    start = interval * (degree + 1) * size
    # The variable of the polynomials runs from -1 to 1.
    cut4, slope4, cut_slope4 = splat(cut), splat(slope), splat(2.0 * per_length * cut)
    for j in range(0, size, 4):
        value = load(table, start + degree * size + j)
        derivative = splat(0.0)
        for k in range(degree - 1, -1, -1):
            derivative = fma(derivative, x, value)
            value = fma(value, x, load(table, start + k * size + j))
        store(values, at + j, mul(cut4, value))
        store(values, at + size + j, fma(cut_slope4, derivative, mul(slope4, value)))


@njit(**INNER)
def harmonics(x, y, z, inverse, position, l_max, recursion, legendre, values, at, size, stride):
    """Compute harmonics and their gradients for four directions at once.

    Parameters
    ----------
    x, y, z, inverse
        Unit vectors and 1 / r (1/Å) of four neighbors, of shape (4,).
    position, l_max, recursion
        Layout and coefficients: see Harmonics.
    legendre
        Scratch of shape (4 (l_max + 2)²,).
    values, at, size, stride
        Output: Y, dY/dx, dY/dy, dY/dz in `values` from `at`, `size` numbers apart, those of
        different neighbors `stride` numbers apart.
    """
    rise, fall, diagonal, along, across = recursion
    n = l_max + 2
    ux, uy, uz, over_r = load(x, 0), load(y, 0), load(z, 0), load(inverse, 0)
    zero = splat(0.0)
    top = splat(1.0 / math.sqrt(4.0 * math.pi))
    for m in range(l_max + 1):
        if m > 0:
            top = mul(top, splat(diagonal[m]))
        before, current = zero, top
        store(legendre, 4 * (m * n + m), current)
        for l in range(m + 1, l_max + 1):  # noqa: E741
            following = mul(
                splat(rise[l, m]), sub(mul(uz, current), mul(splat(fall[l, m]), before))
            )
            before, current = current, following
            store(legendre, 4 * (l * n + m), current)
    cosine, sine = splat(1.0), zero  # of m phi, times sin(theta)^m
    cosine_before, sine_before = zero, zero
    for m in range(l_max + 1):
        m4 = splat(float(m))
        for l in range(m, l_max + 1):  # noqa: E741
            q = load(legendre, 4 * (l * n + m))
            qz, qr = zero, zero
            if l > m:
                qz = mul(splat(along[l, m]), load(legendre, 4 * ((l - 1) * n + m)))
            if l > m + 1:
                qr = mul(splat(across[l, m]), load(legendre, 4 * ((l - 1) * n + m + 1)))
            xr, yr, mq = mul(ux, qr), mul(uy, qr), mul(m4, q)
            l4 = splat(float(l))
            for part in range(2 if m > 0 else 1):
                if part == 0:
                    a, da, db = cosine, cosine_before, mul(splat(-1.0), sine_before)
                else:
                    a, da, db = sine, sine_before, cosine_before
                value = mul(q, a)
                dx = fma(xr, a, mul(mq, da))
                dy = fma(yr, a, mul(mq, db))
                dz = mul(qz, a)
                # These are gradients of the polynomial r^l Y; its radial part is subtracted.
                along_r = mul(l4, value)
                dx = mul(over_r, sub(dx, mul(along_r, ux)))
                dy = mul(over_r, sub(dy, mul(along_r, uy)))
                dz = mul(over_r, sub(dz, mul(along_r, uz)))
                place = at + position[l, 2 * m - part if m > 0 else 0]
                scatter(values, place, stride, value)
                scatter(values, place + size, stride, dx)
                scatter(values, place + 2 * size, stride, dy)
                scatter(values, place + 3 * size, stride, dz)
        cosine_before, sine_before = cosine, sine
        cosine, sine = (
            sub(mul(ux, cosine), mul(uy, sine)),
            fma(uy, cosine_before, mul(ux, sine)),
        )


@njit(**INNER)
def accumulate(
    coefficients, at, size, first_row, n_max, l_padded, radial_values, radial_at, values, values_at
):
    """Add f_cut g_nl Y_lm of one neighbor to the coefficients of its species, from `at` on."""
    for g in range(first_row.size - 1):
        for n in range(n_max):
            amplitude = load(radial_values, radial_at + n * l_padded + 4 * g)
            for row in range(first_row[g], first_row[g + 1]):
                place = at + n * size + 4 * row
                angular = load(values, values_at + 4 * row)
                store(coefficients, place, fma(amplitude, angular, load(coefficients, place)))


@njit(**OPTIONS)
def expand(first, last, vectors, species, work, basis, center_species, central):
    """Density coefficients of one center, with the radial and angular values of its neighbors.

    Parameters
    ----------
    first, last
        The neighbors of the center are the pairs `first` to `last` - 1.
    vectors, species
        Of each pair: from the center to the neighbor in Å, of shape (n_pairs, 3); index of the
        neighbor's species, of shape (n_pairs,).
    work
        Output and scratch: coefficients, radial values, angular values, Legendre, directions.
    basis
        All data that do not depend on the structure; see Basis.arguments.
    center_species, central
        Species index of the center (-1: none, -2: all), and its own contribution, (n_max,).
    """
    coefficients, radial_values, angular, legendre, directions = work
    n_species, n_max, cutoff, width, per_length, degree, table, layout, recursion, smooth = basis
    first_row, position, l_max = layout
    size = 4 * first_row[-1]
    l_padded = 4 * (first_row.size - 1)
    n_radial = n_max * l_padded
    coefficients[:] = 0.0
    for s in range(n_species):
        if center_species in (s, -2):
            for n in range(n_max):
                coefficients[(s * n_max + n) * size + position[0, 0]] = central[n]
    x, y, z, inverse = directions[0], directions[1], directions[2], directions[3]
    for batch in range(first, last, 4):
        lanes = min(4, last - batch)
        for k in range(lanes):
            vector = vectors[batch + k]
            r = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
            inverse[k] = 1.0 / r
            x[k], y[k], z[k] = vector[0] / r, vector[1] / r, vector[2] / r
            radial(
                r,
                cutoff,
                width,
                smooth,
                per_length,
                table,
                n_radial,
                degree,
                radial_values,
                (batch + k - first) * 2 * n_radial,
            )
        harmonics(
            x,
            y,
            z,
            inverse,
            position,
            l_max,
            recursion,
            legendre,
            angular,
            (batch - first) * 4 * size,
            size,
            4 * size,
        )
        for k in range(lanes):
            accumulate(
                coefficients,
                species[batch + k] * n_max * size,
                size,
                first_row,
                n_max,
                l_padded,
                radial_values,
                (batch + k - first) * 2 * n_radial,
                angular,
                (batch + k - first) * 4 * size,
            )


def scratch(basis: Basis, most: int) -> tuple[Floats, ...]:
    """Output and scratch arrays of `expand`, for centers with up to `most` neighbors."""
    most = 4 * -(-most // 4)
    size = basis.harmonics.size
    return (
        np.zeros(basis.n_channels * size),
        np.zeros(most * 2 * basis.n_max * basis.harmonics.l_padded),
        np.zeros(most * 4 * size),
        np.zeros(4 * (basis.l_max + 2) ** 2),
        np.zeros((4, 4)),
    )
