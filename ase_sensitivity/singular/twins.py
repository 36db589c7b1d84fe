"""Structures with the same features that are not the same structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.singular.feature_map import FeatureMap
from ase_sensitivity.singular.point import Point
from ase_sensitivity.types import Floats, Scope
from ase_sensitivity.validation import as_integer, as_number

FARTHEST_FOLD = 1.0
"""How far (Å) folds are looked for."""

MOST_TURNS = 40
"""Most starts with a point turned about the bisector of two others."""

FAR_FOLD = 5
"""One of so many further starts is the other side of another fold."""


@dataclass(frozen=True, eq=False)
class Twin:
    """What a search for a structure with the same features found.

    Attributes
    ----------
    found
        Whether there is one.
    message
        What was found, or why not, in words.
    atoms
        The given structure; in environment scope the center and then its neighbors, as a cluster.
    twin
        A structure with the same features, its atoms in the same order; None if none was found.
        ``info`` has the numbers below.
    rmsd, maximum
        Distance in Å that remains between the two under any rotation, reflection and permutation of
        like atoms: root mean square over the atoms that the features depend on, and the largest.
    feature_distance
        Norm of the difference of the features, relative to their norm.
    start
        Where the search that found it began: ``"fold"``, ``"half turn"``, ``"mode"``, ``"far
        fold"`` or ``"random"``; None if none was found.
    n_starts, n_same
        Number of starts tried, and of those that came back to the structure itself.
    n_evaluations
        Number of Jacobians.
    """

    found: bool
    message: str
    atoms: Atoms
    twin: Atoms | None
    rmsd: float
    maximum: float
    feature_distance: float
    start: str | None
    n_starts: int
    n_same: int
    n_evaluations: int

    def __repr__(self) -> str:
        return f"Twin(found={self.found}, rmsd={self.rmsd:.3g}, message={self.message!r})"


def find_twin(
    atoms: Atoms,
    descriptor: Given,
    *,
    scope: Scope = "structure",
    center: int | None = None,
    n_starts: int = 100,
    rng: int | np.random.Generator | None = 0,
    tolerance: float = 1e-8,
    min_distance: float = 0.05,
    max_evaluations: int = 10_000,
    callback: Callable[[int, int], None] | None = None,
) -> Twin:
    """Look for a structure with the same features that is not the same structure.

    Parameters
    ----------
    atoms
        An isolated structure, or any with ``scope="environment"``. It is not changed.
    descriptor
        The descriptor, as of :func:`~ase_sensitivity.analyze`.
    scope, center
        As in :func:`~ase_sensitivity.analyze`; not ``"atom"``.
    n_starts
        Number of starts: the other side of the nearest fold first, then half turns of single points
        (of one center), along the softest mode, then random ones and the other sides of folds
        farther away.
    rng
        Seed or generator of the random starts.
    tolerance
        Features are the same if their difference is less, relative to their norm.
    min_distance
        Structures are the same if their best match has an rmsd below this, in Å.
    max_evaluations
        Number of Jacobians after which no further start is made.
    callback
        Called with the number of starts done and the number of all, after each.

    Returns
    -------
    Twin
        The first one found, or that none was: no proof that there is none.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or the structure is periodic with ``scope="structure"``.

    Notes
    -----
    A fold is a singular configuration at which two structures with the same features merge. On its
    other side, by the same vector, lies a guess of the twin, which Gauss-Newton steps on the
    difference of the features improve (a trust region, :func:`scipy.optimize.least_squares`).
    Half turns are about the bisector of two like points that are about equally far from the center:
    the known twins of features of three bodies are related so (:doc:`/theory`).
    Random starts give some points another direction from the center and keep their distances.

    Examples
    --------
    Two hydrogen atoms at equal distances hide on which side of their bisector a third one is:

    >>> from ase import Atoms
    >>> from ase_sensitivity import SOAP
    >>> hidden = [(1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7), (-0.72, 0.96, 0.3)]
    >>> methane = Atoms("CH4", [(0, 0, 0), *hidden])
    >>> soap = SOAP(["H"], cutoff=3, n_max=8, l_max=8, atom_sigma=0.3, centers=["C"])
    >>> result = find_twin(methane, soap)
    >>> result.found, round(result.rmsd, 2)
    (True, 0.52)
    """
    for name, count in (("n_starts", n_starts), ("max_evaluations", max_evaluations)):
        as_integer(name, count, 1)
    for name, value in (("tolerance", tolerance), ("min_distance", min_distance)):
        as_number(name, value, "positive")
    features = FeatureMap(atoms, descriptor, scope, center)
    if features.start_atoms.pbc.any():
        raise ValueError(
            "`atoms` is periodic: whether two periodic structures are the same is not decided "
            'here; use scope="environment", or set `atoms.pbc = False`'
        )
    target = features.start
    size = float(np.linalg.norm(target.features))
    n_same = tried = 0
    nearest = np.inf
    for start, guess in _starts(features, np.random.default_rng(rng)):
        if tried == n_starts or features.n_evaluations >= max_evaluations:
            break
        tried += 1
        end = _solved(features, guess)
        difference = float(np.linalg.norm(end.features - target.features)) / size
        match = features.match(target.positions, end.positions)
        if callback is not None:
            callback(tried, n_starts)
        if match.rmsd < min_distance:
            n_same += difference <= tolerance
            continue
        nearest = min(nearest, difference)
        if difference > tolerance:
            continue
        twin = features.atoms(end.positions)
        twin.info.update(rmsd=match.rmsd, maximum=match.maximum, feature_distance=difference)
        return Twin(
            found=True,
            message=f"a structure {match.rmsd:.3g} Å away has the same features to {difference:.1e}"
            + ("" if match.exact else " (the distance is an upper bound)"),
            atoms=features.start_atoms,
            twin=twin,
            rmsd=match.rmsd,
            maximum=match.maximum,
            feature_distance=difference,
            start=start,
            n_starts=tried,
            n_same=n_same,
            n_evaluations=features.n_evaluations,
        )
    apart = (
        "; of all structures apart from it that were reached, the features differ by "
        f"{nearest:.1e} at the least"
        if nearest < np.inf
        else ""
    )
    return Twin(
        found=False,
        message=f"no twin was found from {tried} starts, {n_same} of which led back to the "
        f"structure itself{apart}. This does not prove that there is none.",
        atoms=features.start_atoms,
        twin=None,
        rmsd=np.nan,
        maximum=np.nan,
        feature_distance=np.nan,
        start=None,
        n_starts=tried,
        n_same=n_same,
        n_evaluations=features.n_evaluations,
    )


def _starts(features: FeatureMap, rng: np.random.Generator) -> Iterator[tuple[str, Floats]]:
    """Guesses without end, none with atoms in contact."""
    here = features.start.positions
    fold = _beyond(features, here, here)
    if fold is not None:
        yield "fold", fold
        length = float(np.linalg.norm(fold - here))
    else:
        length = 0.2
    for guess in islice(features.half_turns(), MOST_TURNS):
        yield "half turn", guess
    mode = features.start.internal()[1][:, 0].reshape(-1, 3)
    for guess in (here + length * mode, here - length * mode):
        if features.allowed(guess):
            yield "mode", guess
    for n in range(1, 1_000_000):
        if n % FAR_FOLD == 0:
            away = features.displaced(rng, rng.uniform(0.1, 0.5))
            far = _beyond(features, here, away)
            if far is not None:
                yield "far fold", far
        else:
            yield "random", features.redirected(rng)


def _beyond(features: FeatureMap, here: Floats, start: Floats) -> Floats | None:
    """As far beyond the singular configuration near ``start`` as the structure is before it."""
    end, found = features.walk(start, FARTHEST_FOLD)
    beyond = 2 * end - here
    return beyond if found.found and found.distance > 0 and features.allowed(beyond) else None


def _solved(features: FeatureMap, guess: Floats) -> Point:
    """Where the difference to the features of the start has a minimum near ``guess``."""
    target = features.start.features
    last: dict[bytes, Point] = {}

    def point_at(x: Floats) -> Point:
        key = x.tobytes()
        if key not in last:
            last.clear()
            last[key] = features.at(x.reshape(-1, 3))
        return last[key]

    def difference(x: Floats) -> Floats:
        if not features.allowed(x.reshape(-1, 3)):
            return np.full(len(target), np.inf)  # the step is refused
        found: Floats = point_at(x).features - target
        return found

    x = guess.ravel()
    for ftol in (1e-3, 1e-12):  # roughly; to the end only what comes to nothing
        x = scipy.optimize.least_squares(
            difference,
            x,
            jac=lambda x: point_at(x).dense,
            ftol=ftol,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=60,
        ).x
        if np.linalg.norm(difference(x)) > 1e-4 * np.linalg.norm(target):
            break
    return point_at(x)
