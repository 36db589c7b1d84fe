"""Any differentiable function of a structure that is written with JAX, as a descriptor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Rows
from ase_sensitivity.descriptors.function import FunctionDescriptor, as_features
from ase_sensitivity.descriptors.trained import needs_package
from ase_sensitivity.geometry.neighbors import check_apart
from ase_sensitivity.jacobian.arrays import as_displacements
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.whole import in_rows
from ase_sensitivity.types import Floats

PRECISION = 1e-14
"""Relative accuracy of derivatives in double precision: tens of rounding errors."""


class JaxDescriptor(FunctionDescriptor):
    r"""A JAX function as a descriptor; its Jacobian comes from forward differentiation.

    Parameters
    ----------
    function
        ``function(atoms, positions, cell)`` returns features of shape (n_rows, n_features), an
        array that depends differentiably on the arrays ``positions``, of shape (n_atoms, 3), and
        ``cell``, of shape (3, 3). ``atoms`` has what is not differentiated: elements, boundary
        conditions, the list of neighbors. Images of an atom are at its position plus integers times
        the rows of ``cell``.
    cutoff, reach, centers, species, body_order
        As in :class:`TorchDescriptor`.
    precision
        Relative accuracy of the derivatives.

    Raises
    ------
    ImportError
        If there is no JAX.
    TypeError, ValueError
        If an argument has no meaning.

    Notes
    -----
    The function is called in double precision, whatever the default of JAX is. The whole Jacobian
    is computed at once (``jacfwd``), and all images of an atom move together.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ase.build import molecule
    >>> from ase_sensitivity import analyze
    >>> def inverse_distances(atoms, positions, cell):
    ...     first, second = jnp.triu_indices(len(atoms), 1)
    ...     return jnp.sort(1 / jnp.linalg.norm(positions[first] - positions[second], axis=1))[None]
    >>> found = analyze(molecule("H2O2"), JaxDescriptor(inverse_distances))
    >>> found.n_trivial, found.n_null
    (6, 0)
    """

    def __init__(
        self,
        function: Callable[[Atoms, Any, Any], Any],
        cutoff: float = math.inf,
        *,
        reach: float | None = None,
        centers: Sequence[int] | None = None,
        species: Sequence[str] | None = None,
        body_order: int | None = None,
        precision: float = PRECISION,
    ) -> None:
        needs_package("jax", type(self).__name__, torch=False)
        super().__init__(function, cutoff, reach, centers, species, body_order)
        self.precision = precision

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features).

        Raises
        ------
        ValueError
            If the function returns anything else than a two-dimensional array of finite numbers, or
            the structure is unusable.
        """
        import jax

        check_apart(atoms)
        with jax.enable_x64(True):
            return as_features(self.function(atoms.copy(), *_arguments(atoms)))

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row; one part."""
        features = self.features(atoms)
        return [(features, self._centers(len(features), len(atoms)))]

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """Features and their derivatives.

        Raises
        ------
        ValueError
            As :meth:`features`.
        """
        import jax

        features, copy = self.features(atoms), atoms.copy()
        with jax.enable_x64(True):
            positions, cell = _arguments(atoms)
            found = jax.jacfwd(lambda x: self.function(copy, x, cell))(positions)
        return in_rows(
            atoms,
            features,
            np.asarray(found, dtype=np.float64).transpose(0, 2, 3, 1),
            self._centers(len(features), len(atoms)),
            cutoff=self.cutoff,
            reach=self.reach,
            precision=self.precision,
        )

    def squared_jvp_gradient(
        self,
        atoms: Atoms,
        displacements: Floats,
        step: float = 0.0,
        *,
        center: int | None = None,
        central_difference: bool = True,
    ) -> tuple[Floats, Floats]:
        r"""Derivatives of \|J v\|² at fixed v, by positions and strain, without the Jacobian J.

        As :meth:`SOAP.squared_jvp_gradient`, but exact: there is no step, and no difference.
        """
        import jax
        import jax.numpy as jnp

        check_apart(atoms)
        modes, copy = as_displacements(displacements, len(atoms)), atoms.copy()
        with jax.enable_x64(True):
            positions, cell = _arguments(atoms)

            def square(x: Any, strain: Any, v: Any) -> Any:
                strained = cell + cell @ strain.T
                changes = jax.jvp(
                    lambda y: self.function(copy, y, strained), (x + x @ strain.T,), (v,)
                )[1]
                if center is not None:
                    changes = changes[self._centers(len(changes), len(atoms)) == center]
                return (changes**2).sum()

            derivatives, still = jax.grad(square, argnums=(0, 1)), jnp.zeros((3, 3))
            found = [derivatives(positions, still, jnp.asarray(v)) for v in modes]
        by_positions, by_strain = np.zeros(modes.shape), np.zeros((len(modes), 3, 3))
        for n, (first, second) in enumerate(found):
            by_positions[n], by_strain[n] = np.asarray(first), np.asarray(second)
        return by_positions, by_strain


def _arguments(atoms: Atoms) -> tuple[Any, Any]:
    """Positions and cell as arrays of JAX; vectors without a period are zero."""
    import jax.numpy as jnp

    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    return jnp.asarray(atoms.positions), jnp.asarray(cell)
