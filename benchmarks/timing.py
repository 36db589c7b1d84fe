"""Times of alternating runs, so that both meet the same load on the machine.

Processor time, not that of the wall clock: on one core they are the same, but for others' work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds(function: Callable[[], Any]) -> float:
    """Processor time of one call."""
    begin = time.process_time()
    function()
    return time.process_time() - begin


def paired(
    ours: Callable[[], Any], theirs: Callable[[], Any], budget: float
) -> tuple[float, float, float]:
    """Medians in s of both, and the median ratio theirs / ours of pairs.

    At least three pairs, or one where a pair takes longer than the budget (s); the first call of
    each does not count.
    """
    ours()
    first = seconds(theirs)
    times = []
    begin = time.perf_counter()
    while not times or (
        first < budget and (len(times) < 3 or time.perf_counter() - begin < budget)
    ):
        times.append((seconds(ours), seconds(theirs)))
    mine, other = (statistics.median(part) for part in zip(*times, strict=True))
    return mine, other, statistics.median(b / a for a, b in times)


def median(function: Callable[[], Any], budget: float = 2.0) -> float:
    """Median in s of at least three calls after a first one."""
    function()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < budget:
        times.append(seconds(function))
    return statistics.median(times)
