"""What is known of the nearest singular configuration."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from ase import units

from ase_sensitivity.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What is known of the nearest singular configuration.

    Attributes
    ----------
    distance
        In Å, nan if the call gave no reason to look: from the walk, or to first order.
    cause
        As in :class:`~ase_sensitivity.NearestSingular`; None if nothing is near.
    slope
        Derivative of the singular value that vanishes there by the positions of the points,
        divided by that value, of shape (n_points, 3), per Å; None if it is zero or unknown.
    points
        The atom of each point, of shape (n_points,).
    harmful_distance, harmful_cause
        The same of the nearest configuration that is neither symmetric nor of a fragment, if the
        nearest one is; nan and None where none was found.
    how
        "ratio" (not looked at), "estimate", "filter", "walk", "known" from an earlier call, or
        "skipped": there was no time to look, or to walk; distance and cause are what is known all
        the same, and the cause may be another one.
    """

    distance: float
    cause: str | None
    slope: Floats | None
    points: Ints | None
    how: str
    harmful_distance: float = float("nan")
    harmful_cause: str | None = None

    def matters(self, within: float, causes: Container[str]) -> bool:
        """Whether one of these causes is within this distance in Å."""
        return self.worst(within, causes) is not None

    def worst(self, within: float, causes: Container[str]) -> tuple[str, float] | None:
        """Cause and distance of what matters: the harmful one if it is one of the causes."""
        known = ((self.harmful_cause, self.harmful_distance), (self.cause, self.distance))
        for cause, distance in known:
            if cause is not None and cause in causes and distance <= within:
                return cause, distance
        return None

    def arrival(self, velocities: Floats) -> float:
        """Time in fs until the singular value vanishes at these velocities (ASE's unit).

        nan if it grows, or was not looked at.
        """
        if self.slope is None:
            return float("nan")
        rate = float((self.slope * velocities[self.points]).sum())  # d log(sigma) / dt
        return -1 / rate / units.fs if rate < 0 else float("nan")


NOT_LOOKED_AT = Diagnosis(float("nan"), None, None, None, "ratio")
