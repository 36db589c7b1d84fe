"""Bispectrum: triple products of density coefficients that are invariant under O(3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ase_sensitivity.descriptors.soap import density
from ase_sensitivity.descriptors.soap.basis import Basis, normalised
from ase_sensitivity.descriptors.soap.environments import Environments
from ase_sensitivity.descriptors.soap.harmonics import Harmonics
from ase_sensitivity.types import Floats, Ints

MAX_ORDER = 16
"""The highest ``l_max``. Its Wigner symbols take half a minute; at 20 they take four times that."""

MAX_PRODUCTS = 10**7
"""Limit of the triple products of channels: 1 GB, and about half of them are features."""


@dataclass(frozen=True)
class Term:
    """All features of one (l1, l2, l3).

    Attributes
    ----------
    orders
        l1 >= l2 >= l3, a triangle with even sum.
    coupling
        Real Wigner 3j symbols, of shape (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), up to their common sign.
    chosen
        Flat indices (a n + b) n + c of the channels without repetition, of shape (n_chosen,).
    weight
        Square root of the number of permutations of the factors, of shape (n_chosen,).
    """

    orders: tuple[int, int, int]
    coupling: Floats
    chosen: Ints
    weight: Floats


@dataclass(frozen=True)
class Bispectrum:
    """All triple products; those with an odd l1 + l2 + l3 change sign under reflection."""

    terms: tuple[Term, ...]

    @property
    def n_features(self) -> int:
        """Length of a feature vector."""
        return sum(len(term.chosen) for term in self.terms)

    @staticmethod
    @lru_cache(maxsize=8)
    def of(n_channels: int, l_max: int) -> Bispectrum:
        """All triple products of coefficients of ``n_channels`` channels (species, n)."""
        couplings = _couplings(l_max)
        a, b, c = (part.ravel() for part in np.indices((n_channels,) * 3))
        terms = []
        for (l1, l2, l3), coupling in couplings.items():
            keep = np.ones(len(a), dtype=bool)
            if l1 == l2:
                keep &= a >= b
            if l2 == l3:
                keep &= b >= c
            same12, same23 = (l1 == l2) & (a == b), (l2 == l3) & (b == c)
            orders = np.where(same12 & same23, 1.0, np.where(same12 | same23, 3.0, 6.0))
            chosen = np.flatnonzero(keep)
            terms.append(Term((l1, l2, l3), coupling, chosen, np.sqrt(orders[chosen])))
        return Bispectrum(tuple(terms))


def check_products(n_channels: int, l_max: int) -> None:
    """Raise ValueError if there are too many triple products."""
    if l_max > MAX_ORDER:
        raise ValueError(f"`l_max` is {l_max} but must be at most {MAX_ORDER} with `body_order` 4")
    n_products = n_channels**3 * len(_triples(l_max))
    if n_products > MAX_PRODUCTS:
        raise ValueError(
            f"`body_order` 4 has {n_products:.1e} triple products of {n_channels} channels "
            f"(species times `n_max`) up to `l_max` {l_max}, more than the limit of "
            f"{MAX_PRODUCTS:.0e}; reduce `n_max` or `l_max`"
        )


def _triples(l_max: int) -> list[tuple[int, int, int]]:
    """All l1 >= l2 >= l3 that form a triangle with even sum."""
    return [
        (l1, l2, l3)
        for l1 in range(l_max + 1)
        for l2 in range(l1 + 1)
        for l3 in range(l1 - l2, l2 + 1, 2)  # same parity as l1 + l2
    ]


def _couplings(l_max: int) -> dict[tuple[int, int, int], Floats]:
    """Real 3j symbols from integrals of three real harmonics, to which they are proportional.

    That holds if l1 + l2 + l3 is even. The quadrature is exact, and no phase conventions for the
    transformation from complex to real harmonics are needed.
    """
    cosines, weights = np.polynomial.legendre.leggauss(3 * l_max // 2 + 1)
    angles = 2.0 * np.pi * np.arange(3 * l_max + 1) / (3 * l_max + 1)
    z, phi = (part.ravel() for part in np.meshgrid(cosines, angles, indexing="ij"))
    weight = np.repeat(weights, len(angles))
    sine = np.sqrt(1.0 - z**2)
    directions = np.stack([sine * np.cos(phi), sine * np.sin(phi), z], axis=1)
    values = Harmonics.build(l_max).values(directions)
    found = {}
    for orders in _triples(l_max):
        parts = [values[:, order, : 2 * order + 1] for order in orders]
        integral = np.einsum("p,pi,pj,pk->ijk", weight, *parts, optimize=True)
        found[orders] = integral / np.linalg.norm(integral)
    return found


def bispectrum(
    basis: Basis, environments: Environments, normalise: bool, features: Floats, blocks: Floats
) -> None:
    """Fill ``features`` (n_rows, n_features) and ``blocks`` (n_blocks, 3, n_features).

    ``blocks`` may be empty.
    """
    products = Bispectrum.of(basis.n_channels, basis.l_max)
    starts, own = environments.starts, environments.own
    work = density.scratch(basis, environments.most(0, len(starts)))
    for row, (first, last) in enumerate(pairwise(starts)):
        density.expand(
            first,
            last,
            environments.vectors,
            environments.species,
            work,
            basis.arguments(),
            environments.center_species[row],
            basis.central,
        )
        coefficients = _by_order(basis, work[0].reshape(basis.n_channels, -1))
        derivatives = None
        if len(blocks):
            derivatives = _derivatives(
                basis, environments.vectors[first:last], environments.species[first:last], work
            )
        at = 0
        for term in products.terms:
            end = at + len(term.chosen)
            value, gradient = _product(term, coefficients, derivatives)
            features[row, at:end] = value
            if gradient is not None:
                gradient = gradient.reshape(last - first, 3, end - at)
                blocks[own[row] + 1 : own[row] + 1 + last - first, :, at:end] = gradient
                blocks[own[row], :, at:end] = -gradient.sum(axis=0)
            at = end
    if normalise:
        normalised(features, blocks, np.append(own, environments.n_blocks))


def _by_order(basis: Basis, values: Floats) -> list[Floats]:
    """Functions in the kernels' layout (..., size) as one array (..., 2 l + 1) for each l."""
    position = basis.harmonics.position
    return [values[..., position[order, : 2 * order + 1]] for order in range(basis.l_max + 1)]


