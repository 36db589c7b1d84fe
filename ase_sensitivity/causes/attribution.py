"""The cause of each small singular vector: the predicted null space that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.causes.cause import NULL_CAUSES
from ase_sensitivity.causes.environments import ReceptiveField, receptive_fields, unseen_species
from ase_sensitivity.causes.incompleteness import class_sums
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.geometry.symmetry import TOLERANCE, point_group
from ase_sensitivity.jacobian.scale import CANCELLED
from ase_sensitivity.linalg.canonical import canonical
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.spectrum.solvers import Spectrum
from ase_sensitivity.types import Floats, Ints

STEEPNESS = 10.0
"""A geometry that is singular up to a tolerance t (Å) has singular values below about
``STEEPNESS * t`` times the largest, as features vary over a few tenths of an Å."""

LOOSEST = 0.01
"""In Å. Some singular values grow as the square of the deviation from a symmetry. They and the sums
over classes are small even if the geometry deviates by far more than the tolerance. So symmetries
are searched with tolerances up to this one before a null or near-null vector is called
incompleteness."""

ROOM = 10.0
"""In Å: a singular value grows as a low power of what breaks a symmetry, so that a geometry with a
ratio r is within ``ROOM * r**0.25`` of the symmetric one."""

WIDE = 0.05
"""In Å: the largest tolerance up to which symmetry explains null vectors that are not incomplete
either. In cubic crystals some values grow as the fourth power, so that twice the room above is
needed."""

MOST_CHANGE = 0.1
"""The largest change, relative to a typical one, of a vector in a predicted null space. The squared
length of its projection on that space is then 0.99."""

# A condition takes modes of shape (n_columns, 3, m). For each environment it yields the changes
# (any, m) that are zero for modes in the predicted null space, the sum of squares of the matrix
# from displacements of the environment's points to these changes, and the number of its columns.
Condition = Callable[[Floats], Iterator[tuple[Floats, float, int]]]

# A cause, and the fraction of a typical change below which a normalised vector belongs to it.
Prediction = tuple[str, float, Condition]


@dataclass(frozen=True)
class Attribution:
    """Causes of the small singular values of a view.

    Attributes
    ----------
    counts
        Number of null and near-null vectors of each of
        :data:`~ase_sensitivity.causes.cause.NULL_CAUSES`; "species" and "unknown" only
        if there are some.
    causes
        The cause of every mode; None for those that are not small.
    modes
        The modes, of shape (3 n_columns, k). Null vectors are defined up to orthonormal
        combinations; these are chosen so that each has one cause, and harmless ones come last.
    n_near_null
        Number of the counted vectors with singular values that are small but not zero.
    """

    counts: dict[str, int]
    causes: tuple[str | None, ...]
    modes: Floats
    n_near_null: int


def attribute(
    view: View,
    found: Spectrum,
    atoms: Atoms,
    descriptor: Descriptor,
    *,
    tolerance: float = TOLERANCE,
) -> Attribution:
    """Find the cause of every null and near-null vector of a view.

    Parameters
    ----------
    view
        The view.
    found
        Its spectrum, with at least all singular values that are zero or nearly so.
    atoms
        The structure.
    descriptor
        The descriptor of the Jacobian.
    tolerance
        Tolerance in Å for symmetries of the geometry and for equal distances. Singular values below
        :func:`near_limit` count as near-null if a cause predicts that they vanish.

    Raises
    ------
    ValueError
        If an environment is too large for the body order, or is infinite.

    Notes
    -----
    See :doc:`/causes`. The predicted null spaces are nested: fragment within symmetry within
    incompleteness within all. Vectors that belong to one are left out for the next.
    """
    small = np.searchsorted(found.singular_values, near_limit(found, tolerance), side="right")
    n_null, n_small = found.n_null, max(int(small), found.n_null)
    causes: list[str | None] = [None] * len(found.singular_values)
    modes = found.modes
    if n_small:
        seen = receptive_fields(view, atoms, descriptor, tolerance)
        looser = [tolerance * 10**n for n in range(1, 8) if tolerance * 10**n < 1.01 * LOOSEST]
        unseen = unseen_species(atoms, descriptor, view.jacobian.ranges)
        predictions, rest = _predictions(seen, tolerance, looser, unseen)
        # A value that is zero to so many digits has no room for a geometry that is off by more.
        room = ROOM * (found.singular_values[:n_null].max(initial=0.0) / (found.scale or 1)) ** 0.25
        strict = [t for t in looser if t <= room]
        of_null = _predictions(seen, tolerance, strict, unseen)[0]
        if of_null and 2 * room > tolerance:
            of_null = of_null + _harmless(seen, min(2 * room, WIDE))
        null, labels = _split(modes[:, :n_null], of_null)
        named = [label or rest for label in reversed(labels)]
        # Vectors without a prediction are the worst and come first.
        null = canonical(null[:, ::-1], _runs(named))
        causes[:n_null] = named
        # Near-null vectors have different singular values and must not be combined.
        near = modes[:, n_null:n_small]
        causes[n_null:n_small] = _majority(near, *_split(near, predictions))
        modes = np.concatenate([null, modes[:, n_null:]], axis=1)
    counts = {cause: causes.count(cause) for cause in NULL_CAUSES}
    counts = {cause: n for cause, n in counts.items() if n or cause not in ("species", "unknown")}
    return Attribution(counts, tuple(causes), modes, sum(counts.values()) - n_null)


def near_limit(found: Spectrum, tolerance: float) -> float:
    """The singular value up to which vectors may be near-null: zero without geometry errors.

    If even the largest value is within a few times this limit, all values are errors of the
    geometry. An example is a crystal in which all atoms are centers of inversion.
    """
    cancelled = found.scale > found.sigma_max
    limit = STEEPNESS * tolerance * (found.scale / CANCELLED if cancelled else found.sigma_max)
    return found.sigma_max if found.sigma_max <= STEEPNESS * limit else limit


def predicted_nulls(
    view: View, atoms: Atoms, descriptor: Descriptor, *, tolerance: float = TOLERANCE
) -> dict[str, int]:
    """The number of non-trivial null vectors that each cause predicts for every basis.

    Parameters
    ----------
    view, atoms, descriptor, tolerance
        As in :func:`attribute`. Only the centers and cutoffs of the Jacobian are used.

    Returns
    -------
    dict
        Numbers for "fragment", "symmetry" and, if the body order is known, "incompleteness". None
        of these if rotations change the features.
    """
    predictions, _ = _predictions(receptive_fields(view, atoms, descriptor, tolerance), tolerance)
    everything = scipy.linalg.null_space(view.trivial.T)
    _, labels = _split(everything, predictions)
    return {cause: labels.count(cause) for cause, _, _ in predictions}


def _harmless(seen: Sequence[ReceptiveField], tolerance: float) -> list[Prediction]:
    """The predictions of the causes fragment and symmetry."""
    environments = [environment for field in seen for environment in field.environments]

    def fragment(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """Change of the environments, without rotations about their centers."""
        for environment in environments:
            change = environment.internal(modes, tolerance)
            yield change, float(len(change)), len(change)

    def symmetry(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """The part of that change that is invariant under the operations of the environments."""
        for environment in environments:
            group = point_group(environment.displacements, environment.numbers, tolerance)
            change = environment.internal(modes, tolerance)
            yield group.invariants().T @ change, float(len(change)), len(change)

    cut = min(STEEPNESS * tolerance, MOST_CHANGE)
    return [("fragment", cut, fragment), ("symmetry", cut, symmetry)]


def _predictions(
    seen: Sequence[ReceptiveField],
    tolerance: float,
    looser: Sequence[float] = (),
    unseen: Sequence[str] = (),
) -> tuple[list[Prediction], str]:
    """The prediction of each cause, and the cause of null vectors that none predicts."""

    def species(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """Change of the environments without the elements that the descriptor does not know."""
        for field in seen:
            for environment in field.environments:
                change = environment.without(unseen).internal(modes, tolerance)
                yield change, float(len(change)), len(change)

    def incompleteness(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """Change of the sums over classes of tuples that features can distinguish."""
        for field in seen:
            assert field.body_order is not None
            for environment in field.resolved:
                sums = class_sums(environment, field.body_order - 1, tolerance)
                moved = environment.relative(modes)
                yield sums @ moved, float((sums.data**2).sum()), len(moved)

    if not all(field.rotation_invariant for field in seen):
        return [], "unknown"
    known = [entry for t in (tolerance, *looser) for entry in _harmless(seen, t)]
    cut = min(STEEPNESS * tolerance, MOST_CHANGE)
    if unseen:
        known.append(("species", cut, species))
    if all(field.body_order is not None and field.symmetry_known for field in seen):
        return [*known, ("incompleteness", cut, incompleteness)], "truncation"
    return known, "unknown"


def _split(modes: Floats, predictions: Sequence[Prediction]) -> tuple[Floats, list[str | None]]:
    """Combinations of orthonormal ``modes`` such that each has one cause or, at the end, none."""
    found: list[Floats] = []
    labels: list[str | None] = []
    rest = modes
    for cause, cut, condition in predictions:
        m = rest.shape[1]
        if m == 0:
            break
        gram, squares, n_coordinates = np.zeros((m, m)), 0.0, 0
        for change, square, width in condition(rest.reshape(-1, 3, m)):
            gram += change.T @ change
            squares += square
            n_coordinates += width
        typical = squares / n_coordinates if n_coordinates else 0.0
        values, vectors = np.linalg.eigh(gram)
        n_caused = int((values <= cut**2 * typical).sum())
        rotated = rest @ vectors
        found.append(rotated[:, :n_caused])
        labels += [cause] * n_caused
        rest = rotated[:, n_caused:]
    return np.concatenate([*found, rest], axis=1), labels + [None] * rest.shape[1]


def _runs(labels: Sequence[str]) -> Ints:
    """Number the runs of equal labels, of shape (n,)."""
    changes = [before != label for before, label in pairwise(labels)]
    return np.concatenate([[0], np.cumsum(changes, dtype=np.intp)])[: len(labels)]


def _majority(modes: Floats, parts: Floats, labels: Sequence[str | None]) -> list[str | None]:
    """For each mode, the cause of parts with more than half of its squared length, or None."""
    weight = (parts.T @ modes) ** 2
    found: list[str | None] = []
    for shares in weight.T:
        causes = [
            cause
            for cause in NULL_CAUSES
            if shares[[label == cause for label in labels]].sum() > 0.5
        ]
        found.append(causes[0] if causes else None)
    return found
