"""``ase-sensitivity doubt``: which reference forces to look at first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.bars import two_bars
from ase_sensitivity.cli.output import check_place, remark, say, to_json

if TYPE_CHECKING:
    from ase_sensitivity.dataset.doubt.result import Doubts


def doubt(
    files: options.Files,
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    forces_key: options.ForcesKey = None,
    energy_key: options.EnergyKey = None,
    units: options.Units = "eV",
    fit: options.Fit = True,
    seed: Annotated[int, typer.Option(help="Seed of the random features.", min=0)] = 0,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="DB",
            help="Keep the scan in this database, or go on with it.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write all frames, the most doubtful first: a table if it ends in .csv, "
            "everything for Doubts.read if it ends in .json.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    json: options.Json = False,
) -> None:
    """List the frames whose forces do not fit to those of the others, and why."""
    from ase_sensitivity.cli.parallel import computing, kept_in
    from ase_sensitivity.cli.scan import chosen, forces_keys
    from ase_sensitivity.dataset.doubt.doubt import NoForces
    from ase_sensitivity.dataset.doubt.doubt import doubt as find_doubtful

    if output is not None:
        check_place("--output", output, ".csv", ".json")
    types = options.type_symbols(type_map)
    seen = chosen(files, descriptor, gap, species, types)
    try:
        with (
            computing(workers, scheduler, lambda: kept_in(store, "the scan")) as pool,
            two_bars(files, "Scanning", "Fitting", "frames", shown=not json) as bars,
        ):
            found = find_doubtful(
                list(files),
                seen,
                fit=fit,
                forces_key=forces_key,
                energy_key=energy_key,
                units=units,
                type_map=types,
                executor=pool,
                store=store,
                seed=seed,
                progress=bars[0],
                fit_progress=bars[1],
            )
    except NoForces:
        keys = forces_keys(files, types)
        name = f" {keys[0]}" if keys else ""
        raise ValueError(f"the frames have no forces; name them with --forces-key{name}") from None
    say(to_json(found.todict()) if json else found.summary())
    if output is not None:
        _write(found, output)
        if not json:
            remark(f"All frames: {output}")


def _write(found: Doubts, output: Path) -> None:
    if output.suffix == ".csv":
        found.to_csv(output)
    else:
        found.save(output)
