"""Fit models to forces and compare their errors with what the descriptor makes unavoidable.

Twelve models, linear and kernel, each on several bases, are fitted by least squares to energies and
forces of two data sets. On the very frames that they were fitted to, none has an error below the
irreducible one, which is known before any fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_sensitivity import SOAP, scan
from ase_sensitivity.dataset.forces import THRESHOLDS

SETS = {
    "carbon_reduced_100.xyz": {"forces_key": "force"},
    "ethanol_reduced_100.xyz": {"units": "kcal/mol"},
}
Case = tuple[str, list[str], list[str], list[tuple[int, int]]]
CASES: list[Case] = [
    ("carbon_reduced_100.xyz", ["C"], ["C"], [(1, 0), (2, 0), (2, 1), (4, 2), (8, 6)]),
    ("ethanol_reduced_100.xyz", ["C", "H", "O"], ["C", "O"], [(1, 0), (2, 0), (2, 1), (4, 2)]),
    ("ethanol_reduced_100.xyz", ["C", "H", "O"], ["C", "H", "O"], [(1, 0), (2, 1)]),
]


@dataclass
class Sample:
    """A structure with its labels and its bound.

    Attributes
    ----------
    features, jacobian
        Of shape (n_centers, n_features) and (n_centers, n_features, 3 n_atoms).
    species
        Index of each center's species, of shape (n_centers,).
    counts
        Number of atoms of each species: a constant energy for each is fitted as well.
    energy, forces
        In eV and eV/Å, of shape (3 n_atoms,).
    bound
        Irreducible force error in eV/Å.
    usual
        The same without directions below 1e-9 sigma_max, as ``scan`` has it by default.
    """

    features: np.ndarray
    jacobian: np.ndarray
    species: np.ndarray
    counts: np.ndarray
    energy: float
    forces: np.ndarray
    bound: float
    usual: float


RESOLVED = 1e-13
"""Directions are null below this fraction of sigma_max. What lies above, a fit in double precision
may use, with slopes of any size."""

USUAL = int(np.abs(np.log10(THRESHOLDS) + 9).argmin())
"""Where the curve of irreducible errors has the default tolerance of ``scan``."""

LEAST = 1e-3
"""Bounds of frames below this (eV/Å) are as good as none."""

# A model is a sum over centers of functions of their features. For features of shape
# (n_centers, n_features) it gives the functions' values, of shape (n_centers, m), and slopes, of
# shape (n_centers, n_features, m).
Functions = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def samples(frames: list[Atoms] | str, soap: SOAP, **references: str) -> list[Sample]:
    """Features, Jacobians, labels and bounds of all frames."""
    found = scan(frames, soap, k=1, causes=False, null_tolerance=RESOLVED, **references)
    known = sorted({symbol for record in found.records() for symbol in record.atoms.symbols})
    result = []
    for record in found.records():
        atoms = record.atoms
        part = soap.jacobian(atoms)
        jacobian = np.zeros((len(part.centers), len(atoms), 3, part.features.shape[1]))
        np.add.at(jacobian, (part.row, part.atom), part.blocks)
        symbols = np.array(atoms.get_chemical_symbols())
        result.append(
            Sample(
                features=part.features,
                jacobian=jacobian.transpose(0, 3, 1, 2).reshape(*part.features.shape, -1),
                species=np.searchsorted(known, symbols[part.centers]),
                counts=np.array([(symbols == symbol).sum() for symbol in known], dtype=float),
                energy=atoms.get_potential_energy(),
                forces=atoms.get_forces().ravel(),
                bound=record.row["irreducible_force_error"],
                usual=np.sqrt(record.curve[USUAL] / (3 * len(atoms))),
            )
        )
    return result


def linear(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features themselves."""
    n = features.shape[1]
    return features, np.broadcast_to(np.eye(n), (len(features), n, n))


