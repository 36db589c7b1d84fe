"""Kernel for the gradient of |J v|² with respect to the structure, v a displacement, without J.

The derivative of one number by all positions costs little more than the number itself. First the
derivatives by the density coefficients are computed (reverse mode). Then each neighbor takes n_max
products for each (l, m), and not one for each feature.
"""

from __future__ import annotations

import math

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.compiled.simd import fma, load, mul, splat, store, total
from ase_sensitivity.descriptors.soap.density import INNER, OPTIONS, expand
from ase_sensitivity.descriptors.soap.kernels import power_of
from ase_sensitivity.types import Floats


@njit(**INNER)
def _push(k, s, vector, moved, n_max, first_row, radial, angular, change):
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
def _power_change(coefficients, change, first_row, n_channels, scale, out):
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
def _weighted(coefficients, first_row, n_channels, scale, weights, adjoint):
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
def _pull(k, s, vector, n_max, first_row, radial, angular, adjoint, factor, out):
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
def _normalised(normalise, power, norm):
    """Divide by the norm if `normalise`; return the divisor."""
    if not normalise or norm == 0.0:
        return 1.0
    for k in range(power.size):
        power[k] /= norm
    return norm


@njit(**INNER)
def _projected(normalise, values, power, norm, out):
    """Divide `values` by the norm; if `normalise`, remove the part along the power spectrum."""
    overlap = 0.0
    if normalise:
        for k in range(power.size):
            overlap += values[k] * power[k]
    for k in range(power.size):
        out[k] = (values[k] - overlap * power[k]) / norm


@njit(**OPTIONS)
def derivatives(
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
    step,
    central_difference,
    work,
    forces,
):
    """Derivatives of |J v|² by the vectors of the pairs of some rows, for several v.

    They are 2 w . d(J v) with w = J v. Second derivatives commute: the derivative of w . J v by the
    vectors is the derivative of J^T w along v, which is a finite difference.

    Parameters
    ----------
    begin, end
        The range of rows.
    starts, vectors, species, center_species, central, basis, scale, normalise
        As in kernels.power_spectrum.
    changes
        Change of the vectors by each v, of shape (m, n_pairs, 3).
    step
        Step of the differences along v, in Å.
    central_difference
        Whether to take central differences, or forward ones.
    work
        Scratch: density; power spectrum; w of each v; weights of the power spectrum; changes of and
        derivatives by the coefficients; displaced vectors.
    forces
        Output, of shape (m, n_pairs, 3); zero before the call.
    """
    density, power, w, weights, pushed, adjoint, displaced = work
    coefficients, radial, angular, _, _ = density
    n_species, n_max = basis[0], basis[1]
    first_row = basis[7][0]
    n_channels, n_modes = n_species * n_max, len(changes)
    n_sides = 2 if central_difference else 1
    for row in range(begin, end):
        first, last = starts[row], starts[row + 1]
        # First at the structure itself, then at displaced ones for one v after the other. All in
        # one loop, as a function that is called in two places takes twice the time to compile.
        for which in range(1 + n_sides * n_modes):
            if which == 0:
                shift, first_mode, end_mode = 0.0, 0, 0 if central_difference else n_modes
                factor = -2.0 / step
            else:
                first_mode, side = divmod(which - 1, n_sides)
                shift, end_mode = step if side == 0 else -step, first_mode + 1
                factor = 2.0 / (n_sides * shift)
            for pair in range(first, last):
                for x in range(3):
                    displaced[pair - first, x] = vectors[pair, x]
                    if shift != 0.0:
                        displaced[pair - first, x] += shift * changes[first_mode, pair, x]
            kind, own = center_species[row], species[first:last]
            expand(np.intp(0), last - first, displaced, own, density, basis, kind, central)
            norm = power_of(coefficients, first_row, n_channels, scale, power)
            norm = _normalised(normalise, power, norm)
            if which == 0:
                for v in range(n_modes):
                    pushed[:] = 0.0
                    for k in range(last - first):
                        moved = changes[v, first + k]
                        _push(
                            k,
                            own[k],
                            displaced[k],
                            moved,
                            n_max,
                            first_row,
                            radial,
                            angular,
                            pushed,
                        )
                    _power_change(coefficients, pushed, first_row, n_channels, scale, weights)
                    _projected(normalise, weights, power, norm, w[v])
            for v in range(first_mode, end_mode):
                _projected(normalise, w[v], power, norm, weights)
                _weighted(coefficients, first_row, n_channels, scale, weights, adjoint)
                for k in range(last - first):
                    out = forces[v, first + k]
                    _pull(
                        k,
                        own[k],
                        displaced[k],
                        n_max,
                        first_row,
                        radial,
                        angular,
                        adjoint,
                        factor,
                        out,
                    )


def scratch(
    density: tuple[Floats, ...], n_power: int, n_modes: int, most: int
) -> tuple[object, ...]:
    """Scratch arrays of `derivatives`, including those of the density."""
    return (
        density,
        np.zeros(n_power),
        np.zeros((n_modes, n_power)),
        np.zeros(n_power),
        np.zeros_like(density[0]),
        np.zeros_like(density[0]),
        np.zeros((most, 3)),
    )
