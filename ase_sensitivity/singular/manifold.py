"""Paths along which features hardly change: degenerate, quasi-constant, or merely soft."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.singular.feature_map import FeatureMap
from ase_sensitivity.singular.point import Point
from ase_sensitivity.types import Floats, Scope
from ase_sensitivity.validation import as_integer, as_number

CONSTANT = 1e-8
"""Features that change less than this, relative to their norm, are the same all along a path."""

QUASI = 0.15
"""A path is quasi-constant if the features change per Å of rmsd at most by this fraction of what
random displacements of the same length change them. With one carbon center, paths of 0.3 Å through
and near three kinds of singular configurations reach 0.03 to 0.12; with all atoms as centers, those
from displaced methanol, ethanol, H2O2 and NH3 0.13 to 0.46, three of 24 below the limit (ethane's
torsion 0.07 to 0.10)."""


@dataclass(frozen=True, eq=False)
class Manifold:
    """A path from a structure along which the features change as little as they can.

    Attributes
    ----------
    frames
        Structures along the path, the first one the given one; in environment scope clusters, the
        center first. ``info`` of each has its numbers of the arrays below.
    length
        Norm of all atoms' displacements from the start in Å, without rigid motions; (n_frames,).
    rmsd
        Distance in Å from the start under any rotation, reflection and permutation of like atoms;
        of shape (n_frames,).
    feature_change
        Norm of the change of the features relative to their norm; of shape (n_frames,).
    random_feature_change, random_rmsd
        The same after random displacements of the same length: means, of shape (n_frames,).
    n_evaluations
        Number of Jacobians.
    """

    frames: list[Atoms]
    length: Floats
    rmsd: Floats
    feature_change: Floats
    random_feature_change: Floats
    random_rmsd: Floats
    n_evaluations: int

    @property
    def ratio(self) -> float:
        """The features' change per Å of rmsd relative to that by random displacements: the largest.

        The rmsd counts, not the length: a path that leads to a mirror image or to an exchange of
        like atoms changes neither the features nor the structure.
        """
        change, random = self.feature_change[1:], self.random_feature_change[1:]
        still = 1e-9  # Å: nothing has moved
        slope = change / (self.rmsd[1:] + still)
        return float((slope / (random / (self.random_rmsd[1:] + still))).max())

    @property
    def verdict(self) -> str:
        """What kind of path it is.

        ``"degenerate"``: the features are constant. ``"quasi-constant"``: all along they change far
        less than by random displacements. ``"soft"``: only at first, or not even that.
        """
        if self.feature_change.max() < CONSTANT and self.rmsd.max() > 0.1 * self.random_rmsd.max():
            return "degenerate"
        return "quasi-constant" if self.ratio <= QUASI else "soft"

    def __repr__(self) -> str:
        return (
            f"Manifold(verdict={self.verdict!r}, ratio={self.ratio:.2g}, "
            f"length={self.length[-1]:.2g}, n_evaluations={self.n_evaluations})"
        )


def trace_manifold(
    atoms: Atoms,
    descriptor: Given,
    *,
    scope: Scope = "structure",
    center: int | None = None,
    length: float = 0.3,
    step: float = 0.05,
    direction: Floats | None = None,
    n_random: int = 16,
    rng: int | np.random.Generator | None = 0,
    callback: Callable[[int, int], None] | None = None,
) -> Manifold:
    """Follow the softest direction, and keep the features as constant as possible.

    Parameters
    ----------
    atoms
        The structure. It is not changed; its constraints are ignored.
    descriptor
        The descriptor, as of :func:`~ase_sensitivity.analyze`.
    scope, center
        As in :func:`~ase_sensitivity.analyze`; not ``"atom"``.
    length
        Where to end: the norm of all atoms' displacements in Å.
    step
        Distance between frames in Å.
    direction
        Displacements of shape (n_atoms, 3) to set out along; by default the softest mode. The
        opposite direction is another path.
    n_random
        Number of random displacements to compare with.
    rng
        Seed or generator of these.
    callback
        Called with the number of frames done and the number of all, after each frame.

    Returns
    -------
    Manifold
        The path, its numbers and a verdict. It ends early where atoms come too close.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or there is nothing but rigid motions.

    Notes
    -----
    The predictor continues the path straight on. The corrector minimises the change of the
    features over all displacements of the same length, by Levenberg-Marquardt steps on that sphere.

    Examples
    --------
    Features of body order 2 see distances from the center, and no angles:

    >>> from ase import Atoms
    >>> from ase_sensitivity import SOAP
    >>> bent = Atoms("CHHF", [(0, 0, 0), (1.0, 0.1, 0), (-0.3, 1.1, 0.2), (0.2, -0.3, 1.4)])
    >>> soap = SOAP(["H", "F"], cutoff=3, n_max=6, l_max=0, centers=["C"], body_order=2)
    >>> trace_manifold(bent, soap).verdict
    'degenerate'
    """
    for name, value in (("length", length), ("step", step)):
        as_number(name, value, "positive")
    as_integer("n_random", n_random, 1)
    features = FeatureMap(atoms, descriptor, scope, center)
    start = features.start
    modes = start.internal()[1]
    if modes.shape[1] < 2:
        raise ValueError("there are fewer than two directions besides rigid motions: no path")
    ahead = _first(direction, modes, start.positions.shape)
    n_steps = max(1, round(length / step))
    size = float(np.linalg.norm(start.features)) or 1.0
    random = np.random.default_rng(rng).normal(size=(n_random, modes.shape[1]))
    random /= np.linalg.norm(random, axis=1)[:, None]

    def change(point_at: Point) -> float:
        return float(np.linalg.norm(point_at.features - start.features)) / size

    def moved(y: Floats) -> Floats:
        return start.positions + (modes @ y).reshape(-1, 3)

    path = [np.zeros(modes.shape[1])]
    rows = [(0.0,) * 5]
    for n in range(1, n_steps + 1):
        radius = length * n / n_steps
        guess = path[-1] + ahead * length / n_steps
        found = _corrected(features, moved, guess, radius, length / n_steps, modes)
        others = [moved(radius * other) for other in random]
        others = [other for other in others if features.closest(other) > 0]
        if found is None or not others:
            break
        y, point_at = found
        ahead = (y - path[-1]) / np.linalg.norm(y - path[-1])
        path.append(y)
        rows.append(
            (
                radius,
                features.match(start.positions, point_at.positions).rmsd,
                change(point_at),
                float(np.mean([change(features.at(other)) for other in others])),
                float(np.mean([features.match(start.positions, o).rmsd for o in others])),
            )
        )
        if callback is not None:
            callback(n, n_steps)
    if len(path) == 1:
        raise ValueError(f"no step of {step:g} Å is possible: atoms come too close; reduce `step`")
    table = np.array(rows).T
    frames = [features.atoms(moved(y)) for y in path]
    names = ("length", "rmsd", "feature_change", "random_feature_change", "random_rmsd")
    for frame, row in zip(frames, rows, strict=True):
        frame.info.update(zip(names, row, strict=True))
    arrays = dict(zip(names, table, strict=True))
    return Manifold(frames, **arrays, n_evaluations=features.n_evaluations)


def _first(direction: Floats | None, modes: Floats, shape: tuple[int, ...]) -> Floats:
    """The direction to set out along, in coordinates of the modes."""
    if direction is None:
        return np.eye(modes.shape[1])[0]
    given = np.asarray(direction, dtype=float)
    if given.shape != shape or not np.isfinite(given).all():
        raise ValueError(f"`direction` has shape {given.shape} but must be finite, {shape}")
    ahead: Floats = modes.T @ given.ravel()
    norm = float(np.linalg.norm(ahead))
    if norm < 1e-6 * np.linalg.norm(given) or norm == 0:
        raise ValueError("`direction` is zero or a rigid motion; give a displacement of the atoms")
    return ahead / norm


def _corrected(
    features: FeatureMap,
    moved: Callable[[Floats], Floats],
    guess: Floats,
    radius: float,
    reach: float,
    modes: Floats,
) -> tuple[Floats, Point] | None:
    """The displacement of length ``radius`` near ``guess`` that changes the features least."""
    target = features.start.features
    y = guess * radius / np.linalg.norm(guess)
    if not features.allowed(moved(y)):
        return None
    point_at = features.at(moved(y))
    left = np.linalg.norm(point_at.features - target)
    damping = 1e-4
    for _ in range(30):
        tangent = scipy.linalg.null_space(y[None])
        pull = point_at.dense @ (modes @ tangent)
        normal, gradient = pull.T @ pull, pull.T @ (point_at.features - target)
        scale = max(np.linalg.eigvalsh(normal)[-1], 1e-300)
        for _ in range(6):
            shift = -scipy.linalg.lstsq(normal + damping * scale * np.eye(len(normal)), gradient)[0]
            shift *= min(1.0, reach / max(float(np.linalg.norm(shift)), 1e-300))
            trial = y + tangent @ shift
            trial *= radius / np.linalg.norm(trial)
            if features.allowed(moved(trial)):
                there = features.at(moved(trial))
                rest = np.linalg.norm(there.features - target)
                if rest < left:
                    break
            damping = max(10 * damping, 1e-8)
        else:
            break
        gain = 1 - rest / left
        y, point_at, left, damping = trial, there, rest, damping / 10
        if gain < 1e-3 or left <= 1e-14 * np.linalg.norm(target):
            break
    return y, point_at
