"""A linear model on random Fourier features of every center, and its rows for a frame."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from ase_sensitivity.dataset.select.fourier import N_AXES, N_FOURIER, Fourier
from ase_sensitivity.descriptors.base import Descriptor, HasRows, jacobian_of
from ase_sensitivity.jacobian.contract import BlockJacobian, Jacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Floats, Ints

N_COLUMNS = 64
"""Number of combinations of Fourier features that are kept: those that vary most over a sample."""

N_DIRECTIONS = 24
"""Number of random directions along which the forces of a frame are represented."""


@dataclass(frozen=True, eq=False)
class FrameRows:
    """The rows of the model for one frame.

    Attributes
    ----------
    forces
        Derivatives along some directions, of shape (n_directions, n_columns). The sum of their
        squares is on average that of all force components.
    energy
        The energy per atom, of shape (n_columns,).
    average
        The mean feature vector of the centers on a few axes, of shape (n_axes,).
    """

    forces: Floats
    energy: Floats
    average: Floats


class LinearModel:
    """A linear model of energies and forces, a sum over centers. It needs no labels.

    Parameters
    ----------
    descriptor
        Any descriptor; its Jacobian needs the product ``apply`` alone.
    structures
        A sample of the pool, for the length scale and the columns.
    seed
        Seed of the random features.
    derivatives
        Whether rows of energies and forces are wanted, and not average features alone.
    n_columns
        Number of combinations of Fourier features to keep; None for each feature by itself.
    n_fourier, most_axes
        Number of Fourier features, and of the axes that they depend on.

    Attributes
    ----------
    n_axes
        Length of the averages.
    columns
        The combinations of Fourier features that are kept, of shape (any, n_columns).

    Raises
    ------
    ValueError
        If no structure of the sample can be evaluated, or no center has features.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        structures: Sequence[Atoms],
        seed: int,
        *,
        derivatives: bool = True,
        n_columns: int | None = N_COLUMNS,
        n_fourier: int = N_FOURIER,
        most_axes: int = N_AXES,
    ) -> None:
        self.descriptor = descriptor
        rng = np.random.default_rng(seed)
        collected: dict[int, list[Floats]] = {}
        usable = []
        error: Exception = ValueError("there are none")
        for atoms in structures:
            try:
                vectors = list(_feature_vectors(descriptor, atoms))
            except Exception as failure:  # the others may do
                error = failure
                continue
            if not any(len(features) for _, features in vectors):
                error = ValueError(f"no atom is a center of {descriptor!r}; check its species")
                continue
            usable.append(atoms)
            for part, features in vectors:
                collected.setdefault(part, []).append(features)
        if not usable:
            raise ValueError(f"no frame of `frames` can be evaluated: {reason(error)}")
        self._n_fourier = n_fourier
        self._fourier: dict[int, Fourier] = {}
        for part, arrays in collected.items():
            features = np.concatenate(arrays)
            if len(features):
                self._fourier[part] = Fourier.fit(features, rng, n_fourier, most_axes)
        self.n_axes = sum(one.axes.shape[1] for one in self._fourier.values())
        self.columns = np.eye(n_fourier * len(self._fourier))
        if not derivatives:
            self.columns = self.columns[:, :0]
        elif n_columns is not None:
            self.columns = self._best_columns(usable, n_columns)

    def _best_columns(self, structures: Sequence[Atoms], n_columns: int) -> Floats:
        """The combinations of Fourier features that vary most over a sample of the pool."""
        rows = [self.rows(atoms) for atoms in structures]
        energies = np.array([one.energy for one in rows])
        energies -= energies.mean(axis=0)
        forces = sum(one.forces.T @ one.forces for one in rows)
        total = np.zeros_like(self.columns)
        for gram in (forces, energies.T @ energies):
            total += gram / max(float(np.trace(gram)), np.finfo(float).tiny)
        return np.linalg.eigh(total)[1][:, : -n_columns - 1 : -1]

    def average(self, atoms: Atoms) -> Floats:
        """The mean feature vector alone, without derivatives if possible, of shape (n_axes,).

        Raises
        ------
        ValueError
            If the descriptor fails, or no atom is a center.
        """
        return self._average(atoms, _feature_vectors(self.descriptor, atoms))

    def rows(self, atoms: Atoms, directions: Floats | None = None) -> FrameRows:
        """The rows of a frame.

        Parameters
        ----------
        atoms
            The frame.
        directions
            Displacements of shape (n_directions, n_atoms, 3); by default those of
            :func:`directions_of`.

        Raises
        ------
        ValueError
            If the descriptor fails, or no atom is a center.
        """
        if directions is None:
            directions = directions_of(atoms)
        forces = np.zeros((len(directions), len(self._fourier), self._n_fourier))
        energy = np.zeros((len(self._fourier), self._n_fourier))
        vectors = []
        numbers = np.append(atoms.numbers, 0)  # center -1: the structure as a whole
        places = {part: place for place, part in enumerate(self._fourier)}
        for part, features, centers, changes in _products(
            jacobian_of(self.descriptor, atoms), directions
        ):
            if part not in self._fourier:
                continue
            fourier, place = self._fourier[part], places[part]
            vectors.append((part, features))
            angles = fourier.coordinates(features) @ fourier.frequencies
            angles += fourier.phases[numbers[centers]]
            energy[place] += np.cos(angles).sum(axis=0) / len(atoms)
            forces[:, place] += np.einsum("krm,rm->km", fourier.slopes(changes), np.sin(angles))
        return FrameRows(
            forces=forces.reshape(len(directions), -1) @ self.columns,
            energy=energy.ravel() @ self.columns,
            average=self._average(atoms, vectors),
        )

    def forces(self, atoms: Atoms, weights: Floats) -> tuple[Floats, Floats]:
        """The forces of a model (n_atoms, 3), and the mean feature vector, from one ``adjoint``.

        Parameters
        ----------
        atoms
            The frame.
        weights
            Of the columns, of shape (n_columns,), for an energy in eV.

        Raises
        ------
        ValueError
            If the descriptor fails, or no atom is a center.
        """
        jacobian = jacobian_of(self.descriptor, atoms)
        of_parts = (self.columns @ weights).reshape(len(self._fourier), self._n_fourier)
        numbers = np.append(atoms.numbers, 0)
        places = {part: place for place, part in enumerate(self._fourier)}
        slopes, vectors = [], []
        for part, features, centers, _ in _products(jacobian, np.empty((0, len(atoms), 3))):
            if part not in self._fourier:
                slopes.append(np.zeros(features.size))
                continue
            fourier = self._fourier[part]
            vectors.append((part, features))
            angles = fourier.coordinates(features) @ fourier.frequencies
            angles += fourier.phases[numbers[centers]]
            steep = np.sin(angles) * of_parts[places[part]]
            slopes.append((steep @ fourier.frequencies.T @ fourier.axes.T).ravel())
        return jacobian.adjoint(np.concatenate(slopes)[None])[0], self._average(atoms, vectors)

    def _average(self, atoms: Atoms, vectors: Iterable[tuple[int, Floats]]) -> Floats:
        """The mean of feature vectors of each part, one part after the other.

        Without any the frame has no place among the others, and ValueError is raised.
        """
        collected: dict[int, list[Floats]] = {part: [] for part in self._fourier}
        for part, features in vectors:
            if part in collected:
                collected[part].append(features)
        if not any(len(features) for arrays in collected.values() for features in arrays):
            raise ValueError(
                f"no atom of {atoms.get_chemical_formula()} is a center of the descriptor; check "
                "its species"
            )
        return np.concatenate(
            [
                fourier.coordinates(np.concatenate(collected[part])).mean(axis=0)
                if sum(map(len, collected[part]))
                else np.zeros(fourier.axes.shape[1])
                for part, fourier in self._fourier.items()
            ]
        )


