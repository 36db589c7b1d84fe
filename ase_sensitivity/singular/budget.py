"""How long one call may look for what is near: descriptors without fast derivatives are slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

from ase_sensitivity.compiled.clock import without_compiling
from ase_sensitivity.validation import as_number

T = TypeVar("T")

BUDGET = 30.0
"""Seconds of one call beyond the analysis itself: whoever waits longer begins to wonder."""

WALK = 10
"""Jacobians that a walk takes: 8 in the median and 9 on average for molecules and copper, and three
times as many at most."""

EXCEEDED = (
    "what is near is not looked for where that would take longer than `budget`: see the log, or "
    "`diagnosis`"
)
"""What is warned of."""


class Budget:
    """The time that each call may take, without that of compiling kernels.

    Parameters
    ----------
    seconds
        How long a call may go on; None for ever.
    clock
        Gives seconds; by default one that stands still while kernels are compiled.

    Attributes
    ----------
    exceeded
        Whether something was not allowed since the call began.
    cost
        Seconds that a Jacobian with its spectrum takes, as measured last; None if it was not.

    Raises
    ------
    TypeError, ValueError
        If ``seconds`` is neither positive nor None.
    """

    def __init__(
        self, seconds: float | None = BUDGET, clock: Callable[[], float] | None = None
    ) -> None:
        self.seconds = None if seconds is None else as_number("budget", seconds, "positive")
        self.clock = clock
        self._clock: Callable[[], float] = perf_counter
        self.cost: float | None = None
        self.exceeded = False
        self._began = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call, with the whole time to spend."""
        with without_compiling() as clock:
            self._clock = self.clock or clock
            self._began = self._clock()
            self.exceeded = False
            try:
                yield
            finally:
                self._clock = perf_counter  # the other one ends here, and cannot be pickled

    def measured(self, evaluate: Callable[[], T], least: float = 0.0) -> T:
        """The result of a function that evaluates one Jacobian and its spectrum.

        Where the Jacobian is known already, ``least`` is what it took, in seconds.
        """
        before = self._clock()
        result = evaluate()
        self.cost = max(self._clock() - before, least)
        return result

    def measured_on_top(self, evaluate: Callable[[], T]) -> T:
        """The result of a function that does what the Jacobian measured last did without."""
        known, before = self.cost or 0.0, self._clock()
        result = evaluate()
        self.cost = known + self._clock() - before
        return result

    def allows(self, n_jacobians: int) -> bool:
        """Whether there is time for so many Jacobians; the first one is always allowed."""
        if self.seconds is None or self.cost is None:
            return True
        passed = self._clock() - self._began
        allowed = passed + n_jacobians * self.cost <= self.seconds
        self.exceeded |= not allowed
        return allowed

    def __str__(self) -> str:
        cost = 0.0 if self.cost is None else self.cost
        return (
            f"a Jacobian takes {cost:.3g} s, a walk some {WALK} of them, and the budget of a call "
            f"is {self.seconds:g} s"
        )
