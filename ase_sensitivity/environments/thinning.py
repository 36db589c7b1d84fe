"""Which environments of many are kept."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.environments.environment_set import Columns, Drawn
from ase_sensitivity.types import Ints


def farthest(columns: Columns, limit: int) -> Ints:
    """Environments that are far from each other, of shape (limit,).

    One after the other, the one is taken that is farthest from all taken before, by the projected
    features; environments of different groups are infinitely far apart.
    """
    projected = columns["projected"]
    groups = np.column_stack([columns["number"], columns["kind"]])
    which = np.unique(groups, axis=0, return_inverse=True)[1].ravel()
    distance = np.full(len(projected), np.inf)
    chosen = np.empty(limit, dtype=np.intp)
    for k in range(limit):
        one = int(distance.argmax())
        chosen[k] = one
        own = np.flatnonzero(which == which[one])
        square = ((projected[own] - projected[one]) ** 2).sum(axis=1)
        distance[own] = np.minimum(distance[own], square)
        distance[one] = -1.0
    return chosen


THINNING: dict[str, Drawn | None] = {"random": None, "farthest": farthest}
"""Ways to choose, by name; None is a uniform sample."""
