"""Search for near-duplicates in feature space: degenerate pairs, duplicates, label conflicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ase_sensitivity.dataset.pairs.bounds import Bounds
from ase_sensitivity.dataset.pairs.labels import (
    energy_conflicts,
    force_conflicts,
    force_conflicts_of_structures,
)
from ase_sensitivity.dataset.pairs.result import PairResult, severity
from ase_sensitivity.dataset.pairs.search import Search
from ase_sensitivity.dataset.pairs.whole_structures import whole_structures
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.descriptors.of_frames import descriptor_for
from ase_sensitivity.environments.environment_set import EnvironmentSet
from ase_sensitivity.io.reading import Frames, check_frames, read_frames
from ase_sensitivity.io.references import tasks_of, unit_factors
from ase_sensitivity.validation import as_flag, as_integer, as_number


def find_pairs(
    frames: Frames,
    descriptor: Given,
    *,
    epsilon: float = 1e-6,
    delta: float = 0.05,
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    type_map: Sequence[str] | None = None,
    energy_tolerance: float = 1e-3,
    force_tolerance: float = 0.05,
    across_species: bool = False,
    max_environments: int | None = None,
    max_pairs: int = 1000,
    bound: bool = True,
    progress: Callable[[int], object] | None = None,
    joint_progress: Callable[[int, int], object] | None = None,
) -> PairResult:
    """Find environments that a descriptor does not distinguish.

    Parameters
    ----------
    frames
        A list or iterator of structures, or of file names with ASE's ``@`` slices. All structures
        are kept in memory, without their features.
    descriptor
        A descriptor with any rows of features, or a QUIP string as in
        :func:`~ase_sensitivity.scan`. Several rows of the same center, such as those of its pairs,
        are compared as a set. Rows of the whole structure, and those of a periodic structure
        without a cutoff, make the whole structure one environment.
    epsilon
        Features are the same if their distance is at most this fraction of the larger norm.
    delta
        Structures are different if in their best match over rotation, reflection and permutation
        the distance of two matched points is more than this, in Å.
    forces_key, energy_key, units, type_map
        As in :func:`~ase_sensitivity.scan`.
    energy_tolerance, force_tolerance
        Labels are in conflict if they differ by more than this, in eV per atom and in eV/Å.
    across_species
        Compare centers of different species as well. Most models fit a function for each species,
        and then equal features of different species lose nothing.
    max_environments
        If there are more environments, this number is chosen at random. By default all are
        compared.
    max_pairs
        The search ends at this number of degenerate pairs of environments: then the features are
        poor, or ``epsilon`` is large. If there are more pairs of whole structures, those with the
        largest energy differences are listed.
    bound
        Bound the force error of frames with forces: each frame by itself, as a scan does, and
        frames with features in common jointly. This takes most of the time.
    progress
        Called with the number of structures read so far.
    joint_progress
        Called with the number of degenerate pairs bounded so far, and the number of all.

    Returns
    -------
    PairResult
        It has ``degenerate``, ``duplicates``, ``conflicts`` and ``bound``.

    Raises
    ------
    ValueError
        If an argument is out of range, or no structure can be compared.

    Notes
    -----
    Features are projected on a few orthonormal axes. A projection shortens distances, so a k-d tree
    of projections finds all candidates for equal features; then their full features are compared.
    The first of several copies represents all of them. Environments near it in feature space are
    copies, or form a degenerate pair with it. So a million copies need a million comparisons and
    not a million squared.

    An atom at the cutoff has no weight. Atoms within ``cutoff * sqrt(epsilon / delta)`` of the
    cutoff may be missing in one of two equal environments.

    Examples
    --------
    Three hydrogen atoms and a fourth one at either of two positions: about carbon, no feature of
    body order three distinguishes them.

    >>> from ase import Atoms
    >>> from ase_sensitivity import SOAP
    >>> three = [(0, 0, 0), (1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7)]
    >>> plus = Atoms("CH4", [*three, (-0.72, 0.96, 0.3)])
    >>> minus = Atoms("CH4", [*three, (0.72, -0.96, 0.3)])
    >>> soap = SOAP(["H"], cutoff=3, n_max=8, l_max=6, centers=["C"])
    >>> found = find_pairs([plus, minus, plus], soap)
    >>> len(found.degenerate), len(found.duplicates)
    (2, 2)
    >>> found.degenerate[0].second
    Place(frame=1, center=0, source='frames')
    """
    as_flag("bound", bound)
    _check(epsilon, delta, energy_tolerance, force_tolerance, max_environments, max_pairs)
    check_frames(frames)
    seen: Descriptor = descriptor_for(descriptor, frames, type_map)
    read = read_frames(frames, type_map=type_map)
    tasks = tasks_of(read, forces_key, energy_key, unit_factors(units), strict=True)
    bounds = Bounds(seen, epsilon, joint_progress)
    if bound:
        tasks = bounds.bounding(tasks)
    environments = EnvironmentSet(tasks, seen, max_environments, progress)
    search = Search(environments, epsilon, delta, max_pairs)
    numbers = np.zeros_like(environments.number) if across_species else environments.number
    alike = np.unique(np.column_stack([numbers, environments.kind]), axis=0, return_inverse=True)[1]
    for group in range(alike.max() + 1):
        search.run(np.flatnonzero(alike.ravel() == group))
    degenerate, duplicates = list(search.degenerate.values()), search.duplicates
    conflicts = force_conflicts(environments, duplicates, search.copies, force_tolerance)
    complete = environments.complete and not search.stopped
    if environments.complete:
        same, different, all_listed = whole_structures(
            environments, search.copy_of, search.feature_class, search.degenerate, delta, max_pairs
        )
        degenerate, duplicates = degenerate + different, duplicates + same
        complete &= all_listed
    conflicts += force_conflicts_of_structures(environments, duplicates, force_tolerance)
    conflicts.sort(key=lambda conflict: -conflict.difference)
    conflicts += energy_conflicts(environments, duplicates, energy_tolerance)
    degenerate = sorted(bounds.with_bounds(degenerate), key=severity)
    found = bounds.of_set(degenerate, conflicts, duplicates)
    return PairResult(
        n_frames=environments.n_frames,
        n_seen=environments.n_seen,
        n_environments=len(environments),
        n_distinct=len(np.unique(search.copy_of)),
        complete=complete,
        epsilon=epsilon,
        delta=delta,
        errors=environments.errors,
        degenerate=degenerate,
        duplicates=duplicates,
        conflicts=conflicts,
        bound=found,
    )


def _check(
    epsilon: float,
    delta: float,
    energy_tolerance: float,
    force_tolerance: float,
    max_environments: int | None,
    max_pairs: int,
) -> None:
    if not 0 < as_number("epsilon", epsilon) <= 0.01:
        raise ValueError(f"`epsilon` is {epsilon} but must be positive and at most 0.01")
    for name, value in (
        ("delta", delta),
        ("energy_tolerance", energy_tolerance),
        ("force_tolerance", force_tolerance),
    ):
        as_number(name, value, "positive")
    for name, limit in (("max_environments", max_environments), ("max_pairs", max_pairs)):
        if limit is not None:
            as_integer(name, limit, 1)
