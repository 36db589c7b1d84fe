"""numba's `njit`, with a cache on disk wherever there is a writable folder for it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache

from ase_sensitivity.errors import CostWarning, warn

logger = logging.getLogger(__name__)

NOT_CACHED = (
    "compiled loops cannot be kept on disk, so that every process spends 10 to 30 s on them; "
    "set NUMBA_CACHE_DIR to a folder that can be written"
)


class _Cache(FunctionCache):
    """A cache that is cleared if it is damaged, and disabled if it cannot be written."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a damaged file may raise any error
            logger.info("a compiled function could not be read: %r", error)
            self._attempt(self.flush)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        self._attempt(lambda: super(_Cache, self).save_overload(sig, data))

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self.disable()
            _report(error)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """As numba's, with ``cache=True`` where the package or the user has a writable folder."""

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError as error:  # numba found no folder
            _report(error)
        return dispatcher

    return compiled


def is_missing(dispatcher: Any) -> bool:
    """Whether a compiled function can be kept on disk and is not, for this version of Python."""
    name, version = dispatcher.__name__, "{}{}".format(*sys.version_info)
    # Without compilation (NUMBA_DISABLE_JIT) there are plain functions.
    folder = dispatcher.stats.cache_path if hasattr(dispatcher, "stats") else None
    return folder is not None and not any(Path(folder).glob(f"*.{name}-*.py{version}*.nbc"))


def warn_if_not_cached() -> None:
    """Warn if compiled loops cannot be kept on disk, before worker processes compile them."""
    try:
        _Cache(warn_if_not_cached)
    except RuntimeError as error:
        _report(error)


def _report(error: Exception) -> None:
    logger.info("no cache of compiled functions: %s", error)
    _warn_once()


@cache
def _warn_once() -> None:
    warn(NOT_CACHED, CostWarning)
