"""The Gram matrix J^T J of SOAP from density coefficients against that from blocks of J."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from ase import Atoms

from ase_sensitivity import SOAP, StreamedJacobian, analyze
from benchmarks.cases import BASIS, CUTOFF, alloy, aspirin, cases, small
from benchmarks.jacobian import Row
from benchmarks.timing import paired

CLOSE = 4.0
"""Cutoff in Å for molecules."""


class ByBlocks(SOAP):
    """The same descriptor with products from blocks, a few centers at a time."""

    def stream(self, atoms: Atoms) -> StreamedJacobian:
        """The Jacobian without other ways to its products."""
        found = super().stream(atoms)
        known = found.ranges[0]
        return StreamedJacobian(
            found._compute,
            found._bounds,
            n_atoms=found.n_atoms,
            cutoff=known.cutoff,
            center_atoms=known.centers,
            pairs=known.pairs,
        )


def structures() -> dict[str, Atoms]:
    """Molecules, crystals and alloys, slightly disordered."""
    found = {name: small(name) for name in ("CH4", "CH3CH2OH", "C6H6")}
    found["aspirin"] = aspirin()
    chosen = ("water, 64 molecules", "SrTiO3, 40 atoms", "Si64", "Si512")
    found |= {name: cases()[name][0] for name in chosen}
    return found | {f"{n} species, 108 atoms": alloy(n) for n in (5, 8)}


def measure(budget: float) -> list[Row]:
    """A row for each structure: Jacobian and Gram matrix, and three singular values."""
    rows: list[Row] = []
    for name, atoms in structures().items():
        cutoff = CUTOFF if atoms.pbc.any() else CLOSE
        species = sorted(set(atoms.symbols))
        ours = SOAP(species, cutoff, *BASIS, threads=1)
        blocks = ByBlocks(species, cutoff, *BASIS, threads=1)
        found, expected = (soap.stream(atoms).gram() for soap in (ours, blocks))
        gram = paired(
            lambda a=atoms, s=ours: s.stream(a).gram(),
            lambda a=atoms, s=blocks: s.stream(a).gram(),
            budget,
        )
        other = atoms.copy()
        other.rattle(0.01, seed=2)
        turns = cycle((atoms, other))  # nothing is known from the last call
        whole = paired(
            lambda t=turns, s=ours: analyze(next(t), s, k=3),
            lambda t=turns, s=blocks: analyze(next(t), s, k=3),
            budget,
        )
        rows.append(
            {
                "case": name,
                "Gram / ms": round(1e3 * gram[0], 2),
                "from blocks / ms": round(1e3 * gram[1], 2),
                "ratio": round(gram[2], 1),
                "largest difference": f"{np.abs(found - expected).max() / expected.max():.0e}",
                "analyze / ms": round(1e3 * whole[0], 2),
                "analyze from blocks / ms": round(1e3 * whole[1], 2),
                "ratio of both": round(whole[2], 1),
            }
        )
    return rows
