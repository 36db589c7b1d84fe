"""Measures of sensitivity that do not depend on the size of a periodic cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.geometry.structure import coordinates_of
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.linalg.krylov import largest_eigenpairs
from ase_sensitivity.singular.gradient import sigma_squared_gradient
from ase_sensitivity.singular.system import STEP, system_of
from ase_sensitivity.spectrum.scopes import View
from ase_sensitivity.spectrum.solvers import spectrum
from ase_sensitivity.types import Floats


@dataclass(frozen=True)
class SizeIndependent:
    """Measures of sensitivity that neither fall nor grow with the size of a periodic cell.

    Attributes
    ----------
    gamma
        The smallest ``|J v| / |C v|`` over displacements v, relative to the root mean square over
        all of them, where C v are the relative displacements of neighbors that are no rotation
        about their center: how much less the features change than the environments do.
    distance_per_atom
        ``sigma_min / sum_i |d sigma_min / d r_i|`` in Å: how far every atom has to move at the
        least to make sigma_min zero, to first order.
    """

    gamma: float
    distance_per_atom: float


def size_independent(
    atoms: Atoms, descriptor: Given, *, cutoff_transition_width: float = 0.5
) -> SizeIndependent:
    """Measures for periodic systems, where sigma_min falls with the length of the cell.

    Parameters
    ----------
    atoms
        The structure.
    descriptor
        The descriptor; its features must have centers.
    cutoff_transition_width
        Neighbors count fully up to the cutoff less this, in Å, and then less and less.

    Raises
    ------
    ValueError
        If features belong to the whole structure, periodic images are summed, or nothing but rigid
        motions exists.

    Notes
    -----
    See :ref:`size`. Nearly separated fragments make both measures small.
    """
    system = system_of(atoms, descriptor, "structure", None)
    jacobian = system.jacobian(atoms)
    view = system.view(jacobian, atoms)
    if 3 * view.n_columns <= view.trivial.shape[1]:
        raise ValueError("there is nothing but rigid motions: no measure of sensitivity")
    found = spectrum(view, 1)
    gamma = _gamma(view, cutoff_transition_width)
    if found.n_null:
        return SizeIndependent(0.0, 0.0)
    slopes, _ = sigma_squared_gradient(system, view, found.modes[:, :1].T, STEP)
    total = float(np.linalg.norm(slopes[0], axis=1).sum())  # of 2 sigma times its gradient
    if total == 0:  # to first order sigma_min does not change at all
        return SizeIndependent(gamma, float("inf"))
    return SizeIndependent(gamma, 2 * float(found.singular_values[0]) ** 2 / total)


def _gamma(view: View, width: float) -> float:
    """The smallest generalised singular value of (J, C), relative to that of all directions."""
    gram = view.gram().matrix
    n_coordinates = len(gram)
    change = sum(
        (_environment_gram(part, width) for part in view.parts),
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
    """C^T C, C the stack over rows of (1 - R_i) F_i D_i (:ref:`size`)."""
    if not part.has_displacements:
        raise ValueError(
            "features of the whole structure, or a Jacobian that sums periodic images, have no "
            "environments"
        )
    n = 3 * part.n_atoms
    total = np.zeros((n, n))
    distance = np.linalg.norm(part.displacement, axis=1)
    inside = np.clip((distance - part.reach + width) / width, 0.0, 1.0)
    weight = (1 + np.cos(np.pi * inside)) / 2
    starts = part.bounds
    done: set[int] = set()
    for row, center in enumerate(part.centers.tolist()):
        chosen = np.arange(starts[row], starts[row + 1])
        chosen = chosen[distance[chosen] > 1e-9]
        if len(chosen) == 0 or center in done:
            continue
        done.add(center)
        atoms, f, d = part.atom[chosen], weight[chosen], part.displacement[chosen]
        turns = rotation_generators(d) * f[:, None]
        basis = scipy.linalg.orth(turns.reshape(3, -1).T)
        # Rows: neighbors' coordinates; columns: atoms that appear, the center last.
        columns, where = np.unique(np.append(atoms, center), return_inverse=True)
        relative = np.zeros((len(chosen), len(columns)))
        relative[np.arange(len(chosen)), where[:-1]] += f
        relative[:, where[-1]] -= f
        wide = np.kron(relative, np.eye(3))
        wide -= basis @ (basis.T @ wide)
        index = coordinates_of(columns)
        total[np.ix_(index, index)] += wide.T @ wide
    return total
