"""Kernels of J v and J^T w for the power spectrum, through the density coefficients, without J."""

from __future__ import annotations

import math

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, mul, splat, store, total
from ase_sensitivity.descriptors.soap.density import INNER, OPTIONS, expand
from ase_sensitivity.descriptors.soap.kernels import power_of
from ase_sensitivity.types import Floats


@njit(**INNER)
def push(k, s, vector, moved, n_max, first_row, radial, angular, change):
    """Add to `change` the change of the coefficients if neighbor k, of species s, is `moved`."""
    size, l_padded = 4 * first_row[-1], 4 * (first_row.size - 1)
    at, angular_at = s * n_max * size, k * 4 * size
    radial_at, slope_at = 2 * k * n_max * l_padded, (2 * k + 1) * n_max * l_padded
    r = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    x, y, z = splat(moved[0]), splat(moved[1]), splat(moved[2])
    radius = splat((moved[0] * vector[0] + moved[1] * vector[1] + moved[2] * vector[2]) / r)
    for g in range(first_row.size - 1):
        for row in range(first_row[g], first_row[g + 1]):
            place = angular_at + 4 * row
            along = mul(radius, load(angular, place))
            across = fma(
                z, load(angular, place + 3 * size), mul(y, load(angular, place + 2 * size))
            )
            across = fma(x, load(angular, place + size), across)
            for n in range(n_max):
                to = at + n * size + 4 * row
                value = fma(load(radial, slope_at + n * l_padded + 4 * g), along, load(change, to))
                value = fma(load(radial, radial_at + n * l_padded + 4 * g), across, value)
                store(change, to, value)


