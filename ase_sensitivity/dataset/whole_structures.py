"""Structures all of whose environments have the same features."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import numpy as np
import scipy

from ase_sensitivity.dataset.labels import BEYOND, energy_difference
from ase_sensitivity.dataset.overlay import SAME, overlay
from ase_sensitivity.dataset.pairs import Pair
from ase_sensitivity.dataset.surroundings import Points, Surroundings
from ase_sensitivity.descriptors.base import Ints

Key = tuple[tuple[int, ...], ...]


def whole_structures(
    around: Surroundings, copy_of: Ints, links: Mapping[tuple[int, int], Pair], delta: float
) -> tuple[list[Pair], list[Pair]]:
    """Pairs of structures that no sum over environments tells apart: the same, and different ones.

    Supercells of a crystal are the same structure.

    Parameters
    ----------
    around
        All environments of all structures.
    copy_of
        The first copy of each environment, of shape (n,).
    links
        Degenerate pairs by the first copies of their environments.
    delta
        How far points of the same structure may be apart, in Å. They are compared up to twice the
        cutoff of one environment.
    """
    n = len(around)
    first, second = np.array(list(links), dtype=np.intp).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(links)), (first, second)), shape=(n, n))
    seen_as = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][copy_of]
    order = np.argsort(around.structure, kind="stable")
    numbers, starts = np.unique(around.structure[order], return_index=True)
    groups: dict[Key, dict[Key, list[int]]] = {}
    own: dict[int, Ints] = {}
    for number, chosen in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        own[number] = chosen
        atomic = around.structures[number].atoms.numbers
        alike = groups.setdefault(_key(atomic, seen_as[chosen]), {})
        alike.setdefault(_key(atomic, copy_of[chosen]), []).append(number)
    same: list[Pair] = []
    different: list[Pair] = []
    for alike in groups.values():
        leader = next(iter(alike.values()))[0]
        for members in alike.values():
            if members[0] != leader:
                different.append(_unlike(around, own[leader], own[members[0]], copy_of, links))
            for other in members[1:]:
                # The rarest environment has the fewest partners.
                kinds, counts = np.unique(copy_of[own[members[0]]], return_counts=True)
                kind = kinds[counts.argmin()]
                i = int(own[members[0]][copy_of[own[members[0]]] == kind][0])
                partners = own[other][copy_of[own[other]] == kind]
                miss, j = _nearest(around, i, partners)
                norm = max(around.norm[i], around.norm[j], 1e-300)
                features = around.features(np.array([i, j]))
                distance = float(np.linalg.norm(features[0] - features[1]) / norm)
                (same if miss <= delta else different).append(_pair(around, i, j, distance, miss))
    return same, different


def _key(numbers: Ints, classes: Ints) -> Key:
    """Composition and environments per smallest unit."""
    elements, per_element = np.unique(numbers, return_counts=True)
    kinds, per_kind = np.unique(classes, return_counts=True)
    unit = gcd(*per_element.tolist(), *per_kind.tolist())
    counts = (per_element // unit, per_kind // unit)
    return tuple(tuple(part.tolist()) for part in (elements, counts[0], kinds, counts[1]))


def _nearest(around: Surroundings, i: int, partners: Ints) -> tuple[float, int]:
    """The best match up to twice the cutoff with one of several environments, and with which."""
    radius = 2 * around.descriptor.cutoff

    def points(k: int) -> Points:
        return around.points(k, radius + BEYOND)

    best = (np.inf, int(partners[0]))
    for j in partners.tolist():
        miss, _ = overlay(points(i), points(j), radius, radius + BEYOND)
        best = min(best, (miss, j))
        if miss <= SAME:
            break
    return best


def _unlike(
    around: Surroundings, a: Ints, b: Ints, copy_of: Ints, links: Mapping[tuple[int, int], Pair]
) -> Pair:
    """Two structures with degenerate environments: the match is that of the least alike."""
    keys = {(min(k, m), max(k, m)) for k in copy_of[a].tolist() for m in copy_of[b].tolist()}
    known = [links[key] for key in keys if key in links]
    miss = max((pair.match for pair in known), default=np.nan)
    distance = max((pair.feature_distance for pair in known), default=np.nan)
    return _pair(around, int(a[0]), int(b[0]), distance, miss)


def _pair(around: Surroundings, i: int, j: int, distance: float, miss: float) -> Pair:
    return Pair(
        around.place(i)._replace(center=None),
        around.place(j)._replace(center=None),
        feature_distance=distance,
        match=miss,
        energy_difference=energy_difference(around, i, j),
    )
