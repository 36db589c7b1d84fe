"""A torch function of the vectors to neighbors as a descriptor, for strictly local models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Rows
from ase_sensitivity.descriptors.function import FunctionDescriptor
from ase_sensitivity.descriptors.torch_function import features_of, needs_torch, torch_settings
from ase_sensitivity.geometry.neighbors import NeighborPairs, check_apart, neighbor_pairs
from ase_sensitivity.geometry.structure import check_memory
from ase_sensitivity.jacobian.arrays import as_displacements, same_product
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import as_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ase_sensitivity.jacobian.autograd import Sweeps

    EdgeFunction = Callable[[Atoms, Tensor, Tensor, Tensor], Tensor]


class EdgeDescriptor(FunctionDescriptor):
    r"""A torch function of the vectors from centers to neighbors as a descriptor.

    For strictly local models: the features of a center depend on the vectors to its own neighbors
    alone, without messages. Then all blocks, with every periodic image apart, take three products
    for each neighbor of the center that has most, at any size of the system. A
    :class:`TorchDescriptor` takes three for each atom.

    Parameters
    ----------
    function
        ``function(atoms, center, neighbor, vectors)`` returns features of shape (n_atoms,
        n_features), as a tensor that depends differentiably on ``vectors``, of shape (n_pairs, 3):
        from each center to an image of a neighbor, in Å. ``center`` and ``neighbor`` are the
        indices of the atoms, of shape (n_pairs,), sorted by the center.
    cutoff
        Radius in Å within which neighbors are listed.
    species, body_order
        As in :class:`~ase_sensitivity.Descriptor`.
    dtype, device, precision
        As in :class:`TorchDescriptor`.

    Raises
    ------
    ImportError
        If there is no torch.
    TypeError, ValueError
        If an argument has no meaning.

    Examples
    --------
    >>> import torch
    >>> from ase.build import bulk
    >>> from ase_sensitivity import analyze
    >>> def radial(atoms, center, neighbor, vectors):
    ...     distances = vectors.norm(dim=1, keepdim=True)
    ...     weights = torch.exp(-4 * (distances - torch.linspace(1, 4, 8)) ** 2)
    ...     rows = torch.zeros(len(atoms), 8, dtype=vectors.dtype)
    ...     return rows.index_add(0, center, weights * (1 - (distances / 4) ** 2) ** 3)
    >>> silicon = bulk("Si", cubic=True)
    >>> silicon.rattle(0.1, seed=1)
    >>> found = analyze(silicon, EdgeDescriptor(radial, 4.0, body_order=2))
    >>> found.n_trivial, found.n_null
    (3, 0)
    """

    def __init__(
        self,
        function: EdgeFunction,
        cutoff: float,
        *,
        species: Sequence[str] | None = None,
        body_order: int | None = None,
        dtype: torch.dtype | str = "float64",
        device: torch.device | str = "cpu",
        precision: float | None = None,
    ) -> None:
        needs_torch(type(self).__name__)
        super().__init__(
            function, as_number("cutoff", cutoff, "positive"), None, None, species, body_order
        )
        self.dtype, self.device, self.precision = torch_settings(dtype, device, precision)

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_atoms, n_features).

        Raises
        ------
        TypeError, ValueError
            If the function returns anything else than a tensor of finite numbers with a row for
            each atom, or the structure is unusable.
        """
        return self._sweeps(atoms)[0].features

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row; one part."""
        return [(self.features(atoms), np.arange(len(atoms)))]

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """Features and their derivatives, with every periodic image apart.

        Raises
        ------
        TypeError, ValueError
            As :meth:`features`, and if a row depends on vectors of another center.
        """
        sweeps, pairs = self._sweeps(atoms)
        n, features = len(atoms), sweeps.features
        check_memory(len(pairs.first) + n, features.shape[1])
        edges = self._edge_blocks(sweeps, pairs, features.shape)
        own = np.zeros((n, 3, features.shape[1]))
        np.subtract.at(own, pairs.first, edges)
        row = np.concatenate([np.arange(n), pairs.first])
        order = np.argsort(row, kind="stable")
        found = FeatureJacobian(
            features=features,
            centers=np.arange(n),
            row=row[order],
            atom=np.concatenate([np.arange(n), pairs.second])[order],
            displacement=np.concatenate([np.zeros((n, 3)), pairs.vectors(atoms)])[order],
            blocks=np.concatenate([own, edges])[order],
            n_atoms=n,
            cutoff=self.cutoff,
            precision=self.precision,
            pairs=pairs,
        )
        found.check_finite()
        return found

    def _edge_blocks(self, sweeps: Sweeps, pairs: NeighborPairs, shape: tuple[int, ...]) -> Floats:
        """Derivatives of the row of each center by the vector of each pair: (n_pairs, 3, any).

        The m-th neighbors of all centers move at once, as no row sees two of them.
        """
        starts = np.searchsorted(pairs.first, np.arange(shape[0]))
        rank = np.arange(len(pairs.first)) - starts[pairs.first]
        blocks = np.empty((len(rank), 3, shape[1]))
        for m in range(int(rank.max(initial=-1)) + 1):
            own = np.flatnonzero(rank == m)
            moved = np.zeros((3, len(rank), 3))
            moved[:, own] = np.eye(3)[:, None]
            changes = sweeps.apply(moved).reshape(3, *shape)
            blocks[own] = changes[:, pairs.first[own]].swapaxes(0, 1)
        moved = np.random.default_rng(0).normal(size=(1, len(rank), 3))
        expected = sweeps.apply(moved).reshape(shape)
        found = np.zeros(shape)
        np.add.at(found, pairs.first, np.einsum("pk,pkf->pf", moved[0], blocks))
        if not same_product(found, expected, self.precision):
            raise ValueError(
                "`function` gave features of a center that depend on vectors of another one; it is "
                "not strictly local, and needs TorchDescriptor"
            )
        return blocks

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
        modes = as_displacements(displacements, len(atoms))
        sweeps, pairs = self._sweeps(atoms)
        only: Ints | None = None if center is None else np.array([center])
        changes = modes[:, pairs.second] - modes[:, pairs.first]
        forces, strain = sweeps.squared_jvp_gradient(changes, only)
        positions = np.zeros(modes.shape)
        for total, force in zip(positions, forces, strict=True):
            np.add.at(total, pairs.second, force)
            np.subtract.at(total, pairs.first, force)
        return positions, strain

    def _sweeps(self, atoms: Atoms) -> tuple[Sweeps, NeighborPairs]:
        from ase_sensitivity.jacobian.autograd import Sweeps

        torch = needs_torch(type(self).__name__)
        check_apart(atoms)
        pairs = neighbor_pairs(atoms, self.cutoff)
        ends = [torch.as_tensor(index, device=self.device) for index in (pairs.first, pairs.second)]

        def function(vectors: Tensor, cell: Any) -> Tensor:
            found = features_of(self.function(atoms.copy(), *ends, vectors))
            if len(found) != len(atoms):
                raise ValueError(
                    f"`function` returned {len(found)} rows but must return one for each of "
                    f"{len(atoms)} atoms"
                )
            return found

        vectors = pairs.vectors(atoms)
        return Sweeps(function, vectors, np.zeros((3, 3)), self.dtype, self.device), pairs
