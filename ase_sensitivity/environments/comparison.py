"""What a comparison with a reference set finds: novelty, and a twin."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms

from ase_sensitivity.environments.place import Place
from ase_sensitivity.plain_text import many


@dataclass(frozen=True, eq=False)
class ReferenceTwin:
    """A reference with nearly the features of an environment, and another structure.

    Attributes
    ----------
    place
        The reference: its frame, source and center.
    frame
        Number of its frame among all frames of the reference set, from 0; of the past of a run, its
        step.
    center
        The atom at the center of the environment that it is the twin of; None for the structure as
        a whole.
    features
        Distance of the features of the two centers, relative to the larger norm.
    distance
        The largest distance of matched points in Å, in the best match over rotation, reflection and
        permutation.
    ratio
        Distance of the features over what a displacement of this length does on average, the
        largest one of the center and its neighbors: about 1 for any two structures, and 0 for the
        two of a degenerate pair.
    forces
        Spread in eV/Å of the forces on the center that references with these features have, in the
        frame of the best match: the largest difference of two. None without two known forces.
    energies
        Spread of the energies of these references in eV; None without two known ones of the same
        composition.
    atoms
        The frame of the reference.
    """

    place: Place
    frame: int
    center: int | None
    features: float
    distance: float
    ratio: float
    forces: float | None
    energies: float | None
    atoms: Atoms

    def __repr__(self) -> str:
        return (
            f"ReferenceTwin({self.place}, features={self.features:.3g}, "
            f"distance={self.distance:.3g}, ratio={self.ratio:.3g})"
        )


@dataclass(frozen=True, eq=False)
class Comparison:
    """A structure compared with a reference set.

    Attributes
    ----------
    novelty
        For the environment for which this is largest: the distance in feature space to the nearest
        reference, over the spread, the root mean square distance of two references about centers
        of the same element (:doc:`/reference_set` has what it is if all of these are the same).
        Infinite if the set has no center of this element.
    center
        The atom at the center of that environment; None for the structure as a whole.
    nearest
        Where its nearest reference is; None without any.
    twin
        The twin with the smallest ratio; None without any.
    """

    novelty: float
    center: int | None
    nearest: Place | None
    twin: ReferenceTwin | None = None

    def __repr__(self) -> str:
        return f"Comparison(novelty={self.novelty:.3g}, twin={self.twin!r})"


def not_in_reference_text(number: int, first: str) -> str:
    """A sentence on frames of infinite novelty."""
    verb = "has" if number == 1 else "have"
    return f"{many(number, 'frame')} {verb} elements that the reference does not have; {first}."
