"""Documented names at the places where they were before the packages had their present names.

This module goes with the next release.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

logger = logging.getLogger(__name__)

PACKAGE = "ase_sensitivity."

MOVED = {
    "approach.diagnosis": "singular.diagnosis",
    "causes.symmetry": "geometry.symmetry",
    "dataset.joint_bound": "dataset.pairs.joint_bound",
    "dataset.reading": "io.reading",
    "descriptors.strain": "jacobian.strain",
    "dynamics.bias": "md.bias",
    "notices": "errors",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module at its old place; its names are those of the module at the new one."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        old = name.removeprefix(PACKAGE)
        if name == old or not any(f"{known}.".startswith(f"{old}.") for known in MOVED):
            return None
        return ModuleSpec(name, self, is_package=old not in MOVED)

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED.get(module.__name__.removeprefix(PACKAGE))
        if new is None:
            return  # a package of such modules
        from ase_sensitivity.errors import warn

        logger.warning("%s is %s%s now", module.__name__, PACKAGE, new)
        warn("modules have moved; the log and the change log name them", DeprecationWarning)
        module.__getattr__ = lambda name: getattr(import_module(PACKAGE + new), name)  # type: ignore[method-assign]


def find_moved() -> None:
    """Make them be found, after everything that is there."""
    sys.meta_path.append(_Moved())
