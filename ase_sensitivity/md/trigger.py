"""When an observer acts, and how: threshold, distance, patience, and actions by cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from ase import Atoms

from ase_sensitivity.causes.cause import CAUSES, SPURIOUS
from ase_sensitivity.md.actions import Action, Actions, actions_by_cause, check_can_halt
from ase_sensitivity.md.threshold import Threshold
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.diagnosis import Diagnosis
from ase_sensitivity.types import Scope
from ase_sensitivity.validation import as_integer, is_number


class Trigger:
    """Decides the state of each call of an observer, and which actions are due.

    Parameters
    ----------
    scope, threshold, calibration, quantile, patience, on_singular, trajectory
        As of :class:`~ase_sensitivity.SensitivityObserver`.
    distance_threshold
        Likewise, in Å.
    ratio_of
        Gives the ratio of a frame of the calibration.
    dyn
        The run, which some actions have to stop.
    compared
        Whether there is a reference to compare with.

    Attributes
    ----------
    within
        The distance in Å that matters, or None.
    by_cause
        Whether the cause decides about actions.
    n_below
        Number of consecutive calls below the threshold.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of place.
    """

    def __init__(
        self,
        *,
        scope: Scope,
        threshold: float | Literal["auto"] | None,
        calibration: int | Iterable[Atoms],
        quantile: float,
        distance_threshold: float | None,
        patience: int,
        on_singular: Actions | Mapping[str, Actions] | None,
        trajectory: object,
        ratio_of: Callable[[Atoms], float],
        dyn: Any,
        compared: bool = False,
    ) -> None:
        self._patience = as_integer("patience", patience, 1)
        if on_singular is None:
            on_singular = "log" if scope == "environment" else "warn"
        matter: tuple[str, ...] = SPURIOUS if threshold is None else tuple(CAUSES)
        matter += ("twin",) if compared else ()
        self._actions = actions_by_cause(on_singular, matter, trajectory, compared)
        if any("halt" in actions for actions in self._actions.values()):
            check_can_halt(dyn)
        self._threshold = Threshold(threshold, calibration, quantile, ratio_of)
        self.by_cause = threshold is None or isinstance(on_singular, Mapping)
        if distance_threshold is not None and not (
            is_number(distance_threshold) and 0 < distance_threshold < math.inf
        ):
            raise ValueError(
                f"`distance_threshold` is {distance_threshold!r} but must be a positive number "
                "or None"
            )
        self.within = distance_threshold
        self.n_below = 0
        self._stopped = False
        self._stopped_by: set[str] = set()

    @property
    def threshold(self) -> float | None:
        """The ratio below which a frame is below; None if there is none, or not yet."""
        return self._threshold.value

    def state(self, found: Sensitivity, diagnosis: Diagnosis) -> str:
        """The state of a call: "calibrating", "ok", "below" or "singular"."""
        if self._threshold.calibrating:
            return "calibrating"
        if not self._is_below(found, diagnosis):
            self.n_below, self._stopped = 0, False
            return "ok"
        self.n_below += 1
        return "singular" if self.n_below >= self._patience else "below"

    def _is_below(self, found: Sensitivity, diagnosis: Diagnosis) -> bool:
        if self.threshold is not None:
            return found.ratio < self.threshold
        return self.within is not None and diagnosis.matters(self.within, self._actions)

    def calibrate(self, ratio: float) -> str | None:
        """Learn the threshold from a ratio; a remark for the log once it is known."""
        if not self._threshold.learn(ratio):
            return None
        return f"threshold={self.threshold:.6e} from the first {self._threshold.n_calls} calls"

    def actions(self, cause: str | None) -> tuple[Action, ...]:
        """Actions for a cause; all there are if the cause is not looked for."""
        if cause is None and self.by_cause:
            return ()
        return self._actions.get(cause or SPURIOUS[0], ())

    def actions_of_kind(self, kind: str) -> tuple[Action, ...]:
        """Actions for what a comparison has found: "twin" or "novel"."""
        return self._actions.get(kind, ())

    def stops_for(self, kind: str) -> bool:
        """Whether the run may be stopped for it: once, and again after it was not there."""
        first = kind not in self._stopped_by
        self._stopped_by.add(kind)
        return first

    def compared(self, kinds: Sequence[str]) -> None:
        """Remember which kinds a comparison has found."""
        self._stopped_by &= set(kinds)

    def stops(self) -> bool:
        """Whether the run may be stopped: once, and again after it was above the threshold."""
        first, self._stopped = not self._stopped, True
        return first

    def cause(self, diagnosis: Diagnosis) -> str | None:
        """The cause that decides about actions: of the harmful configuration, if that matters."""
        known = None if self.within is None else diagnosis.worst(self.within, self._actions)
        return diagnosis.cause if known is None else known[0]

    def reason(self, found: Sensitivity, diagnosis: Diagnosis) -> str:
        """Why a state is singular, for people."""
        what = f"sigma_min / sigma_max = {found.ratio:.3e}"
        if self.threshold is not None:
            what += f" is below {self.threshold:.3e}"
        for cause, distance in (
            (diagnosis.cause, diagnosis.distance),
            (diagnosis.harmful_cause, diagnosis.harmful_distance),
        ):
            if cause is not None:
                what += f", {cause} at {distance:.4f} Å"
        return f"{what} ({self.n_below} consecutive calls), atom {found.worst_atom} moves most"

    def __str__(self) -> str:
        threshold = "auto" if self._threshold.n_calls else self.threshold
        return f"threshold={threshold}, distance_threshold={self.within}"
