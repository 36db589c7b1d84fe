"""Kernel for the gradient of |J v|² with respect to the structure, v a displacement, without J.

The derivative of one number by all positions costs little more than the number itself. First the
derivatives by the density coefficients are computed (reverse mode). Then each neighbor takes n_max
products for each (l, m), and not one for each feature.
"""

from __future__ import annotations

import numpy as np

from ase_sensitivity.compiled.njit import njit
from ase_sensitivity.descriptors.soap.density import OPTIONS, expand
from ase_sensitivity.descriptors.soap.jvp import (
    normalised,
    power_change,
    projected,
    pull,
    push,
    weighted,
)
from ase_sensitivity.descriptors.soap.kernels import power_of
from ase_sensitivity.types import Floats


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
            norm = normalised(normalise, power, norm)
            if which == 0:
                for v in range(n_modes):
                    pushed[:] = 0.0
                    for k in range(last - first):
                        moved = changes[v, first + k]
                        push(
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
                    power_change(coefficients, pushed, first_row, n_channels, scale, weights)
                    projected(normalise, weights, power, norm, w[v])
            for v in range(first_mode, end_mode):
                projected(normalise, w[v], power, norm, weights)
                weighted(coefficients, first_row, n_channels, scale, weights, adjoint)
                for k in range(last - first):
                    out = forces[v, first + k]
                    pull(
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
