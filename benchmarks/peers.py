"""The whole of `analyze` against nothing but the derivatives of other packages, one core each."""

from __future__ import annotations

from ase_sensitivity import SOAP, analyze
from ase_sensitivity.geometry.neighbors import neighbor_pairs
from benchmarks.cases import BASIS, CUTOFF, alloy, aspirin, small
from benchmarks.jacobian import PEERS, Row
from benchmarks.small_molecules import molecules
from benchmarks.timing import paired

MOST = 6e9
"""Bytes of derivatives that are not asked of quippy, which holds them twice."""


def measure(budget: float) -> list[Row]:
    """A row for each structure and peer: molecules by size, crystals by the number of species."""
    structures = {"CH4": small("CH4"), "ethanol": small("CH3CH2OH"), "benzene": small("C6H6")}
    structures |= {f"as of QM9, {len(one)} atoms": one for one in molecules(3, seed=1)}
    structures["aspirin"] = aspirin()
    structures |= {f"108 atoms, species: {n}": alloy(n) for n in (1, 2, 3, 5, 8)}
    rows: list[Row] = []
    for name, atoms in structures.items():
        species = sorted(set(atoms.symbols))
        ours = SOAP(species, CUTOFF, *BASIS, threads=1)
        size = 24.0 * ours.n_features * len(neighbor_pairs(atoms, CUTOFF).first)
        for peer, prepare in PEERS.items():
            if (peer == "dscribe" and atoms.pbc.any()) or (peer == "quippy" and size > MOST):
                continue
            try:
                theirs = prepare(atoms, species, *BASIS)
            except ImportError:
                continue
            mine, other, ratio = paired(lambda a=atoms, o=ours: analyze(a, o, k=3), theirs, budget)
            rows.append(
                {
                    "structure": name,
                    "peer": peer,
                    "analyze / ms": round(1e3 * mine, 2),
                    "the peer's derivatives / ms": round(1e3 * other, 1),
                    "ratio": round(ratio, 1),
                }
            )
    return rows