def directions_of(atoms: Atoms) -> Floats:
    """Displacements of all atoms, (n_directions, n_atoms, 3): all coordinates, if they are few.

    Otherwise they are random and orthogonal, with lengths that make the sum of squared derivatives
    right on average. Equal structures have equal ones, whatever comes before them.
    """
    n = 3 * len(atoms)
    if n <= N_DIRECTIONS:
        return np.eye(n).reshape(n, -1, 3)
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(atoms.positions).tobytes()))
    axes = np.linalg.qr(rng.normal(size=(n, N_DIRECTIONS)))[0]
    return (np.sqrt(n / N_DIRECTIONS) * axes.T).reshape(N_DIRECTIONS, -1, 3)


def _feature_vectors(descriptor: Descriptor, atoms: Atoms) -> Iterator[tuple[int, Floats]]:
    """The number of each part of the descriptor, and its features (n_rows, n_features)."""
    if isinstance(descriptor, HasRows):
        yield from ((part, features) for part, (features, _) in enumerate(descriptor.rows(atoms)))
    else:
        nothing = np.empty((0, len(atoms), 3))
        for part, features, _, _ in _products(jacobian_of(descriptor, atoms), nothing):
            yield part, features


def _products(jacobian: Jacobian, directions: Floats) -> Iterator[tuple[int, Floats, Ints, Floats]]:
    """Part, features, centers and changes (n_directions, n_rows, n_features) along directions."""
    if isinstance(jacobian, BlockJacobian):
        apart = isinstance(jacobian, StackedJacobian)  # otherwise all have the same features
        for number, block in enumerate(jacobian.parts):
            yield number if apart else 0, block.features, block.centers, block.changes(directions)
        return
    features = np.atleast_2d(jacobian.features)
    centers = np.concatenate([one.centers for one in jacobian.ranges])
    if len(centers) != len(features):  # not known by row
        centers = np.full(len(features), -1)
    changes = jacobian.apply(directions).reshape(len(directions), *features.shape)
    yield 0, features, centers, changes
