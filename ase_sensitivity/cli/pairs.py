"""``ase-sensitivity pairs``: what a descriptor takes for the same, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.bars import two_bars
from ase_sensitivity.cli.output import Interrupted, check_place, remark, say, to_json

if TYPE_CHECKING:
    from ase_sensitivity.dataset.pairs.result import PairResult


def pairs(
    files: options.Files,
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    forces_key: options.ForcesKey = None,
    energy_key: options.EnergyKey = None,
    units: options.Units = "eV",
    epsilon: Annotated[
        float, typer.Option(help="Features are the same within this fraction of their norm.")
    ] = 1e-6,
    delta: Annotated[
        float, typer.Option(metavar="Å", help="Structures are the same within this distance.")
    ] = 0.05,
    energy_tolerance: Annotated[
        float, typer.Option(metavar="EV/ATOM", help="Energies that differ by more are in conflict.")
    ] = 1e-3,
    force_tolerance: Annotated[
        float, typer.Option(metavar="EV/Å", help="Forces that differ by more are in conflict.")
    ] = 0.05,
    across_species: Annotated[
        bool, typer.Option("--across-species", help="Compare centers of different species, too.")
    ] = False,
    max_environments: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Draw so many at random if there are more.", show_default=False
        ),
    ] = None,
    max_pairs: Annotated[
        int, typer.Option(metavar="N", help="List so many degenerate pairs at most.")
    ] = 1000,
    bound: Annotated[
        bool,
        typer.Option("--bound/--no-bound", help="Bound the force error of frames with forces."),
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="CSV",
            help="Write all pairs and conflicts to a file that ends in .csv or .json.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Find what a descriptor takes for the same in a data set, duplicates, and label conflicts.

    With reference forces, also what force error that makes unavoidable.
    """
    from ase_sensitivity.cli.scan import chosen
    from ase_sensitivity.dataset.pairs.find import find_pairs
    from ase_sensitivity.io.whole_file import whole_file

    if output is not None:
        check_place("--output", output, ".csv", ".json")
    types = options.type_symbols(type_map)
    seen = chosen(files, descriptor, gap, species, types)
    try:
        with two_bars(files, "Reading", "Bounding", "pairs", shown=not json) as (read, bounded):
            found = find_pairs(
                list(files),
                seen,
                epsilon=epsilon,
                delta=delta,
                forces_key=forces_key,
                energy_key=energy_key,
                units=units,
                type_map=types,
                energy_tolerance=energy_tolerance,
                force_tolerance=force_tolerance,
                across_species=across_species,
                max_environments=max_environments,
                max_pairs=max_pairs,
                bound=bound,
                progress=read,
                joint_progress=bounded,
            )
    except KeyboardInterrupt:
        raise Interrupted("nothing is kept") from None
    say(to_json(_as_dictionary(found)) if json else found.summary())
    if output is None:
        return
    if output.suffix == ".csv":
        found.to_csv(output)
    else:
        with whole_file(output) as file:
            file.write_text(to_json(_as_dictionary(found)) + "\n", encoding="utf-8")
    if not json:
        remark(f"All pairs: {output}")


def _as_dictionary(found: PairResult) -> dict[str, Any]:
    lists = ("degenerate", "duplicates", "conflicts", "errors", "bound")
    values: dict[str, Any] = {
        name: value for name, value in vars(found).items() if name not in lists
    }
    values["errors"] = [{"where": str(place), "error": why} for place, why in found.errors]
    values["bound"] = found.bound and vars(found.bound) | {
        "classes": [
            vars(one) | {"frames": [str(place) for place in one.frames]}
            for one in found.bound.classes
        ]
    }
    return values | {"pairs": found.rows}
