"""``ase-sensitivity converge``: the smallest basis that a data set needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.output import say, to_json

if TYPE_CHECKING:
    from ase_sensitivity.descriptors.base import Descriptor

EXAMPLES = "such as 2,4,6 or 0-6"


def levels(name: str, text: str) -> list[int]:
    """Integers as in ``"2,4,6"`` or ``"0-6"``.

    Raises
    ------
    ValueError
        If the text, given as the option ``name``, is something else.
    """
    found: list[int] = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", word.strip())
        if match is None:
            raise ValueError(f"{name} is {text!r} but must be integers, {EXAMPLES}")
        first, last = match[1], match[2] or match[1]
        found += range(int(first), int(last) + 1)
    if not found:
        raise ValueError(f"{name} is {text!r}, which has no values to try; take one {EXAMPLES}")
    return found


def converge(
    files: options.Files,
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    n_max: Annotated[
        str, typer.Option("--n-max", metavar="LIST", help="Numbers of radial functions to try.")
    ] = "2,4,6,8",
    l_max: Annotated[
        str, typer.Option("--l-max", metavar="LIST", help="Highest angular momenta to try.")
    ] = "0-6",
    forces_key: options.ForcesKey = None,
    energy_key: options.EnergyKey = None,
    units: options.Units = "eV",
    scope: options.ScopeName = "structure",
    json: options.Json = False,
) -> None:
    """Find the smallest basis that resolves a data set.

    The descriptor's own n_max and l_max, which may be left out, do not matter.
    """
    from ase_sensitivity.cli.scan import chosen
    from ase_sensitivity.dataset.basis.converge import converge as sweep
    from ase_sensitivity.descriptors.given import with_any_basis
    from ase_sensitivity.io.reading import count_frames
    from ase_sensitivity.progress import progress

    tried: dict[str, Any] = {"n_max": levels("--n-max", n_max), "l_max": levels("--l-max", l_max)}
    texts = [with_any_basis(text) for text in descriptor or []]
    types = options.type_symbols(type_map)
    family: Descriptor = chosen(files, texts, gap, species, types)
    with progress("Sweeping", lambda: count_frames(list(files)), shown=not json) as move:
        found = sweep(
            list(files),
            family,  # type: ignore[arg-type]  # it raises if it has no basis to change
            **tried,
            forces_key=forces_key,
            energy_key=energy_key,
            units=units,
            type_map=types,
            scope=scope,  # type: ignore[arg-type]
            progress=move,
        )
    say(to_json(vars(found)) if json else found.summary())
