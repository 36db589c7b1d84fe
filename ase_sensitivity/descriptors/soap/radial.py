"""Radial functions of SOAP: the projections of a Gaussian at distance r, tabulated once.

Every radial basis becomes a table of polynomials. The kernels evaluate these, and need neither
exponentials nor Bessel functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.polynomial import chebyshev

from ase_sensitivity.types import Floats

NARROWEST = 1e-3
"""The smallest ``atom_sigma`` in units of ``cutoff``; its table takes a few seconds."""

MAX_TABLE = 10**8
"""Limit of the numbers in a table: 0.8 GB."""

EXTENT = 12.0
"""Distance in widths of a Gaussian beyond which it is neglected: it has fallen to 1e-31."""

PANEL = 500
"""Number of points of a quadrature rule; the time to compute a rule grows as its square."""

DEGREE = 10
"""Degree of the polynomials on intervals of a quarter of ``atom_sigma``.

Truncation is below rounding: values are accurate to 1e-15 and derivatives to 1e-13 of the largest.
"""


def scaled_bessel(l_max: int, z: Floats) -> Floats:
    """exp(-z) i_l(z), i_l the modified spherical Bessel function, of shape (l_max + 1, *z.shape).

    Ratios of successive orders come from the downward recursion. All of its terms are positive, so
    no digits are lost. The upward recursion loses all digits if l exceeds z. If z is far above l²
    it loses none, and takes far fewer steps.
    """
    values = np.empty((l_max + 1, *z.shape))
    large = z > 100.0 + 10.0 * l_max**2
    values[:, large] = _upward(l_max, z[large])
    values[:, ~large] = _downward(l_max, z[~large])
    return values


def _upward(l_max: int, z: Floats) -> Floats:
    values = np.empty((l_max + 1, *z.shape))
    values[0] = 0.5 / z  # exp(-2 z) is below rounding
    if l_max > 0:
        values[1] = values[0] * (1.0 - 1.0 / z)
    for order in range(2, l_max + 1):
        values[order] = values[order - 2] - (2 * order - 1) / z * values[order - 1]
    return values


def _downward(l_max: int, z: Floats) -> Floats:
    # High enough that the ratios do not depend on their start, even at the largest argument.
    start = l_max + 30 + int(np.sqrt(80.0 * z.max(initial=0.0)))
    ratio = np.zeros((l_max + 1, *z.shape))
    current = np.zeros_like(z)
    for order in range(start, -1, -1):
        current = z / (2 * order + 3 + z * current)
        if order <= l_max:
            ratio[order] = current
    tiny = z < 1e-300
    values = np.empty((l_max + 1, *z.shape))
    safe = np.where(tiny, 1.0, z)
    values[0] = np.where(tiny, 1.0, -np.expm1(-2.0 * safe) / (2.0 * safe))
    for order in range(1, l_max + 1):
        values[order] = values[order - 1] * ratio[order - 1]
    return values


def projected_gaussians(r: Floats, points: Floats, sigma: float, l_max: int) -> Floats:
    """exp(-(r² + s²) / 2 sigma²) i_l(r s / sigma²) at distances r and radial points s.

    Parameters
    ----------
    r
        Distances in Å, of shape (m,).
    points
        Radial points s in Å, of shape (k,).
    sigma
        Width of the Gaussians in Å.
    l_max
        Highest order.

    Returns
    -------
    values
        Of shape (l_max + 1, m, k).
    """
    difference = r[:, None] - points
    product = r[:, None] * points / sigma**2
    return scaled_bessel(l_max, product) * np.exp(-0.5 * (difference / sigma) ** 2)


def quip_basis(cutoff: float, n_max: int, sigma: float) -> tuple[Floats, Floats]:
    """Radial points (n_max,) in Å and weights (n_max, n_max) of QUIP's radial basis.

    It consists of Gaussians with the width of the atoms at equally spaced radii, orthonormalised by
    Cholesky. The largest radius is that at which the Gaussian of an atom at the cutoff has fallen
    to 1e-10.
    """
    alpha = 0.5 / sigma**2
    points = np.arange(n_max) * (cutoff + sigma * np.sqrt(20.0 * np.log(10.0))) / n_max
    difference, total = points[:, None] - points, points[:, None] + points
    squares = points[:, None] ** 2 + points**2
    overlap = np.exp(-alpha * squares) * np.sqrt(2.0) * alpha**1.5 * total
    overlap += (
        (alpha * np.sqrt(np.pi))
        * np.exp(-0.5 * alpha * difference**2)
        * (1.0 + alpha * total**2)
        * (1.0 + scipy.special.erf(np.sqrt(alpha / 2.0) * total))
    )
    try:
        factor = np.linalg.cholesky(overlap / np.sqrt(128.0 * alpha**5))
    except np.linalg.LinAlgError:
        raise _dependent(n_max) from None
    return points, np.linalg.solve(np.exp(-alpha * difference**2), factor)


def gto_basis(cutoff: float, n_max: int, sigma: float) -> tuple[Floats, Floats]:
    """Quadrature points (k,) in Å and weights (k, n_max) of orthonormal Gaussian-type orbitals.

    The primitive functions are r^n exp(-r² / 2 s_n²), s_n = max(sqrt(n), 1) cutoff / n_max,
    n = 0 .. n_max - 1. They are orthonormalised symmetrically (Löwdin) with the weight r² dr on the
    whole half line, and projected on a density of Gaussians with squares normalised to 1.
    """
    order = np.arange(n_max)
    width = np.maximum(np.sqrt(order), 1.0) * cutoff / n_max
    # Products with r² fall as Gaussians: ten widths beyond their maxima they vanish.
    end = float((np.sqrt(order + 2.0) * width).max() + 10.0 * width.max())
    count = 60 + int(12 * end / min(sigma, float(width.min())))
    points, weights = _quadrature(end, count)
    primitive = points[:, None] ** order * np.exp(-0.5 * (points[:, None] / width) ** 2)
    measure = weights * points**2
    primitive /= np.sqrt(measure @ primitive**2)
    values, vectors = np.linalg.eigh(primitive.T @ (measure[:, None] * primitive))
    if values[0] < 1e-14 * values[-1]:
        raise _dependent(n_max)
    basis = primitive @ (vectors / np.sqrt(values)) @ vectors.T
    density = 4.0 * np.pi / (np.pi * sigma**2) ** 0.75
    return points, density * measure[:, None] * basis


def dscribe_basis(cutoff: float, n_max: int, l_max: int, sigma: float) -> tuple[Floats, Floats]:
    """Quadrature points (k,) in Å and weights (l_max + 1, k, n_max) of DScribe's "gto" functions.

    The primitive functions are r^l exp(-a r²). For each l, the exponents a are such that the
    functions have fallen to 1e-3 at n_max equally spaced distances from 1 Å to the cutoff. They are
    orthonormalised symmetrically (Löwdin) with the weight r² dr on the whole half line, and
    projected on a density of Gaussians of height 1.
    """
    if cutoff <= 1.0:
        raise ValueError(f"`cutoff` is {cutoff} but must be above 1 Å for the dscribe basis")
    end = cutoff + 10.0 * sigma
    points, weights = _quadrature(end, 60 + int(12 * end / min(sigma, 0.2)))
    measure = 4.0 * np.pi * weights * points**2
    fallen = np.linspace(1.0, cutoff, n_max)
    basis = np.empty((l_max + 1, len(points), n_max))
    for order in range(l_max + 1):
        exponent = np.log(1e3 * fallen**order) / fallen**2
        power = order + 1.5
        overlap = 0.5 * scipy.special.gamma(power) * (exponent[:, None] + exponent) ** -power
        values, vectors = np.linalg.eigh(overlap)
        if values[0] < 1e-14 * values[-1]:
            raise _dependent(n_max)
        primitive = points[:, None] ** order * np.exp(-exponent * points[:, None] ** 2)
        basis[order] = primitive @ (vectors / np.sqrt(values)) @ vectors.T
    return points, measure[:, None] * basis


def _quadrature(end: float, count: int) -> tuple[Floats, Floats]:
    """Gauss points between 0 and ``end``, ascending, ``count`` or more, and their weights."""
    n_panels = -(-count // PANEL)
    nodes, weights = scipy.special.roots_legendre(-(-count // n_panels))
    points = (np.arange(n_panels)[:, None] + 0.5 * (nodes + 1.0)).ravel() * (end / n_panels)
    return points, np.tile(0.5 * weights * (end / n_panels), n_panels)


def check_table(cutoff: float, sigma: float, n_max: int, l_max: int) -> None:
    """Raise ValueError if a table would take very long to compute, or not fit into memory."""
    if not NARROWEST <= sigma / cutoff <= 1.0 / NARROWEST:
        raise ValueError(
            f"`atom_sigma` is {sigma:g} but must be from {NARROWEST:g} to {1.0 / NARROWEST:g} "
            f"times `cutoff`, which is {cutoff:g}"
        )
    size = np.ceil(4.0 * cutoff / sigma) * (DEGREE + 1) * n_max * (l_max + 4)
    if size > MAX_TABLE:
        raise ValueError(
            f"the radial functions for `n_max` {n_max}, `l_max` {l_max}, `cutoff` {cutoff:g} and "
            f"`atom_sigma` {sigma:g} need a table of {size:.1e} numbers, more than the limit of "
            f"{MAX_TABLE:.0e}; reduce the basis, or enlarge `atom_sigma`"
        )


def _dependent(n_max: int) -> ValueError:
    return ValueError(
        f"{n_max} radial functions are linearly dependent in double precision; "
        "`n_max` must be smaller, or `atom_sigma` with the quip basis"
    )


@dataclass(frozen=True)
class RadialTable:
    """Radial functions g_nl(r) on [0, cutoff] as polynomials on equal intervals.

    Attributes
    ----------
    coefficients
        Of shape (n_intervals, degree + 1, n_max, l_padded), ascending powers of a variable that
        runs from -1 to 1 on each interval; zero beyond l_max.
    per_length
        Number of intervals per Å.
    at_origin
        g_n0(0) of shape (n_max,): the contribution of an atom at the center.
    """

    coefficients: Floats
    per_length: float
    at_origin: Floats

    @classmethod
    def build(
        cls,
        basis: str,
        cutoff: float,
        n_max: int,
        l_max: int,
        sigma: float,
        l_padded: int,
    ) -> RadialTable:
        """Tabulate a basis, ``"quip"``, ``"gto"`` or ``"dscribe"``; lengths in Å."""
        if basis == "dscribe":
            points, weights = dscribe_basis(cutoff, n_max, l_max, sigma)
        else:
            points, weights = (quip_basis if basis == "quip" else gto_basis)(cutoff, n_max, sigma)
            weights = weights[None]
        # The functions vary on the scale of the Gaussians, whatever the basis.
        n_intervals = max(1, int(np.ceil(4.0 * cutoff / sigma)))
        nodes = np.cos(np.pi * (np.arange(DEGREE + 1) + 0.5) / (DEGREE + 1))
        to_chebyshev = np.linalg.inv(chebyshev.chebvander(nodes, DEGREE))
        to_powers = np.zeros((DEGREE + 1, DEGREE + 1))
        for k in range(DEGREE + 1):
            to_powers[: k + 1, k] = chebyshev.cheb2poly(np.eye(DEGREE + 1)[k])[: k + 1]
        coefficients = np.zeros((n_intervals, DEGREE + 1, n_max, l_padded))
        share = min(1.0, 2 * EXTENT * sigma / float(points[-1] + sigma))
        at_once = max(1, int(20_000 / (len(nodes) * len(points) * share)))
        for first in range(0, n_intervals, at_once):
            interval = np.arange(first, min(first + at_once, n_intervals))
            r = (interval[:, None] + 0.5 * (nodes + 1.0)) * cutoff / n_intervals
            ends = r.min() - EXTENT * sigma, r.max() + EXTENT * sigma
            near = slice(*np.searchsorted(points, ends))
            values = projected_gaussians(r.ravel(), points[near], sigma, l_max) @ weights[:, near]
            values = values.reshape(l_max + 1, *r.shape, n_max)
            # In two steps, as the product of the two matrices has large numbers that cancel.
            fit = np.einsum("kx,lqxn->qknl", to_chebyshev, values)
            coefficients[interval, :, :, : l_max + 1] = np.einsum("pk,qknl->qpnl", to_powers, fit)
        at_origin = projected_gaussians(np.zeros(1), points, sigma, 0)[0, 0] @ weights[0]
        return cls(coefficients, n_intervals / cutoff, at_origin)
