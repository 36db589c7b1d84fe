"""``ase-sensitivity scan``: every frame of a data set, into a database."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.output import Interrupted, remark, say, to_json

if TYPE_CHECKING:
    from ase import Atoms

    from ase_sensitivity.dataset.result import ScanResult
    from ase_sensitivity.descriptors.base import Descriptor


FIRST = 20
"""Frames that are looked at for forces: a set may begin with isolated atoms."""


def scan(
    files: options.Files,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="DB",
            help="An ASE database: results.db, or postgresql://... Or a folder of Parquet files: "
            "results.parquet. What it has is not computed again.",
        ),
    ] = "results.db",
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    forces_key: options.ForcesKey = None,
    energy_key: options.EnergyKey = None,
    units: options.Units = "eV",
    scope: options.ScopeName = "structure",
    k: options.NumberOfValues = 6,
    causes: options.Causes = True,
    distance: Annotated[
        bool,
        typer.Option("--distance", help="Estimate how far a singular configuration is; slow."),
    ] = False,
    reference: options.Reference = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Write the table as well, to a file that ends in .csv or .parquet.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Find what a descriptor cannot resolve in a data set.

    With reference forces, also what force error that makes unavoidable. Interrupt it at any
    time: the same command goes on where it was.
    """
    from ase_sensitivity.dataset.stores import store_of
    from ase_sensitivity.dataset.summary import UNUSUAL_FORCE

    store_of(output)  # raises before minutes of reading, not after
    write_table = None if table is None else _table_writer(table)
    types = options.type_symbols(type_map)
    result = run(
        files,
        chosen(files, descriptor, gap, species, types),
        store=output,
        quiet=json,
        workers=workers,
        scheduler=scheduler,
        forces_key=forces_key,
        energy_key=energy_key,
        units=units,
        type_map=types,
        scope=scope,
        k=k,
        causes=causes,
        distance=distance,
        reference=options.reference_of(reference),
    )
    found = result.totals.todict()
    if found["n_analyzed"] == 0:
        raise ValueError(f"no frame could be analyzed; {found['first_error']}")
    if write_table is not None:
        getattr(result, write_table)(table)
    if json:
        about = {"output": output, "parameters": result.parameters}
        more: dict[str, Any] = {"n_besides": result.n_besides, "species_loss": result.species_loss}
        more["doubtful"] = result.doubts.doubtful
        say(to_json(about | found | more))
        return
    say(result.summary(options.as_given(descriptor, gap, species)))
    if units == "eV" and (found["rms_force"] or 0.0) > UNUSUAL_FORCE:
        remark(
            f"Forces of {found['rms_force']:.3g} eV/Å are unusual; if the files have other units, "
            "say so with --units."
        )
    if found["rms_force"] is None and (keys := forces_keys(files, types)):
        remark(f"No forces were named, but the files have some: --forces-key {keys[0]}")
    if found["first_error"]:
        remark(f"First failure: {found['first_error']}")
    command = ["ase-sensitivity", "report", str(output)]
    remark(f"Results: {output}; look at them with: {shlex.join(command)}")


def forces_keys(files: Sequence[str], type_map: Sequence[str] | None) -> list[str]:
    """Arrays of the first frames that look like forces, which ASE does not take for results."""
    from ase_sensitivity.io.reading import read_frames
    from ase_sensitivity.io.references import forces_like

    for frame in islice(read_frames(files, type_map=type_map), FIRST):
        if frame.atoms is not None and (found := forces_like(frame.atoms)):
            return found
    return []


def _table_writer(table: Path) -> str:
    writers = {".csv": "to_csv", ".parquet": "to_parquet"}
    if table.suffix not in writers:
        raise ValueError(f"--table is {str(table)!r} but must end in .csv or .parquet")
    if table.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401  (before hours of work, not after)
        except ImportError as error:
            raise ImportError(
                f'--table {table} needs pyarrow: pip install "ase-sensitivity[parquet]"'
            ) from error
    if table.is_dir() or not table.resolve().parent.is_dir():
        raise ValueError(f"--table is {str(table)!r}, which is no place for a file")
    return writers[table.suffix]


def chosen(
    files: Sequence[str],
    descriptor: Sequence[str] | None,
    gap: Path | None,
    species: str | None,
    type_map: Sequence[str] | None,
) -> Descriptor:
    """The descriptor of the options, for the species in these files.

    Raises
    ------
    Interrupted
        After SIGINT, while the files are read for their species.
    """
    from ase_sensitivity.cli.descriptor import descriptor_of
    from ase_sensitivity.io.reading import check_frames, read_frames

    check_frames(files)

    def frames() -> Iterator[Atoms]:
        error = None
        count = 0
        for frame in read_frames(files, type_map=type_map):
            if frame.atoms is None:
                error = error or frame.error
            else:
                count += 1
                yield frame.atoms
        if count == 0:
            raise ValueError(error or f"{', '.join(files)} have no frames")

    try:
        return descriptor_of(descriptor, gap, species, frames=frames, tell=remark)
    except KeyboardInterrupt:
        raise Interrupted("nothing is computed yet") from None


def run(
    files: Sequence[str],
    descriptor: Descriptor,
    *,
    store: str | None,
    quiet: bool,
    workers: int,
    scheduler: str | None,
    **settings: Any,
) -> ScanResult:
    """Scan with a progress bar, in as many processes as asked for.

    Raises
    ------
    Interrupted
        After SIGINT or SIGTERM, with what is done in the store.
    """
    from ase_sensitivity.cli.parallel import computing
    from ase_sensitivity.dataset.scan import scan as scan_frames
    from ase_sensitivity.io.reading import count_frames
    from ase_sensitivity.progress import progress

    with (
        computing(workers, scheduler, lambda: kept_scan(store)) as pool,
        progress("Scanning", lambda: count_frames(list(files)), shown=not quiet) as move,
    ):
        return scan_frames(
            list(files), descriptor, executor=pool, store=store, progress=move, **settings
        )


def kept_scan(store: str | None) -> str:
    """What is left of an interrupted scan; counted, as the last frames are written at the end."""
    from ase_sensitivity.dataset.stores import store_of

    if store is None:
        return "nothing is kept without --output"
    database = store_of(store)
    number = len(database) if database.exists else 0
    frames = "1 frame is" if number == 1 else f"{number} frames are"
    return f"{frames} in {database.name}; the same command goes on from there"
