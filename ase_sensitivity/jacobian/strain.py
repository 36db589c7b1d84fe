"""Derivatives of features by a strain of the structure, from the blocks of their Jacobian."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.types import Floats


def strain_derivative(jacobian: FeatureJacobian) -> Floats:
    """Differentiate the features by a homogeneous strain of positions and cell.

    Parameters
    ----------
    jacobian
        Every row must have a center; see :class:`FeatureJacobian`.

    Returns
    -------
    derivative
        d features / d strain[a, b] of shape (n_rows, 3, 3, n_features), in the features' unit. The
        strain maps positions and cell vectors r to r + strain @ r. The derivative is symmetric in a
        and b because features are invariant under rotations.

    Raises
    ------
    ValueError
        If rows belong to the whole structure, or periodic images are summed: then blocks have no
        displacements.
    """
    if not jacobian.has_displacements:
        raise ValueError(
            "a Jacobian with rows of the whole structure, or that sums periodic images, has no "
            "displacements to strain; "
            "use a descriptor with a block for each image of an atom about each center"
        )
    n_rows, n_features = jacobian.features.shape
    derivative = np.zeros((n_rows, 3, 3, n_features))
    bounds = jacobian.bounds
    for row in range(n_rows):
        part = slice(bounds[row], bounds[row + 1])
        blocks = jacobian.blocks[part]
        product = jacobian.displacement[part].T @ blocks.reshape(len(blocks), -1)
        derivative[row] = product.reshape(3, 3, n_features).transpose(1, 0, 2)
    return derivative
