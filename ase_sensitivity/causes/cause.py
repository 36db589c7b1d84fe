"""The table of causes of small singular values, which all other modules read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why a direction is invisible to a descriptor, and what that means.

    Attributes
    ----------
    name
        Its name in results, logs and tables.
    meaning
        What it means for directions with this cause. The text follows "because of symmetry:".
    cure
        What would make them visible; None if nothing is known, or nothing is needed.
    color
        Color in plots, from a palette for all kinds of color vision (Okabe and Ito).
    page_colors
        Colors in the report, with enough contrast to a light and to a dark background.
    marker
        Marker in the report, by its name in plotly.
    spurious
        Whether it is, or may be, a fault of the descriptor. A run warns of it, and the report calls
        the features blind.
    harmless
        Whether the true force along such a direction vanishes as well, so that nothing is lost. The
        cause "fragment" is neither spurious nor harmless: forces between fragments are lost, but
        the choice of the cutoff implies that.
    exact
        Whether it can be the cause of an invisible direction. The others can only be causes of a
        singular configuration nearby.
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
        "they move atoms of elements that are not among the species of the descriptor",
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
        "parts that no center sees together move rigidly against each other",
        "a larger cutoff would see them",
        color="#009E73",
        page_colors=("#12977a", "#4fd0b0"),
        marker="square",
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
"""All causes by name, the worst first. A structure with several causes is named after the first."""

NULL_CAUSES = tuple(cause.name for cause in _TABLE if cause.exact)
"""Names of the causes that an invisible direction can have."""

SPURIOUS = tuple(cause.name for cause in _TABLE if cause.spurious)
"""Names of the causes that are, or may be, a fault of the descriptor."""

EXPECTED = tuple(cause.name for cause in _TABLE if not cause.spurious)
"""Names of the other causes. They are expected, and a run does not warn of them."""

HARMLESS = tuple(cause.name for cause in _TABLE if cause.harmless)
"""Names of the causes that cost no force."""
