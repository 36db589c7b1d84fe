"""Types that the modules of the package share."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

Scope = Literal["structure", "environment", "atom"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

SelectionMethod = Literal[
    "balanced",
    "balanced-averages",
    "i-optimal",
    "d-optimal",
    "farthest-points",
    "cur",
    "random",
]
SELECTION_METHODS: tuple[SelectionMethod, ...] = get_args(SelectionMethod)
