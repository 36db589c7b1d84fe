"""Structures that have the same features in all environments."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice
from math import gcd

import numpy as np

from ase_sensitivity.dataset.pairs.labels import energy_difference
from ase_sensitivity.dataset.pairs.result import Pair
from ase_sensitivity.descriptors.base import reach_of
from ase_sensitivity.environments.environment_set import EnvironmentSet
from ase_sensitivity.environments.overlay import BEYOND, nearest_of
from ase_sensitivity.types import Ints

FIRSTS = 20
"""Largest number of different structures with the same environments to compare a structure with."""

Key = tuple[tuple[int, ...], ...]


def whole_structures(
    environments: EnvironmentSet,
    copy_of: Ints,
    feature_class: Ints,
    degenerate: Mapping[tuple[int, int], Pair],
    delta: float,
    max_pairs: int,
) -> tuple[list[Pair], list[Pair], bool]:
    """Pairs of equal and of different structures that no sum over environments distinguishes.

    Supercells of a crystal are the same structure.

    Parameters
    ----------
    environments
        All environments of all structures. Whole structures among these are left out.
    copy_of
        The first copy of each environment, of shape (n,).
    feature_class
        Environments with the same features have the same number, of shape (n,).
    degenerate
        Degenerate pairs by the first copies of their environments.
    delta
        Structures are the same if matched points are within this distance, in Å. Points up to twice
        the cutoff of one environment are compared.
    max_pairs
        If there are more pairs of different structures, those with the largest energy differences
        are returned.

    Returns
    -------
    same, different
        Every further copy with the first one, and one pair for every two different structures.
    complete
        Whether all pairs are returned.
    """
    order = np.argsort(environments.structure, kind="stable")
    order = order[environments.center[order] >= 0]
    found = np.unique(environments.structure[order], return_index=True, return_counts=True)
    columns = (column.tolist() for column in found)
    own = {number: order[i : i + n] for number, i, n in zip(*columns, strict=True)}
    groups: dict[Key, dict[Key, list[int]]] = {}
    for number, chosen in own.items():
        atomic = environments.structures[number].atoms.numbers
        alike = groups.setdefault(_key(atomic, feature_class[chosen]), {})
        alike.setdefault(_key(atomic, copy_of[chosen]), []).append(number)
    same: list[Pair] = []
    unlike: list[tuple[int, int]] = []
    complete = True
    for alike in groups.values():
        kinds: list[list[int]] = []
        for members in alike.values():
            kinds += _kinds(environments, own, members, copy_of, delta, same)
        unlike += islice(_widest(environments, kinds), max_pairs)
        complete &= len(kinds) * (len(kinds) - 1) // 2 <= max_pairs
    first = {number: int(chosen[0]) for number, chosen in own.items()}
    unlike.sort(
        key=lambda pair: -(energy_difference(environments, *(first[n] for n in pair)) or 0.0)
    )
    different: list[Pair] = []
    for a, b in unlike[:max_pairs]:
        pair = _pair_of(environments, own[a], own[b], copy_of, feature_class, degenerate)
        (same if pair.match <= delta else different).append(pair)
    return same, different, complete and len(unlike) <= max_pairs


def _key(numbers: Ints, classes: Ints) -> Key:
    """Composition and environments of the smallest formula unit."""
    elements, per_element = np.unique(numbers, return_counts=True)
    kinds, per_kind = np.unique(classes, return_counts=True)
    unit = gcd(*per_element.tolist(), *per_kind.tolist())
    counts = (per_element // unit, per_kind // unit)
    return tuple(tuple(part.tolist()) for part in (elements, counts[0], kinds, counts[1]))


def _kinds(
    environments: EnvironmentSet,
    own: Mapping[int, Ints],
    members: Sequence[int],
    copy_of: Ints,
    delta: float,
    same: list[Pair],
) -> list[list[int]]:
    """Groups of equal structures; pairs of equal ones are added to ``same``."""
    kinds: list[list[int]] = []
    for number in members:
        for kind in kinds[:FIRSTS]:
            pair = _matched(environments, own[kind[0]], own[number], copy_of)
            if pair.match <= delta:
                same.append(pair)
                kind.append(number)
                break
        else:
            kinds.append([number])
    return kinds


def _widest(
    environments: EnvironmentSet, kinds: Sequence[Sequence[int]]
) -> Iterator[tuple[int, int]]:
    """Pairs of structures, one pair for every two kinds, the largest energy difference first."""
    ends = []
    for kind, members in enumerate(kinds):
        known = []
        for number in members:
            task = environments.structures[number]
            if task.energy is not None:
                known.append((task.energy / len(task.atoms), number))
        for energy, number in {min(known), max(known, key=lambda end: end[0])} if known else ():
            ends.append((energy, kind, number))
    ends.sort()
    last = len(ends) - 1
    heap = [(ends[i][0] - ends[last][0], i, last) for i in range(last)]
    heapq.heapify(heap)
    done = set()
    while heap:
        _, i, j = heapq.heappop(heap)
        if j - 1 > i:
            heapq.heappush(heap, (ends[i][0] - ends[j - 1][0], i, j - 1))
        (_, kind, a), (_, other, b) = ends[i], ends[j]
        key = (min(kind, other), max(kind, other))
        if kind != other and key not in done:
            done.add(key)
            yield min(a, b), max(a, b)
    without = set(range(len(kinds))) - {kind for _, kind, _ in ends}
    for kind, other in combinations(range(len(kinds)), 2):
        if kind in without or other in without:
            a, b = kinds[kind][0], kinds[other][0]
            yield min(a, b), max(a, b)


def _matched(environments: EnvironmentSet, a: Ints, b: Ints, classes: Ints) -> Pair:
    """The best match of two structures with the same classes of environments.

    Points up to twice the cutoff are compared.

    Parameters
    ----------
    environments
        All environments.
    a, b
        The numbers of the environments of the two structures.
    classes
        The class of each environment; environments of the same class may be matched.
    """
    # The rarest environment has the fewest partners.
    kinds, counts = np.unique(classes[a], return_counts=True)
    kind = kinds[counts.argmin()]
    i, partners = int(a[classes[a] == kind][0]), b[classes[b] == kind]
    radius = 2 * reach_of(environments.descriptor)
    candidates = (environments.points(j, radius + BEYOND) for j in partners.tolist())
    mine = environments.points(i, radius + BEYOND)
    index, (miss, _) = nearest_of(mine, candidates, radius, radius + BEYOND)
    j = int(partners[index])
    norm = max(environments.norm[i], environments.norm[j], 1e-300)
    return _pair(
        environments, i, j, environments.features(i).distance(environments.features(j)) / norm, miss
    )


def _pair_of(
    environments: EnvironmentSet,
    a: Ints,
    b: Ints,
    copy_of: Ints,
    feature_class: Ints,
    degenerate: Mapping[tuple[int, int], Pair],
) -> Pair:
    """The pair of two structures. If environments are degenerate, the worst of their matches."""
    keys = {(min(k, m), max(k, m)) for k in copy_of[a].tolist() for m in copy_of[b].tolist()}
    known = [degenerate[key] for key in keys if key in degenerate]
    if not known:
        return _matched(environments, a, b, feature_class)
    miss = max(pair.match for pair in known)
    distance = max(pair.feature_distance for pair in known)
    return _pair(environments, int(a[0]), int(b[0]), distance, miss)


def _pair(environments: EnvironmentSet, i: int, j: int, distance: float, miss: float) -> Pair:
    return Pair(
        environments.place(i)._replace(center=None),
        environments.place(j)._replace(center=None),
        feature_distance=distance,
        match=miss,
        energy_difference=energy_difference(environments, i, j),
    )
