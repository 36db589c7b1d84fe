"""The contract of descriptors, one row for each part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ase import Atoms

from ase_sensitivity.auditing.check import FAILED, FINDING, OK, Check, raised, skipped
from ase_sensitivity.descriptors.base import (
    Descriptor,
    is_rotation_invariant,
    reach_of,
    restricted,
)
from ase_sensitivity.testing import (
    DERIVATIVES,
    REFLECTION,
    ROTATION,
    SQUARES,
    SUM_RULE,
    Part,
    contract,
)

GROUP = "contract"

ROWS = {
    DERIVATIVES: (DERIVATIVES,),
    "invariances": ("translation", ROTATION, "permutation", "moving atoms out of the cell"),
    REFLECTION: (REFLECTION,),
    SUM_RULE: (SUM_RULE,),
    "consistency": ("features", "blocks", "products", "reach", "images"),
    SQUARES: (SQUARES,),
}
"""The parts of the contract that each row is about."""

REASONS = {SQUARES: "it has no way to them but differences of Jacobians"}
"""Why there may be nothing to check."""

SMALL_STEP = 1e-5
"""In Å. Where differences over 1e-3 Å fail, features may bend within less."""


@dataclass
class Measured:
    """The largest error of the parts of one row, and where it was found."""

    error: float = 0.0
    allowed: float = 0.0
    where: str = ""
    failures: dict[str, str] = field(default_factory=dict)
    bends: bool = False

    def add(self, part: Part, where: str, finer: Callable[[], Part | None]) -> None:
        """Check a part on one structure; if derivatives are off, once more with a small step."""
        try:
            error = part.check()
        except AssertionError as failure:
            again = finer()
            if again is None:
                self.failures.setdefault(part.name, f"{where}: {failure}")
                return
            try:
                error = again.check()
            except AssertionError:  # the first one says what matters
                self.failures.setdefault(part.name, f"{where}: {failure}")
                return
            self.bends = True
        except Exception as failure:
            text = f"{where}: {type(failure).__name__}: {failure}"
            self.failures.setdefault("an error", text)
            return
        if error >= self.error:  # not if there was nothing to check
            self.error, self.where = error, where
            self.allowed = max(self.allowed, part.allowed)


def contract_checks(descriptor: Descriptor, structures: dict[str, Atoms]) -> list[Check]:
    """The rows about the contract of a descriptor, from all parts on all structures.

    With message passing, periodic images are not told apart: thousands are within reach, and each
    takes three products.
    """
    images = reach_of(descriptor) <= descriptor.cutoff
    found: dict[str, Measured] = {}
    broken: list[Check] = []
    for where, atoms in structures.items():
        seen = restricted(descriptor, atoms)

        def finer(name: str, seen: Descriptor = seen, atoms: Atoms = atoms) -> Part | None:
            if name not in (DERIVATIVES, SQUARES):
                return None
            parts = contract(seen, atoms, step=SMALL_STEP, images=images)
            return next((part for part in parts if part.name == name), None)

        try:
            for part in contract(seen, atoms, images=images):
                row = next(row for row, parts in ROWS.items() if part.name in parts)
                found.setdefault(row, Measured()).add(part, where, partial(finer, part.name))
        except Exception as error:
            broken.append(raised(GROUP, f"members ({where})", error))
    rows = [
        _row(descriptor, name, found[name])
        if name in found and (found[name].where or found[name].failures)
        else skipped(GROUP, name, REASONS.get(name, "the Jacobian could not be had in blocks"))
        for name in ROWS
    ]
    if "invariances" in found and ROTATION in found["invariances"].failures:
        rows[[*ROWS].index(REFLECTION)] = skipped(
            GROUP, REFLECTION, "rotations change the features already"
        )
    return broken + rows


def _row(descriptor: Descriptor, name: str, found: Measured) -> Check:
    expected = f"at most {found.allowed:.0e}" if found.allowed else ""
    measured = f"{found.error:.1e} ({found.where})" if found.where else ""
    verdict, note = OK, ""
    if found.failures:
        verdict, note = FAILED, "; ".join(found.failures.values())
        if found.failures.keys() == {REFLECTION}:
            verdict = FINDING
            note += "; it tells left from right, and mirror planes hide nothing from it"
        elif found.failures.keys() == {ROTATION} and not is_rotation_invariant(descriptor):
            verdict = FINDING
            note += "; it is declared so"
        measured = "violated"
    elif found.bends:
        verdict = FINDING
        note = f"features bend within 1e-3 Å: differences agree over {SMALL_STEP:g} Å only"
    return Check(
        GROUP,
        name,
        measured,
        expected,
        verdict,
        note,
        {"error": found.error, "allowed": found.allowed, "structure": found.where or None},
    )
