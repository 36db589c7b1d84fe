"""Data sets with labels, and models of forces and energies that are linear in random features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_sensitivity import SOAP
from ase_sensitivity.io.reading import read_frames
from ase_sensitivity.io.references import Task, tasks_of, unit_factors
from ase_sensitivity.types import Floats, Ints

SETS: dict[str, tuple[str, list[str], float, str | None, str]] = {
    "Si": ("mlearn_Si.xyz", ["Si"], 5.0, None, "eV"),
    "Ge": ("mlearn_Ge.xyz", ["Ge"], 5.0, None, "eV"),
    "Mo": ("mlearn_Mo.xyz", ["Mo"], 5.0, None, "eV"),
    "carbon": ("carbon_reduced_100.xyz", ["C"], 4.0, "force", "eV"),
    "ethanol": ("ethanol_reduced_100.xyz", ["C", "H", "O"], 4.0, None, "kcal/mol"),
}
"""File, species, cutoff in Å, name of the forces and unit of the energies."""

BASIS = (6, 4)
N_FEATURES = 400
ENERGY_SHARE = 0.3
"""Sum of the squares of all energies over that of all forces in the fit."""

RIDGES = 10.0 ** np.arange(-10, 0)
N_FOLDS = 4


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
    def read(
        cls,
        folder: Path,
        name: str,
        soap: SOAP | None = None,
        *,
        every: int = 1,
        most: int | None = None,
        rows: bool = True,
    ) -> Set:
        """Read a set and compute its rows.

        Parameters
        ----------
        folder, name
            Where the data are, and which of :data:`SETS`.
        soap
            By default with :data:`BASIS` and the cutoff of the set.
        every
            Take one of so many frames.
        most
            If there are more atoms than this, take frames at even distances with about so many.
        rows
            Compute the rows of the model, for :meth:`errors`.
        """
        file, species, cutoff, key, unit = SETS[name]
        read = read_frames(folder / file)
        tasks = list(tasks_of(read, key, None, unit_factors(unit), strict=True))[::every]
        n_atoms = sum(len(task.atoms) for task in tasks)
        if most is not None and n_atoms > most:
            number = max(10, len(tasks) * most // n_atoms)
            tasks = [tasks[n] for n in np.linspace(0, len(tasks) - 1, number).astype(int)]
        soap = soap or SOAP(species, cutoff, *BASIS, threads=1)
        if not rows:
            return cls(*_labels(tasks, soap), [], np.empty((0, N_FEATURES)))
        rng = np.random.default_rng(12345)
        some = np.concatenate([soap.features(task.atoms) for task in tasks[::5]])
        some = some[rng.choice(len(some), min(len(some), 300), replace=False)]
        length = np.median(np.linalg.norm(some[:, None] - some, axis=-1))
        frequencies = rng.normal(size=(some.shape[1], N_FEATURES)) / length
        phases = rng.uniform(0, 2 * np.pi, (119, N_FEATURES))
        force_rows: list[Floats] = []
        energy_rows = []
        for task in tasks:
            jacobian = soap.jacobian(task.atoms)
            angles = jacobian.features @ frequencies + phases[task.atoms.numbers[jacobian.centers]]
            rows = np.zeros((len(task.atoms), 3, N_FEATURES))
            slopes = jacobian.blocks @ frequencies
            np.add.at(rows, jacobian.atom, slopes * np.sin(angles)[jacobian.row, None])
            force_rows.append(rows.reshape(-1, N_FEATURES))
            energy_rows.append(np.cos(angles).sum(axis=0) / len(task.atoms))
        return cls(*_labels(tasks, soap), force_rows, np.array(energy_rows))

    def fitted(self, train: Ints) -> Fitted:
        """The model of some frames; its ridge is chosen by a fourfold cross-validation in them."""
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
        best = int(np.argmin(missed))
        n_components = sum(len(self.forces[i]) for i in train)
        return Fitted(
            weights=_ridge(left, right, ridges[[best]])[:, 0],
            precision=left + ridges[best] * np.eye(len(left)),
            noise=float(np.sqrt(missed[best] / n_components)),
            mean_row=mean_row,
            mean=float(mean),
        )

    def missed(self, model: Fitted, frame: int) -> Floats:
        """The error of the model's forces on a frame in eV/Å, of shape (3 n_atoms,)."""
        return self.force_rows[frame] @ model.weights - self.forces[frame]

    def errors(self, train: Ints, test: Ints) -> tuple[float, float]:
        """Root mean square errors of forces (eV/Å) and energies (eV per atom) of the test set."""
        model = self.fitted(train)
        wrong = np.concatenate([self.missed(model, i) for i in test])
        energies = (self.energy_rows[test] - model.mean_row) @ model.weights + model.mean
        return (
            float(np.sqrt((wrong**2).mean())),
            float(np.sqrt(((energies - self.energies[test]) ** 2).mean())),
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model that was fitted.

    Attributes
    ----------
    weights
        Of the random features, of shape (N_FEATURES,).
    precision
        The matrix of the normal equations with the ridge. Its inverse, times the square of
        ``noise``, is the covariance of the weights (last-layer uncertainty).
    noise
        Root mean square force error of the cross-validation, in eV/Å.
    mean_row, mean
        What energies are relative to.
    """

    weights: Floats
    precision: Floats
    noise: float
    mean_row: Floats
    mean: float


def _labels(tasks: Sequence[Task], soap: SOAP) -> tuple[list[Any], SOAP, list[Floats], Floats]:
    return (
        [task.atoms for task in tasks],
        soap,
        [task.forces.ravel() for task in tasks],
        np.array([task.energy / len(task.atoms) for task in tasks]),
    )


def _ridge(left: Floats, right: Floats, ridges: Floats) -> Floats:
    """Solutions of the normal equations, of shape (n, n_ridges)."""
    values, vectors = np.linalg.eigh(left)
    return vectors @ ((vectors.T @ right)[:, None] / (values.clip(0)[:, None] + ridges))
