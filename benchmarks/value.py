"""Held-out errors of models trained on frames that ``select`` chose, over those of random frames.

Usage: python -m benchmarks.value FOLDER [--sets Si Ge] [--seeds 8] [--json FILE]

The folder has the files of :data:`SETS` (docs/select says where they are from). Each set is split
at random: 30 % test, 70 % pool. The models are linear in random Fourier features that ``select``
does not know, and their ridge is chosen inside the training set.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity import SOAP, select
from ase_sensitivity.dataset.select.design import DESIGNS
from ase_sensitivity.io.reading import read_frames
from ase_sensitivity.io.references import tasks_of, unit_factors
from ase_sensitivity.types import SELECTION_METHODS, Floats, Ints
from benchmarks.tables import markdown

SETS: dict[str, tuple[str, list[str], float, str | None, str]] = {
    "Si": ("mlearn_Si.xyz", ["Si"], 5.0, None, "eV"),
    "Ge": ("mlearn_Ge.xyz", ["Ge"], 5.0, None, "eV"),
    "Mo": ("mlearn_Mo.xyz", ["Mo"], 5.0, None, "eV"),
    "carbon": ("carbon_reduced_100.xyz", ["C"], 4.0, "force", "eV"),
    "ethanol": ("ethanol_reduced_100.xyz", ["C", "H", "O"], 4.0, None, "kcal/mol"),
}
"""File, species, cutoff in Å, name of the forces and unit of the energies."""

BASIS = (6, 4)
SIZES = (8, 24)
N_FEATURES = 400
N_RANDOM = 10
"""Number of random choices in each split. The logarithms of their errors are averaged."""

N_STARTS = 4
"""Number of random first frames of farthest points, averaged as well."""

ENERGY_SHARE = 0.3
"""Sum of the squares of all energies over that of all forces in the fit."""

RIDGES = 10.0 ** np.arange(-10, 0)
N_FOLDS = 4
OTHERS = [method for method in SELECTION_METHODS if method != "random"]


@dataclass(frozen=True, eq=False)
class Set:
    """Structures, labels, and the rows of the model that is fitted."""

    frames: list[Any]
    soap: SOAP
    forces: list[Floats]
    energies: Floats
    force_rows: list[Floats]
    energy_rows: Floats

    @classmethod
    def read(cls, folder: Path, name: str) -> Set:
        """Read a set and compute its rows."""
        file, species, cutoff, key, unit = SETS[name]
        read = read_frames(folder / file)
        tasks = list(tasks_of(read, key, None, unit_factors(unit), strict=True))
        soap = SOAP(species, cutoff, *BASIS, threads=1)
        rng = np.random.default_rng(12345)
        some = np.concatenate([soap.features(task.atoms) for task in tasks[::5]])
        some = some[rng.choice(len(some), min(len(some), 300), replace=False)]
        length = np.median(np.linalg.norm(some[:, None] - some, axis=-1))
        frequencies = rng.normal(size=(some.shape[1], N_FEATURES)) / length
        phases = rng.uniform(0, 2 * np.pi, (119, N_FEATURES))
        force_rows, energy_rows = [], []
        for task in tasks:
            jacobian = soap.jacobian(task.atoms)
            angles = jacobian.features @ frequencies + phases[task.atoms.numbers[jacobian.centers]]
            rows = np.zeros((len(task.atoms), 3, N_FEATURES))
            slopes = jacobian.blocks @ frequencies
            np.add.at(rows, jacobian.atom, slopes * np.sin(angles)[jacobian.row, None])
            force_rows.append(rows.reshape(-1, N_FEATURES))
            energy_rows.append(np.cos(angles).sum(axis=0) / len(task.atoms))
        return cls(
            [task.atoms for task in tasks],
            soap,
            [task.forces.ravel() for task in tasks],
            np.array([task.energy / len(task.atoms) for task in tasks]),
            force_rows,
            np.array(energy_rows),
        )

    def errors(self, train: Ints, test: Ints) -> tuple[float, float]:
        """Root mean square errors of forces (eV/Å) and energies (eV per atom) of the test set."""
        train = np.sort(train)
        mean_row, mean = self.energy_rows[train].mean(axis=0), self.energies[train].mean()
        squares = sum(float(self.forces[i] @ self.forces[i]) for i in train)
        spread = float(((self.energies[train] - mean) ** 2).sum())
        weight = ENERGY_SHARE * squares / max(spread, 1e-12)

        def normal(part: Ints) -> tuple[Floats, Floats]:
            """The two sides of the normal equations."""
            rows = np.concatenate([self.force_rows[i] for i in part])
            energy_rows = self.energy_rows[part] - mean_row
            left = rows.T @ rows + weight * energy_rows.T @ energy_rows
            right = rows.T @ np.concatenate([self.forces[i] for i in part])
            return left, right + weight * energy_rows.T @ (self.energies[part] - mean)

        order = np.random.default_rng(0).permutation(train)
        folds = [order[k::N_FOLDS] for k in range(N_FOLDS)]
        parts = [normal(fold) for fold in folds]
        left, right = sum(part[0] for part in parts), sum(part[1] for part in parts)
        ridges = RIDGES * np.trace(left) / len(left)
        missed = np.zeros(len(ridges))
        for fold, (own, own_right) in zip(folds, parts, strict=True):
            solved = _ridge(left - own, right - own_right, ridges)
            for i in fold:
                missed += ((self.force_rows[i] @ solved - self.forces[i][:, None]) ** 2).sum(axis=0)
        model = _ridge(left, right, ridges[[np.argmin(missed)]])[:, 0]
        wrong = [self.force_rows[i] @ model - self.forces[i] for i in test]
        energies = (self.energy_rows[test] - mean_row) @ model + mean - self.energies[test]
        return (
            float(np.sqrt((np.concatenate(wrong) ** 2).mean())),
            float(np.sqrt((energies**2).mean())),
        )


def _ridge(left: Floats, right: Floats, ridges: Floats) -> Floats:
    """Solutions of the normal equations, of shape (n, n_ridges)."""
    values, vectors = np.linalg.eigh(left)
    return vectors @ ((vectors.T @ right)[:, None] / (values.clip(0)[:, None] + ridges))


def orders(data: Set, pool: Ints, seed: int) -> dict[str, list[Ints]]:
    """The frames of a pool in the order in which each method chooses them, from several starts."""
    frames = [data.frames[i] for i in pool]
    found: dict[str, list[Ints]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in OTHERS:
            store = Path(folder) / "rows" if method in DESIGNS else None  # one for all designs
            for start in range(N_STARTS if method == "farthest-points" else 1):
                chosen = select(
                    frames,
                    data.soap,
                    max(SIZES),
                    method=method,
                    seed=N_STARTS * seed + start,
                    store=store,
                )
                found.setdefault(method, []).append(pool[chosen.indices])
    return found


def logarithms(data: Set, seeds: int) -> dict[tuple[str, int], Floats]:
    """Logarithms of the errors of each method and size, of shape (n_seeds, 2)."""
    found: dict[tuple[str, int], list[Floats]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(data.frames))
        cut = len(order) * 3 // 10
        test, pool = order[:cut], order[cut:]
        chosen = orders(data, pool, seed)
        chosen["random"] = [rng.permutation(pool) for _ in range(N_RANDOM)]
        for size in SIZES:
            for method, several in chosen.items():
                own = [np.log(data.errors(numbers[:size], test)) for numbers in several]
                found.setdefault((method, size), []).append(np.mean(own, axis=0))
    return {key: np.array(values) for key, values in found.items()}


def ratio(one: Floats, other: Floats) -> dict[str, list[float]]:
    """Ratios of errors with their 95 % intervals (paired bootstrap over the splits)."""
    differences = one - other
    draws = np.random.default_rng(0).integers(len(differences), size=(10_000, len(differences)))
    means = differences[draws].mean(axis=1)
    low, high = np.exp(np.percentile(means, [2.5, 97.5], axis=0))
    middle = np.exp(differences.mean(axis=0))
    return {
        name: [float(middle[k]), float(low[k]), float(high[k])]
        for k, name in enumerate(("forces", "energies"))
    }


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the data are")
    parser.add_argument("--sets", nargs="*", default=list(SETS), help="some of the sets")
    parser.add_argument("--seeds", type=int, default=8, help="number of splits")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for name in arguments.sets:
        logs = logarithms(Set.read(arguments.folder, name), arguments.seeds)
        for size in SIZES:
            for method in OTHERS:
                row = {"set": name, "n": size, "method": method}
                for other in ("random", "farthest-points"):
                    values = ratio(logs[method, size], logs[other, size])
                    row |= {f"{kind} / {other}": value for kind, value in values.items()}
                results.append(row)
        own = [row for row in results if row["set"] == name]
        print(markdown([{key: _text(value) for key, value in row.items()} for row in own]))
        if arguments.json:
            arguments.json.write_text(json.dumps(results) + "\n")


def _text(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    middle, low, high = value
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
