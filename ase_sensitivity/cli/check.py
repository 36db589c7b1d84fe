"""``ase-sensitivity check``: a gate for data, with an exit status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ase_sensitivity.cli import options
from ase_sensitivity.cli.output import remark, say, to_json
from ase_sensitivity.dataset.pairs.joint_bound import SHOWN

if TYPE_CHECKING:
    from ase_sensitivity.dataset.doubt.result import Doubts
    from ase_sensitivity.dataset.pairs.result import PairResult
    from ase_sensitivity.dataset.result import ScanResult
    from ase_sensitivity.descriptors.base import Descriptor

FAILED = 1
FORCES = ("irreducible", "joint", "slope", "net-force", "doubtful")
PAIRS = ("degenerate", "duplicates", "conflicts", "joint")


@dataclass(frozen=True)
class Check:
    """A value and the limit it has to keep.

    Attributes
    ----------
    name
        As in the option ``--max-name``.
    value, limit
        The value must not be larger.
    unit
        Of both.
    where
        The worst frame, if there is one.
    """

    name: str
    value: float
    limit: float
    unit: str
    where: str | None

    @property
    def passed(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        worst = "" if self.passed or self.where is None else f"; {self.where}"
        return (
            f"{'ok    ' if self.passed else 'FAILED'} {self.name}: {self.value:.4g}{unit}, "
            f"at most {self.limit:g}{worst}"
        )


def limit(help_text: str, unit: str) -> Any:
    """An option that takes a limit."""
    return typer.Option(metavar=unit, help=help_text, min=0, show_default=False)


def check(
    files: options.Files,
    descriptor: options.DescriptorTexts = None,
    gap: options.Gap = None,
    species: options.Species = None,
    type_map: options.TypeMap = None,
    forces_key: options.ForcesKey = None,
    energy_key: options.EnergyKey = None,
    units: options.Units = "eV",
    max_irreducible: Annotated[
        float | None,
        limit("Force error that no fit can avoid, each frame by itself, over all frames.", "EV/Å"),
    ] = None,
    max_joint: Annotated[
        float | None,
        limit("The same with one model for frames that have features in common.", "EV/Å"),
    ] = None,
    max_slope: Annotated[float | None, limit("Required slope of any frame.", "EV/Å")] = None,
    max_net_force: Annotated[float | None, limit("Net force of any frame.", "EV/Å")] = None,
    max_incompleteness: Annotated[
        int | None, limit("Frames with directions invisible because of incompleteness.", "N")
    ] = None,
    max_truncation: Annotated[
        int | None, limit("Frames with directions that a larger basis would see.", "N")
    ] = None,
    max_degenerate: Annotated[
        int | None, limit("Pairs of environments that look the same and are not.", "N")
    ] = None,
    max_duplicates: Annotated[int | None, limit("Structures that are there before.", "N")] = None,
    max_conflicts: Annotated[
        int | None, limit("Same structures with different energies or forces.", "N")
    ] = None,
    max_twins: Annotated[
        int | None,
        limit("Frames with a twin in --reference: same features, other structure.", "N"),
    ] = None,
    reference: options.Reference = None,
    max_doubtful: Annotated[
        int | None, limit("Frames whose forces or energy do not fit to the others.", "N")
    ] = None,
    fit: options.Fit = True,
    max_failed: Annotated[
        int, typer.Option(metavar="N", help="Frames that cannot be analyzed.", min=0)
    ] = 0,
    max_unseen: Annotated[
        int,
        typer.Option(
            metavar="N", help="Frames with elements that the descriptor does not list.", min=0
        ),
    ] = 0,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DB",
            help="Keep the scan in this database, or go on with it.",
            show_default=False,
        ),
    ] = None,
    workers: options.Workers = 1,
    scheduler: options.Scheduler = None,
    json: options.Json = False,
) -> int:
    """Check a data set against limits.

    Exit status 0 if it keeps all of them, 1 if not, 2 if it could not be checked.
    """
    from ase_sensitivity.cli.scan import chosen, forces_keys, run
    from ase_sensitivity.dataset.stores import store_of
    from ase_sensitivity.environments.comparison import not_in_reference_text

    limits = {
        "irreducible": max_irreducible,
        "joint": max_joint,
        "slope": max_slope,
        "net-force": max_net_force,
        "incompleteness": max_incompleteness,
        "truncation": max_truncation,
        "degenerate": max_degenerate,
        "duplicates": max_duplicates,
        "conflicts": max_conflicts,
        "twins": max_twins,
        "doubtful": max_doubtful,
    }
    given = {name: float(value) for name, value in limits.items() if value is not None}
    if not given:
        raise ValueError(
            "there is nothing to check; give a limit such as --max-truncation 0 "
            f"(there are {', '.join('--max-' + name for name in limits)})"
        )
    compared = options.reference_of(reference)
    if max_twins is not None and compared is None:
        raise ValueError("--max-twins needs --reference, what the frames are compared with")
    if output is not None:
        store_of(output)  # raises before minutes of reading, not after
    types = options.type_symbols(type_map)
    seen = chosen(files, descriptor, gap, species, types)
    labels: dict[str, Any] = {
        "forces_key": forces_key,
        "energy_key": energy_key,
        "units": units,
        "type_map": types,
    }
    result = run(
        files,
        seen,
        store=output,
        quiet=json,
        workers=workers,
        scheduler=scheduler,
        reference=compared,
        **labels,
    )
    values = result.totals.todict()
    of_forces = [f"--max-{name}" for name in FORCES if name in given]
    if values["n_analyzed"] and values["rms_force"] is None and of_forces:
        keys = forces_keys(files, types)
        raise ValueError(
            f"the frames have no forces, which {', '.join(of_forces)} is about; "
            f"name them with --forces-key{f' {keys[0]}' if keys else ''}"
        )
    if max_twins is not None and values["n_analyzed"] and not values["n_compared"]:
        raise ValueError(
            "no frame could be compared with --reference, which --max-twins is about; "
            f"{values['first_error']}"
        )
    checks = _of_scan(values, given | {"failed": max_failed, "unseen": max_unseen})
    if given.keys() & {*PAIRS}:
        checks += _of_pairs(_found_pairs(files, seen, "joint" in given, labels), given)
    if "doubtful" in given:
        checks.append(
            _of_doubts(_found_doubts(result, seen, fit, output, workers, scheduler), given)
        )
    passed = all(one.passed for one in checks)
    if json:
        listed = [vars(one) | {"passed": one.passed} for one in checks]
        say(to_json({"passed": passed, "checks": listed, "notes": result.notes}))
    else:
        for one in checks:
            say(str(one))
        for note in [*result.notes, *result.besides]:
            remark(note)
        if max_twins is not None and (number := values["n_not_in_reference"]):
            remark(not_in_reference_text(number, values["first_not_in_reference"]))
    return 0 if passed else FAILED


def _found_pairs(
    files: Sequence[str], descriptor: Descriptor, bound: bool, labels: dict[str, Any]
) -> PairResult:
    from ase_sensitivity.dataset.pairs.find import find_pairs

    found = find_pairs(list(files), descriptor, bound=bound, **labels)
    if found.bound is not None and found.bound.n_unbounded:
        remark(f"--max-joint: {found.bound.summary()}")
    return found


def _found_doubts(
    result: ScanResult,
    descriptor: Descriptor,
    fit: bool,
    output: str | None,
    workers: int,
    scheduler: str | None,
) -> Doubts:
    from ase_sensitivity.cli.parallel import computing
    from ase_sensitivity.cli.scan import kept_scan
    from ase_sensitivity.dataset.doubt.doubt import doubt

    with computing(workers, scheduler, lambda: kept_scan(output)) as pool:
        found = doubt(result, descriptor, fit=fit, executor=pool)
    if found.undecided:
        remark(f"--max-doubtful: not decided: {'; '.join(found.undecided)}")
    return found


def _of_doubts(found: Doubts, limits: dict[str, float]) -> Check:
    where = f"first {found.frames[0]}: {found.reasons[0][0]}" if len(found) else None
    return Check("doubtful", len(found), limits["doubtful"], "", where)


def _of_scan(found: dict[str, Any], limits: dict[str, float]) -> list[Check]:
    if found["n_analyzed"] == 0:
        raise ValueError(f"no frame could be analyzed; {found['first_error']}")
    worst = found["worst"]
    values: dict[str, tuple[float | None, str, str | None]] = {
        "irreducible": (
            found["irreducible_force_error"],
            "eV/Å",
            _where(worst.get("irreducible_force_error")),
        ),
        "slope": (*_value(worst.get("required_slope")), _where(worst.get("required_slope"))),
        "net-force": (*_value(worst.get("net_force")), _where(worst.get("net_force"))),
        "failed": (found["n_failed"], "", found["first_error"]),
        "unseen": (found["n_unseen"], "", found["first_unseen"]),
        "twins": (found["n_twins"], "", found["first_twin"]),
    }
    for cause in ("incompleteness", "truncation"):
        values[cause] = found["causes"][cause], "", found["first"].get(cause)
    return [
        Check(name, float(values[name][0] or 0.0), limits[name], values[name][1], values[name][2])
        for name in values
        if name in limits
    ]


def _value(extreme: dict[str, Any] | None) -> tuple[float | None, str]:
    return (None if extreme is None else extreme["value"]), "eV/Å"


def _where(extreme: dict[str, Any] | None) -> str | None:
    return None if extreme is None else f"worst in {extreme['source']}@{extreme['index']}"


def _of_pairs(found: PairResult, limits: dict[str, float]) -> list[Check]:
    lists: dict[str, Sequence[Any]] = {
        "degenerate": found.degenerate,
        "duplicates": found.duplicate_frames,
        "conflicts": found.conflicts,
    }
    checks = [
        Check(
            name,
            len(pairs),
            limits[name],
            "",
            f"first {pairs[0].first} and {pairs[0].second}" if pairs else None,
        )
        for name, pairs in lists.items()
        if name in limits
    ]
    if "joint" in limits and found.bound is not None:
        worst = found.bound.classes[:1]
        where = f"worst in {', '.join(map(str, worst[0].frames[:SHOWN]))}" if worst else None
        error = found.bound.joint_force_error
        checks.append(Check("joint", error, limits["joint"], "eV/Å", where))
    return checks
