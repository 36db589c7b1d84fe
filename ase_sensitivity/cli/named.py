"""Descriptors that the command line knows by name: trained potentials, and code of the user."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.chgnet import CHGNetDescriptor
from ase_sensitivity.descriptors.finite_difference import FiniteDifferenceDescriptor
from ase_sensitivity.descriptors.mace import MACEDescriptor
from ase_sensitivity.descriptors.sevennet import SevenNetDescriptor

TRAINED: dict[str, type[Descriptor]] = {
    "mace": MACEDescriptor,
    "sevenn": SevenNetDescriptor,
    "chgnet": CHGNetDescriptor,
}
"""By the name of their package, which is that of the extra as well."""

FUNCTION = "function"
"""The key of a ``module:function`` in a TOML file."""

_CODE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_named(text: str) -> bool:
    """Whether a text names a trained potential or ``module:function``, and is no QUIP string."""
    return text.partition(":")[0].strip() in TRAINED or _CODE.fullmatch(text.strip()) is not None


def of_name(text: str) -> Descriptor:
    """The descriptor of ``mace:FILE``, ``sevenn[:MODEL]``, ``chgnet[:MODEL]`` or ``module:name``.

    Raises
    ------
    ValueError, TypeError, OSError, ImportError
        If there is none.
    """
    kind, _, model = (part.strip() for part in text.partition(":"))
    if kind not in TRAINED:
        return of_code(text.strip())
    return of_trained(kind, {"model": model} if model else {})


def of_trained(kind: str, arguments: dict[str, Any]) -> Descriptor:
    """The descriptor of a trained potential.

    Raises
    ------
    ValueError, TypeError, OSError
        If there is no such model.
    ImportError
        If the package is not installed; it names the extra.
    """
    if kind == "mace" and "model" not in arguments:
        raise ValueError("a MACE has no default: name the file of a model, mace:FILE")
    try:
        return TRAINED[kind](**arguments)
    except (ImportError, FileNotFoundError):
        raise
    except Exception as error:  # the packages raise all kinds for models that they do not know
        model = arguments.get("model", "the default model")
        raise ValueError(f"{kind} gives no descriptor of {model}: {error}") from error


def of_code(text: str) -> Descriptor:
    """What ``module:name`` is: a descriptor, or a function of a structure.

    The module is imported, from the working directory or from where Python finds it. An object with
    the members of :class:`Descriptor` is taken as it is. Any other callable is called with a
    structure and returns features of shape (n_rows, n_features), which are differentiated by finite
    differences.

    Raises
    ------
    ImportError, TypeError, ValueError
        If it is neither.
    """
    hint = "; it is neither a QUIP string nor mace:..., sevenn:..., chgnet:..."
    found = imported(text, f"--descriptor {text}", hint)
    member = text.partition(":")[2]
    if isinstance(found, type):
        raise TypeError(
            f"--descriptor {text}: {member} is a class; name an object of it, or a function"
        )
    if isinstance(found, Descriptor):
        return found
    if not callable(found):
        raise TypeError(
            f"--descriptor {text}: {member} is {type(found).__name__}, neither a function of a "
            "structure nor an object with the members of Descriptor"
        )
    return FiniteDifferenceDescriptor(found)


def imported(text: str, said: str, hint: str = "") -> Any:
    """What ``module:name`` is. The module is in the working directory or where Python looks.

    Parameters
    ----------
    text
        ``module:name``.
    said
        What was said on the command line, for errors.
    hint
        What else it could have been, for the error if there is no such module.

    Raises
    ------
    ImportError, ValueError
        If there is no such module, or it has no such name.
    """
    name, _, member = text.partition(":")
    if "" not in sys.path and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # for good: processes that share the work import it as well
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ImportError(f"{said}: {name} needs {error.name}") from error
        raise ImportError(
            f"{said}: there is no module {name}, here or where Python looks for modules{hint}"
        ) from None
    except Exception as error:
        raise ImportError(
            f"{said}: importing {name} failed: {type(error).__name__}: {error}"
        ) from error
    where = getattr(module, "__file__", None) or name
    if not hasattr(module, member):
        raise ValueError(f"{said}: {where} has no {member}")
    return getattr(module, member)


def calculator_of(text: str) -> Any:
    """The ASE calculator ``module:name``: an object, or what makes one without arguments.

    Raises
    ------
    ImportError, ValueError
        If there is none.
    """
    said = f"--price {text}"
    if _CODE.fullmatch(text.strip()) is None:
        raise ValueError(f"{said}: name a calculator as module:name, such as tblite.ase:TBLite")
    found = imported(text.strip(), said)
    if isinstance(found, type) or not hasattr(found, "get_potential_energy"):
        # Without arguments some write tables to the standard output, which may be ours to parse.
        loud = "verbosity" in getattr(found, "default_parameters", {})
        try:
            found = found(verbosity=0) if loud else found()
        except Exception as error:
            raise ValueError(
                f"{said}: no calculator comes of it without arguments: {error}; write a function "
                "that returns one"
            ) from error
    if not hasattr(found, "get_potential_energy") or not hasattr(found, "calculate"):
        raise ValueError(f"{said}: {found!r} is not an ASE calculator")
    return found


def relative_to(folder: Path, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments with the file of a model relative to a folder, if it is a file."""
    model = arguments.get("model")
    if isinstance(model, str) and (kind == "mace" or (folder / model).exists()):
        return arguments | {"model": str(folder / model)}
    return arguments


def check_alone(texts: Sequence[str]) -> None:
    """Raise ValueError if a whole descriptor is not the only one."""
    whole = [text for text in texts if is_named(text)]
    if whole and len(texts) > 1:
        raise ValueError(f"--descriptor {whole[0]} is a whole descriptor; give nothing beside it")
