"""Documented names at the places where they were before the packages had their present names.

This module goes with the next release.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False  # as of `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

PACKAGE = "ase_sensitivity."

MOVED = {
    "approach.diagnosis": "singular.diagnosis",
    "causes.symmetry": "geometry.symmetry",
    "dataset.joint_bound": "dataset.pairs.joint_bound",
    "dataset.reading": "io.reading",
    "descriptors.strain": "jacobian.strain",
    "dynamics.bias": "md.bias",
    "notices": "errors",
    "structure": "geometry.neighbors",
}


class _Moved:
    """Finds a module at its old place; its names are those of the module at the new one."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        old = name.removeprefix(PACKAGE)
        if name == old or not any(f"{known}.".startswith(f"{old}.") for known in MOVED):
            return None
        return ModuleSpec(name, self, is_package=old not in MOVED)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave that to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Let the module have the names of the one at the new place."""
        new = MOVED.get(module.__name__.removeprefix(PACKAGE))
        if new is not None:  # otherwise a package of such modules
            _tell(module.__name__, PACKAGE + new)
            vars(module)["__getattr__"] = lambda name: getattr(import_module(PACKAGE + new), name)


def _tell(old: str, new: str) -> None:
    import logging

    from ase_sensitivity.errors import warn

    logging.getLogger(__name__).warning("%s is %s now", old, new)
    warn("names have moved; the log and the change log name them", DeprecationWarning)


def names_moved(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for a module some of whose names are in other modules now."""

    def found(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _tell(f"{module}.{name}", f"{PACKAGE}{names[name]}.{name}")
        return getattr(import_module(PACKAGE + names[name]), name)

    return found


def find_moved() -> None:
    """Make them be found, after everything that is there."""
    sys.meta_path.append(_Moved())
