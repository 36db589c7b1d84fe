"""``ase-sensitivity replay``: what an observer would have said of a finished run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.output import Interrupted, remark, say, to_json
from ase_sensitivity.plain_text import many
from ase_sensitivity.singular.budget import BUDGET

if TYPE_CHECKING:
    from ase_sensitivity.md.log import SensitivityLog


def _ratio_or_auto(text: str | None) -> float | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--threshold is {text!r} but must be a number or auto") from None


def replay(
    files: options.Files,
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    logfile: Annotated[
        str | None,
        typer.Option(
            "--logfile",
            "-o",
            metavar="LOG",
            help="A line for each frame, to this file or, with -, to the standard output.",
            show_default=False,
        ),
    ] = None,
    trajectory: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Frames in a singular state with their softest mode: .xyz, .extxyz or .traj.",
            show_default=False,
        ),
    ] = None,
    scope: options.ScopeName = "structure",
    k: options.NumberOfValues = 3,
    distance_threshold: Annotated[
        float, typer.Option(metavar="Å", help="How near is near, if the cause matters.")
    ] = 0.1,
    distance: Annotated[
        bool, typer.Option("--distance", help="Estimate the distance in every frame.")
    ] = False,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="RATIO|auto",
            help="Take sigma_min / sigma_max below this for singular, whatever the cause.",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int, typer.Option(metavar="N", help="For how many frames in a row.", min=1)
    ] = 1,
    on_singular: Annotated[
        str,
        typer.Option(
            help="Tell it in the log and the summary, warn at once as well, or end there.",
            **options.one_of("log", "warn", "halt"),
        ),
    ] = "log",
    budget: Annotated[
        float,
        typer.Option(
            metavar="S", help="Seconds that one frame may take to look for a cause; 0: any time."
        ),
    ] = BUDGET,
    reference: options.Reference = None,
    novelty_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="How far from the --reference is novel; 1 by default.",
            show_default=False,
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="A calculator, such as tblite.ase:TBLite: what it costs to confuse a frame with "
            "its partner, where a singular state begins.",
            show_default=False,
        ),
    ] = None,
    timestep: Annotated[
        float | None,
        typer.Option(metavar="FS", help="Time between two frames in fs.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Tell where a finished run came near to a singular configuration.

    The files follow on each other: they are one run.
    """
    from ase_sensitivity.cli.named import calculator_of
    from ase_sensitivity.cli.scan import chosen
    from ase_sensitivity.md.reference import NOVEL
    from ase_sensitivity.md.replay import replay as replay_frames
    from ase_sensitivity.validation import as_number

    novel_above = NOVEL
    if novelty_threshold is not None:
        novel_above = as_number("--novelty-threshold", novelty_threshold, "positive")
        if reference is None:
            raise ValueError("--novelty-threshold needs --reference, what the frames are far from")
    if json and logfile == "-":
        raise ValueError("--json and --logfile - both want the standard output")
    ratio = _ratio_or_auto(threshold)
    types = options.type_symbols(type_map)
    seen = chosen(files, descriptor, gap, species, types)
    try:
        log = replay_frames(
            list(files),
            seen,
            type_map=types,
            timestep=timestep,
            progress=not json,
            logfile=logfile,
            trajectory=trajectory,
            scope=scope,
            k=k,
            distance_threshold=distance_threshold,
            distance=distance,
            threshold=ratio,
            patience=patience,
            on_singular=on_singular,
            budget=budget or None,
            reference="run" if reference == ["run"] else options.reference_of(reference),
            novelty_threshold=novel_above,
            price=None if price is None else calculator_of(price),
        )
    except KeyboardInterrupt:
        kept = logfile not in (None, "-")
        what = f"the frames so far are in {logfile}" if kept else "nothing is kept without a log"
        raise Interrupted(what) from None
    found = statistics(log, novel_above)
    if found["n_failed"] == len(log):
        raise ValueError(f"no frame could be analyzed; {log.first_error}")
    if json:
        say(to_json({"logfile": logfile} | found))
    else:
        (remark if logfile == "-" else say)(summary(found))
    if log.lost is not None:
        written = " and ".join(name for name in (logfile, trajectory) if name is not None)
        raise OSError(f"{written}: not all could be written: {log.lost}")


