"""The descriptor that the command line asks for: a string, a GAP file, a name or a TOML file."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase_sensitivity.cli.named import (
    FUNCTION,
    TRAINED,
    check_alone,
    is_named,
    of_code,
    of_name,
    of_trained,
    relative_to,
)
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.given import of_strings, species_in
from ase_sensitivity.descriptors.quip.arguments import chemical_species
from ase_sensitivity.descriptors.quip.quip import QUIPDescriptor
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.validation import check_exists

if TYPE_CHECKING:
    from ase import Atoms

EXAMPLE = '--descriptor "soap cutoff=5 n_max=8 l_max=6 atom_sigma=0.5"'
KINDS = ("soap", "quip", "gap", *TRAINED, FUNCTION)

Frames = Callable[[], Iterable["Atoms"]]


def descriptor_of(
    texts: Sequence[str] | None,
    gap: Path | None,
    species: str | None,
    *,
    frames: Frames,
    tell: Callable[[str], None],
) -> Descriptor:
    """The descriptor that ``--descriptor``, ``--gap`` and ``--species`` name.

    Parameters
    ----------
    texts
        QUIP strings, or the name of one TOML file, of one trained potential, or of one function or
        object in a module.
    gap
        A GAP potential file.
    species
        Chemical symbols separated by commas or spaces.
    frames
        Gives the structures whose species are taken if none are named.
    tell
        Called with a sentence about it.

    Raises
    ------
    ValueError, TypeError, OSError, ImportError
        If that is none, or not exactly one descriptor.
    """
    given = list(texts or [])
    if bool(given) == (gap is not None):
        several = "only one of --descriptor and --gap can be given"
        raise ValueError(several if given else f"say which descriptor: {EXAMPLE}, or --gap XML")
    listed = _listed(species)
    source = _Species(listed, frames, tell)
    if gap is not None:
        _refuse_species(listed, "--gap")
        return QUIPDescriptor.from_gap(gap)
    check_alone(given)
    if is_named(given[0]):
        _refuse_species(listed, f"--descriptor {given[0]}")
        return of_name(given[0])
    tables = [text for text in given if text.endswith(".toml")]
    if not tables:
        return of_strings(given, source.listed, source.known)
    if len(given) > 1:
        raise ValueError(f"--descriptor {tables[0]} is a whole descriptor; give nothing beside it")
    return _from_toml(Path(tables[0]), source)


class _Species:
    """Species as given, or those of the data, looked up when needed."""

    def __init__(
        self, listed: tuple[str, ...] | None, frames: Frames, tell: Callable[[str], None]
    ) -> None:
        self.listed = listed
        self._frames = frames
        self._tell = tell

    def known(self) -> tuple[str, ...]:
        if self.listed is None:
            count = 0

            def counted() -> Iterator[Atoms]:
                nonlocal count
                for atoms in self._frames():
                    count += 1
                    yield atoms

            symbols = species_in(counted())
            self.listed = tuple(symbols)
            self._tell(
                f"Species {', '.join(symbols)}: those found in {count} "
                f"frame{'s' if count != 1 else ''}; --species {','.join(symbols)} spares this pass."
            )
        return self.listed


def _listed(species: str | None) -> tuple[str, ...] | None:
    if species is None:
        return None
    try:
        return chemical_species("--species", species.replace(",", " ").split())
    except ValueError:
        raise ValueError(
            f"--species is {species!r} but must be chemical symbols such as H,C"
        ) from None


def _refuse_species(listed: Sequence[str] | None, other: str) -> None:
    if listed is not None:
        raise ValueError(f"--species has no meaning with {other}, which lists its own")


def _from_toml(path: Path, source: _Species) -> Descriptor:
    check_exists(path)
    try:
        return _of_table(path, _table(path), source)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply for a descriptor") from None


def _table(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # or with a byte-order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from None


def _of_table(path: Path, table: dict[str, Any], source: _Species) -> Descriptor:
    _check_keys(str(path), table, [*KINDS, "species"])
    kinds = [key for key in KINDS if key in table]
    if len(kinds) != 1:
        names = f"{', '.join(KINDS[:-1])} and {KINDS[-1]}"
        raise ValueError(f"{path} must have exactly one of {names}, not {kinds}")
    if "species" in table and source.listed is None:
        source.listed = chemical_species(f"species in {path}", table["species"])
    kind = kinds[0]
    if kind == "gap":
        _refuse_species(source.listed, "gap")
        return QUIPDescriptor.from_gap(path.parent / _text(path, "gap", table["gap"]))
    if kind == FUNCTION:
        _refuse_species(source.listed, FUNCTION)
        return of_code(_text(path, FUNCTION, table[FUNCTION]))
    if kind in TRAINED:
        _refuse_species(source.listed, kind)
        return of_trained(kind, relative_to(path.parent, kind, _model(path, kind, table[kind])))
    if kind == "quip":
        texts = table["quip"]
        texts = texts if isinstance(texts, list) else [texts]
        strings = [_text(path, "quip", text) for text in texts]
        return of_strings(strings, source.listed, source.known)
    arguments = table["soap"]
    if not isinstance(arguments, dict):
        raise ValueError(f"soap in {path} is {arguments!r} but must be a table: [soap]")
    known = [name for name in inspect.signature(SOAP).parameters if name != "threads"]
    _check_keys(f"[soap] in {path}", arguments, known)
    lacking = [name for name in ("cutoff", "n_max", "l_max") if name not in arguments]
    if lacking:
        raise ValueError(f"[soap] in {path} lacks {', '.join(lacking)}")
    if "species" not in arguments:
        arguments["species"] = source.known()
    try:
        return SOAP(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"[soap] in {path}: {error}") from error


def _model(path: Path, kind: str, given: Any) -> dict[str, Any]:
    """Arguments of the descriptor of a trained potential: a table, or the model alone."""
    if not isinstance(given, dict):
        return {"model": _text(path, kind, given)}
    _check_keys(f"[{kind}] in {path}", given, [*inspect.signature(TRAINED[kind]).parameters])
    return given


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key} in {path} is {value!r} but must be a string")
    return value


def _check_keys(where: str, table: dict[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            similar = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean `{similar[0]}`?" if similar else f": {', '.join(known)}"
            raise ValueError(f"{where} has `{key}`, which is none of its keys{hint}")
