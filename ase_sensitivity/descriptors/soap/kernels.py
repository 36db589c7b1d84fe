"""Kernel of the power spectrum and its Jacobian: contract first, then multiply by the radial part.

Let c be the coefficients of a center. Besides its radial functions S and S', an atom's block needs
only A = sum_m Y_lm c_nlm and B = sum_m grad Y_lm c_nlm:
d p_ab = S'_a u A_b + S_a B_b + (a <-> b). The derivatives of coefficients are never stored.
"""

from __future__ import annotations

import math

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, mul, splat, store, sub, total
from ase_sensitivity.descriptors.soap.density import INNER, OPTIONS, expand
from ase_sensitivity.types import Floats


@njit(**INNER)
def power_of(coefficients, first_row, n_channels, scale, power):
    """Power spectrum in rows of l_padded numbers, one per (a, b <= a); returns its norm."""
    size = 4 * first_row[-1]
    l_padded = 4 * (first_row.size - 1)
    root2 = splat(math.sqrt(2.0))
    squares = splat(0.0)
    for a in range(n_channels):
        for b in range(a + 1):
            for g in range(first_row.size - 1):
                value = splat(0.0)
                for row in range(first_row[g], first_row[g + 1]):
                    left = load(coefficients, a * size + 4 * row)
                    value = fma(left, load(coefficients, b * size + 4 * row), value)
                value = mul(value, load(scale, 4 * g))
                if a != b:
                    value = mul(value, root2)
                squares = fma(value, value, squares)
                store(power, (a * (a + 1) // 2 + b) * l_padded + 4 * g, value)
    return math.sqrt(total(squares))


@njit(**INNER)
def _contract(coefficients, first_row, n_channels, scale, values, at, contracted):
    """Put A and the three components of B together for every channel, times sqrt(2 / (2 l + 1))."""
    size = 4 * first_row[-1]
    l_padded = 4 * (first_row.size - 1)
    step = n_channels * l_padded
    root2 = splat(math.sqrt(2.0))
    for g in range(first_row.size - 1):
        factor = mul(load(scale, 4 * g), root2)
        for a in range(n_channels):
            s0, s1, s2, s3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for row in range(first_row[g], first_row[g + 1]):
                c = load(coefficients, a * size + 4 * row)
                s0 = fma(c, load(values, at + 4 * row), s0)
                s1 = fma(c, load(values, at + size + 4 * row), s1)
                s2 = fma(c, load(values, at + 2 * size + 4 * row), s2)
                s3 = fma(c, load(values, at + 3 * size + 4 * row), s3)
            place = a * l_padded + 4 * g
            store(contracted, place, mul(s0, factor))
            store(contracted, place + step, mul(s1, factor))
            store(contracted, place + 2 * step, mul(s2, factor))
            store(contracted, place + 3 * step, mul(s3, factor))


@njit(**INNER)
def _differentiate(
    contracted, n_channels, n_max, s, l_padded, radial, at, unit, power, block, own, dots
):
    """Derivatives d p by one neighbor of species s; only entries with a or b of that species.

    They are also subtracted from the center's own block, and p . d p is stored in `dots`.
    """
    step = n_channels * l_padded
    n_power = (n_channels * (n_channels + 1) // 2) * l_padded
    low, high = s * n_max, (s + 1) * n_max
    slope = at + n_max * l_padded
    ux, uy, uz = splat(unit[0]), splat(unit[1]), splat(unit[2])
    half = splat(math.sqrt(0.5))
    dot_x, dot_y, dot_z = splat(0.0), splat(0.0), splat(0.0)
    for g in range(0, l_padded, 4):
        for a in range(low, n_channels):
            both = a < high
            value_a, slope_a = splat(0.0), splat(0.0)
            if both:
                value_a = load(radial, at + (a - low) * l_padded + g)
                slope_a = load(radial, slope + (a - low) * l_padded + g)
            place = a * l_padded + g
            y_a = load(contracted, place)
            x_a = load(contracted, place + step)
            # u S'_b Y_a + S_b grad Y_a is linear in these for every b.
            z_a = load(contracted, place + 3 * step)
            w_a = load(contracted, place + 2 * step)
            for b in range(0 if both else low, a + 1 if both else high):
                place = b * l_padded + g
                radius, x, y, z = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
                if both:
                    radius = mul(slope_a, load(contracted, place))
                    x = mul(value_a, load(contracted, place + step))
                    y = mul(value_a, load(contracted, place + 2 * step))
                    z = mul(value_a, load(contracted, place + 3 * step))
                if b >= low:
                    value_b = load(radial, at + (b - low) * l_padded + g)
                    radius = fma(load(radial, slope + (b - low) * l_padded + g), y_a, radius)
                    x = fma(value_b, x_a, x)
                    y = fma(value_b, w_a, y)
                    z = fma(value_b, z_a, z)
                x, y, z = fma(ux, radius, x), fma(uy, radius, y), fma(uz, radius, z)
                if a == b:
                    x, y, z = mul(x, half), mul(y, half), mul(z, half)
                entry = (a * (a + 1) // 2 + b) * l_padded + g
                p = load(power, entry)
                dot_x, dot_y, dot_z = fma(p, x, dot_x), fma(p, y, dot_y), fma(p, z, dot_z)
                store(block, entry, x)
                store(block, entry + n_power, y)
                store(block, entry + 2 * n_power, z)
                store(own, entry, sub(load(own, entry), x))
                store(own, entry + n_power, sub(load(own, entry + n_power), y))
                store(own, entry + 2 * n_power, sub(load(own, entry + 2 * n_power), z))
    dots[0], dots[1], dots[2] = total(dot_x), total(dot_y), total(dot_z)


@njit(**INNER)
def _write_rows(block, at, begin, end, power, factor, slope, l_padded, n_l, out, to):
    """Rows begin to end - 1 of factor * block - slope * power, closed up to n_l numbers each.

    Four lanes are written even where fewer belong to the row: the next row overwrites the others.
    """
    factor4, slope4, zero = splat(factor), splat(-slope), splat(0.0)
    for t in range(begin, end):
        for g in range(0, l_padded, 4):
            place = t * l_padded + g
            # Where the factor is 0, old values of `block` may give -0; adding zero makes it 0.
            value = fma(factor4, load(block, at + place), zero)
            store(out, to + t * n_l + g, fma(slope4, load(power, place), value))


@njit(**INNER)
def _write(block, low, high, n_channels, power, factor, dots, l_padded, n_l, out, to, n_features):
    """One finished block of shape (3, n_features); entries without a or b in [low, high) are 0."""
    n_rows = n_channels * (n_channels + 1) // 2
    # Beyond these rows, writing four lanes would overwrite numbers of the next block.
    n_safe = min(n_rows, (n_features - l_padded) // n_l + 1) if n_features >= l_padded else 0
    for component in range(3):
        at = component * n_rows * l_padded
        slope = dots[component]
        for a in range(n_channels):
            begin = a * (a + 1) // 2
            end = min(begin + a + 1, n_safe)
            left, right = begin, begin
            if low <= a < high:
                right = end
            elif a >= high:
                left, right = min(begin + low, end), min(begin + high, end)
            for part in range(3):
                t0, t1 = begin, left
                if part == 1:
                    t0, t1 = left, right
                elif part == 2:
                    t0, t1 = right, end
                plus = factor if part == 1 else 0.0
                _write_rows(block, at, t0, t1, power, plus, slope, l_padded, n_l, out, to)
        for t in range(n_safe, n_rows):
            a = int((math.sqrt(8.0 * t + 1.0) - 1.0) / 2.0)
            b = t - a * (a + 1) // 2
            use = low <= a < high or low <= b < high
            for g in range(n_l):
                value = -slope * power[t * l_padded + g] + 0.0
                if use:
                    value += factor * block[at + t * l_padded + g]
                out[to + t * n_l + g] = value
        for k in range(n_rows * n_l, n_features):
            out[to + k] = 0.0
        to += n_features


@njit(**OPTIONS)
def power_spectrum(
    begin,
    end,
    starts,
    vectors,
    species,
    center_species,
    central,
    basis,
    scale,
    normalise,
    gradients,
    work,
    features,
    blocks,
):
    """Compute features and blocks of rows `begin` to `end` - 1.

    Parameters
    ----------
    begin, end
        The range of rows.
    starts
        First pair of each row, of shape (n_rows + 1,).
    vectors
        From the center to the neighbor of each pair in Å, of shape (n_pairs, 3).
    species
        Index of the neighbor's species, of shape (n_pairs,).
    center_species
        Index of the species of each row's center, of shape (n_rows,); as in density.expand.
    central
        What a center itself adds to the l = 0 coefficients, of shape (n_max,).
    basis
        See density.expand.
    scale
        1 / sqrt(2 l + 1), of shape (l_padded,), zero beyond l_max.
    normalise, gradients
        Whether to divide by the norm; whether to fill `blocks`.
    work
        Scratch arrays, see `scratch`.
    features, blocks
        Output: (n_rows, n_features) and, flat, (n_pairs + n_rows, 3, n_features). The block of a
        row's center comes first in the row. Entries that no neighbor affects are zero.
    """
    density, power, block, own, contracted, unit, dots, total_dots = work
    coefficients, radial_values, angular = density[0], density[1], density[2]
    n_species, n_max = basis[0], basis[1]
    first_row, _, l_max = basis[7]
    n_channels = n_species * n_max
    n_l, l_padded, size = l_max + 1, 4 * (first_row.size - 1), 4 * first_row[-1]
    n_features = features.shape[1]
    for row in range(begin, end):
        first, last = starts[row], starts[row + 1]
        expand(first, last, vectors, species, density, basis, center_species[row], central)
        norm = power_of(coefficients, first_row, n_channels, scale, power)
        factor = 1.0
        if normalise and norm > 0.0:
            factor = 1.0 / norm
            for k in range(power.size):
                power[k] *= factor
        for t in range(n_channels * (n_channels + 1) // 2):
            for g in range(n_l):
                features[row, t * n_l + g] = power[t * l_padded + g]
        for k in range(n_channels * (n_channels + 1) // 2 * n_l, n_features):
            features[row, k] = 0.0
        if not gradients:
            continue
        if not normalise:
            power[:] = 0.0  # no projection
        own[:] = 0.0
        total_dots[:] = 0.0
        # The center comes last, as its block is minus the sum of the others. One call writes all
        # blocks, as a function that is called in two places takes twice the time to compile.
        for pair in range(first, last + 1):
            low, high = np.intp(0), n_channels
            place, written, moved = first + row, own, total_dots
            if pair < last:
                k, s = pair - first, species[pair]
                vector = vectors[pair]
                r = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
                for component in range(3):
                    unit[component] = vector[component] / r
                at = k * 4 * size
                _contract(coefficients, first_row, n_channels, scale, angular, at, contracted)
                _differentiate(
                    contracted,
                    n_channels,
                    n_max,
                    s,
                    l_padded,
                    radial_values,
                    k * 2 * n_max * l_padded,
                    unit,
                    power,
                    block,
                    own,
                    dots,
                )
                for component in range(3):
                    dots[component] *= factor
                    total_dots[component] -= dots[component]
                low, high = s * n_max, (s + 1) * n_max
                place, written, moved = pair + row + 1, block, dots
            _write(
                written,
                low,
                high,
                n_channels,
                power,
                factor,
                moved,
                l_padded,
                n_l,
                blocks,
                place * 3 * n_features,
                n_features,
            )


def scratch(density: tuple[Floats, ...], n_channels: int, l_padded: int) -> tuple[object, ...]:
    """Scratch arrays of `power_spectrum`, including those of the density."""
    n_power = n_channels * (n_channels + 1) // 2 * l_padded
    return (
        density,
        np.zeros(n_power),
        np.zeros(3 * n_power),
        np.zeros(3 * n_power),
        np.zeros(4 * n_channels * l_padded),
        np.zeros(3),
        np.zeros(3),
        np.zeros(3),
    )
