"""How often an observer may look: its time stays below a fraction of that of the run."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from ase_sensitivity.validation import as_number


class Pace:
    """Allows a call when the run has taken long enough to pay for it.

    Every second of the run earns ``max_overhead`` seconds. What is earned while no call needs it is
    kept up to the cost of one call: time between two runs, as in a notebook, earns no series of
    calls.

    Parameters
    ----------
    max_overhead
        Time of all calls over that of the run without them; None for no limit.
    comm
        MPI communicator: rank 0 decides, as clocks differ and all ranks have to do the same.
    clock
        Gives seconds.

    Attributes
    ----------
    n_skipped
        Number of calls that came too early.
    spent, run
        Seconds of all calls that were allowed, and of the run between them.

    Raises
    ------
    TypeError, ValueError
        If ``max_overhead`` is neither positive nor None.
    """

    def __init__(
        self, max_overhead: float | None, comm: Any, clock: Callable[[], float] = perf_counter
    ) -> None:
        if max_overhead is not None:
            max_overhead = as_number("max_overhead", max_overhead, "positive")
        self.max_overhead, self.clock = max_overhead, clock
        self.n_skipped = 0
        self.spent = self.run = 0.0
        self._comm = comm
        self._n_allowed = 0
        self._earned = 0.0
        self._last: float | None = None
        self._n_reported = 0

    def begin(self) -> bool:
        """Whether a call may go on; the first one always."""
        if self.max_overhead is None:
            return True
        now = self.clock()
        passed = 0.0 if self._last is None else now - self._last
        self._last = now
        self.run += passed
        self._earned += self.max_overhead * passed
        cost = self._cost
        allowed = self._agreed(self._n_allowed == 0 or self._earned >= cost)
        if allowed:
            self._n_allowed += 1
            self._earned = min(self._earned, cost)
        else:
            self.n_skipped += 1
        return allowed

    def end(self) -> None:
        """End a call that was allowed."""
        if self._last is not None:
            now = self.clock()
            taken, self._last = now - self._last, now
            self.spent += taken
            self._earned -= taken

    def _agreed(self, allowed: bool) -> bool:
        if getattr(self._comm, "size", 1) == 1:
            return allowed
        decision = np.array([allowed], dtype=int)
        self._comm.broadcast(decision, 0)
        return bool(decision[0])

    @property
    def _cost(self) -> float:
        """Seconds of a call, on average."""
        return self.spent / max(self._n_allowed, 1)

    def __str__(self) -> str:
        assert self.max_overhead is not None
        return (
            f"a call takes {self._cost:.3g} s, and calls are skipped until the run has taken "
            f"{self._cost / self.max_overhead:.3g} s for each (max_overhead={self.max_overhead:g})"
        )

    def remark(self) -> str | None:
        """What was skipped since this was last asked for; None if nothing."""
        skipped, self._n_reported = self.n_skipped - self._n_reported, self.n_skipped
        if not skipped:
            return None
        return (
            f"{skipped} calls skipped; so far calls took {self.spent:.3g} s and the run "
            f"{self.run:.3g} s"
        )
