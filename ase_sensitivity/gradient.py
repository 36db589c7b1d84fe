"""How a singular value changes with the positions, and what does not depend on the size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from ase import Atoms

from ase_sensitivity.analysis import check_arguments
from ase_sensitivity.descriptors.base import (
    Descriptor,
    FeatureJacobian,
    Floats,
    Jacobian,
    jacobian_of,
)
from ase_sensitivity.spectrum.krylov import largest_eigenpairs
from ase_sensitivity.spectrum.scopes import View, structure_view
from ase_sensitivity.spectrum.solvers import spectrum
from ase_sensitivity.structure import check_atoms

STEP = 1e-4
"""Displacement along the mode in Å for the directional derivative of the Jacobian."""


@dataclass(frozen=True)
class SizeIndependent:
    """Measures of sensitivity that neither fall nor grow with the size of a periodic cell.

    Attributes
    ----------
    gamma
        The smallest ``|J v| / |C v|`` over displacements v, relative to the root mean square over
        all of them, where C v are the relative displacements of neighbours that are no rotation
        about their centre: how much less the features change than the environments do.
    distance_per_atom
        ``sigma_min / sum_i |d sigma_min / d r_i|`` in Å: how far every atom has to move at the
        least to make sigma_min zero, to first order.
    """

    gamma: float
    distance_per_atom: float


def singular_value_gradient(
    atoms: Atoms, descriptor: Descriptor, *, index: int = 0
) -> tuple[float, Floats]:
    """A singular value (structure scope) and its derivative with respect to the positions.

    Parameters
    ----------
    atoms
        The structure.
    descriptor
        The descriptor.
    index
        Which non-trivial singular value, counted from the smallest.

    Returns
    -------
    sigma
        The singular value in 1/Å times the unit of the features.
    gradient
        d sigma / d r of shape (n_atoms, 3), per Å. It means nothing for a value that is degenerate
        or zero, where sigma has a kink.

    Raises
    ------
    ValueError
        If there is no such singular value, or it is zero.

    Notes
    -----
    d sigma / d x = u^T (J(x + h v) - J(x - h v)) / 2h (docs/theory, gradient): two more Jacobians.
    """
    check_atoms(atoms)
    check_arguments(atoms, descriptor, scope="structure", center=None, k=index + 1)
    jacobian, view = _structure(atoms, descriptor)
    found = spectrum(view, index + 1)
    if len(found.singular_values) <= index:
        raise ValueError(
            f"`index` is {index} but there are {len(found.singular_values)} singular values"
        )
    if found.n_null > index:
        raise ValueError(f"singular value {index} is zero, where it has no gradient")
    sigma = float(found.singular_values[index])
    mode = found.modes[:, index].reshape(len(atoms), 3)
    gradient = _gradient(atoms, descriptor, jacobian, view, sigma, mode)
    return sigma, gradient


def size_independent(
    atoms: Atoms, descriptor: Descriptor, *, cutoff_transition_width: float = 0.5
) -> SizeIndependent:
    """Measures for periodic systems, where sigma_min falls with the length of the cell.

    Parameters
    ----------
    atoms
        The structure.
    descriptor
        The descriptor; its features must have centres.
    cutoff_transition_width
        Neighbours count fully up to the cutoff less this, in Å, and then less and less.

    Raises
    ------
    ValueError
        If features belong to the whole structure, or nothing but rigid motions exists.

    Notes
    -----
    docs/theory, size. Nearly separated fragments make both measures small.
    """
    check_atoms(atoms)
    check_arguments(atoms, descriptor, scope="structure", center=None, k=1)
    jacobian, view = _structure(atoms, descriptor)
    if 3 * view.n_columns <= view.trivial.shape[1]:
        raise ValueError("there is nothing but rigid motions: no measure of sensitivity")
    found = spectrum(view, 1)
    sigma = float(found.singular_values[0])
    gamma = _gamma(view, cutoff_transition_width)
    if found.n_null:
        return SizeIndependent(0.0, 0.0)
    mode = found.modes[:, 0].reshape(len(atoms), 3)
    gradient = _gradient(atoms, descriptor, jacobian, view, sigma, mode)
    return SizeIndependent(gamma, sigma / float(np.linalg.norm(gradient, axis=1).sum()))


def _structure(atoms: Atoms, descriptor: Descriptor) -> tuple[Jacobian, View]:
    jacobian = jacobian_of(descriptor, atoms)
    return jacobian, structure_view(jacobian, atoms)


def _gradient(
    atoms: Atoms,
    descriptor: Descriptor,
    jacobian: Jacobian,
    view: View,
    sigma: float,
    mode: Floats,
) -> Floats:
    left = [_along(part, mode) / sigma for part in jacobian.parts]
    gradient = np.zeros((len(atoms), 3))
    for sign in (1, -1):
        moved = atoms.copy()
        moved.set_constraint()
        moved.positions += sign * STEP * mode
        for u, part, before in zip(
            left, jacobian_of(descriptor, moved).parts, jacobian.parts, strict=True
        ):
            if not np.array_equal(part.centers, before.centers):
                raise ValueError("rows of features appear or vanish with the displacement")
            pull = np.einsum("pkf,pf->pk", part.blocks, u[part.row])
            np.add.at(gradient, part.atom, sign / (2 * STEP) * pull)
    flat = gradient.ravel()
    return (flat - view.trivial @ (view.trivial.T @ flat)).reshape(-1, 3)


def _along(part: FeatureJacobian, mode: Floats) -> Floats:
    """J v, of shape (n_rows, n_features)."""
    change = np.zeros_like(part.features)
    np.add.at(change, part.row, np.einsum("pkf,pk->pf", part.blocks, mode[part.atom]))
    return change


def _gamma(view: View, width: float) -> float:
    """The smallest generalised singular value of (J, C), relative to that of all directions."""
    gram, _ = view.gram()
    n_coordinates = len(gram)
    change = sum(
        (_environment_gram(part, width) for part in view.jacobian.parts),
        np.zeros((n_coordinates, n_coordinates)),
    )
    t = view.trivial
    typical = np.trace(gram) / np.trace(change)
    # Rigid motions change nothing on either side; give them a large ratio.
    scale = float(change.diagonal().max())
    change += scale * (t @ t.T)
    gram += 1e3 * typical * scale * (t @ t.T)
    gram[np.diag_indices(n_coordinates)] += 1e-14 * gram.diagonal().max()
    if n_coordinates < 100:
        smallest = scipy.linalg.eigh(gram, change, eigvals_only=True, subset_by_index=[0, 0])[0]
    else:
        # The largest eigenvalue of R^-t C R^-1, with G = R^t R.
        factor = scipy.linalg.cholesky(gram, overwrite_a=True, check_finite=False)

        def apply(x: Floats) -> Floats:
            y = scipy.linalg.solve_triangular(factor, x, check_finite=False)
            return scipy.linalg.solve_triangular(factor, change @ y, trans=1, check_finite=False)

        smallest = 1 / largest_eigenpairs(apply, n_coordinates, 1, tolerance=1e-5)[0][0]
    return float(np.sqrt(max(smallest, 0.0) / typical))


def _environment_gram(part: FeatureJacobian, width: float) -> Floats:
    """C^T C, C the stack over rows of (1 - R_i) F_i D_i (docs/theory, size)."""
    if (part.centers < 0).any():
        raise ValueError("features that belong to the whole structure have no environments")
    n = 3 * part.n_atoms
    total = np.zeros((n, n))
    distance = np.linalg.norm(part.displacement, axis=1)
    inside = np.clip((distance - part.cutoff + width) / width, 0.0, 1.0)
    weight = (1 + np.cos(np.pi * inside)) / 2
    starts = np.searchsorted(part.row, np.arange(len(part.centers) + 1))
    done: set[int] = set()
    for row, center in enumerate(part.centers.tolist()):
        chosen = np.arange(starts[row], starts[row + 1])
        chosen = chosen[distance[chosen] > 1e-9]
        if len(chosen) == 0 or center in done:
            continue
        done.add(center)
        atoms, f, d = part.atom[chosen], weight[chosen], part.displacement[chosen]
        turns = np.cross(np.eye(3)[:, None], d[None]) * f[:, None]
        basis = scipy.linalg.orth(turns.reshape(3, -1).T)
        # Rows: neighbours' coordinates; columns: atoms that appear, the centre last.
        columns, where = np.unique(np.append(atoms, center), return_inverse=True)
        relative = np.zeros((len(chosen), len(columns)))
        relative[np.arange(len(chosen)), where[:-1]] += f
        relative[:, where[-1]] -= f
        wide = np.kron(relative, np.eye(3))
        wide -= basis @ (basis.T @ wide)
        index = (3 * columns[:, None] + np.arange(3)).ravel()
        total[np.ix_(index, index)] += wide.T @ wide
    return total
