"""The package's warning categories, the error that stops a run, and where a warning points."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import ase
import lazy_loader
import scipy
from ase import Atoms

if TYPE_CHECKING:
    from ase_sensitivity.sensitivity import Sensitivity

# Folders of code that is not the user's. SciPy's optimizers stand between ASE and the observer, and
# the lazy loader between the first use of a name and what it loads. The separator at the end
# excludes a user's folder with a name that only begins like one of these.
_INSIDE = tuple(
    str(Path(file).parent) + os.sep
    for file in (__file__, ase.__file__, scipy.__file__, lazy_loader.__file__, importlib.__file__)
)
_IMPORTING = "<frozen importlib"  # frames that Python's warnings do not count


class SensitivityWarning(UserWarning):
    """Base of every warning of this package."""


class SingularWarning(SensitivityWarning):
    """A run came close to a singular configuration."""


class EvaluationWarning(SensitivityWarning):
    """The sensitivity of a configuration could not be evaluated, or a result was not written."""


class CostWarning(SensitivityWarning):
    """A calculation is much slower than it could be."""


class SpeciesWarning(SensitivityWarning):
    """A structure has elements that are not among the species of the descriptor."""


class DescriptorWarning(SensitivityWarning):
    """A descriptor of a potential is left out."""


class ReadingWarning(SensitivityWarning):
    """Frames of a file are left out, or may be misread."""


class ConstraintWarning(SensitivityWarning):
    """A constraint is not taken into account."""


class SingularConfiguration(RuntimeError):  # noqa: N818 (a state of the run, not a mistake)
    """A run reached a singular configuration and was asked to stop with an error.

    Attributes
    ----------
    sensitivity
        The :class:`~ase_sensitivity.Sensitivity` that was found.
    atoms
        A copy of the configuration.
    step
        The step of the run.
    """

    def __init__(self, message: str, sensitivity: Sensitivity, atoms: Atoms, step: int) -> None:
        super().__init__(message)
        self.sensitivity = sensitivity
        self.atoms = atoms
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, Sensitivity, Atoms, int]]:
        return type(self), (self.args[0], self.sensitivity, self.atoms, self.step)


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's code that led here, through ASE's run loops and our own."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith((*_INSIDE, _IMPORTING)):
        frame = frame.f_back
        level += not frame.f_code.co_filename.startswith(_IMPORTING)
    warnings.warn(message, category, stacklevel=level)
