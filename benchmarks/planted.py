"""Configurations near spurious singular ones: incomplete, truncated and of low body order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from ase_sensitivity import SOAP, Descriptor, FeatureJacobian, analyze, nearest_singular

SINGULAR = 1e-6
"""Ratio below which a walk has arrived at a singular configuration."""

Floats = NDArray[np.float64]
Rng = np.random.Generator

REFERENCES = {
    "S1": [(1, 0, 0.5), (-1, 0, 0.5), (0.9, 0, -0.7), (0, 1.2, 0.3)],
    "S2": [(1, 0, 0.5), (-1, 0, 0.5), (0.6, 0.8, -0.5), (0, 0, 1.2)],
    "S3": [(1, 0, 0.4), (-0.6, 0.8, 0.4), (5 / 13, -12 / 13, 0.4), (0, 0, 1.2)],
}
GENERIC = [(1, 0, 0), (0.28, 0.96, 0), (-0.48, 0.6, 0.64), (-0.36, -0.48, -0.8)]


@dataclass(frozen=True, eq=False)
class Planted:
    """A configuration next to one that is singular without being symmetric.

    Attributes
    ----------
    kind, family
        What makes it singular.
    singular, atoms
        The singular configuration, and the one next to it.
    descriptor
        What sees them.
    """

    kind: str
    family: str
    singular: Atoms
    atoms: Atoms
    descriptor: Descriptor

    @property
    def size(self) -> float:
        """Distance of the two in Å."""
        return float(np.linalg.norm(self.atoms.positions - self.singular.positions))


class Compressed:
    """Fewer features: fixed random combinations of those of another descriptor."""

    def __init__(self, descriptor: SOAP, n_features: int, seed: int) -> None:
        self._inner, self._n_features, self._seed = descriptor, n_features, seed
        self.species, self.cutoff = descriptor.species, descriptor.cutoff
        self.body_order = descriptor.body_order

    def _mixed(self, values: Floats) -> Floats:
        shape = values.shape[-1], self._n_features
        mixed: Floats = values @ np.random.default_rng(self._seed).normal(size=shape)
        return mixed

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features)."""
        return self._mixed(self._inner.features(atoms))

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """Their derivatives."""
        full = self._inner.jacobian(atoms)
        return replace(full, features=self._mixed(full.features), blocks=self._mixed(full.blocks))


def incomplete(rng: Rng) -> tuple[str, Atoms, Descriptor] | None:
    """Power spectra of carbon only, of four hydrogen atoms that they do not tell apart."""
    family = str(rng.choice([*REFERENCES, "random S1", "random S2", "random S3"]))
    points = REFERENCES[family] if family in REFERENCES else _family(family, rng)
    if points is None:
        return None
    atoms = Atoms("CH4", [(0, 0, 0), *points])
    soap = _on_carbon(int(rng.choice([6, 8])), float(rng.choice([0.3, 0.5])))
    return (family, atoms, soap) if _is_exactly(atoms, soap, "incompleteness") else None


def truncated(rng: Rng, which: int | None = None) -> tuple[str, Atoms, Descriptor] | None:
    """Bases too small or too compressed for a few random atoms, at singular points of theirs."""
    which = int(rng.integers(3)) if which is None else which
    points = _spread(rng, int(rng.integers(3, 6)))
    if points is None:
        return None
    n, seed = len(points), int(rng.integers(1000))
    on_carbon = Atoms(f"CH{n}", [(0, 0, 0), *points])
    large: SOAP = SOAP(["H"], 4.0, 8, 8, 0.3, centers=["C"])
    if which == 0:
        family, atoms = "small, on carbon", on_carbon
        n_max, l_max = int(rng.integers(2, 5)), int(rng.integers(1, 5))
        small: Descriptor = SOAP(["H"], 4.0, n_max, l_max, 0.3, centers=["C"])
    elif which == 1:
        family, atoms = "compressed, on carbon", on_carbon
        small = Compressed(large, 3 * n - 3 + int(rng.integers(0, 3)), seed)
    else:
        family = str(rng.choice(["small, on all atoms", "compressed, on all atoms"]))
        atoms = Atoms(rng.permutation(["C", "H", *rng.choice(["C", "H"], n - 2)]), points)
        large = SOAP(["C", "H"], 4.0, 8, 6)
        small = Compressed(large, 2, seed)
        if family.startswith("small"):
            small = SOAP(["C", "H"], 4.0, 2, 0)
    start = analyze(atoms, small, k=1)
    if start.n_null or start.ratio < 1e-6:
        return None
    try:
        found = nearest_singular(atoms, small, max_distance=1.0)
    except ValueError:
        return None
    if not found.found or analyze(found.atoms, small, k=1).ratio > SINGULAR:
        return None  # a small value is none of a singular configuration
    # A larger basis sees everything there: neither symmetry nor the body order is the cause.
    if analyze(found.atoms, large, k=1).ratio < 1e-3:
        return None
    return family, found.atoms, small


