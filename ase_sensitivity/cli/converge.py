"""``ase-sensitivity converge``: the descriptor that a data set needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.output import check_place, remark, say, to_json

if TYPE_CHECKING:
    from ase_sensitivity.dataset.basis.result import Convergence
    from ase_sensitivity.descriptors.base import Descriptor

EXAMPLES = "such as 2,4,6 or 0-6"
SWITCHES = {"T": True, "true": True, "F": False, "false": False}


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


def lengths(name: str, text: str) -> list[float]:
    """Numbers as in ``"4,4.5,5"``.

    Raises
    ------
    ValueError
        If the text, given as the option ``name``, is something else.
    """
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{name} is {text!r} but must be numbers, such as 4,4.5,5") from None


def words(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Other options and their values, as in ``"central_weight=0,1"``: numbers, T or F, or words.

    Raises
    ------
    ValueError
        If a text is something else.
    """
    found = {}
    for text in texts:
        match = re.fullmatch(r"(\w+)=(.+)", text)
        if match is None:
            raise ValueError(f"--option is {text!r} but must be such as central_weight=0,1")
        found[match[1]] = [_value(word.strip()) for word in match[2].split(",")]
    return found


def _value(word: str) -> Any:
    if word in SWITCHES:
        return SWITCHES[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _list_of(names: str, help_: str, example: str = "LIST") -> Any:
    return typer.Option(names, metavar=example, help=help_, show_default=False)


def converge(
    files: options.Files,
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    n_max: Annotated[
        str | None, _list_of("--n-max", "Numbers of radial functions to try, such as 2,4,6.")
    ] = None,
    l_max: Annotated[
        str | None, _list_of("--l-max", "Highest angular momenta to try, such as 0-6.")
    ] = None,
    cutoff: Annotated[str | None, _list_of("--cutoff", "Cutoffs to try, in Å: 4,4.5,5.")] = None,
    atom_sigma: Annotated[
        str | None, _list_of("--atom-sigma", "Widths of the Gaussians to try, in Å.")
    ] = None,
    cutoff_transition_width: Annotated[
        str | None,
        _list_of("--cutoff-transition-width", "Widths of the cutoff function to try, in Å."),
    ] = None,
    radial_basis: Annotated[
        str | None, _list_of("--radial-basis", "Radial bases to try: quip,gto,dscribe.")
    ] = None,
    body_order: Annotated[
        str | None, _list_of("--body-order", "Body orders to try: 2, 3 or 4.")
    ] = None,
    option: Annotated[
        list[str] | None,
        _list_of("--option", "Values of any other option to try.", "NAME=LIST"),
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--each", help="Compare the descriptors of several -d with each other."),
    ] = False,
    forces_key: options.ForcesKey = None,
    energy_key: options.EnergyKey = None,
    units: options.Units = "eV",
    scope: options.ScopeName = "structure",
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
            metavar="JSON", help="Write the result, for Convergence.read.", show_default=False
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG",
            help="Plot slope against cost and number of features.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    json: options.Json = False,
) -> None:
    """Find the basis, the cutoff or another option of a descriptor that a data set needs.

    All combinations of the values are tried; by default n_max 2,4,6,8 and l_max 0-6. What is tried
    may be left out of the descriptor. Interrupt it at any time: with --store the same command goes
    on where it was.
    """
    from ase_sensitivity.causes.next_steps import Origin

    tried: dict[str, Any] = {
        name: None if text is None else read(f"--{name.replace('_', '-')}", text)
        for name, text, read in (
            ("n_max", n_max, levels),
            ("l_max", l_max, levels),
            ("cutoff", cutoff, lengths),
            ("atom_sigma", atom_sigma, lengths),
            ("cutoff_transition_width", cutoff_transition_width, lengths),
            ("body_order", body_order, levels),
        )
    }
    if radial_basis is not None:
        tried["radial_basis"] = [word.strip() for word in radial_basis.split(",")]
    tried |= words(option or [])
    if save is not None:
        check_place("--save", save, ".json")
    if plot is not None:
        check_place("--plot", plot, ".png", ".pdf", ".svg")
    types = options.type_symbols(type_map)
    found = _swept(
        files,
        _family(files, descriptor or [], gap, species, types, tried, each),
        quiet=json,
        workers=workers,
        scheduler=scheduler,
        forces_key=forces_key,
        energy_key=energy_key,
        units=units,
        type_map=types,
        scope=scope,
        store=store,
        **tried,
    )
    given = options.as_given(descriptor, gap, species)
    origin = Origin(tuple(files), option=given, forces_key=forces_key, units=units)
    say(to_json(found.todict()) if json else found.summary(origin))
    if save is not None:
        found.save(save)
    if plot is not None:
        _plot(found, plot)


def _family(
    files: Sequence[str],
    texts: Sequence[str],
    gap: Path | None,
    species: str | None,
    types: Sequence[str] | None,
    tried: dict[str, Any],
    each: bool,
) -> Descriptor | list[Descriptor]:
    """The descriptor with the options to try, or those to compare with each other."""
    from ase_sensitivity.cli.scan import chosen
    from ase_sensitivity.dataset.basis.candidates import USUAL
    from ase_sensitivity.descriptors.given import with_any

    if each:
        if len(texts) < 2 or gap is not None:
            raise ValueError("--each compares the descriptors of several -d; give two or more")
        return [chosen(files, [text], None, species, types) for text in texts]
    asked = {name: values[0] for name, values in tried.items() if values}
    asked = asked or {name: next(iter(values)) for name, values in USUAL.items()}
    return chosen(files, [with_any(text, asked) for text in texts], gap, species, types)


def _swept(
    files: Sequence[str],
    family: Descriptor | list[Descriptor],
    *,
    quiet: bool,
    workers: int,
    scheduler: str | None,
    store: Path | None,
    **settings: Any,
) -> Convergence:
    from ase_sensitivity.cli.parallel import computing, kept_in
    from ase_sensitivity.dataset.basis.converge import converge as sweep
    from ase_sensitivity.io.reading import count_frames
    from ase_sensitivity.progress import progress

    with (
        computing(workers, scheduler, lambda: kept_in(store)) as pool,
        progress("Sweeping", lambda: count_frames(list(files)), shown=not quiet) as move,
    ):
        return sweep(
            list(files),
            family,  # type: ignore[arg-type]  # it raises if it has no such options
            executor=pool,
            store=store,
            progress=move,
            **settings,
        )


def _plot(found: Convergence, path: Path) -> None:
    from matplotlib.figure import Figure

    from ase_sensitivity.io.whole_file import whole_file
    from ase_sensitivity.report.plots import plot_convergence

    sizes = [name for name in ("cost", "n_features") if len({row[name] for row in found.rows}) > 1]
    figure = Figure(figsize=(5.5 * max(len(sizes), 1), 4.5), layout="constrained")
    panels = figure.subplots(1, max(len(sizes), 1), squeeze=False)[0]
    for axes, against in zip(panels, sizes or ["cost"], strict=True):
        plot_convergence(found, axes, against=against)  # type: ignore[arg-type]
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)
    remark(f"Plot: {path}")
