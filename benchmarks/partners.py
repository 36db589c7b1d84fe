"""Partners of rattled structures: whether features return, whether it is a copy, and its price.

``python -m benchmarks.partners`` (about half a minute) prints a row for each kind and cause.
"""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP, NearestSingular, SensitivityWarning, nearest_singular
from ase_sensitivity.auditing.reference import ENVIRONMENTS
from ase_sensitivity.demonstration.methane import singular_methane, soap_of, xtb

RATTLES = (0.02, 0.05, 0.1)  # Å
SEEDS = range(5)
COPY = 1e-4  # Å: a partner with a smaller rmsd is a copy


def kinds() -> dict[str, tuple[Atoms, SOAP]]:
    """What is rattled, and what sees it."""
    reference = {"cutoff": 3.0, "n_max": 8, "atom_sigma": 0.3, "centers": ["C"]}
    whole = {"cutoff": 4.0, "n_max": 8, "l_max": 6}
    blind = SOAP(["H"], l_max=8, **reference)
    heavy = SOAP(["C", "H", "O"], centers=["C", "O"], **whole)
    return {
        "NH3, all atoms": (molecule("NH3"), SOAP(["N", "H"], **whole)),
        "C6H6, all atoms": (molecule("C6H6"), SOAP(["C", "H"], **whole)),
        "CH3OH, from C and O": (molecule("CH3OH"), heavy),
        "CH4, all atoms": (molecule("CH4"), soap_of()),
        "CH4, from C": (molecule("CH4"), soap_of(["C"])),
        "CH4 near x0, from C": (singular_methane(), soap_of(["C"])),
        "S1, from C": (ENVIRONMENTS["S1"], blind),
        "S2, from C": (ENVIRONMENTS["S2"], blind),
        "S3, from C": (ENVIRONMENTS["S3"], blind),
        "T, from C, l_max 3": (ENVIRONMENTS["T"], SOAP(["H"], l_max=3, **reference)),
    }


def results(atoms: Atoms, soap: SOAP, calculator: object) -> list[NearestSingular]:
    """The nearest singular configurations of rattled structures, with harmful ones beside."""
    found = []
    for rattle in RATTLES:
        for seed in SEEDS:
            moved = atoms.copy()
            moved.rattle(rattle, seed=seed)
            nearest = nearest_singular(moved, soap, max_distance=0.8, price=calculator)
            found += [nearest] if nearest.harmful is None else [nearest, nearest.harmful]
    return found


def row(name: str, cause: str, found: list[NearestSingular]) -> str:
    """A row of the table."""
    pairs = [one for one in found if one.partner is not None]
    agree = [one for one in pairs if one.partner.agrees]
    copies = [one for one in agree if one.partner.rmsd < COPY]
    others = [one for one in agree if one.partner.rmsd >= COPY]
    cells = [name, cause, len(found), len(pairs), len(agree), len(copies)]
    cells.append(f"{max((one.price.energy for one in copies), default=np.nan):.1e}")
    features = [one.partner.feature_distance for one in others]
    prices = [one.price.energy for one in others]
    for values in (features, prices):
        spread = np.quantile(values, [0, 0.5, 1]) if values else [np.nan] * 3
        cells.append(" / ".join(f"{value:.2g}" for value in spread))
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore", SensitivityWarning)
    calculator = xtb()
    print("| structures | cause | results | pairs | features return | copies | highest price of a")
    print("copy (eV) | others: features apart, least / median / most | their price (eV) |")
    for name, (atoms, soap) in kinds().items():
        by_cause = defaultdict(list)
        for one in results(atoms, soap, calculator):
            by_cause[str(one.cause)].append(one)
        for cause, found in by_cause.items():
            print(row(name, cause, found), flush=True)


if __name__ == "__main__":
    main()