def polynomial(points: np.ndarray, degree: int) -> Functions:
    """Kernels (1 + f . f_m / |f|^2)^degree; |f|^2 is the mean over the points."""
    scale = (points**2).sum(axis=1).mean()

    def functions(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base = 1 + features @ points.T / scale
        slope = degree * base ** (degree - 1) / scale
        return base**degree, slope[:, None, :] * points.T

    return functions


def gaussian(points: np.ndarray, length: float) -> Functions:
    """Kernels exp(-|f - f_m|^2 / 2 length^2), features in units of their standard deviations."""
    spread = points.std(axis=0)
    unit = np.maximum(spread, 1e-3 * spread.max()) * np.sqrt(points.shape[1])

    def functions(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        apart = (features[:, :, None] - points.T) / unit[:, None]
        values = np.exp(-0.5 * (apart**2).sum(axis=1) / length**2)
        return values, -apart / unit[:, None] * values[:, None, :] / length**2

    return functions


def design(data: list[Sample], functions: Functions, n_species: int) -> tuple[np.ndarray, ...]:
    """Energies and forces of every function, of shapes (n_frames, m) and (n_components, m).

    Each species has functions of its own, and a constant energy.
    """
    energies, forces = [], []
    for sample in data:
        values, slopes = functions(sample.features)
        mine = np.eye(n_species)[sample.species]
        total = np.einsum("ik,im->km", mine, values).ravel()
        per_center = -np.einsum("ifx,ifm->ixm", sample.jacobian, slopes, optimize=True)
        force = np.einsum("ik,ixm->xkm", mine, per_center, optimize=True)
        force = force.reshape(len(sample.forces), -1)
        energies.append(np.concatenate([total, sample.counts]))
        forces.append(np.hstack([force, np.zeros((len(force), n_species))]))
    return np.array(energies), np.concatenate(forces)


def fitted(data: list[Sample], functions: Functions, weight: float, ridge: float) -> np.ndarray:
    """Errors of the forces after a fit by least squares, of shape (n_components,).

    Parameters
    ----------
    data
        What to fit.
    functions
        The model.
    weight
        Of energies per atom against forces; 0 for forces only.
    ridge
        Regularisation relative to the columns of the least squares problem.
    """
    n_species = len(data[0].counts)
    energies, forces = design(data, functions, n_species)
    n_atoms = np.array([sample.counts.sum() for sample in data])
    labels = np.array([sample.energy for sample in data]) / n_atoms
    reference = np.concatenate([sample.forces for sample in data])
    matrix = np.vstack([weight * energies / n_atoms[:, None], forces])
    target = np.concatenate([weight * labels, reference])
    scale = np.linalg.norm(matrix, axis=0)
    used = scale > 1e-12 * scale.max()
    matrix = matrix[:, used] / scale[used]
    if ridge:
        matrix = np.vstack([matrix, np.sqrt(ridge) * np.eye(matrix.shape[1])])
        target = np.concatenate([target, np.zeros(matrix.shape[1])])
    solution = np.linalg.lstsq(matrix, target, rcond=1e-13)[0]
    return forces[:, used] @ (solution / scale[used]) - reference


def models(data: list[Sample], n_points: int) -> Iterator[tuple[str, Functions, float, float]]:
    """Name, functions, weight of the energies and ridge of every model."""
    every = np.concatenate([sample.features for sample in data])
    order = np.random.default_rng(0).permutation(len(every))
    some, few = every[order[:n_points]], every[order[: n_points // 4]]
    yield "linear, forces only", linear, 0.0, 0.0
    yield "linear", linear, 1.0, 0.0
    yield "linear, ridge 1e-8", linear, 1.0, 1e-8
    yield "linear, ridge 1e-3", linear, 1.0, 1e-3
    yield "quadratic", polynomial(few, 2), 1.0, 1e-12
    yield "degree 4", polynomial(some, 4), 1.0, 1e-12
    yield "degree 4, forces only", polynomial(some, 4), 0.0, 0.0
    yield "degree 8", polynomial(some, 8), 1.0, 1e-10
    yield "Gaussian 3", gaussian(some, 3.0), 1.0, 1e-12
    yield "Gaussian 1", gaussian(some, 1.0), 1.0, 1e-10
    yield "Gaussian 1, forces only", gaussian(some, 1.0), 0.0, 0.0
    yield "Gaussian 0.3", gaussian(some, 0.3), 1.0, 1e-8


def compare(data: list[Sample], n_points: int = 200) -> dict[str, np.ndarray]:
    """Root mean square force error of every frame after each fit, in eV/Å, of shape (n_frames,)."""
    ends = np.cumsum([len(sample.forces) for sample in data])[:-1]
    results = {}
    for name, functions, weight, ridge in models(data, n_points):
        parts = np.split(fitted(data, functions, weight, ridge), ends)
        results[name] = np.array([np.sqrt((part**2).mean()) for part in parts])
    return results


def over_set(each: np.ndarray, data: list[Sample]) -> float:
    """Root mean square over all components, from those of the frames."""
    weights = [len(sample.forces) for sample in data]
    return float(np.sqrt(np.average(each**2, weights=weights)))


@dataclass
class Result:
    """Fits on one basis.

    Attributes
    ----------
    title, basis
        Of the table.
    bounds
        Of every frame in eV/Å, of shape (n_frames,).
    errors
        Of every frame, for each model.
    bound, usual, error
        The same over the set; ``usual`` is the bound with the default tolerance of ``scan``.
    """

    title: str
    basis: str
    bounds: np.ndarray
    errors: dict[str, np.ndarray]
    bound: float
    usual: float
    error: dict[str, float]

    @classmethod
    def of(cls, title: str, basis: str, data: list[Sample]) -> Result:
        """Fit all models."""
        errors, bounds = compare(data), np.array([sample.bound for sample in data])
        error = {name: over_set(each, data) for name, each in errors.items()}
        usual = over_set(np.array([sample.usual for sample in data]), data)
        return cls(title, basis, bounds, errors, over_set(bounds, data), usual, error)

    @property
    def closest(self) -> float:
        """The least ratio of error and bound in any frame whose bound exceeds 1e-3 eV/Å."""
        bites = self.bounds > LEAST
        if not bites.any():
            return np.inf
        return min(float((e[bites] / self.bounds[bites]).min()) for e in self.errors.values())


def plot(results: list[Result], path: Path) -> None:
    """Errors of all fits in all frames against the bounds of the frames."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    colors: dict[str, str] = {}
    for result in results:
        color = colors.setdefault(result.title, f"C{len(colors)}")
        bites = result.bounds > LEAST
        for name, each in result.errors.items():
            marker = "o" if name.startswith("linear") else "^"
            axes.plot(
                result.bounds[bites], each[bites], marker, color=color, mec="none", ms=3, alpha=0.3
            )
    ends = [LEAST, 5.0]
    axes.plot(ends, ends, color="black", lw=1)
    axes.fill_between(ends, ends, LEAST, color="0.9", lw=0)
    axes.text(0.1, 0.01, "no model gets here", ha="center", color="0.3")
    for title, color in colors.items():
        axes.plot([], [], "s", color=color, label=title)
    axes.plot([], [], "ko", ms=4, label="linear models")
    axes.plot([], [], "k^", ms=4, label="kernel models")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set_xlabel("irreducible force error of the frame (eV/Å)")
    axes.set_ylabel("force error after the fit (eV/Å)")
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Fit, print a table, and draw a plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help=f"where {' and '.join(SETS)} are; by default small sets with EMT forces are made",
    )
    parser.add_argument("--plot", type=Path, help="write the plot to this file")
    arguments = parser.parse_args()
    with TemporaryDirectory() as made:
        folder, cases = arguments.folder, CASES
        if folder is None:
            folder, cases = Path(made), [(*case[:3], case[3][:2]) for case in CASES]
            make_sets(folder)
        results = results_of(folder, cases)
    print("That was the least error / bound of any frame and model.\n")
    print("| model | " + " | ".join(f"{one.title} {one.basis}" for one in results) + " |")
    print("|---" * (len(results) + 1) + "|")
    print("| **bound** | " + " | ".join(f"**{one.bound:.3g}**" for one in results) + " |")
    print("| *at 1e-9* | " + " | ".join(f"*{one.usual:.3g}*" for one in results) + " |")
    for name in results[0].error:
        print(f"| {name} | " + " | ".join(f"{one.error[name]:.3g}" for one in results) + " |")
    if arguments.plot:
        plot(results, arguments.plot)


def make_sets(folder: Path) -> None:
    """Write distorted diamond and ethanol with the forces of ASE's EMT, for want of better ones."""
    for name, start in (
        ("carbon_reduced_100.xyz", bulk("C", "diamond", a=3.57, cubic=True)),
        ("ethanol_reduced_100.xyz", molecule("CH3CH2OH")),
    ):
        frames = []
        for seed in range(12):
            atoms = start.copy()
            atoms.rattle(0.1, seed=seed)
            atoms.calc = EMT()
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            if "carbon" in name:
                atoms.arrays["force"] = forces
            frames.append(atoms)
        write(folder / name, frames)


def results_of(folder: Path, cases: list[Case]) -> list[Result]:
    """Fit all models on all bases."""
    results = []
    for name, species, centers, bases in cases:
        title = name.split("_")[0] + ("" if len(species) == 1 else f", {' '.join(centers)}")
        for n_max, l_max in bases:
            soap = SOAP(
                species, 4.0, n_max, l_max, atom_sigma=0.4, normalise=False, centers=centers
            )
            data = samples(str(folder / name), soap, **SETS[name])
            results.append(Result.of(title, f"({n_max}, {l_max})", data))
            print(f"{title} {results[-1].basis}: {results[-1].closest:.6f}", flush=True)
    return results


if __name__ == "__main__":
    main()
