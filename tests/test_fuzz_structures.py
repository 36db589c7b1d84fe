"""Thousands of structures that nobody should have: a sound result, or a clear error.

One input alone: ``python -m tests.test_fuzz_structures NUMBER NUMBER+1 LOG``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

import ase_sensitivity
from ase_sensitivity import (
    SOAP,
    FiniteDifferenceDescriptor,
    QUIPDescriptor,
    Sensitivity,
    analyze,
    nearest_singular,
    replay,
    scan,
)
from ase_sensitivity.io.reading import read_frames
from tests import fuzzing

N_INPUTS = 2000
BATCH = 1000

EXTREMES = (0.0, 1e-300, 1e-9, 0.01, 1e4, 1e9, 1e200, 1e300, np.nan, np.inf, -np.inf)
ODD_NUMBERS = (0, 1, 118, 119, 200, -1)
CLEAR = ("`", "atom", "cell", "cutoff", "environment", "position", "center", "features", "motions")


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, N_INPUTS, BATCH))
def test_structures(start, tmp_path):
    found = fuzzing.findings(__name__, range(start, start + BATCH), tmp_path)
    assert not found, "\n".join(found)


def positions(rng: np.random.Generator, n: int) -> np.ndarray:
    """Points in general, on lines, planes, lattices, each other, and where nothing can be."""
    points = rng.normal(size=(n, 3)) * rng.choice([0.5, 1.0, 2.0, 4.0])
    match rng.integers(12):
        case 0:
            points *= np.array([1.0, rng.choice([0.0, 1e-6, 1e-3]), 0.0])
        case 1:
            points[:, 2] = 0.0
        case 2:
            points = np.rint(points) * rng.choice([0.8, 1.0, 1.5])
        case 3:
            points[rng.integers(n)] = points[rng.integers(n)]
        case 4:
            points *= 10.0 ** rng.uniform(-300, 300)
        case 5:
            points[rng.integers(n), rng.integers(3)] = rng.choice(EXTREMES)
        case 6:
            points += 10.0 ** rng.uniform(0, 12)
        case 7:
            points[: n // 2] += 10.0 ** rng.uniform(0, 10)
        case 8:
            points *= rng.choice([1e-3, 1e-2, 0.1])
    return points


def cell(rng: np.random.Generator) -> np.ndarray:
    """Cells that are small, large, flat, skew, left-handed, or none."""
    vectors = np.diag(rng.uniform(2.0, 6.0, size=3)) + rng.normal(size=(3, 3)) * 0.3
    match rng.integers(14):
        case 0:
            vectors[:] = 0.0
        case 1:
            vectors[2] = vectors[:2].T @ rng.normal(size=2)
        case 2:
            vectors[2] = vectors[:2].T @ rng.normal(size=2) + 10.0 ** rng.uniform(-12, 0)
        case 3:
            vectors *= 10.0 ** rng.uniform(-300, 300)
        case 4:
            vectors[rng.integers(3)] *= 10.0 ** rng.uniform(-300, 300)
        case 5:
            vectors[rng.integers(3), rng.integers(3)] = rng.choice(EXTREMES)
        case 6:
            vectors[0] += vectors[1] * 10.0 ** rng.uniform(0, 4)
        case 7:
            vectors = vectors[::-1].copy()
        case 8:
            vectors *= 10.0 ** rng.uniform(-2, 0)
        case 9:
            vectors[0] *= 10.0 ** rng.uniform(-3, 0)
        case 10:
            vectors[0] *= 10.0 ** rng.uniform(0, 8)
        case 11:
            vectors = rng.normal(size=(3, 3)) * 3
    return vectors


def structure(rng: np.random.Generator) -> Atoms:
    n = int(rng.choice([1, 2, 3, 4, 5, 8, 14]))
    numbers = rng.choice([1, 6, 8], size=n)
    if rng.random() < 0.05:
        numbers[rng.integers(n)] = rng.choice(ODD_NUMBERS)
    atoms = Atoms(numbers.clip(0, 118), positions(rng, n))
    atoms.numbers[:] = numbers  # which ASE would look up
    with np.errstate(all="ignore"):
        atoms.cell[:] = cell(rng) if rng.random() < 0.7 else np.zeros((3, 3))
    if rng.random() < 0.5:
        atoms.pbc = rng.integers(2, size=3).astype(bool)
    return atoms


def power_sums(atoms: Atoms) -> np.ndarray:
    """Features that are smooth everywhere: those that are sorted have kinks where two are equal."""
    closeness = 1 / (1 + atoms.get_all_distances())
    return np.stack([(closeness**power).sum(axis=1) for power in range(1, 7)], axis=1)


def cheap(rng: np.random.Generator) -> SOAP | QUIPDescriptor | FiniteDifferenceDescriptor:
    """A descriptor that is small, mostly."""
    match rng.integers(12):
        case 0:
            return SOAP(["H", "O"], 2.6, 1, 0)
        case 1:
            return SOAP(["H", "C", "O"], 3.1, 2, 2, body_order=2, normalise=False)
        case 2:
            return SOAP(["H", "C", "O"], 2.6, 2, 1, body_order=4)
        case 3:
            return SOAP(["H", "C", "O"], 2.6, 2, 2, radial_basis="gto")
        case 4:
            return SOAP(["H", "C", "O"], 2.6, 2, 1, radial_basis="dscribe", centers=["C"])
        case 5:
            return QUIPDescriptor("distance_2b cutoff=2.2", species=["H", "C"])
        case 6:
            soap = "soap cutoff=2.4 n_max=2 l_max=1 atom_sigma=0.5"
            return QUIPDescriptor(soap, species=["H", "C", "O"], native=False)
        case 7:
            return FiniteDifferenceDescriptor(power_sums)
    return SOAP(["H", "C", "O"], 3.1, 3, 3, normalise=bool(rng.integers(2)))


def odd_soap(rng: np.random.Generator) -> SOAP:
    """With settings of any magnitude."""

    def number(usual: float) -> float:
        if rng.random() < 0.6:
            return usual
        return float(rng.choice(EXTREMES) if rng.random() < 0.3 else 10.0 ** rng.uniform(-4, 4))

    return SOAP(
        ["H", "C", "O"],
        number(3.0),
        int(rng.choice([-1, 0, 1, 2, 3, 30])),
        int(rng.choice([-1, 0, 1, 2, 30])),
        number(0.5),
        number(0.5),
        number(1.0),
        radial_basis=rng.choice(["quip", "gto", "dscribe"]),
        body_order=int(rng.choice([1, 2, 3, 3, 4, 5])),
        smooth_cutoff=bool(rng.integers(2)),
    )


def judge(number: int) -> str:
    rng = np.random.default_rng([2024, number])
    try:
        atoms = structure(rng)
        descriptor = odd_soap(rng) if rng.random() < 0.1 else cheap(rng)
        return _used(rng, atoms, descriptor)
    except (ValueError, TypeError) as error:
        return unclear(error)


def unclear(error: Exception) -> str:
    """Why an error is none that a person could do something about."""
    where = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = Path(ase_sensitivity.__file__).parent in where.parents
    if type(error) not in (ValueError, TypeError) or not ours:
        return "".join(traceback.format_exception(error, limit=-4))
    return "" if any(word in str(error) for word in CLEAR) else f"says little: {error}"


def _used(rng: np.random.Generator, atoms: Atoms, descriptor: object) -> str:
    scope = rng.choice(["structure", "environment", "atom"], p=[0.6, 0.2, 0.2])
    match rng.integers(12):
        case 0:
            return of_nearest(atoms, descriptor, scope)
        case 1:
            return of_scan(atoms, descriptor, scope)
        case 2:
            return of_replay(atoms, descriptor, scope)
    k = None if rng.random() < 0.5 else int(rng.integers(1, 8))
    causes = bool(rng.random() < 0.5)
    found = analyze(atoms, descriptor, scope=scope, k=k, causes=causes)
    fault = unsound(found, atoms, k, causes)
    if fault or rng.random() < 0.5:
        return fault
    if isinstance(descriptor, FiniteDifferenceDescriptor):  # whose sorted features have kinks
        return ""
    return variant(
        rng, found, atoms, lambda a, i: analyze(a, descriptor, scope=scope, k=k, center=i)
    )


def unsound(found: Sensitivity, atoms: Atoms, k: int | None, causes: bool) -> str:
    """What contradicts itself in a result."""
    values = found.singular_values
    modes = found.modes.reshape(len(values), 3 * len(found.atoms))
    n_values = found.n_coordinates - found.n_trivial
    if len(values) != (n_values if k is None else min(k, n_values)):
        return f"{len(values)} of {n_values} values for k={k}"
    if not (np.isfinite(values).all() and np.isfinite(modes).all()):
        return "not finite"
    if (values < 0).any() or (np.diff(values) < 0).any():
        return f"not sorted: {values}"
    if len(values) and values[-1] > found.sigma_max * (1 + 1e-5):
        return f"{values[-1]} above the largest, {found.sigma_max}"
    overlap = np.abs(modes @ modes.T - np.eye(len(modes))).max(initial=0.0)
    if overlap > 1e-6:
        return f"modes overlap: {overlap}"
    if found.modes.shape[1:] != (len(found.atoms), 3):
        return f"modes of shape {found.modes.shape} for {len(found.atoms)} points"
    if not 0 <= found.n_null <= n_values:
        return f"{found.n_null} null directions of {n_values}"
    if found.scope == "structure" and found.n_coordinates != 3 * len(atoms):
        return f"{found.n_coordinates} coordinates of {len(atoms)} atoms"
    if causes:
        assert found.counts is not None
        assert found.causes is not None
        if sum(found.counts.values()) != found.n_null + found.n_near_null + found.n_apart:
            return f"{found.counts}: {found.n_null} + {found.n_near_null} + {found.n_apart}"
        if len(found.causes) != len(values):
            return f"{len(found.causes)} causes of {len(values)} values"
    str(found)
    return ""


def variant(
    rng: np.random.Generator,
    found: Sensitivity,
    atoms: Atoms,
    again: Callable[[Atoms, int | None], Sensitivity],
) -> str:
    """What changes when the structure is turned, moved or written in another order."""
    # Rounding of far coordinates moves atoms; where nothing is seen, all is rounding.
    if np.abs(atoms.positions).max() > 1e3 or found.sigma_max < 1e-9:
        return ""
    other = atoms.copy()
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    with np.errstate(all="ignore"):
        other.cell[:] = np.where(atoms.pbc[:, None], atoms.cell.array @ rotation.T, 0.0)
    other.positions[:] = atoms.positions @ rotation.T + rng.normal(size=3)
    order = rng.permutation(len(atoms))
    center = None if found.center is None else int(np.flatnonzero(order == found.center)[0])
    seen = again(other[order], center)
    if seen.n_trivial != found.n_trivial:
        return f"{found.n_trivial} rigid motions, then {seen.n_trivial}"
    worst = np.abs(seen.singular_values - found.singular_values).max(initial=0.0)
    if worst > 1e-6 * found.sigma_max:
        return f"{found.singular_values}, then {seen.singular_values}"
    return ""


def of_nearest(atoms: Atoms, descriptor: object, scope: str) -> str:
    if len(atoms) > 5 or isinstance(descriptor, FiniteDifferenceDescriptor):
        atoms = atoms[:3]
    found = nearest_singular(atoms, descriptor, scope=scope, max_steps=3)
    return "" if np.isfinite(found.distance) or np.isnan(found.distance) else "no distance"


def good() -> Atoms:
    return Atoms("OHH", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])


def of_scan(atoms: Atoms, descriptor: object, scope: str) -> str:
    result = scan([good(), atoms, good()], descriptor, scope=scope)
    rows = result.rows
    if [row["index"] for row in rows] != [0, 1, 2]:
        return f"rows {rows}"
    if rows[0]["ratio"] != rows[2]["ratio"] or rows[0]["error"] != rows[2]["error"]:
        return f"good frames differ: {rows[0]}, {rows[2]}"
    if rows[1]["ratio"] is None and not rows[1]["error"]:
        alone = analyze(atoms, descriptor, scope=scope)
        if not np.isnan(alone.ratio):
            return f"neither a ratio nor an error: {rows[1]}, {alone}"
    str(result)
    return ""


def of_replay(atoms: Atoms, descriptor: object, scope: str) -> str:
    log = replay([good(), atoms, good()], descriptor, scope=scope, on_singular="log")
    usable = all(frame.error is None for frame in read_frames([atoms]))
    expected = [0, 1, 2] if usable else [0, 2]  # one without elements, say, is left out
    return "" if log.step.tolist() == expected else f"steps {log.step} instead of {expected}"


if __name__ == "__main__":
    fuzzing.serve(judge)
