"""The evaluation of frames with all candidates of a sweep, by a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ase_sensitivity.dataset.basis.candidates import Key
from ase_sensitivity.dataset.basis.nested import with_lower_l_max
from ase_sensitivity.dataset.evaluation import Settings, evaluate
from ase_sensitivity.dataset.record import is_analyzed
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.quip.quip import QUIPDescriptor
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.io.references import Task

logger = logging.getLogger(__name__)

Group = list[tuple[Key, Descriptor]]
"""Candidates that differ in l_max only, which ascends."""


@dataclass(frozen=True)
class Tried:
    """What one candidate has in one frame.

    Attributes
    ----------
    key
        The values of its options.
    row
        The frame's row of the table of a scan.
    n_features
        Length of the longest row of features; 0 if the frame could not be analyzed.
    """

    key: Key
    row: dict[str, Any]
    n_features: int


def evaluate_all(
    groups: Sequence[Group], settings: Settings, tasks: Sequence[Task]
) -> tuple[list[list[Tried]], float]:
    """For each frame what each candidate has, and the elapsed time in s."""
    begin = time.perf_counter()
    found = [[one for group in groups for one in _group(group, settings, task)] for task in tasks]
    return found, time.perf_counter() - begin


def _group(group: Group, settings: Settings, task: Task) -> list[Tried]:
    largest = _soap(group[-1][1])
    if len(group) == 1 or largest is None or len(task.atoms) == 0:
        return [_of_one(key, member, settings, task) for key, member in group]
    try:
        jacobian = largest.jacobian(task.atoms)
    except Exception:  # the row of each candidate will have the error
        logger.info("%s@%d failed", task.source, task.index, exc_info=True)
        return [_of_one(key, member, settings, task) for key, member in group]
    found = []
    for key, member in group:
        soap = _soap(member)
        if soap is not None and repr(largest.with_basis(*soap.basis_size)) == repr(soap):
            member = with_lower_l_max(soap, jacobian, largest.basis_size[1])
        found.append(_of_one(key, member, settings, task))
    return found


def _soap(member: Descriptor) -> SOAP | None:
    found: Any = member.soap if isinstance(member, QUIPDescriptor) else member
    return found if isinstance(found, SOAP) else None


def _of_one(key: Key, member: Descriptor, settings: Settings, task: Task) -> Tried:
    (record,), _ = evaluate(member, settings, [task])
    return Tried(key, record.row, _n_features(member, task) if is_analyzed(record.row) else 0)


def _n_features(member: Descriptor, task: Task) -> int:
    soap = _soap(member)
    return soap.n_features if soap is not None else int(member.features(task.atoms).shape[1])
