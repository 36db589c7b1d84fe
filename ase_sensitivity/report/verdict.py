"""What a scan found, in words."""

from __future__ import annotations

from dataclasses import dataclass

from ase_sensitivity.causes.cause import CAUSES, NULL_CAUSES, SPURIOUS
from ase_sensitivity.dataset.summary import LARGE_LOSS, Summary
from ase_sensitivity.sensitivity import NEARLY, pair_terms_text, unseen_text

SOFT = {
    "structure": "; in a large periodic cell long waves do so, too.",
    "environment": "; neighbors near the cutoff always do so, which is no fault.",
}
"""What to think of small ratios."""


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


def verdict(found: Summary, scope: str = "structure") -> Verdict:
    """Judge a scan.

    Parameters
    ----------
    found
        The summary of its rows.
    scope
        Of the scan: what a small ratio means depends on it.
    """
    if not found.n_analyzed:
        text = "No frame could be analyzed." if found.n_frames else "There are no frames."
        return Verdict("bad", text, tuple(_failures(found)))
    level, headline = _headline(found, scope)
    sentences = [*_of_causes(found, scope), *_of_forces(found), *_alone(found), *_failures(found)]
    return Verdict(level, headline, tuple(text[0].upper() + text[1:] for text in sentences))


def _headline(found: Summary, scope: str) -> tuple[str, str]:
    """Level and headline: the worst that was found."""
    irreducible, blind = found.rms("irreducible_force_error"), found.n_spurious
    if irreducible is not None and irreducible >= LARGE_LOSS:
        return "bad", (
            f"No model on these features can have a force error below {irreducible:.3g} eV/Å."
        )
    if blind:
        text = f"The features are blind to some motion in {_frames(blind, found.n_analyzed)}"
        lost = "." if irreducible is None else "; the forces lost with it are small."
        return "attention", text + lost
    if masked := _masked(found):
        return "attention", (
            f"Pair terms mask that {', '.join(masked)} alone is blind to some motion."
        )
    if found.n_failed:
        return "attention", (
            "The features see every motion that matters, but "
            f"{_frames(found.n_failed, found.n_frames)} could not be analyzed."
        )
    if found.n_soft and scope == "structure":
        return "attention", "The features see every motion that matters, some of them hardly."
    return "good", "The features see every motion that matters."


def _of_causes(found: Summary, scope: str) -> list[str]:
    """How many frames have directions that are not seen, or hardly, and why."""
    done, unexplained, soft = found.n_analyzed, found.n_unexplained, found.n_soft
    sentences = [
        f"{_frames(count, done)} {'has' if count == 1 else 'have'} directions that are "
        f"invisible because of {cause}: {CAUSES[cause].text}."
        for cause in NULL_CAUSES
        if (count := found.causes[cause])
    ]
    sentences += [
        f"{unseen_text(symbols.split(', '))} in {_frames(count, done)}."
        for symbols, count in found.unseen.items()
    ]
    if unexplained:
        sentences.append(
            f"{_frames(unexplained, done)} {'has' if unexplained == 1 else 'have'} invisible "
            "directions; why was not asked."
        )
    if soft:
        sentences.append(
            f"{_frames(soft, done)} {'changes' if soft == 1 else 'change'} the features "
            f"along some direction less than {NEARLY:g} times as much as along the stiffest"
            f"{SOFT.get(scope, '.')}"
        )
    return sentences or ["No direction of any frame is invisible to the descriptor."]


def _frames(count: int, of: int) -> str:
    if count == of:
        return "the only frame" if of == 1 else f"all {of} frames"
    return f"{count} of {of} frames"


def _of_forces(found: Summary) -> list[str]:
    error, forces = found.rms("irreducible_force_error"), found.rms("rms_force")
    if error is None or forces is None:
        return ["There were no reference forces to tell what these directions cost."]
    if error:
        worst = found.worst["irreducible_force_error"]["irreducible_force_error"]
        said = (
            f"The force error that no fit can avoid is {error:.3g} eV/Å over all frames, whose "
            f"forces are {forces:.3g} eV/Å (root mean squares), and {worst:.3g} eV/Å in the "
            "worst frame."
        )
    else:
        none = "a model on these features can have its forces, as far as it can be steep"
        if found.masking:
            none = "a model with a slope for each pair can have its forces, which is but a bound"
        said = (
            f"No force is lost in any single frame: {none}. The forces are {forces:.3g} eV/Å "
            "(root mean square). Whether frames with equal features contradict each other was not "
            "looked for; `ase-sensitivity pairs` tells."
        )
    return [said, *_slopes(found)]


def _slopes(found: Summary) -> list[str]:
    sentences = []
    if steepest := found.worst.get("required_slope"):
        sentences.append(
            "The steepest model is needed where the required slope is "
            f"{steepest['required_slope']:.4g} eV/Å (median {found.median_slope:.4g})."
        )
    if found.n_net:
        sentences.append(
            f"Reference forces do not add up to zero in {_frames(found.n_net, found.n_analyzed)}: "
            f"up to {found.worst['net_force']['net_force']:.3g} eV/Å in a frame."
        )
    return sentences


def _alone(found: Summary) -> list[str]:
    """What pair terms hide, and what each of several descriptors alone does not see."""
    sentences = [pair_terms_text(found.masking)] if found.masking else []
    for name, own in found.alone.items():
        causes = [
            f"{cause} in {_frames(count, own.n_analyzed)}"
            for cause, count in own.causes.most_common()
        ]
        error = own.rms("irreducible_force_error")
        loses = "" if error is None else f"; it loses {error:.3g} eV/Å of the forces"
        unseen = ", ".join(causes) or "no invisible directions"
        sentences.append(f"{name} alone has {unseen}{loses}.")
    return sentences


def _masked(found: Summary) -> list[str]:
    """Descriptors whose spurious null directions are hidden by pair terms."""
    return [
        name
        for name, own in found.alone.items()
        if found.masking and name not in found.masking and any(own.causes[c] for c in SPURIOUS)
    ]


def _failures(found: Summary) -> list[str]:
    if not found.n_failed:
        return []
    reason, count = found.errors.most_common(1)[0]
    shown = reason if len(reason) < 200 else reason[:197] + "..."
    most = "" if count == found.n_failed else f", {count} of them"
    return [f"{_frames(found.n_failed, found.n_frames)} could not be analyzed{most}: {shown}."]
