"""Arguments that are numbers, flags or files: a clear error for everything else."""

from __future__ import annotations

import math
import os
from typing import Any, TypeGuard

import numpy as np


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a real number, of Python or NumPy."""
    numeric = isinstance(value, int | float | np.integer | np.floating)
    return numeric and not isinstance(value, bool)


def as_number(name: str, value: Any, rule: str = "finite") -> float:
    """Return ``value`` as a finite number that obeys a rule.

    Parameters
    ----------
    name
        The argument's name, for the error.
    value
        What was given.
    rule
        "positive", "not negative", or "finite" for any finite number.

    Raises
    ------
    TypeError
        If ``value`` is not a number.
    ValueError
        If it breaks the rule.
    """
    if not is_number(value):
        raise TypeError(f"`{name}` is {value!r} but must be a number")
    holds = {"positive": value > 0.0, "not negative": value >= 0.0, "finite": True}[rule]
    if not (math.isfinite(value) and holds):
        raise ValueError(f"`{name}` is {value} but must be {rule}")
    return float(value)


def as_integer(name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """An integer within bounds.

    Raises
    ------
    ValueError
        If ``value``, given as the argument ``name``, is anything else.
    """
    known = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not known or value < lowest or (highest is not None and value > highest):
        if lowest == 1 and highest is None:
            bounds = "a positive integer"
        else:
            bounds = f"an integer from {lowest} {'on' if highest is None else f'to {highest}'}"
        raise ValueError(f"`{name}` is {value!r} but must be {bounds}")
    return int(value)


def as_flag(name: str, value: Any) -> bool:
    """True or False.

    Raises
    ------
    TypeError
        If ``value``, given as the argument ``name``, is anything else, such as the string "F".
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"`{name}` is {value!r} but must be True or False")
    return bool(value)


def check_exists(path: str | os.PathLike[str]) -> None:
    """Raise FileNotFoundError if there is no such file."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file {path}")
