"""The ratio below which the observer finds a frame remarkable: given, or learnt from frames."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from ase import Atoms

from ase_sensitivity.spectrum.solvers import NULL_TOLERANCE
from ase_sensitivity.validation import as_integer, is_number

logger = logging.getLogger(__name__)

CALIBRATION, QUANTILE = 50, 0.01


class Threshold:
    """A ratio, which may have to be learnt first.

    Parameters
    ----------
    threshold, calibration, quantile
        As of :class:`~ase_sensitivity.SensitivityObserver`.
    ratio_of
        Gives the ratio of a frame of the calibration.

    Attributes
    ----------
    value
        The ratio; None if there is none, or not yet.
    n_calls
        The number of calls that it is learnt from; 0 if it is not.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of place.
    """

    def __init__(
        self,
        threshold: float | Literal["auto"] | None,
        calibration: int | Iterable[Atoms],
        quantile: float,
        ratio_of: Callable[[Atoms], float],
    ) -> None:
        self.value: float | None = None
        self.n_calls = 0
        self._ratios: list[float] = []
        self._quantile = quantile
        if threshold != "auto":
            if calibration != CALIBRATION or quantile != QUANTILE:
                raise ValueError(
                    '`calibration` and `quantile` have no meaning without threshold="auto"'
                )
            if threshold is not None:
                if not is_number(threshold) or not 0 < threshold < math.inf:
                    raise ValueError(
                        f"`threshold` is {threshold!r} but must be a positive number, "
                        '"auto" or None'
                    )
                self.value = float(threshold)
            return
        if not is_number(quantile) or not 0 <= quantile <= 1:
            raise ValueError(f"`quantile` is {quantile!r} but must be between 0 and 1")
        if isinstance(calibration, int | float | np.number):
            self.n_calls = as_integer("calibration", calibration, 1)
            return
        if isinstance(calibration, str | Atoms) or not isinstance(calibration, Iterable):
            raise TypeError(
                f"`calibration` is {calibration!r} but must be a number of calls or a list of Atoms"
            )
        for number, frame in enumerate(calibration):
            try:
                self._collect(ratio_of(frame))
            except (TypeError, ValueError) as error:
                raise type(error)(f"`calibration`, frame {number}: {error}") from error
        if not self._ratios:
            raise ValueError(f"`calibration` is {calibration!r}, with no frame to learn from")
        self._settle()

    @property
    def calibrating(self) -> bool:
        """Whether further calls are needed."""
        return self.value is None and len(self._ratios) < self.n_calls

    def learn(self, ratio: float) -> bool:
        """Take a ratio into account, and say whether that settled the threshold."""
        self._collect(ratio)
        if self.calibrating:
            return False
        self._settle()
        return True

    def _collect(self, ratio: float) -> None:
        if math.isfinite(ratio):
            self._ratios.append(ratio)

    def _settle(self) -> None:
        self.value = max(float(np.quantile(self._ratios, self._quantile)), NULL_TOLERANCE)
        logger.info("threshold %.3e from %d frames", self.value, len(self._ratios))