@njit(**INNER)
def power_change(coefficients, change, first_row, n_channels, scale, out):
    """Change of the power spectrum for a change of the coefficients."""
    size = 4 * first_row[-1]
    l_padded = 4 * (first_row.size - 1)
    root2 = splat(math.sqrt(2.0))
    for a in range(n_channels):
        for b in range(a + 1):
            for g in range(first_row.size - 1):
                value = splat(0.0)
                for row in range(first_row[g], first_row[g + 1]):
                    left, right = a * size + 4 * row, b * size + 4 * row
                    value = fma(load(change, left), load(coefficients, right), value)
                    value = fma(load(coefficients, left), load(change, right), value)
                value = mul(value, load(scale, 4 * g))
                if a != b:
                    value = mul(value, root2)
                store(out, (a * (a + 1) // 2 + b) * l_padded + 4 * g, value)


@njit(**INNER)
def weighted(coefficients, first_row, n_channels, scale, weights, adjoint):
    """Derivatives of (power spectrum) . `weights` by the coefficients, stored in `adjoint`."""
    size = 4 * first_row[-1]
    l_padded = 4 * (first_row.size - 1)
    two, root2 = splat(2.0), splat(math.sqrt(2.0))
    for a in range(n_channels):
        for g in range(first_row.size - 1):
            for b in range(a + 1):
                weight = load(weights, (a * (a + 1) // 2 + b) * l_padded + 4 * g)
                weight = mul(weight, mul(load(scale, 4 * g), two if a == b else root2))
                for row in range(first_row[g], first_row[g + 1]):
                    left, right = a * size + 4 * row, b * size + 4 * row
                    before = load(adjoint, left) if b > 0 else splat(0.0)
                    store(adjoint, left, fma(weight, load(coefficients, right), before))
                    if b < a:
                        before = load(adjoint, right)
                        store(adjoint, right, fma(weight, load(coefficients, left), before))


@njit(**INNER)
def pull(k, s, vector, n_max, first_row, radial, angular, adjoint, factor, out):
    """Add `factor` times the derivative by neighbor k's position to `out`, (3,).

    `adjoint` has the derivatives by the coefficients.
    """
    size, l_padded = 4 * first_row[-1], 4 * (first_row.size - 1)
    at, angular_at = s * n_max * size, k * 4 * size
    radial_at, slope_at = 2 * k * n_max * l_padded, (2 * k + 1) * n_max * l_padded
    r = math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
    along, x, y, z = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for g in range(first_row.size - 1):
        for row in range(first_row[g], first_row[g + 1]):
            value, slope = splat(0.0), splat(0.0)
            for n in range(n_max):
                weight = load(adjoint, at + n * size + 4 * row)
                value = fma(load(radial, radial_at + n * l_padded + 4 * g), weight, value)
                slope = fma(load(radial, slope_at + n * l_padded + 4 * g), weight, slope)
            place = angular_at + 4 * row
            along = fma(slope, load(angular, place), along)
            x = fma(value, load(angular, place + size), x)
            y = fma(value, load(angular, place + 2 * size), y)
            z = fma(value, load(angular, place + 3 * size), z)
    radius = total(along)
    out[0] += factor * (total(x) + vector[0] / r * radius)
    out[1] += factor * (total(y) + vector[1] / r * radius)
    out[2] += factor * (total(z) + vector[2] / r * radius)


@njit(**INNER)
def normalised(normalise, power, norm):
    """Divide by the norm if `normalise`; return the divisor."""
    if not normalise or norm == 0.0:
        return 1.0
    for k in range(power.size):
        power[k] /= norm
    return norm


@njit(**INNER)
def projected(normalise, values, power, norm, out):
    """Divide `values` by the norm; if `normalise`, remove the part along the power spectrum."""
    overlap = 0.0
    if normalise:
        for k in range(power.size):
            overlap += values[k] * power[k]
    for k in range(power.size):
        out[k] = (values[k] - overlap * power[k]) / norm


@njit(**OPTIONS)
def changes_of_features(
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
    changes,
    work,
    features,
):
    """Changes of the features of some rows, J v for several v.

    Parameters
    ----------
    begin, end
        The range of rows.
    starts, vectors, species, center_species, central, basis, scale, normalise
        As in kernels.power_spectrum.
    changes
        Change of the vectors by each v, of shape (m, n_pairs, 3).
    work
        See `scratch`.
    features
        Output, of shape (m, n_rows, n_features).
    """
    density, power, weights, pushed = work
    coefficients, radial, angular, _, _ = density
    n_max, (first_row, _, l_max) = basis[1], basis[7]
    n_channels, l_padded = basis[0] * n_max, 4 * (first_row.size - 1)
    n_l = l_max + 1
    for row in range(begin, end):
        first, last = starts[row], starts[row + 1]
        expand(first, last, vectors, species, density, basis, center_species[row], central)
        norm = power_of(coefficients, first_row, n_channels, scale, power)
        norm = normalised(normalise, power, norm)
        for v in range(len(changes)):
            pushed[:] = 0.0
            for pair in range(first, last):
                push(
                    pair - first,
                    species[pair],
                    vectors[pair],
                    changes[v, pair],
                    n_max,
                    first_row,
                    radial,
                    angular,
                    pushed,
                )
            power_change(coefficients, pushed, first_row, n_channels, scale, weights)
            projected(normalise, weights, power, norm, weights)
            for t in range(n_channels * (n_channels + 1) // 2):
                for g in range(n_l):
                    features[v, row, t * n_l + g] = weights[t * l_padded + g]


@njit(**OPTIONS)
def forces_of_weights(
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
    weights,
    work,
    forces,
):
    """Derivatives of (features of some rows) . w by the vectors of pairs, for several w.

    Parameters
    ----------
    begin, end
        The range of rows.
    starts, vectors, species, center_species, central, basis, scale, normalise
        As in kernels.power_spectrum.
    weights
        The w, of shape (m, n_rows, n_features).
    work
        See `scratch`.
    forces
        Output, of shape (m, n_pairs, 3); zero before the call.
    """
    density, power, padded, adjoint = work
    coefficients, radial, angular, _, _ = density
    n_max, (first_row, _, l_max) = basis[1], basis[7]
    n_channels, l_padded = basis[0] * n_max, 4 * (first_row.size - 1)
    n_l = l_max + 1
    for row in range(begin, end):
        first, last = starts[row], starts[row + 1]
        expand(first, last, vectors, species, density, basis, center_species[row], central)
        norm = power_of(coefficients, first_row, n_channels, scale, power)
        norm = normalised(normalise, power, norm)
        for v in range(len(weights)):
            padded[:] = 0.0
            for t in range(n_channels * (n_channels + 1) // 2):
                for g in range(n_l):
                    padded[t * l_padded + g] = weights[v, row, t * n_l + g]
            projected(normalise, padded, power, norm, padded)
            weighted(coefficients, first_row, n_channels, scale, padded, adjoint)
            for pair in range(first, last):
                pull(
                    pair - first,
                    species[pair],
                    vectors[pair],
                    n_max,
                    first_row,
                    radial,
                    angular,
                    adjoint,
                    1.0,
                    forces[v, pair],
                )


def scratch(density: tuple[Floats, ...], n_power: int) -> tuple[object, ...]:
    """Scratch arrays: density; power spectrum; its weights; change of or by the coefficients."""
    return density, np.zeros(n_power), np.zeros(n_power), np.zeros_like(density[0])
