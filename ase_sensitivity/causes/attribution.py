"""Which cause owns each small singular vector: the predicted null space that holds it."""

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
from ase_sensitivity.linalg.canonical import canonical
from ase_sensitivity.spectrum.scopes import CANCELLED, View
from ase_sensitivity.spectrum.solvers import Spectrum
from ase_sensitivity.types import Floats, Ints

STEEPNESS = 10.0
"""A geometry that is singular up to a tolerance t (Å) has singular values below about
``STEEPNESS * t`` of the largest: features vary over a few tenths of an Å."""

LOOSEST = 0.01
"""In Å. Some singular values grow as the square of what breaks a symmetry, and are small when the
geometry is off by far more than the tolerance; so are then the class sums. Before a null or
near-null vector is called incompleteness, symmetries are looked for with up to this tolerance."""

ROOM = 10.0
"""In Å: a singular value grows as a low power of what breaks a symmetry, so that a geometry with a
ratio r is within ``ROOM * r**0.25`` of the symmetric one."""

MOST_CHANGE = 0.1
"""The largest change, relative to what is typical, of a vector that a cause holds: its projection
on the predicted null space has a squared length of 0.99."""

# For modes of shape (n_columns, 3, m), one environment after the other: changes (any, m), all of
# them zero for what a cause holds; the sum of squares of the matrix that took displacements of the
# environment's points to these changes; and the number of its columns.
Condition = Callable[[Floats], Iterator[tuple[Floats, float, int]]]

# A cause holds a vector of length one whose changes are below a fraction of what is typical.
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
        The modes, of shape (3 n_columns, k). The null vectors among them, of which any orthonormal
        combination will do, are chosen so that each has one cause, harmless ones last.
    n_near_null
        Number of the counted vectors whose singular values are small but not zero.
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
    """Give every null and near-null vector of a view its cause.

    Parameters
    ----------
    view
        The view.
    found
        Its spectrum, with at least all singular values that are zero or nearly so.
    atoms
        The structure.
    descriptor
        Where the Jacobian is from.
    tolerance
        Geometry is symmetric, and distances are equal, up to this, in Å. Singular values below
        :func:`near_limit` count as near-null if a cause predicts that they vanish.

    Raises
    ------
    ValueError
        If an environment is too large for the body order, or has no bounds.

    Notes
    -----
    See :doc:`/causes`. The predicted null spaces are nested: fragment within symmetry within
    incompleteness within all. What is held by one is not asked for by the next.
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
        null, labels = _split(modes[:, :n_null], _predictions(seen, tolerance, strict, unseen)[0])
        named = [label or rest for label in reversed(labels)]
        # What is left in the end is what matters most.
        null = canonical(null[:, ::-1], _runs(named))
        causes[:n_null] = named
        # Near-null vectors have values of their own and must stay what they are.
        near = modes[:, n_null:n_small]
        causes[n_null:n_small] = _majority(near, *_split(near, predictions))
        modes = np.concatenate([null, modes[:, n_null:]], axis=1)
    counts = {cause: causes.count(cause) for cause in NULL_CAUSES}
    counts = {cause: n for cause, n in counts.items() if n or cause not in ("species", "unknown")}
    return Attribution(counts, tuple(causes), modes, sum(counts.values()) - n_null)


def near_limit(found: Spectrum, tolerance: float) -> float:
    """Up to which singular value vectors may be near-null: zero but for errors of the geometry.

    Where even the largest value is within a few times of that, as in a crystal whose atoms are all
    centers of inversion, errors of the geometry are all that there is.
    """
    cancelled = found.scale > found.sigma_max
    limit = STEEPNESS * tolerance * (found.scale / CANCELLED if cancelled else found.sigma_max)
    return found.sigma_max if found.sigma_max <= STEEPNESS * limit else limit


def predicted_nulls(
    view: View, atoms: Atoms, descriptor: Descriptor, *, tolerance: float = TOLERANCE
) -> dict[str, int]:
    """Non-trivial null vectors that each cause predicts, whatever the basis of the descriptor.

    Parameters
    ----------
    view, atoms, descriptor, tolerance
        As in :func:`attribute`. Only the centers and cutoffs of the Jacobian are used.

    Returns
    -------
    dict
        Numbers for "fragment", "symmetry" and, if the body order is known, "incompleteness".
    """
    predictions, _ = _predictions(receptive_fields(view, atoms, descriptor, tolerance), tolerance)
    everything = scipy.linalg.null_space(view.trivial.T)
    _, labels = _split(everything, predictions)
    return {cause: labels.count(cause) for cause, _, _ in predictions}


def _harmless(seen: Sequence[ReceptiveField], tolerance: float) -> list[Prediction]:
    """What fragments and symmetry predict."""
    environments = [environment for field in seen for environment in field.environments]

    def fragment(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """Change of the environments, up to rotations about their centers."""
        for environment in environments:
            change = environment.internal(modes, tolerance)
            yield change, float(len(change)), len(change)

    def symmetry(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """The part of that change that the operations of the environments leave as it is."""
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
    """What each cause predicts, and what to call null vectors that none of them holds."""

    def species(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """Change of the environments without the elements that the descriptor does not know."""
        for field in seen:
            for environment in field.environments:
                change = environment.without(unseen).internal(modes, tolerance)
                yield change, float(len(change)), len(change)

    def incompleteness(modes: Floats) -> Iterator[tuple[Floats, float, int]]:
        """Change of the sums over classes of tuples that features can tell apart."""
        for field in seen:
            assert field.body_order is not None
            for environment in field.resolved:
                sums = class_sums(environment, field.body_order - 1, tolerance)
                moved = environment.relative(modes)
                yield sums @ moved, float((sums.data**2).sum()), len(moved)

    known = [entry for t in (tolerance, *looser) for entry in _harmless(seen, t)]
    cut = min(STEEPNESS * tolerance, MOST_CHANGE)
    if unseen:
        known.append(("species", cut, species))
    if all(field.body_order is not None and field.symmetry_known for field in seen):
        return [*known, ("incompleteness", cut, incompleteness)], "truncation"
    return known, "unknown"


def _split(modes: Floats, predictions: Sequence[Prediction]) -> tuple[Floats, list[str | None]]:
    """Combinations of orthonormal ``modes``, each held by one cause or, last, by none."""
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
        n_held = int((values <= cut**2 * typical).sum())
        rotated = rest @ vectors
        found.append(rotated[:, :n_held])
        labels += [cause] * n_held
        rest = rotated[:, n_held:]
    return np.concatenate([*found, rest], axis=1), labels + [None] * rest.shape[1]


def _runs(labels: Sequence[str]) -> Ints:
    """Number the runs of equal labels, of shape (n,)."""
    changes = [before != label for before, label in pairwise(labels)]
    return np.concatenate([[0], np.cumsum(changes, dtype=np.intp)])[: len(labels)]


def _majority(modes: Floats, parts: Floats, labels: Sequence[str | None]) -> list[str | None]:
    """For each mode, the cause of the parts that hold more than half of it, or None."""
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