def statistics(log: SensitivityLog, novel_above: float) -> dict[str, Any]:
    """Counts and extremes of a log; frames by their number, distances in Å."""
    known = np.flatnonzero(np.isfinite(log.ratio))
    lowest = known[log.ratio[known].argmin()] if len(known) else None
    nearest = {}
    for cause in sorted({*log.cause.tolist(), *log.harmful_cause.tolist()} - {"-"}):
        distance = np.fmin(
            np.where(log.cause == cause, log.distance, np.nan),
            np.where(log.harmful_cause == cause, log.harmful_distance, np.nan),
        )
        those = np.flatnonzero((log.cause == cause) | (log.harmful_cause == cause))
        first = those[distance[those].argmin()]
        nearest[cause] = {
            "n_frames": len(those),
            "distance": distance[first],
            "frame": log.step[first],
        }
    compared = np.flatnonzero(~np.isnan(log.novelty))
    measured = compared[np.isfinite(log.novelty[compared])]
    novel = compared[log.novelty[compared] > novel_above]
    new = compared[np.isinf(log.novelty[compared])]
    most = measured[log.novelty[measured].argmax()] if len(measured) else None
    twins = np.flatnonzero(log.twin_frame >= 0)
    return {
        "n_compared": len(compared),
        "n_not_in_reference": len(new),
        "first_not_in_reference": log.step[new[0]] if len(new) else None,
        "n_novel": len(novel),
        "novel_above": novel_above,
        "first_novel": log.step[novel[0]] if len(novel) else None,
        "n_twins": len(twins),
        "first_twin": log.step[twins[0]] if len(twins) else None,
        "novelest": None
        if most is None
        else {"novelty": log.novelty[most], "frame": log.step[most]},
        "n_frames": len(log),
        "n_singular": int((log.state == "singular").sum()),
        "n_failed": int((log.state == "failed").sum()),
        "first_error": log.first_error,
        "smallest": None
        if lowest is None
        else {"ratio": log.ratio[lowest], "frame": log.step[lowest]},
        "partners": [asdict(partner) for partner in log.partners],
        "nearest": dict(sorted(nearest.items(), key=lambda item: float(item[1]["distance"]))),
    }


def summary(found: dict[str, Any]) -> str:
    """The statistics in words."""
    from ase_sensitivity.environments.comparison import not_in_reference_text

    failed = f", {found['n_failed']} failed" if found["n_failed"] else ""
    lines = [
        f"{many(found['n_frames'], 'frame')}, {found['n_singular']} of them in a "
        f"singular state{failed}."
    ]
    if found["smallest"] is not None:
        smallest = found["smallest"]
        lines.append(
            f"Smallest sigma_min / sigma_max: {smallest['ratio']:.2e}, frame {smallest['frame']}."
        )
    if not found["nearest"]:
        lines.append("No singular configuration is near in any frame.")
    for cause, of in found["nearest"].items():
        lines.append(
            f"By {cause}, known in {of['n_frames']}: nearest {of['distance']:.4f} Å, "
            f"frame {of['frame']}."
        )
    if found["n_not_in_reference"]:
        first = f"first frame {found['first_not_in_reference']}"
        lines.append(not_in_reference_text(found["n_not_in_reference"], first))
    if found["novelest"] is not None:
        most = found["novelest"]
        lines.append(f"Largest novelty: {most['novelty']:.3g}, frame {most['frame']}.")
    if found["n_novel"]:
        lines.append(
            f"{many(found['n_novel'], 'frame')} with a novelty above {found['novel_above']:g}; "
            f"first frame {found['first_novel']}."
        )
    if found["n_twins"]:
        lines.append(
            f"{many(found['n_twins'], 'frame')} with a twin in the reference, nearly the same "
            f"features and another structure; first frame {found['first_twin']}."
        )
    elif found["n_compared"]:
        lines.append("No frame has a twin in the reference.")
    for partner in found["partners"]:
        lines.append(
            f"Partner of frame {partner['step']} ({partner['cause']}): "
            f"{partner['displacement']:.3f} Å away, features {partner['feature_distance']:.1e} "
            f"apart{'' if partner['agrees'] else ', no fold'}; price {partner['energy']:.4f} eV, "
            f"{partner['forces']:.3f} eV/Å."
        )
    if found["first_error"] is not None:
        lines.append(f"First failure: {found['first_error']}")
    return "\n".join(lines)
