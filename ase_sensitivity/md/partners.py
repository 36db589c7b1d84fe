"""Partners and their prices during a run: when they are asked for, and their lines in the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.plain_text import reason
from ase_sensitivity.singular.nearest import NearestSingular, nearest_singular, priced
from ase_sensitivity.singular.price import Pricing, check_price
from ase_sensitivity.types import Scope

WORDS = ("#", "partner")
"""How their lines begin."""


@dataclass(frozen=True)
class LoggedPartner:
    """A partner and its price, as the log keeps them.

    Attributes
    ----------
    step
        Of the run, where a singular state began.
    cause
        Of the singular configuration between the two.
    displacement, rmsd, feature_distance, agrees
        As of :class:`~ase_sensitivity.Partner`; ``agrees`` is 1 or 0.
    energy, forces
        As of :class:`~ase_sensitivity.Price`; nan where the calculator failed.
    """

    step: int
    cause: str
    displacement: float
    rmsd: float
    feature_distance: float
    agrees: int
    energy: float
    forces: float

    def __str__(self) -> str:
        return " ".join(
            (
                *WORDS,
                f"step={self.step}",
                f"cause={self.cause}",
                f"displacement[A]={self.displacement:.4f}",
                f"rmsd[A]={self.rmsd:.4f}",
                f"features={self.feature_distance:.2e}",
                f"agrees={self.agrees}",
                f"energy[eV]={self.energy:.5f}",
                f"forces[eV/A]={self.forces:.4f}",
            )
        )


def logged_partners(lines: Iterable[str]) -> tuple[LoggedPartner, ...]:
    """What the lines of a log hold of partners."""
    found = []
    for line in lines:
        words = line.split()
        if tuple(words[:2]) == WORDS and line.endswith("\n"):
            values = [word.partition("=")[2] for word in words[2:]]
            try:
                found.append(_entry(values))
            except (ValueError, IndexError):  # of somebody else
                continue
    return tuple(found)


def _entry(values: Sequence[str]) -> LoggedPartner:
    return LoggedPartner(
        step=int(values[0]),
        cause=values[1],
        displacement=float(values[2]),
        rmsd=float(values[3]),
        feature_distance=float(values[4]),
        agrees=int(values[5]),
        energy=float(values[6]),
        forces=float(values[7]),
    )


class RunPricing:
    """Asks a calculator where a singular state begins.

    Parameters
    ----------
    calculator
        Of the single points.
    atoms
        Those of the run.

    Attributes
    ----------
    nearest
        The nearest singular configuration where the last singular state began.
    failed
        Whether there is a partner without a price, or nothing could be looked for.

    Raises
    ------
    TypeError, ValueError
        If it is no calculator, or that of the run.
    """

    def __init__(self, calculator: Any, atoms: Atoms) -> None:
        check_price(calculator)
        if calculator is atoms.calc:
            raise ValueError(
                "`price` is the calculator of the run, which single points would disturb; give "
                "another instance"
            )
        self._calculator = calculator
        self._inside = False
        self.nearest: NearestSingular | None = None
        self.failed = False

    def leave(self) -> None:
        """The state is not singular."""
        self._inside = False

    def enter(
        self, atoms: Atoms, descriptor: Descriptor, scope: Scope, center: int | None, step: int
    ) -> str:
        """Look for the partner if the state was not singular before: text for the log, or none."""
        self.failed = False
        if self._inside:
            return ""
        self._inside = True
        try:
            found = nearest_singular(atoms, descriptor, scope=scope, center=center)
            self.nearest = found = priced(found, Pricing(atoms, self._calculator))
        except Exception as error:  # the run is worth more
            self.failed = True
            return f"# step {step}: no partner: {reason(error)}\n"
        shown = found if found.harmful is None else found.harmful
        text = ""
        if shown.price is None:
            self.failed = shown.partner is not None
            text = f"# step {step}: no price: {' '.join(str(shown.no_price).split())}\n"
        partner = shown.partner
        if partner is None:
            return text
        price = shown.price
        entry = LoggedPartner(
            step=step,
            cause=str(shown.cause),
            displacement=partner.displacement,
            rmsd=partner.rmsd,
            feature_distance=partner.feature_distance,
            agrees=int(partner.agrees),
            energy=float("nan") if price is None else price.energy,
            forces=float("nan") if price is None else price.forces,
        )
        return f"{text}{entry}\n"
