"""What a run is compared with: a reference set, or its own past."""

from __future__ import annotations

from typing import Any

from ase import Atoms

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.environments.comparison import Comparison
from ase_sensitivity.environments.given_set import reference_set
from ase_sensitivity.environments.past import Past
from ase_sensitivity.environments.reference_set import ReferenceSet
from ase_sensitivity.validation import as_number

NOVEL = 1.0
"""A configuration is novel if one of its environments is farther from all references than two
references are from each other, as root mean square."""

RUN = "run"

WARNINGS = {
    "twin": (
        "a reference has nearly the same features and another structure: "
        "see the log, or `comparison` of the observer"
    ),
    "novel": (
        "a configuration is far from the reference: see the log, or `comparison` of the observer"
    ),
}


class Reference:
    """Compares the configurations of a run with a reference set or the run's own past."""

    def __init__(self, compared_with: ReferenceSet | Past, threshold: float) -> None:
        self._compared_with = compared_with
        self._threshold = as_number("novelty_threshold", threshold, "positive")

    @classmethod
    def of(cls, given: Any, descriptor: Descriptor, threshold: float) -> Reference | None:
        """What somebody gave as ``reference``; None for None.

        Raises
        ------
        TypeError, ValueError
            If it is nothing to compare with, or was made with another descriptor.
        FileNotFoundError
            If it is a file that does not exist.
        """
        if given is None:
            as_number("novelty_threshold", threshold, "positive")
            return None
        if isinstance(given, str) and given == RUN:
            return cls(Past(descriptor), threshold)
        return cls(reference_set(given, descriptor), threshold)

    @property
    def secant(self) -> float:
        """Relative change of the features since the call before; nan without the run's past."""
        past = self._compared_with
        return past.secant if isinstance(past, Past) else float("nan")

    def compare(self, atoms: Atoms, step: int) -> Comparison | None:
        """Compare a configuration; None if there is no past yet."""
        if isinstance(self._compared_with, Past):
            return self._compared_with.compare(atoms, step)
        return self._compared_with.compare(atoms)

    def kinds(self, found: Comparison | None) -> list[str]:
        """What has been found: "twin", "novel"."""
        kinds = []
        if found is not None and found.twin is not None:
            kinds.append("twin")
        if found is not None and found.novelty > self._threshold:
            kinds.append("novel")
        return kinds

    def __repr__(self) -> str:
        past = isinstance(self._compared_with, Past)
        return "the past of the run" if past else repr(self._compared_with)


def reason_of(kind: str, found: Comparison) -> str:
    """Why a configuration is a twin or novel, for people."""
    twin = found.twin
    if kind == "twin" and twin is not None:
        text = (
            f"twin of {twin.place}: features {twin.features:.2e} apart, structures "
            f"{twin.distance:.3f} Å"
        )
        return text if twin.forces is None else f"{text}, forces {twin.forces:.3f} eV/Å"
    where = "" if found.center is None else f" of atom {found.center}"
    return f"novelty {found.novelty:.3f}{where}"