def _derivatives(
    basis: Basis, vectors: Floats, species: Ints, work: tuple[Floats, ...]
) -> list[Floats]:
    """Derivatives of c by every neighbor: for each l, of shape (3 n, n_channels, 2 l + 1)."""
    n, size = len(vectors), basis.harmonics.size
    shape = (2, basis.n_max, basis.harmonics.l_padded)
    radial = work[1][: n * int(np.prod(shape))].reshape(n, *shape)
    angular = _by_order(basis, work[2][: n * 4 * size].reshape(n, 4, size))
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    result = []
    for order, harmonics in enumerate(angular):
        value, slope = radial[:, 0, :, order], radial[:, 1, :, order]
        part = np.einsum("kx,kn,km->kxnm", unit, slope, harmonics[:, 0])
        part += np.einsum("kn,kxm->kxnm", value, harmonics[:, 1:])
        full = np.zeros((n, 3, basis.n_species, basis.n_max, 2 * order + 1))
        full[np.arange(n), :, species] = part
        result.append(full.reshape(3 * n, basis.n_channels, 2 * order + 1))
    return result


def _product(
    term: Term, coefficients: list[Floats], derivatives: list[Floats] | None
) -> tuple[Floats, Floats | None]:
    """Features of one (l1, l2, l3) and their derivatives of shape (3 n, n_chosen)."""
    l1, l2, l3 = term.orders
    c1, c2, c3 = coefficients[l1], coefficients[l2], coefficients[l3]
    n = len(c1)
    partial = np.einsum("ijk,bj,ck->ibc", term.coupling, c2, c3, optimize=True)
    value = (c1 @ partial.reshape(len(partial), -1)).reshape(-1)[term.chosen] * term.weight
    if derivatives is None:
        return value, None
    m = len(derivatives[0])
    total = (derivatives[l1] @ partial.reshape(len(partial), -1)).reshape(m, n, n, n)
    partial = np.einsum("ijk,ai,ck->jac", term.coupling, c1, c3, optimize=True)
    inner = derivatives[l2] @ partial.reshape(len(partial), -1)
    total += inner.reshape(m, n, n, n).transpose(0, 2, 1, 3)
    partial = np.einsum("ijk,ai,bj->kab", term.coupling, c1, c2, optimize=True)
    inner = derivatives[l3] @ partial.reshape(len(partial), -1)
    total += inner.reshape(m, n, n, n).transpose(0, 2, 3, 1)
    return value, total.reshape(m, n**3)[:, term.chosen] * term.weight
