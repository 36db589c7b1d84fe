"""Reference environments, whose degeneracies are known by construction (docs/theory).

All are neighbors of a carbon atom at the origin, in Å.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.causes.environments import Environment
from ase_sensitivity.causes.incompleteness import class_sums
from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.geometry.symmetry import TOLERANCE
from ase_sensitivity.types import Floats

Points = Sequence[tuple[float, float, float]]


def polar(u: float, v: float) -> tuple[float, float, float]:
    """A point at 1.09 Å from the center, at longitude u and latitude v."""
    x, y, z = 1.09 * np.array([np.cos(u) * np.cos(v), np.sin(u) * np.cos(v), np.sin(v)])
    return float(x), float(y), float(z)


S1: Points = ((1, 0, 0.5), (-1, 0, 0.5), (0.9, 0, -0.7), (0, 1.2, 0.3))
S2: Points = ((1, 0, 0.5), (-1, 0, 0.5), (0.6, 0.8, -0.5), (0, 0, 1.2))
S3: Points = ((1, 0, 0.4), (-0.6, 0.8, 0.4), (5 / 13, -12 / 13, 0.4), (0, 0, 1.2))
"""Singular at nu = 2: two configurations with the same features meet there."""

GENERIC: Points = ((1, 0, 0), (0.28, 0.96, 0), (-0.48, 0.6, 0.64), (-0.36, -0.48, -0.8))
"""T: four neighbors at the same distance, and nothing else that would make it singular."""

X_PLUS: Points = ((1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7), (-0.72, 0.96, 0.3))
X_MINUS: Points = (*X_PLUS[:3], (0.72, -0.96, 0.3))
"""Different environments with the same features at nu = 2, neither of them singular."""

B3: Points = (*((x, y, z) for z in (0.4, -0.4) for x, y, _ in S3[:3]), (0.0, 0.0, 1.2))
"""Singular at nu = 3 as well: two scalene rings of H, one above the other, and O on the axis."""


def around_carbon(points: Points | Floats, symbols: str | Sequence[str] = "HHHH") -> Atoms:
    """A carbon atom at the origin with neighbors."""
    symbols = list(symbols) if isinstance(symbols, str) else symbols
    return Atoms(["C", *symbols], np.vstack([[(0, 0, 0)], points]))


def line(u: float) -> Atoms:
    """The degenerate line D(u), folded at u = pi: u and -u have the same features at nu = 2."""
    pi = np.pi
    fixed = [polar(pi, -3 * pi / 8), polar(pi / 5, -pi / 6), polar(-pi / 5, pi / 6)]
    return around_carbon([*fixed, polar(u, 0)])


ENVIRONMENTS = {
    "S1": around_carbon(S1),
    "S2": around_carbon(S2),
    "S3": around_carbon(S3),
    "D(pi)": line(np.pi),
    "B3": around_carbon(B3, "HHHHHHO"),
    "T": around_carbon(GENERIC),
}
"""Environments to look for null directions in."""

PAIRS = {
    "X+/X-": (around_carbon(X_PLUS), around_carbon(X_MINUS)),
    "D(u)/D(-u)": (line(0.95 * np.pi), line(-0.95 * np.pi)),
}
"""Different environments that have the same features at nu = 1 and 2, and not at nu = 3."""

DEGENERATE = 2
"""The nu up to which the environments of a pair have the same features."""


def blind_directions(atoms: Atoms, nu: int) -> Floats:
    """Displacements that no features see which correlate ``nu`` neighbors of the first atom.

    Orthonormal displacements of all atoms without rigid motions, of shape (m, n_atoms, 3). They do
    not depend on a basis (:func:`~ase_sensitivity.causes.incompleteness.class_sums`).
    """
    n = len(atoms) - 1
    vectors = atoms.positions[1:] - atoms.positions[0]
    about = Environment(atoms.numbers[1:], vectors, np.arange(1, n + 1), np.zeros(n, dtype=np.intp))
    sums = class_sums(about, nu, TOLERANCE).toarray()
    turned = rotation_generators(vectors).reshape(3, -1)
    still = scipy.linalg.null_space(np.concatenate([sums, turned]), rcond=1e-7)
    if still.shape[1] == 0:
        return np.empty((0, n + 1, 3))
    # These leave the center in place. The same up to a rigid motion is orthogonal to all of these.
    wide = np.zeros((still.shape[1], n + 1, 3))
    wide[:, 1:] = still.T.reshape(-1, n, 3)
    wide -= wide.mean(axis=1, keepdims=True)
    rotations = rotation_generators(atoms.positions - atoms.positions.mean(axis=0)).reshape(3, -1)
    frame = scipy.linalg.orth(rotations.T)
    flat = wide.reshape(len(wide), -1)
    flat = flat - (flat @ frame) @ frame.T
    found: Floats = scipy.linalg.orth(flat.T).T.reshape(-1, n + 1, 3)
    return found
