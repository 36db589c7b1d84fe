"""``ase-sensitivity select``: which frames of a pool are worth a calculation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.bars import two_bars
from ase_sensitivity.cli.output import check_place, remark, say, to_json
from ase_sensitivity.types import SELECTION_METHODS

if TYPE_CHECKING:
    from ase_sensitivity.dataset.select.result import Selection


def select(
    files: options.Files,
    n: Annotated[
        int,
        typer.Option("--number", "-n", metavar="N", help="How many frames to choose.", min=1),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="XYZ", help="Write the chosen frames here, the best first."
        ),
    ] = Path("chosen.xyz"),
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--given",
            metavar="FILE",
            help="Frames that are in the training set already; several times for several files.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help=f"How to choose: {', '.join(SELECTION_METHODS)}.",
            **options.one_of(*SELECTION_METHODS) | {"metavar": "METHOD"},
        ),
    ] = "balanced",
    force_weight: Annotated[
        float, typer.Option(metavar="W", help="Weight of the predicted force error.", min=0)
    ] = 1.0,
    energy_weight: Annotated[
        float, typer.Option(metavar="W", help="Weight of the predicted energy error.", min=0)
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the random features.", min=0)] = 0,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep what is computed of each frame here, or go on with it.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON",
            help="Write everything that was found, for Selection.read.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    json: options.Json = False,
) -> None:
    """Choose the frames that are worth a calculation of energy and forces.

    The frames need no labels. Interrupt it at any time: with --store the same command goes on where
    it was.
    """
    from ase_sensitivity.cli.parallel import computing, kept_in
    from ase_sensitivity.cli.scan import chosen
    from ase_sensitivity.dataset.select.select import select as select_frames

    check_place("--output", output, ".xyz", ".extxyz")
    if save is not None:
        check_place("--save", save, ".json")
    _check_is_no_input([*files, *(given or [])], output, save)
    types = options.type_symbols(type_map)
    before = list(given or [])
    seen = chosen([*files, *before], descriptor, gap, species, types)
    with (
        computing(workers, scheduler, lambda: kept_in(store)) as pool,
        two_bars([*before, *files], "Evaluating", "Choosing", "frames", shown=not json) as bars,
    ):
        found = select_frames(
            list(files),
            seen,
            n,
            method=method,  # type: ignore[arg-type]  # the option has checked it
            given=before or None,
            force_weight=force_weight,
            energy_weight=energy_weight,
            type_map=types,
            executor=pool,
            store=store,
            seed=seed,
            progress=bars[0],
            choice_progress=bars[1],
        )
    say(to_json({"output": str(output)} | found.todict()) if json else found.summary())
    _write(found, output)
    if save is not None:
        found.save(save)
    if not json:
        remark(f"Chosen frames: {output}")


def _check_is_no_input(files: list[str], *outputs: Path | None) -> None:
    from ase_sensitivity.io.reading import split_name

    names = [Path(split_name(file)[0]) for file in files]
    for output in outputs:
        if output is None or not output.exists():
            continue
        if any(name.exists() and output.samefile(name) for name in names):
            raise ValueError(f"{output} is one of the files to read; write to another one")


def _write(found: Selection, output: Path) -> None:
    """Write the chosen frames with where each is from and what it gained."""
    from ase.io import write

    from ase_sensitivity.io.whole_file import whole_file

    frames = []
    for atoms, row in zip(found.frames, found.rows, strict=True):
        atoms.info |= {"selected_from": f"{row['source']}@{row['index']}"}
        if row["gain"] is not None:
            atoms.info["selection_gain"] = row["gain"]
        frames.append(atoms)
    with whole_file(output) as whole:
        write(whole, frames, format="extxyz")
