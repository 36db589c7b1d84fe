"""A small potential on the features of any descriptor, fitted to energies and forces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_sensitivity.dataset.select.fourier import Fourier
from ase_sensitivity.descriptors.base import Descriptor, jacobian_of, rows_of
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import as_integer, as_number

N_FOURIER = 1000
"""Number of random Fourier features of each center."""

RIDGE = 1e-10
"""Ridge, relative to the largest eigenvalue of the normal matrix. Errors of forces on held-out runs
of methane with 1e-8, this, and 1e-12, in eV/Å: .0070, .0026, .0015 with all atoms as centers, .116,
.124, .189 from carbon only (230 frames, :mod:`~ase_sensitivity.demonstration.methane`)."""


class FourierPotential(BaseCalculator):
    """An ASE calculator: a sum over centers of random Fourier features of their features.

    The energy is ``offset * n_atoms + sum over centers i of c . cos(W f_i + b)``, with phases b for
    each species of the center. So energies and forces depend on positions by the descriptor's
    features alone, and are smooth functions of them. :meth:`fit` makes one.

    Parameters
    ----------
    descriptor
        Gives the features f_i.
    fourier
        The random features.
    coefficients
        The c in eV, of shape (n_fourier,).
    offset
        Energy per atom in eV.

    Attributes
    ----------
    descriptor, fourier, coefficients, offset
        As given.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (as ASE declares it)

    def __init__(
        self, descriptor: Descriptor, fourier: Fourier, coefficients: Floats, offset: float
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.descriptor = descriptor
        self.fourier = fourier
        self.coefficients = coefficients
        self.offset = offset

    @classmethod
    def fit(
        cls,
        descriptor: Descriptor,
        frames: Sequence[Atoms],
        *,
        n_fourier: int = N_FOURIER,
        ridge: float = RIDGE,
        seed: int = 0,
    ) -> FourierPotential:
        """Fit energies and forces by ridge regression.

        Parameters
        ----------
        descriptor
            A descriptor of one part: rows of one length, one or more for each structure.
        frames
            Structures with energies and forces: each has a calculator that gives them.
        n_fourier
            Number of random features.
        ridge
            Relative to the largest eigenvalue of the normal matrix.
        seed
            Of the random features.

        Returns
        -------
        FourierPotential
            One square error in eV of an energy counts as much as one in eV/Å of a force component.

        Raises
        ------
        ValueError
            If there are no frames, a frame lacks energies or forces, the descriptor has several
            parts, or an argument makes no sense.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from ase.calculators.emt import EMT
        >>> from ase_sensitivity import SOAP
        >>> frames = [molecule("H2O") for _ in range(10)]
        >>> for seed, atoms in enumerate(frames):
        ...     atoms.rattle(0.05, seed=seed)
        ...     atoms.calc = EMT()
        >>> soap = SOAP(["O", "H"], cutoff=4.0, n_max=4, l_max=3)
        >>> potential = FourierPotential.fit(soap, frames[1:], n_fourier=100)
        >>> true = frames[0].get_potential_energy()
        >>> frames[0].calc = potential
        >>> bool(abs(frames[0].get_potential_energy() - true) < 0.02)
        True
        """
        as_integer("n_fourier", n_fourier, 1)
        as_number("ridge", ridge, "positive")
        if len(frames) == 0:
            raise ValueError("`frames` is empty but must have a structure with energy and forces")
        energies, forces = _labels(frames)
        sample = np.concatenate([_rows(descriptor, atoms)[0] for atoms in frames])
        if len(sample) == 0:
            raise ValueError(f"no atom of `frames` is a center of {descriptor!r}")
        fourier = Fourier.fit(sample, np.random.default_rng(seed), n_fourier)
        sizes = np.array([len(atoms) for atoms in frames])
        offset = float((energies / sizes).mean())
        normal, right = np.zeros((n_fourier, n_fourier)), np.zeros(n_fourier)
        for atoms, energy, force in zip(frames, energies - offset * sizes, forces, strict=True):
            rows = _design(descriptor, fourier, atoms)
            normal += rows.T @ rows
            right += rows.T @ np.append(energy, force.ravel())
        values, vectors = scipy.linalg.eigh(normal)
        shifted = values.clip(0.0) + ridge * values[-1]
        return cls(descriptor, fourier, vectors @ (vectors.T @ right / shifted), offset)

    def calculate(
        self, atoms: Atoms, properties: Sequence[str], system_changes: Sequence[str]
    ) -> None:
        """Energy in eV and forces in eV/Å, as ASE asks for them.

        Raises
        ------
        ValueError
            If the descriptor has several parts.
        """
        features, centers = _rows(self.descriptor, atoms)
        angles = _angles(self.fourier, features, centers, atoms)
        energy = self.offset * len(atoms) + float((np.cos(angles) @ self.coefficients).sum())
        # d energy / d features, on the axes that the Fourier features depend on.
        slopes = -(np.sin(angles) * self.coefficients) @ self.fourier.frequencies.T
        weights = slopes @ self.fourier.axes.T
        forces = -jacobian_of(self.descriptor, atoms).adjoint(weights.reshape(1, -1))[0]
        self.results = {"energy": energy, "forces": forces}


def force_error(calculator: Any, frames: Sequence[Atoms]) -> float:
    """Root mean square error in eV/Å of the force components, for frames with true ones."""
    true = np.concatenate(_labels(frames)[1])
    return float(np.sqrt(((np.concatenate(list(_forces(calculator, frames))) - true) ** 2).mean()))


def _forces(calculator: Any, frames: Sequence[Atoms]) -> Iterator[Floats]:
    for atoms in frames:
        copy = atoms.copy()
        copy.calc = calculator
        yield copy.get_forces()


def _labels(frames: Sequence[Atoms]) -> tuple[Floats, list[Floats]]:
    energies, forces = [], []
    for number, atoms in enumerate(frames):
        if atoms.calc is None:
            raise ValueError(
                f"frame {number} of `frames` has no energy and forces; give it a calculator"
            )
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    return np.array(energies), forces


def _rows(descriptor: Descriptor, atoms: Atoms) -> tuple[Floats, Ints]:
    """Features (n_rows, n_features) and the center of each row."""
    parts = rows_of(descriptor, atoms)
    if len(parts) != 1:
        raise ValueError(
            f"{descriptor!r} has {len(parts)} parts but must have one; fit to one of them"
        )
    return parts[0]


def _angles(fourier: Fourier, features: Floats, centers: Ints, atoms: Atoms) -> Floats:
    numbers = np.append(atoms.numbers, 0)  # center -1: the structure as a whole
    return fourier.coordinates(features) @ fourier.frequencies + fourier.phases[numbers[centers]]


def _design(descriptor: Descriptor, fourier: Fourier, atoms: Atoms) -> Floats:
    """Energy and all forces of each Fourier feature, of shape (1 + 3 n_atoms, n_fourier)."""
    features, centers = _rows(descriptor, atoms)
    angles = _angles(fourier, features, centers, atoms)
    unit = np.eye(3 * len(atoms)).reshape(-1, len(atoms), 3)
    changes = jacobian_of(descriptor, atoms).apply(unit).reshape(len(unit), *features.shape)
    forces = np.einsum("krm,rm->km", fourier.slopes(changes), np.sin(angles))
    return np.vstack([np.cos(angles).sum(axis=0), forces])
