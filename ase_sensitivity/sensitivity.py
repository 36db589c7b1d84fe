"""The result of an analysis: what a descriptor sees least in a structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ase_sensitivity.causes.cause import CAUSES
from ase_sensitivity.causes.next_steps import Origin, next_steps
from ase_sensitivity.plain_text import as_html
from ase_sensitivity.spectrum.solvers import NULL_TOLERANCE, ratio_of
from ase_sensitivity.types import Floats, Ints

NEARLY = 1e-3
"""Ratio below which the summary calls a direction nearly invisible."""


def pair_terms_text(names: Sequence[str]) -> str:
    """What descriptors with a row for each pair or triplet mean for the joint numbers, as text."""
    verb = "has" if len(names) == 1 else "have"
    return (
        f"Pair terms mask: {', '.join(names)} {verb} a row of features for each pair or triplet. "
        "A model with a slope of its own for each of these gets nearly any force; a real one has "
        "the same function for all. The joint numbers are a bound, and no verdict on the others."
    )


def unseen_text(unseen: Sequence[str]) -> str:
    """A sentence, without its full stop, that names elements a descriptor does not know."""
    verb = "is" if len(unseen) == 1 else "are"
    return f"{', '.join(unseen)} {verb} not among the species of the descriptor"


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The smallest non-trivial singular values of a feature Jacobian, and their directions.

    Attributes
    ----------
    scope
        ``"structure"``, ``"environment"`` or ``"atom"``.
    singular_values
        The k smallest non-trivial ones, ascending, of shape (k,), in 1/Å times the unit of the
        features.
    modes
        Their displacements, normalised, of shape (k, n_points, 3). In structure and atom scope the
        points are the atoms; in environment scope the center and its neighbor images.
    atoms
        The atom that each point belongs to, of shape (n_points,).
    displacements
        From the center to each point in Å, of shape (n_points, 3), in environment scope, else None.
    sigma_max
        The largest singular value.
    scale
        What singular values are compared with: usually `sigma_max`. If that is small because
        derivatives by periodic images cancel, it is a tenth of the root mean square value without
        cancellation (:ref:`accuracy`).
    n_coordinates
        Number of coordinates that can move.
    n_trivial
        Number of rigid motions set aside, summed over all fragments.
    n_null
        Non-trivial singular values that are zero; ``n_trivial + n_null`` is what a full singular
        value decomposition shows as zero.
    center
        The center (environment scope) or atom (atom scope) with the smallest ratio, else None.
    method
        ``"gram"``, ``"krylov"`` or ``"refined"``: how the values were computed.
    counts
        Number of null and near-null directions for each cause: "fragment", "symmetry",
        "incompleteness", "truncation", "species" where there are ``unseen`` elements, and "unknown"
        where incompleteness and truncation cannot be distinguished (:doc:`/causes`). They add up to
        ``n_null + n_near_null + n_apart``. None unless asked for.
    causes
        The cause of each of the k modes, None for modes that are not small; of length k. None
        unless asked for.
    n_near_null
        Number of directions that would be invisible without small errors of the geometry. None
        unless asked for.
    n_apart
        Number of the rigid motions set aside that move fragments against each other (structure
        scope). Fragments are parts of the structure that no center sees together. Forces between
        them cannot be learned, and ``counts`` has these motions under the cause "fragment".
    unseen
        Elements of the structure that are neither centers nor among the species of the descriptor.
    alone
        The results for each of several descriptors by itself, by name; None if there is only one.
        In the joint result they are weighted.
    masking
        The names of descriptors that have a row of features for each pair or triplet. They see
        nearly everything, whatever the others see.
    resolution
        Fraction of the scale below which the precision of the Jacobian does not distinguish a
        singular value from zero. If this is above the tolerance, values counted in ``n_null`` may
        be as large as that.
    distance
        Distance to the nearest singular configuration in Å, if an observer looked for it, else
        None; see :class:`~ase_sensitivity.NearestSingular`.
    approaching
        The cause of that singular configuration, or None.
    harmful_distance, harmful
        The same of the nearest configuration with another cause than symmetry or fragments, if the
        nearest one has one of these causes and another one was found.
    """

    scope: str
    singular_values: Floats
    modes: Floats
    atoms: Ints
    displacements: Floats | None
    sigma_max: float
    scale: float
    n_coordinates: int
    n_trivial: int
    n_null: int
    center: int | None
    method: str
    counts: dict[str, int] | None = None
    causes: tuple[str | None, ...] | None = None
    n_near_null: int | None = None
    n_apart: int = 0
    unseen: tuple[str, ...] = ()
    alone: dict[str, Sensitivity] | None = None
    masking: tuple[str, ...] = ()
    resolution: float = 0.0
    distance: float | None = None
    approaching: str | None = None
    harmful_distance: float | None = None
    harmful: str | None = None

    @property
    def ratio(self) -> float:
        """sigma_min / scale: nan if only rigid motions exist, 0 if no displacement is seen."""
        return ratio_of(self.singular_values, self.scale)

    @property
    def worst_atom(self) -> int:
        """The atom that moves most in the softest mode; -1 without a mode."""
        if self.center is not None:
            return self.center
        if len(self.modes) == 0:
            return -1
        squares = np.einsum("ij,ij->i", self.modes[0], self.modes[0])
        # Equivalent atoms move by the same length up to rounding; the first one is taken.
        return int(self.atoms[(squares > (1 - 2e-6) * squares.max()).argmax()])

    def mode_of_atoms(self, n_atoms: int, index: int = 0) -> Floats:
        """One mode as displacements of the atoms of the structure, of shape (n_atoms, 3).

        In environment scope the images of an atom move independently; the atom has the displacement
        of its image nearest to the center.
        """
        mode = np.zeros((n_atoms, 3))
        if index >= len(self.modes):
            return mode
        order = np.arange(len(self.atoms))
        if self.displacements is not None:
            order = np.argsort(-np.linalg.norm(self.displacements, axis=1), kind="stable")
        mode[self.atoms[order]] = self.modes[index][order]
        return mode

    def todict(self) -> dict[str, Any]:
        """The fields as a dictionary that :func:`ase.io.jsonio.write_json` can write."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.alone is not None:
            values["alone"] = {name: found.todict() for name, found in self.alone.items()}
        return values

    @classmethod
    def fromdict(cls, dictionary: dict[str, Any]) -> Sensitivity:
        """The inverse of :meth:`todict`, also after a round trip through JSON."""
        values = {"scale": dictionary["sigma_max"]} | dictionary  # older ones have no scale
        shapes = {"singular_values": (-1,), "modes": (-1, len(values["atoms"]), 3), "atoms": (-1,)}
        for name, shape in shapes.items():
            kind = np.intp if name == "atoms" else float
            values[name] = np.asarray(values[name], dtype=kind).reshape(shape)
        if values["displacements"] is not None:
            values["displacements"] = np.asarray(values["displacements"], dtype=float)
        if values.get("causes") is not None:
            values["causes"] = tuple(values["causes"])
        for name in ("unseen", "masking"):
            values[name] = tuple(values.get(name, ()))
        if values.get("alone") is not None:
            values["alone"] = {name: cls.fromdict(own) for name, own in values["alone"].items()}
        return cls(**values)

    def summary(self) -> str:
        """What was found, in words, and what to do next."""
        steps = next_steps(self.null_causes, Origin(structures="[atoms]"))
        return "\n".join([*self.findings(), *steps])

    def findings(self) -> list[str]:
        """What was found, in sentences."""
        where = {
            "structure": "The structure",
            "environment": f"The environment of atom {self.center}",
            "atom": f"Atom {self.center}, all others frozen,",
        }[self.scope]
        lines = [
            f"{where} has {self.n_coordinates} coordinates; "
            f"{self.n_trivial} rigid motions are set aside."
        ]
        if self.unseen:
            lines.append(f"{unseen_text(self.unseen)}: it does not see where these atoms are.")
        if self.n_apart:
            lines.append(
                f"{self.n_apart} of these move{'s' if self.n_apart == 1 else ''} parts against "
                "each other that no center sees together: no force between them can be learned."
            )
        if len(self.singular_values) == 0:
            return [*lines, "Nothing else can move: there is nothing to resolve."]
        shown = self.singular_values.copy()
        shown[: self.n_null] = 0.0  # not the rounding error
        values = "  ".join(f"{value:.3g}" for value in shown)
        lines += [
            f"Smallest singular values: {values}   largest: {self.sigma_max:.3g}",
            f"sigma_min / sigma_max = {self.ratio:.2e}"
            if self.scale <= self.sigma_max
            else f"sigma_min / scale = {self.ratio:.2e}: derivatives by periodic images cancel; "
            f"the scale, a tenth of what is typical without that, is {self.scale:.3g}",
        ]
        if self.n_null == self.n_coordinates - self.n_trivial:
            lines.append("No displacement changes any feature to first order: nothing is seen.")
        if self.n_null:
            lines.append(
                f"{self.n_null} direction{'s are' if self.n_null > 1 else ' is'} invisible to the "
                "descriptor: to first order no feature changes along "
                f"{'them' if self.n_null > 1 else 'it'}, and no force along "
                f"{'them' if self.n_null > 1 else 'it'} can be learned here."
            )
            if self.resolution > NULL_TOLERANCE:
                lines.append(
                    f"Not resolved: values below {self.resolution:.2g} of the largest cannot be "
                    "distinguished from zero, as the derivatives have no more digits."
                )
        elif self.ratio < NEARLY:
            nearly = int((self.singular_values < NEARLY * self.scale).sum())
            lines.append(
                f"No direction is quite invisible to the descriptor, but {nearly} of those above "
                f"change{'s' if nearly == 1 else ''} the features less than {NEARLY:g} times as "
                "much as the stiffest."
            )
        else:
            lines.append("No direction is invisible to the descriptor.")
        if self.n_near_null:
            lines.append(
                f"{self.n_near_null} more would be invisible without small errors of the geometry "
                "(near-null)."
            )
        lines += [
            f"{count} because of {cause}: {CAUSES[cause].text}."
            for cause, count in (self.counts or {}).items()
            if count
        ]
        lines.append(f"Atom {self.worst_atom} moves most in the softest mode.")
        if self.masking:
            lines.append(pair_terms_text(self.masking))
        alone = (self.alone or {}).items()
        return [*lines, *[f"{name} alone: {found.in_short()}" for name, found in alone]]

    @property
    def null_causes(self) -> list[str]:
        """The causes of the null vectors; empty where they were not looked for."""
        return [cause for cause, count in (self.counts or {}).items() if count]

    def in_short(self) -> str:
        """The ratio and the number of invisible directions, in one sentence."""
        causes = ", ".join(f"{n} {cause}" for cause, n in (self.counts or {}).items() if n)
        invisible = f"{self.n_null} invisible direction{'' if self.n_null == 1 else 's'}"
        return (
            f"sigma_min / sigma_max = {self.ratio:.2e}, {invisible}"
            f"{f' ({causes})' if causes else ''}."
        )

    def __repr__(self) -> str:
        return (
            f"Sensitivity(scope={self.scope!r}, ratio={self.ratio:.3g}, "
            f"n_trivial={self.n_trivial}, n_null={self.n_null})"
        )

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        """The values with their causes, and the summary, as notebooks show them."""
        causes = self.causes or (None,) * len(self.singular_values)
        rows = [
            [str(n), f"{value:.3g}", f"{value / self.scale:.2e}", cause or ""]
            for n, (value, cause) in enumerate(zip(self.singular_values, causes, strict=True))
        ]
        return as_html(self.summary(), [["mode", "sigma", "sigma / scale", "cause"], *rows])
