"""The causes of small singular values: one table that everything else reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why a direction is invisible to a descriptor, and what that means.

    Attributes
    ----------
    name
        What results, logs and tables call it.
    meaning
        What it says of the directions that it owns, to follow "because of symmetry:".
    cure
        What would make them visible; None if nothing is known to, or if nothing has to.
    color
        In plots, one of those that everybody can tell apart (Okabe and Ito).
    page_colors
        In the report, with enough contrast to a light and to a dark background.
    marker
        In the report, by its name in plotly.
    spurious
        Whether it is a fault of the descriptor, or may be: a run warns of it, and the report calls
        the features blind.
    harmless
        Whether the true force along such a direction vanishes as well, so that nothing is lost.
        Neither spurious nor harmless is a fragment: the forces between fragments are lost, as the
        chosen cutoff means.
    exact
        Whether an invisible direction can have it; the others are causes of a singular
        configuration in the neighborhood only.
    """

    name: str
    meaning: str
    cure: str | None
    color: str
    page_colors: tuple[str, str]
    marker: str
    spurious: bool = False
    harmless: bool = False
    exact: bool = True

    @property
    def text(self) -> str:
        """The meaning and, where there is one, the cure."""
        return self.meaning if self.cure is None else f"{self.meaning}; {self.cure}"


_TABLE = (
    Cause(
        "species",
        "they move atoms whose element is not among the species of the descriptor",
        "a descriptor with these species would see them",
        color="#0072B2",
        page_colors=("#3f51b5", "#9fa8ff"),
        marker="star",
        spurious=True,
    ),
    Cause(
        "incompleteness",
        "no basis of this body order would see them from these centers",
        "a higher body order, other centers or a further descriptor would see them",
        color="#D55E00",
        page_colors=("#cf4a12", "#ff8552"),
        marker="x",
        spurious=True,
    ),
    Cause(
        "truncation",
        "this basis is too small for them",
        "a larger basis would see them",
        color="#E69F00",
        page_colors=("#c58b00", "#f2c14e"),
        marker="triangle-up",
        spurious=True,
    ),
    Cause(
        "unknown",
        "what the descriptor could see is not known, and so neither is a cure",
        None,
        color="#CC79A7",
        page_colors=("#b05590", "#e08cc0"),
        marker="cross",
        spurious=True,
    ),
    Cause(
        "fragment",
        "parts move rigidly against each other, out of sight of every center",
        "a larger cutoff would see them",
        color="#009E73",
        page_colors=("#12977a", "#4fd0b0"),
        marker="square",
    ),
    Cause(
        "near-symmetric",
        "harmless, a symmetric geometry is near, and with it singular configurations of all kinds",
        None,
        color="#56B4E9",
        page_colors=("#3d8fd1", "#6db3f2"),
        marker="diamond-open",
        harmless=True,
        exact=False,
    ),
    Cause(
        "unresolved",
        "a singular configuration may be near, and no cause of it is confirmed",
        None,
        color="#999999",
        page_colors=("#707070", "#a8a8a8"),
        marker="circle-open",
        exact=False,
    ),
    Cause(
        "symmetry",
        "harmless, the true force along them vanishes as well",
        None,
        color="#56B4E9",
        page_colors=("#3d8fd1", "#6db3f2"),
        marker="diamond",
        harmless=True,
    ),
)

CAUSES = {cause.name: cause for cause in _TABLE}
"""All causes by name, the worst first. Of several causes, the first is that of the whole."""

NULL_CAUSES = tuple(cause.name for cause in _TABLE if cause.exact)
"""Names of those that an invisible direction can have."""

SPURIOUS = tuple(cause.name for cause in _TABLE if cause.spurious)
"""Names of those that are a fault of the descriptor, or may be."""

EXPECTED = tuple(cause.name for cause in _TABLE if not cause.spurious)
"""Names of the others, which are as they should be: a run does not warn of them."""

HARMLESS = tuple(cause.name for cause in _TABLE if cause.harmless)
"""Names of those that cost no force."""
