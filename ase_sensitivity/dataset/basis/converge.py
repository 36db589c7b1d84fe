"""A sweep over n_max and l_max, to find how large a basis has to be."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import check_arguments
from ase_sensitivity.dataset.basis.nested import with_lower_l_max
from ase_sensitivity.dataset.basis.result import BasisSize, BasisTotals, Convergence, convergence_of
from ase_sensitivity.dataset.evaluation import SCAN_NULL_TOLERANCE, Settings, evaluate
from ase_sensitivity.dataset.record import FrameRecord, is_analyzed
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.given import with_any_basis
from ase_sensitivity.descriptors.of_frames import descriptor_for
from ase_sensitivity.descriptors.quip.quip import QUIPDescriptor
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.geometry.symmetry import TOLERANCE
from ase_sensitivity.io.reading import Frames, check_frames, read_frames
from ase_sensitivity.io.references import Task, tasks_of, unit_factors
from ase_sensitivity.types import Scope

logger = logging.getLogger(__name__)

Family = Callable[[int, int], Descriptor] | SOAP | QUIPDescriptor | str


def converge(
    frames: Frames,
    family: Family,
    *,
    n_max: int | Iterable[int] = (2, 4, 6, 8),
    l_max: int | Iterable[int] = range(7),
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    type_map: Sequence[str] | None = None,
    scope: Scope = "structure",
    null_tolerance: float = SCAN_NULL_TOLERANCE,
    tolerance: float = TOLERANCE,
    progress: Callable[[int], object] | None = None,
) -> Convergence:
    """Find the smallest basis that a data set needs.

    Parameters
    ----------
    frames
        As in :func:`~ase_sensitivity.scan`. Only one structure is in memory at a time.
    family
        A :class:`~ase_sensitivity.SOAP` or :class:`~ase_sensitivity.QUIPDescriptor`, which gets
        other bases; a function that returns a descriptor for ``(n_max, l_max)``; or a QUIP string
        for the species in the frames.
    n_max, l_max
        The values to try, or a single value.
    forces_key, energy_key, units, type_map, scope, null_tolerance, tolerance
        As in :func:`~ase_sensitivity.scan`.
    progress
        Called with the number of structures done so far.

    Returns
    -------
    Convergence
        It has a row for each basis, and the sizes that are sufficient.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, or no structure can be evaluated.

    Notes
    -----
    The features of a :class:`~ase_sensitivity.SOAP` with a lower ``l_max`` are a subset of those
    with a higher one. So one Jacobian for each ``n_max`` is enough for all ``l_max``. Radial
    functions depend on ``n_max``, and nothing can be shared.

    If the cause of null directions is unknown, those that some basis of the sweep sees count as
    caused by truncation.

    Examples
    --------
    >>> from ase import Atoms
    >>> from ase_sensitivity import SOAP
    >>> places = [(1, 0, 0), (0.28, 0.96, 0), (-0.48, 0.6, 0.64), (-0.36, -0.48, -0.8)]
    >>> molecule = Atoms("CH4", [(0, 0, 0), *places])
    >>> soap = SOAP(["H"], cutoff=3, n_max=8, l_max=5, atom_sigma=0.3, centers=["C"])
    >>> found = converge([molecule], soap, n_max=[8], l_max=range(1, 7))
    >>> [row["n_truncation"] for row in found.rows]
    [6, 4, 2, 1, 0, 0]
    >>> found.resolving
    (8, 5)
    """
    check_frames(frames)
    levels = {
        name: _levels(name, values, lowest)
        for name, values, lowest in (("n_max", n_max, 1), ("l_max", l_max, 0))
    }
    for name, values in levels.items():
        if not values:
            raise ValueError(f"`{name}` has no values to try")
    if isinstance(family, str):
        family = with_any_basis(family)
    make = _maker(descriptor_for(family, frames, type_map))
    members = [[make(n, m) for m in levels["l_max"]] for n in levels["n_max"]]
    for member in members[0]:
        check_arguments(
            Atoms("H"),
            member,
            scope=scope,
            center=None,
            k=None,
            null_tolerance=null_tolerance,
            tolerance=tolerance,
        )
    # The number of modes does not matter: with forces all of them are computed anyway.
    settings = Settings(scope, 1, True, False, null_tolerance, tolerance)
    totals: dict[BasisSize, BasisTotals] = {}
    read = read_frames(frames, type_map=type_map)
    tasks = tasks_of(read, forces_key, energy_key, unit_factors(units), strict=True)
    for n_done, task in enumerate(tasks, 1):
        for n, row in zip(levels["n_max"], members, strict=True):
            found = _swept(row, settings, task)
            for m, (record, n_features) in zip(levels["l_max"], found, strict=True):
                totals.setdefault((n, m), BasisTotals()).add(record, n_features)
        if progress is not None:
            progress(n_done)
    if not totals:
        raise ValueError("`frames` has no frames")
    if all(total.found.n_analyzed == 0 for total in totals.values()):
        raise ValueError(
            f"no structure could be evaluated: {next(iter(totals.values())).found.first_error}"
        )
    return convergence_of(totals)


def _levels(name: str, values: int | Iterable[int], lowest: int) -> list[int]:
    found = set()
    for value in values if isinstance(values, Iterable) else [values]:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
            raise ValueError(f"`{name}` has {value!r} but must be integers of {lowest} or more")
        found.add(int(value))
    return sorted(found)


def _maker(family: Family) -> Callable[[int, int], Descriptor]:
    if isinstance(family, SOAP | QUIPDescriptor):
        if repr(family.with_basis(1, 0)) == repr(family.with_basis(2, 1)):
            raise ValueError(f"{family!r} has no n_max and l_max to sweep")
        return family.with_basis
    if isinstance(family, type) or not callable(family):
        raise TypeError(
            f"`family` is {family!r} but must be a SOAP, a QUIPDescriptor or a function of n_max "
            "and l_max"
        )
    return family


def _swept(
    members: Sequence[Descriptor], settings: Settings, task: Task
) -> list[tuple[FrameRecord, int]]:
    """Records of a structure and numbers of features, for descriptors with ascending l_max."""
    soaps = [_soap(member) for member in members]
    largest = soaps[-1]
    if largest is None or len(task.atoms) == 0:
        return [_of_one(member, settings, task) for member in members]
    try:
        jacobian = largest.jacobian(task.atoms)
    except Exception:  # the record of each basis will have the error
        logger.info("%s@%d failed", task.source, task.index, exc_info=True)
        return [_of_one(member, settings, task) for member in members]
    found = []
    for member, soap in zip(members, soaps, strict=True):
        if soap is not None and repr(largest.with_basis(*soap.basis_size)) == repr(soap):
            member = with_lower_l_max(soap, jacobian, largest.basis_size[1])
        found.append(_of_one(member, settings, task))
    return found


def _soap(member: Descriptor) -> SOAP | None:
    found: Any = member.soap if isinstance(member, QUIPDescriptor) else member
    return found if isinstance(found, SOAP) else None


def _of_one(member: Descriptor, settings: Settings, task: Task) -> tuple[FrameRecord, int]:
    (record,), _ = evaluate(member, settings, [task])
    return record, _n_features(member, task) if is_analyzed(record.row) else 0


def _n_features(member: Descriptor, task: Task) -> int:
    soap = _soap(member)
    return soap.n_features if soap is not None else int(member.features(task.atoms).shape[1])
