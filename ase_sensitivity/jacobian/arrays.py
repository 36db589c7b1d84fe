"""Arrays of any kind from descriptors, converted to the kind that compiled loops read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_sensitivity.types import Floats, Ints

WRONG = 1e3
"""A product that differs by more than this many times the precision is not that of these blocks."""


def _as_array(name: str, values: ArrayLike, kinds: str, wanted: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # on a device, with a graph, ragged
        raise ValueError(
            f"`{name}` is a {type(values).__name__} that NumPy does not read ({error}); "
            "give an array in the memory of the host, detached from any graph"
        ) from error
    if array.dtype.kind not in kinds and array.size:
        raise ValueError(f"`{name}` has the data type {array.dtype} but must have {wanted}")
    return array


def as_floats(name: str, values: ArrayLike) -> tuple[Floats, float]:
    """An array of doubles, contiguous and in the byte order of the machine, and its precision.

    Parameters
    ----------
    name
        The name of the array for errors.
    values
        Real numbers of any data type, order, stride and byte order. An array that needs no
        conversion is not copied.

    Returns
    -------
    array
        The same numbers.
    precision
        Their relative precision if the data type has fewer digits than a double, such as 1.2e-7 for
        single precision; otherwise 0.

    Raises
    ------
    ValueError
        If they are not real numbers, or not in the memory of the host.
    """
    array = _as_array(name, values, "fiu", "real numbers")
    coarse = array.dtype.kind == "f" and array.dtype.itemsize < 8
    precision = float(np.finfo(array.dtype).eps) if coarse else 0.0
    return np.asarray(array, dtype=np.float64, order="C"), precision


def as_indices(name: str, values: ArrayLike, lowest: int, end: int) -> Ints:
    """A contiguous array of integers from ``lowest`` up to but not including ``end``.

    Raises
    ------
    ValueError
        If they are not integers, or one is out of range: a compiled loop would read outside of an
        array.
    """
    array = _as_array(name, values, "iu", "integers")
    if array.size and not lowest <= int(array.min()) <= int(array.max()) < end:
        worst = int(array.max()) if int(array.min()) >= lowest else int(array.min())
        raise ValueError(f"`{name}` has {worst} but must be from {lowest} to {end - 1}")
    return np.asarray(array, dtype=np.intp, order="C")


def as_displacements(displacements: Floats, n_atoms: int) -> Floats:
    """Displacements of all atoms, m at once: of shape (m, n_atoms, 3).

    Raises
    ------
    ValueError
        If the displacements have another shape.
    """
    moved = as_floats("displacements", displacements)[0]
    if moved.ndim != 3 or moved.shape[1:] != (n_atoms, 3):
        raise ValueError(f"`displacements` has shape {moved.shape} but must be (any, {n_atoms}, 3)")
    return moved


def same_product(found: Floats, expected: Floats, precision: float) -> bool:
    """Whether a product of blocks is that of the Jacobian, within `WRONG` times the precision."""
    limit = WRONG * precision * np.linalg.norm(expected)
    return not np.linalg.norm(found - expected) > limit  # what is not finite is found elsewhere
