"""Tells an ASE simulation where the descriptor of a machine-learned potential goes blind.

Names are listed in ``__init__.pyi`` and loaded when they are first used.
"""

import lazy_loader

from ase_sensitivity.moved import find_moved
from ase_sensitivity.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

find_moved()
