"""Calls of QUIP's Fortran: without output, one at a time, with errors as a clear ValueError."""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from ase import Atoms

# QUIP has a global error stack and output units: only one call at a time.
_QUIP = threading.Lock()

ENDED = 2
"""Exit status of a process that Fortran ends within a call; otherwise it would sometimes be 0."""

_CALLS: list[tuple[int, str]] = []
"""The standard error and the purpose of the call under way."""


@contextmanager
def quip_calls(what: str) -> Iterator[None]:
    """Call QUIP: nothing it prints reaches the terminal, and its errors become a ValueError."""
    _watch_exit()
    with _QUIP, _silent_output() as stderr:
        _CALLS.append((stderr, what))
        try:
            yield
        except RuntimeError as error:
            raise ValueError(f"{what}: {_fortran_message(error)}") from None
        finally:
            _CALLS.pop()


def quip_rows(descriptor: Any, box: Atoms, gradients: bool, version: int | None = None) -> Any:
    """The result of QUIP for a structure in a cell, as quippy's object of Fortran arrays.

    All arrays of the structure are passed on. ``version`` is that of the GAP file, if any.
    """
    import quippy.convert

    quip_atoms = quippy.convert.ase_to_quip(
        box, add_arrays=[name for name in box.arrays if name not in ("numbers", "positions")]
    )
    descriptor._calc_connect(quip_atoms)
    args_str = "" if version is None else f"xml_version={version}"
    return descriptor._quip_descriptor.calc(
        quip_atoms, do_descriptor=True, do_grad_descriptor=gradients, args_str=args_str
    )


def _ended(_: int | None) -> None:
    """Called by C's `exit`, and so by Fortran's `STOP` and run-time errors."""
    for stderr, what in _CALLS:
        with suppress(OSError):
            os.write(stderr, f"{what}: QUIP ended the process\n".encode())
        os._exit(ENDED)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_ended)


@cache
def _watch_exit() -> None:
    if platform.libc_ver()[0] != "glibc":  # others have no handlers that can be removed again
        return
    library = ctypes.CDLL(None)
    owner = ctypes.create_string_buffer(1)
    library["__cxa_atexit"](_HANDLER, None, owner)
    atexit.register(library["__cxa_finalize"], owner)  # before the interpreter is gone


@contextmanager
def _silent_output() -> Iterator[int]:
    """Discard what Fortran writes to the standard output and error.

    Fortran writes to the file descriptors and not to `sys.stdout`. Yields a copy of the descriptor
    of the standard error.
    """
    saved: list[tuple[int, int]] = []
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            with suppress(OSError):  # a daemon may have closed it
                saved.append((os.dup(stream), stream))
                os.dup2(nowhere, stream)
        yield saved[-1][0] if saved else nowhere
    finally:
        _flush_fortran()
        os.close(nowhere)
        for copy, stream in saved:
            os.dup2(copy, stream)
            os.close(copy)


def _flush_fortran() -> None:
    """Empty Fortran's own buffers; otherwise they are written when the process ends."""
    with suppress(OSError, AttributeError):  # another compiler's run-time library
        _quip_library()._gfortran_flush_i4(None)


def reset_clebsch_gordan() -> None:
    """Make QUIP compute its table of Clebsch-Gordan coefficients again.

    bispectrum_so3 (integer momenta) and bispectrum_so4 (half-integer ones) share one table, and
    QUIP computes it again only to enlarge it. So the features of the second one would be wrong.
    """
    try:
        _quip_library().__getattr__("__angular_functions_module_MOD_cg_finalise")()
    except (OSError, AttributeError):
        raise ValueError(
            "this build of QUIP does not allow its Clebsch-Gordan table to be computed again, and "
            "without that bispectrum features can be wrong"
        ) from None


def _quip_library() -> ctypes.CDLL:
    import quippy._quippy

    return ctypes.CDLL(quippy._quippy.__file__)


def _fortran_message(error: RuntimeError) -> str:
    """The message in QUIP's traceback, without the blanks and stray bytes that follow it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    sentences = [
        line for line in lines if not line.lstrip().startswith(("Traceback", 'File "'))
    ] or lines
    text = sentences[0].strip() if sentences else "no reason given"
    text = text.split("   ")[0]
    return "".join(character for character in text if character.isprintable())[:300]
