"""Calling QUIP's Fortran: silently, one at a time, with its errors as one clear ValueError."""

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

# QUIP keeps an error stack and output units of its own: one caller at a time.
_QUIP = threading.Lock()

ENDED = 2
"""Exit status of a process that Fortran ends within a call, which would else be 0 at times."""

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
    """What QUIP computes for a structure in a cell, as quippy's object of Fortran arrays.

    All arrays of the structure are handed over. ``version`` is that of the GAP file, if any.
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
    """Fortran's `STOP` and run-time errors call C's `exit`, which comes by here."""
    for stderr, what in _CALLS:
        with suppress(OSError):
            os.write(stderr, f"{what}: QUIP ended the process\n".encode())
        os._exit(ENDED)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_ended)


@cache
def _watch_exit() -> None:
    if platform.libc_ver()[0] != "glibc":  # others keep no handlers that can be taken away again
        return
    library = ctypes.CDLL(None)
    owner = ctypes.create_string_buffer(1)
    library["__cxa_atexit"](_HANDLER, None, owner)
    atexit.register(library["__cxa_finalize"], owner)  # while there still is an interpreter


@contextmanager
def _silent_output() -> Iterator[int]:
    """Send what Fortran writes to the standard output and error to nowhere.

    Fortran writes to the file descriptors, behind the back of `sys.stdout`. Yields where the
    standard error went until then.
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
    """Empty Fortran's own buffers, which it would else write when the process ends."""
    with suppress(OSError, AttributeError):  # another compiler's run-time library
        _quip_library()._gfortran_flush_i4(None)


def reset_clebsch_gordan() -> None:
    """Make QUIP tabulate its Clebsch-Gordan coefficients anew.

    bispectrum_so3 (integer momenta) and bispectrum_so4 (half-integer ones) share one table, which
    QUIP renews only to enlarge it: the features of whichever comes second are wrong otherwise.
    """
    try:
        _quip_library().__getattr__("__angular_functions_module_MOD_cg_finalise")()
    except (OSError, AttributeError):
        raise ValueError(
            "this build of QUIP does not let its Clebsch-Gordan table be renewed, without which "
            "bispectrum features can be wrong"
        ) from None


def _quip_library() -> ctypes.CDLL:
    import quippy._quippy

    return ctypes.CDLL(quippy._quippy.__file__)


def _fortran_message(error: RuntimeError) -> str:
    """The sentence in QUIP's traceback, which is padded with blanks and stray bytes."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    sentences = [
        line for line in lines if not line.lstrip().startswith(("Traceback", 'File "'))
    ] or lines
    text = sentences[0].strip() if sentences else "no reason given"
    text = text.split("   ")[0]
    return "".join(character for character in text if character.isprintable())[:300]
