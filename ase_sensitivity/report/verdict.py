"""What a scan found, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ase_sensitivity.causes.cause import CAUSES, NULL_CAUSES, SPURIOUS
from ase_sensitivity.dataset.forces import NOISE
from ase_sensitivity.dataset.record import causes_of, is_analyzed, is_blind
from ase_sensitivity.dataset.totals import Totals
from ase_sensitivity.sensitivity import NEARLY, not_among, said_of_pairs

SOFT = {
    "structure": "; in a large periodic cell long waves do so, too.",
    "environment": "; neighbours near the cutoff always do so, which is no fault.",
}
"""What to think of small ratios."""

LARGE = 0.01
"""eV/Å: an irreducible force error that is worth a word."""


@dataclass(frozen=True)
class Verdict:
    """A judgement.

    Attributes
    ----------
    level
        ``"good"``, ``"attention"`` or ``"bad"``.
    headline
        One sentence.
    sentences
        What it rests on.
    """

    level: str
    headline: str
    sentences: tuple[str, ...]


def verdict(
    rows: Sequence[Mapping[str, Any]],
    irreducible: float | None,
    rms_force: float | None,
    scope: str = "structure",
) -> Verdict:
    """Judge a scan.

    Parameters
    ----------
    rows
        One for each frame, as in a scan result.
    irreducible
        The irreducible force error over all frames in eV/Å, None without reference forces.
    rms_force
        The root mean square of these forces in eV/Å.
    scope
        Of the scan: what a small ratio means depends on it.
    """
    failed = [row for row in rows if row["error"] is not None]
    done = [row for row in rows if is_analyzed(row)]
    if not done:
        text = "No frame could be analyzed." if rows else "There are no frames."
        return Verdict("bad", text, tuple(_failures(failed, len(rows))))
    blind = sum(1 for row in done if _is_bad(row))
    soft = sum(1 for row in done if _is_soft(row))
    totals = Totals()
    for row in done:
        if row["alone"] is not None:
            totals.add(row)
    masked = _masked(totals)
    sentences = [
        *_of_causes(done, scope),
        *_of_forces(done, irreducible, rms_force, bool(totals.masking)),
        *_alone(totals),
        *_failures(failed, len(rows)),
    ]
    lost = irreducible is not None and irreducible >= LARGE
    if lost:
        headline = (
            f"No model on these features can have a force error below {irreducible:.3g} eV/Å."
        )
    elif blind and irreducible is not None:
        headline = (
            f"The features are blind to some motion in {_frames(blind, len(done))}; "
            "the forces lost with it are small."
        )
    elif blind:
        headline = f"The features are blind to some motion in {_frames(blind, len(done))}."
    elif masked:
        headline = f"Pair terms mask that {', '.join(masked)} alone is blind to some motion."
    elif failed:
        headline = (
            "The features see every motion that matters, but "
            f"{_frames(len(failed), len(rows))} could not be analyzed."
        )
    elif soft and scope == "structure":
        headline = "The features see every motion that matters, some of them hardly."
    else:
        headline = "The features see every motion that matters."
    doubtful = blind or masked or failed or (soft and scope == "structure")
    level = "bad" if lost else "attention" if doubtful else "good"
    return Verdict(level, headline, tuple(text[0].upper() + text[1:] for text in sentences))


def _is_bad(row: Mapping[str, Any]) -> bool:
    """Whether a frame has directions that are not seen and should be, as far as is known."""
    causes = causes_of(row)
    return bool(row["unseen"] or set(causes) & set(SPURIOUS) or (is_blind(row) and not causes))


def _is_soft(row: Mapping[str, Any]) -> bool:
    return row["ratio"] is not None and row["ratio"] < NEARLY and not is_blind(row)


def _of_causes(done: Sequence[Mapping[str, Any]], scope: str) -> list[str]:
    """How many frames have directions that are not seen, or hardly, and why."""
    causes = Counter(cause for row in done for cause in causes_of(row))
    unexplained = sum(1 for row in done if is_blind(row) and not causes_of(row))
    soft = sum(1 for row in done if _is_soft(row))
    sentences = [
        f"{_frames(count, len(done))} {'has' if count == 1 else 'have'} directions that are "
        f"invisible because of {cause}: {CAUSES[cause].text}."
        for cause in NULL_CAUSES
        if (count := causes[cause])
    ]
    unseen = Counter(row["unseen"] for row in done if row["unseen"])
    sentences += [
        f"{not_among(symbols.split(', '))} in {_frames(count, len(done))}."
        for symbols, count in unseen.items()
    ]
    if unexplained:
        sentences.append(
            f"{_frames(unexplained, len(done))} {'has' if unexplained == 1 else 'have'} invisible "
            "directions; why was not asked."
        )
    if soft:
        sentences.append(
            f"{_frames(soft, len(done))} {'changes' if soft == 1 else 'change'} the features "
            f"along some direction less than {NEARLY:g} times as much as along the stiffest"
            f"{SOFT.get(scope, '.')}"
        )
    return sentences or ["No direction of any frame is invisible to the descriptor."]


def _frames(count: int, of: int) -> str:
    if count == of:
        return "the only frame" if of == 1 else f"all {of} frames"
    return f"{count} of {of} frames"


def _of_forces(
    rows: Sequence[Mapping[str, Any]],
    irreducible: float | None,
    rms_force: float | None,
    masking: bool,
) -> list[str]:
    if irreducible is None or rms_force is None:
        return ["There were no reference forces to tell what these directions cost."]
    if irreducible < NOISE:
        none = "a model on these features can have its forces, as far as it can be steep"
        if masking:
            none = "a model with a slope for each pair can have its forces, which is but a bound"
        return [
            f"No force is lost in any single frame: {none}. The forces are {rms_force:.3g} eV/Å "
            "(root mean square). Whether frames with equal features contradict each other was not "
            "looked for; `ase-sensitivity pairs` tells.",
            *_slopes(rows),
        ]
    errors = _known(rows, "irreducible_force_error")
    sentences = [
        f"The force error that no fit can avoid is {irreducible:.3g} eV/Å over all frames, whose "
        f"forces are {rms_force:.3g} eV/Å (root mean squares), and {max(errors):.3g} eV/Å in the "
        "worst frame."
    ]
    return sentences + _slopes(rows)


def _slopes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    sentences = []
    slopes = _known(rows, "required_slope")
    if slopes:
        sentences.append(
            f"The steepest model is needed where the required slope is {max(slopes):.4g} eV/Å "
            f"(median {sorted(slopes)[len(slopes) // 2]:.4g})."
        )
    net = _known(rows, "net_force")
    if net and max(net) > LARGE:
        sentences.append(
            f"Reference forces do not add up to zero: up to {max(net):.3g} eV/Å in a frame."
        )
    return sentences


def _alone(totals: Totals) -> list[str]:
    """What pair terms hide, and what each of several descriptors alone does not see."""
    sentences = [said_of_pairs(totals.masking)] if totals.masking else []
    for name, own in totals.alone.items():
        causes = [
            f"{cause} in {_frames(count, own.n_analyzed)}"
            for cause, count in own.causes.most_common()
        ]
        error = own.rms("irreducible_force_error")
        loses = "" if error is None else f"; it loses {error:.3g} eV/Å of the forces"
        unseen = ", ".join(causes) or "no invisible directions"
        sentences.append(f"{name} alone has {unseen}{loses}.")
    return sentences


def _masked(totals: Totals) -> list[str]:
    """Descriptors that have spurious null directions of which pair terms show nothing."""
    return [
        name
        for name, own in totals.alone.items()
        if totals.masking and name not in totals.masking and any(own.causes[c] for c in SPURIOUS)
    ]


def _known(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _failures(failed: Sequence[Mapping[str, Any]], total: int) -> list[str]:
    if not failed:
        return []
    reason, count = Counter(row["error"] for row in failed).most_common(1)[0]
    shown = reason if len(reason) < 200 else reason[:197] + "..."
    most = "" if count == len(failed) else f", {count} of them"
    return [f"{_frames(len(failed), total)} could not be analyzed{most}: {shown}."]
