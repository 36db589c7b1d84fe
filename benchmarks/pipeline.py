"""Jacobian, Gram matrix and the six smallest values, against the script a user would write."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from ase_sensitivity import SOAP, analyze
from benchmarks.cases import BASIS, CUTOFF, cases
from benchmarks.jacobian import Row, quip_string
from benchmarks.timing import paired

TOO_LARGE = 600
"""Atoms beyond which the dense Jacobian and its decomposition take minutes."""


def script(atoms: Atoms, quip: object) -> np.ndarray:
    """Quippy's gradient, a dense J and numpy.linalg.svd."""
    found = quip.calc(atoms, grad=True)  # type: ignore[attr-defined]
    n_centers, n_features = found["data"].shape
    J = np.zeros((n_centers, n_features, len(atoms), 3))
    for (center, atom), gradient in zip(
        found["grad_index_0based"], found["grad_data"], strict=True
    ):
        J[center, :, atom] += gradient.T
    return np.linalg.svd(J.reshape(-1, 3 * len(atoms)), compute_uv=False)


def measure(budget: float) -> list[Row]:
    """A row for each case; both give the same values."""
    from quippy.descriptors import Descriptor

    rows: list[Row] = []
    for name, (atoms, species) in cases().items():
        if len(atoms) > TOO_LARGE:
            continue
        soap = SOAP(species, CUTOFF, *BASIS, threads=1)
        quip = Descriptor(quip_string(species, *BASIS))
        previous = analyze(atoms, soap)
        expected = np.sort(script(atoms, quip))[previous.n_trivial :][:6]
        agreement = float(np.abs(previous.singular_values / expected - 1).max())
        mine, other, ratio = paired(
            lambda a=atoms, s=soap, p=previous: analyze(a, s, previous=p),
            lambda a=atoms, q=quip: script(a, q),
            budget,
        )
        rows.append(
            {
                "case": name,
                "ours / ms": round(1e3 * mine, 1),
                "script / ms": round(1e3 * other, 1),
                "ratio": round(ratio, 1),
                "values agree to": f"{agreement:.0e}",
            }
        )
    return rows
