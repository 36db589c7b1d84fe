"""The reference set that somebody gave, in any form."""

from __future__ import annotations

from typing import Any

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.environments.reference_file import is_reference_file
from ase_sensitivity.environments.reference_set import ReferenceSet


def reference_set(given: Any, descriptor: Descriptor, **labels: Any) -> ReferenceSet:
    """The reference set that somebody gave: as such, as its file, or as frames with ``labels``."""
    if is_reference_file(given):
        return ReferenceSet.read(given, descriptor)
    if not isinstance(given, ReferenceSet):
        return ReferenceSet(given, descriptor, **labels)
    given.bind(descriptor)
    return given