def of_low_order(rng: Rng) -> tuple[str, Atoms, Descriptor] | None:
    """Radial spectra: sums over pairs of atoms, where distances are barely enough or tie."""
    family = str(rng.choice(["tie", "plane", "out of reach"]))
    triangle = _spread(rng, 3)
    others = _spread(rng, 2 if family == "out of reach" else int(rng.integers(2, 4)))
    if triangle is None or others is None:
        return None
    others = others + rng.normal(size=3)
    if family == "tie":  # two of the others at the same distance from one of the triangle
        corner = triangle[0]
        length = np.linalg.norm(others[0] - corner)
        others[1] = corner + length * (others[1] - corner) / np.linalg.norm(others[1] - corner)
    else:  # one of the others in the plane of the triangle
        u, v = triangle[1] - triangle[0], triangle[2] - triangle[0]
        normal = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
        others[0] -= normal * (normal @ (others[0] - triangle[0]))
    atoms = Atoms(["N"] * 3 + ["O"] * len(others), np.concatenate([triangle, others]))
    distance = pdist(atoms.positions)
    if distance.min() < 0.9 or distance.max() > 4.0:
        return None
    if family == "out of reach":  # the two that see all others do not see each other
        between = distance[-1]
        reach = distance[:-1].max() + 0.1
        if between < reach + 0.7:
            return None
        soap = SOAP(["N", "O"], reach + 0.6, 10, 0, 0.3, body_order=2)
    else:
        soap = SOAP(["N", "O"], 5.0, 10, 0, 0.3, centers=["N"], body_order=2)
    return (family, atoms, soap) if _is_exactly(atoms, soap, "incompleteness") else None


def always(rng: Rng) -> tuple[str, Atoms, Descriptor] | None:
    """Descriptors that are blind in some direction everywhere."""
    points = _spread(rng, 4)
    if points is None:
        return None
    atoms = Atoms("CH4", [(0, 0, 0), *points])
    if rng.integers(2):
        return "radial, on carbon", atoms, SOAP(["H"], 4.0, 8, 0, 0.3, centers=["C"], body_order=2)
    n_max = int(rng.integers(3, 9))
    return "l_max = 1, on carbon", atoms, SOAP(["H"], 4.0, n_max, 1, 0.3, centers=["C"])


KINDS: dict[str, Callable[[Rng], tuple[str, Atoms, Descriptor] | None]] = {
    "incompleteness": incomplete,
    "truncation": truncated,
    "truncation, all centers": partial(truncated, which=2),
    "body order 2": of_low_order,
    "always singular": always,
}


def planted(kind: str, n: int, seed: int = 0) -> Iterator[Planted]:
    """Configurations .01 to .1 Å away from singular ones of a kind, in random directions."""
    rng = np.random.default_rng(seed)
    count = 0
    while count < n:
        made = KINDS[kind](rng)
        if made is None:
            continue
        family, singular, descriptor = made
        count += 1
        shift = rng.normal(size=(len(singular), 3))
        atoms = singular.copy()
        atoms.positions += rng.uniform(0.01, 0.1) / np.linalg.norm(shift) * shift
        yield Planted(kind, family, singular, atoms, descriptor)


