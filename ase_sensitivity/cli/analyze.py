"""``ase-sensitivity analyze``: what the descriptor sees least in one structure."""

from __future__ import annotations

from typing import Annotated

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.output import remark, say, to_json


def analyze(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Anything ASE reads: its last frame, or FILE@i for another, FILE@: for each.",
            show_default=False,
        ),
    ],
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    scope: options.ScopeName = "structure",
    center: Annotated[
        int | None,
        typer.Option(
            metavar="ATOM",
            help="The center or atom to look at; by default the worst.",
            min=0,
            show_default=False,
        ),
    ] = None,
    k: options.NumberOfValues = 6,
    causes: options.Causes = True,
    json: options.Json = False,
) -> None:
    """Tell what the descriptor sees least in a structure, and why."""
    from ase_sensitivity.analysis import analyze as analyze_structure
    from ase_sensitivity.causes.next_steps import Origin, next_steps
    from ase_sensitivity.cli.descriptor import descriptor_of
    from ase_sensitivity.io.references import forces_like
    from ase_sensitivity.io.usable import last_frame, selects, usable_frames

    types = options.type_symbols(type_map)
    if selects(file):
        frames = [frame for _, frame in usable_frames(file, type_map=types, tell=remark)]
    else:
        frames = [last_frame(file, type_map=types, tell=remark)]
    for frame in frames[:1]:
        if frame.atoms is not None and (keys := forces_like(frame.atoms)):
            remark(
                f"The file has forces: ase-sensitivity scan ... --forces-key {keys[0]} tells what "
                "part of them is lost."
            )
    read = [(frame.index, frame.atoms) for frame in frames if frame.atoms is not None]
    chosen = descriptor_of(
        descriptor, gap, species, frames=lambda: [atoms for _, atoms in read], tell=remark
    )
    origin = Origin(files=(file,), option=options.as_given(descriptor, gap, species))
    for number, atoms in read:
        where = f"{file}, {atoms.get_chemical_formula()}"
        if len(frames) > 1:
            where = f"frame {number} of {where}"
        try:
            found = analyze_structure(
                atoms,
                chosen,
                scope=scope,  # type: ignore[arg-type]
                center=center,
                k=k,
                causes=causes,
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if json:
            say(to_json({"source": file, "index": number} | found.todict()))
        else:
            lines = [where, *found.findings(), *next_steps(found.null_causes, origin)]
            say("\n".join(lines) + ("\n" if len(frames) > 1 else ""))
