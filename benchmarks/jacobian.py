"""SOAP's Jacobian against quippy's, featomic's and DScribe's, one core each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ase_sensitivity import SOAP
from benchmarks.cases import BASIS, CUTOFF, LARGE_BASIS, cases
from benchmarks.timing import paired

Row = dict[str, Any]


def quip_string(species: list[str], n_max: int, l_max: int) -> str:
    """The QUIP string of the same features."""
    listed = "{" + " ".join(str(atomic_numbers[symbol]) for symbol in species) + "}"
    n = len(species)
    return (
        f"soap cutoff={CUTOFF} n_max={n_max} l_max={l_max} atom_sigma=0.5 "
        f"n_species={n} species_Z={listed} n_Z={n} Z={listed}"
    )


def quippy(atoms: Atoms, species: list[str], n_max: int, l_max: int) -> Callable[[], Any]:
    """Quippy's gradient calculation."""
    from quippy.descriptors import Descriptor

    descriptor = Descriptor(quip_string(species, n_max, l_max))
    return lambda: descriptor.calc(atoms, grad=True)


def featomic(atoms: Atoms, species: list[str], n_max: int, l_max: int) -> Callable[[], Any]:
    """Featomic's power spectrum with position gradients."""
    from featomic import SoapPowerSpectrum
    from featomic.systems import AseSystem

    calculator = SoapPowerSpectrum(
        cutoff={"radius": CUTOFF, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
        density={"type": "Gaussian", "width": 0.5},
        basis={
            "type": "TensorProduct",
            "max_angular": l_max,
            "radial": {"type": "Gto", "max_radial": n_max - 1},
        },
    )
    system = AseSystem(atoms)
    return lambda: calculator.compute(system, gradients=["positions"], use_native_system=True)


def with_dscribe(atoms: Atoms, species: list[str], n_max: int, l_max: int) -> Callable[[], Any]:
    """DScribe's analytic derivatives; isolated structures only."""
    import dscribe.descriptors

    descriptor = dscribe.descriptors.SOAP(
        r_cut=CUTOFF, n_max=n_max, l_max=l_max, sigma=0.5, species=species
    )
    return lambda: descriptor.derivatives(atoms, attach=True, return_descriptor=True)


def stream(soap: SOAP, atoms: Atoms) -> None:
    """Compute all of the Jacobian but keep only a piece at a time, as `analyze` does."""
    for _ in soap.stream(atoms).parts:
        pass


PEERS = {"quippy": quippy, "featomic": featomic, "dscribe": with_dscribe}


def measure(budget: float) -> list[Row]:
    """A row for each case, basis and peer."""
    rows: list[Row] = []
    for name, (atoms, species) in cases().items():
        bases = [BASIS, LARGE_BASIS] if name == "Si64" else [BASIS]
        for n_max, l_max in bases:
            ours = SOAP(species, CUTOFF, n_max, l_max, threads=1)
            for peer, prepare in PEERS.items():
                if peer == "dscribe" and atoms.pbc.any():
                    continue
                try:
                    theirs = prepare(atoms, species, n_max, l_max)
                except ImportError:
                    continue
                mine, other, ratio = paired(lambda a=atoms, o=ours: o.jacobian(a), theirs, budget)
                piecewise, _, faster = paired(lambda a=atoms, o=ours: stream(o, a), theirs, budget)
                rows.append(
                    {
                        "case": name,
                        "n_max, l_max": f"{n_max}, {l_max}",
                        "peer": peer,
                        "ours / ms": round(1e3 * mine, 2),
                        "peer / ms": round(1e3 * other, 1),
                        "ratio": round(ratio, 1),
                        "ours streamed / ms": round(1e3 * piecewise, 2),
                        "ratio streamed": round(faster, 1),
                    }
                )
    return rows


def features_agree() -> float:
    """Largest difference of our features from quippy's on one case, relative to the largest."""
    atoms, species = cases()["ethanol"]
    theirs = quippy(atoms, species, *BASIS)()["data"]
    ours = SOAP(species, CUTOFF, *BASIS).features(atoms)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