def ring_and_apex(n_ring: int, size: float, n: int, seed: int) -> Iterator[Planted]:
    """Rings of like neighbors about an axis with one atom on it, moved by a distance in Å."""
    rng = np.random.default_rng(seed)
    count = 0
    while count < n:
        r, apex = rng.uniform(0.9, 1.6, 2)
        gaps = rng.uniform(1.0, 2.0, n_ring)
        phi = 2 * np.pi * np.cumsum(gaps) / gaps.sum()
        theta = rng.uniform(0.6, 1.3)
        points = np.array([*(_spherical(r, theta, p) for p in phi), _spherical(apex, 0, 0)])
        alike = min(abs(apex - r) - 0.05, np.diff(np.sort(gaps)).min() - 0.1)
        if alike < 0 or not _distinct(points, 0.9):
            continue
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        singular = Atoms(f"CH{n_ring + 1}", [(0, 0, 0), *points @ turn.T])
        soap = _on_carbon(int(rng.choice([6, 8])), float(rng.choice([0.3, 0.5])))
        if not _is_exactly(singular, soap, "incompleteness"):
            continue
        count += 1
        shift = rng.normal(size=(n_ring + 2, 3))
        atoms = singular.copy()
        atoms.positions += size / np.linalg.norm(shift) * shift
        yield Planted("incompleteness", f"ring of {n_ring}, {size:g} Å", singular, atoms, soap)


@cache
def _on_carbon(l_max: int, atom_sigma: float) -> SOAP:
    """One for all, as in a run: its tables are made once."""
    return SOAP(["H"], 4.0, 8, l_max, atom_sigma, centers=["C"])


def _is_exactly(atoms: Atoms, descriptor: Descriptor, cause: str) -> bool:
    """Whether there is one null vector, and it has that cause."""
    counts = analyze(atoms, descriptor, causes=True).counts
    assert counts is not None
    return sum(counts.values()) == counts[cause] == 1


def _spread(rng: Rng, n: int) -> Floats | None:
    """Points .9 to 1.6 Å from the origin and at least .9 Å from each other; None by chance."""
    points = rng.normal(size=(n, 3))
    points *= (rng.uniform(0.9, 1.6, n) / np.linalg.norm(points, axis=1))[:, None]
    return points if _distinct(points, 0.9) else None


def _distinct(points: Floats, far: float) -> bool:
    return bool((squareform(pdist(points)) + 10 * np.eye(len(points))).min() > far)


def _family(family: str, rng: Rng) -> Floats | None:
    """Random members of S1, S2 and S3, in any orientation."""
    r, ra, rc = rng.uniform(0.9, 1.6, 3)
    half = rng.uniform(0.5, 1.2)
    pair = [_spherical(r, half, phi) for phi in (0, np.pi)]
    points: Sequence[Floats]
    if family == "random S1":  # A in the plane of the pair, C in the plane across it
        a, c = rng.uniform(0.3, 2.8, 2)
        points = [*pair, _spherical(ra, a, 0), _spherical(rc, c, np.pi / 2)]
    elif family == "random S2":  # C on the axis of the pair, A anywhere
        a = _spherical(ra, rng.uniform(0.3, 2.8), rng.uniform(0, 2 * np.pi))
        points = [*pair, a, _spherical(rc, 0, 0)]
    else:  # C on the axis of a scalene ring
        gaps = rng.uniform(1.0, 2.0, 3)
        if np.diff(np.sort(gaps)).min() < 0.1:
            return None
        phi = 2 * np.pi * np.cumsum(gaps) / gaps.sum()
        theta = rng.uniform(0.6, 1.3)
        points = [*(_spherical(r, theta, p) for p in phi), _spherical(rc, 0, 0)]
    if min(abs(ra - r), abs(rc - r), abs(rc - ra)) < 0.05 or not _distinct(np.array(points), 0.9):
        return None
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return np.array(points) @ turn.T


def _spherical(r: float, theta: float, phi: float) -> Floats:
    return r * np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
