"""Products of a Jacobian by automatic differentiation; needs torch.

J v takes two reverse sweeps: g = J^T u is linear in u, and its derivative by u along v is J v. It
asks for nothing but reverse mode, which every model for forces has, and costs what forward mode
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from ase_sensitivity.geometry.ranges import Range
from ase_sensitivity.geometry.structure import check_fits
from ase_sensitivity.geometry.unfolding import one_image_each, pairs_within, unfolded
from ase_sensitivity.jacobian.arrays import as_displacements, as_floats, as_indices
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.shared import Shared, shared
from ase_sensitivity.jacobian.whole import center_atoms_of, in_images, in_rows
from ase_sensitivity.types import Floats, Ints

Function = Callable[[Tensor, Tensor], Tensor]
"""Features (n_rows, n_features) from positions (n_atoms, 3) and cell (3, 3)."""

LARGE = 5e7
"""Numbers of a whole Jacobian, 0.4 GB, up to which it is kept."""

MOST_IMAGES = 500
"""Atoms of a cluster up to which periodic images are told apart: each costs three products."""

AT_ONCE = 64
"""Atoms times displacements that one sweep takes: beyond, it is no faster on a processor."""


class Sweeps:
    """A function of positions and cell at one structure, and its derivatives.

    Parameters
    ----------
    function
        The function. It is called with gradients enabled.
    positions, cell
        Of shape (n_atoms, 3) and (3, 3).
    dtype, device
        Of what the function gets.
    batches
        Whether several products may be made by one sweep, where torch can do that.
    """

    def __init__(
        self,
        function: Function,
        positions: Floats,
        cell: Floats,
        dtype: torch.dtype,
        device: torch.device,
        batches: bool = True,
    ) -> None:
        self._as = {"dtype": dtype, "device": device}
        self._batches = batches
        self._still = torch.tensor(positions, **self._as).requires_grad_()
        self._strain = torch.zeros((3, 3), **self._as).requires_grad_()
        vectors = torch.tensor(cell, **self._as)
        with torch.enable_grad():
            self._x = self._still + self._still @ self._strain.T
            self._y = function(self._x, vectors + vectors @ self._strain.T)

    @property
    def features(self) -> Floats:
        """Of shape (n_rows, n_features)."""
        return _numbers(self._y)

    @cached_property
    def _pullback(self) -> tuple[Tensor, Tensor]:
        """A vector u of zeros, and J^T u as a function of it."""
        with torch.enable_grad():
            u = torch.zeros_like(self._y, requires_grad=True)
            return u, _grad(self._y, self._x, u, create_graph=True)

    def apply(self, displacements: Floats) -> Floats:
        """J v for displacements (m, n_atoms, 3): of shape (m, all features)."""
        u, g = self._pullback if self._y.requires_grad else (self._y, self._x.detach())
        return self._swept(g, u, displacements)

    def adjoint(self, weights: Floats) -> Floats:
        """J^T w for weights (m, all features): of shape (m, n_atoms, 3)."""
        found = self._swept(self._y, self._x, weights.reshape(-1, *self._y.shape))
        return found.reshape(len(weights), *self._x.shape)

    def _swept(self, output: Tensor, leaf: Tensor, vectors: Floats) -> Floats:
        """Products of vectors (m, *output) with the derivatives of an output by a leaf."""
        found = np.zeros((len(vectors), leaf.numel()))
        if not (output.requires_grad and output.numel()):
            return found  # an atom alone
        at_once = max(1, AT_ONCE // len(self._x)) if self._batches else 1
        start = 0
        while start < len(vectors):
            some = slice(start, start + at_once)
            given = torch.tensor(vectors[some], **self._as)
            batched = len(given) > 1
            try:
                part = _grad(
                    output,
                    leaf,
                    given if batched else given[0],
                    retain_graph=True,
                    is_grads_batched=batched,
                )
            except RuntimeError:
                if not batched:
                    raise
                self._batches, at_once = False, 1  # some operation knows no batches
                continue
            found[some] = _numbers(part).reshape(len(given), -1)
            start += len(given)
        return found

    def squared_jvp_gradient(
        self, displacements: Floats, rows: Ints | None = None
    ) -> tuple[Floats, Floats]:
        """Derivatives of |J v|² at fixed v by positions, (m, n_atoms, 3), and strain, (m, 3, 3).

        With w = J v kept as it is, |J v|² has the derivatives of 2 w^T J v, which is 2 v^T times
        the gradient of w^T f: one more pair of sweeps.

        Parameters
        ----------
        displacements
            The v, of shape (m, n_atoms, 3).
        rows
            The only rows of features that count.
        """
        w = self.apply(displacements).reshape(-1, *self._y.shape)
        if rows is not None:
            kept = np.zeros(len(self._y), dtype=bool)
            kept[rows] = True
            w[:, ~kept] = 0.0
        by_positions, by_strain = np.zeros(displacements.shape), np.zeros((len(w), 3, 3))
        for n, (v, weights) in enumerate(zip(displacements, w, strict=True)):
            if not self._y.requires_grad:
                break  # an atom alone
            along = torch.tensor(weights, **self._as)
            with torch.enable_grad():
                g = _grad(self._y, self._x, along, create_graph=True)
                total = 2 * (g * torch.tensor(v, **self._as)).sum()
            if total.requires_grad:  # features may be linear in the positions
                found = _grads(total, (self._still, self._strain), retain_graph=True)
                by_positions[n], by_strain[n] = (_numbers(part) for part in found)
        return by_positions, by_strain


def _grads(output: Tensor, inputs: Any, *arguments: Any, **how: Any) -> Any:
    """Derivatives by inputs, zero by those that do not matter."""
    return torch.autograd.grad(
        output, inputs, *arguments, allow_unused=True, materialize_grads=True, **how
    )


def _grad(output: Tensor, leaf: Tensor, *arguments: Any, **how: Any) -> Tensor:
    return _grads(output, (leaf,), *arguments, **how)[0]


def _numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float64)


class AutogradJacobian:
    """The Jacobian of a function of positions and cell, computed as far as it is asked for.

    Single atoms take three products each. The whole J, a product for each coordinate, is kept if it
    has no more than `LARGE` numbers, and is what blocks are made of; beyond, J^T J takes two
    products for each coordinate. Where at least two atoms on average share each product, as no row
    depends on both, blocks are what is computed and kept, and everything else follows from these.

    Parameters
    ----------
    sweeps_of
        Gives the function at a structure.
    atoms
        The structure.
    centers
        The atom at the center of each row, of shape (n_rows,); -1 for the whole structure.
    cutoff, reach, precision
        As in :class:`FeatureJacobian`.
    rotation_invariant
        As in :class:`FeatureJacobian`.
    unfolds
        Whether the function may be asked for clusters in the place of a periodic structure, row i
        of which belongs to atom i.
    """

    def __init__(
        self,
        sweeps_of: Callable[[Atoms], Sweeps],
        atoms: Atoms,
        centers: Callable[[int, int], Ints],
        *,
        cutoff: float,
        reach: float,
        precision: float,
        rotation_invariant: bool,
        unfolds: bool,
    ) -> None:
        self._sweeps_of, self._atoms = sweeps_of, atoms
        self.features: Floats = self._sweeps.features
        if not np.isfinite(self.features).all():
            raise ValueError("`function` returned features that are not finite")
        self.n_atoms = len(atoms)
        self.precision = precision
        self._centers = centers(len(self.features), self.n_atoms)
        self._unfolds = unfolds and np.array_equal(self._centers, np.arange(self.n_atoms))
        whole = bool((self._centers < 0).any())
        known = center_atoms_of(self._centers, self.n_atoms)
        self.ranges: tuple[Range, ...] = (
            Range(cutoff, known, whole=whole, reach=reach, rotation_invariant=rotation_invariant),
        )
        self._blocks: dict[bool, FeatureJacobian] = {}
        self._n_asked = 0

    def __repr__(self) -> str:
        rows, length = self.features.shape
        return f"AutogradJacobian({rows} rows of {length} features, {self.n_atoms} atoms)"

    @cached_property
    def per_image(self) -> bool:
        """Whether blocks keep the periodic images of an atom apart."""
        return self._one_image_each or self._cluster is not None

    @cached_property
    def _one_image_each(self) -> bool:
        return one_image_each(self._atoms, self.ranges[0].reach)

    @cached_property
    def _cluster(self) -> tuple[Atoms, Ints] | None:
        """The structure with an atom for each image, if that can be asked for."""
        reach = self.ranges[0].reach
        if not (self._unfolds and np.isfinite(reach)):
            return None
        if self._atoms.pbc.all():  # a first guess, before pairs are listed
            in_sphere = self.n_atoms * 4.2 * reach**3 / max(self._atoms.get_volume(), 1e-9)
            if in_sphere > 4 * MOST_IMAGES:
                return None
        cluster, parent = unfolded(self._atoms, reach)
        return (cluster, parent) if len(cluster) <= MOST_IMAGES else None

    def apply(self, displacements: Floats) -> Floats:
        """J v for displacements of shape (m, n_atoms, 3): of shape (m, all features).

        Raises
        ------
        ValueError
            If the displacements have another shape.
        """
        moved = as_displacements(displacements, self.n_atoms)
        if "_columns" in vars(self):
            return moved.reshape(len(moved), 3 * self.n_atoms) @ self._columns
        if False in self._blocks:
            return self._blocks[False].apply(moved)
        return self._sweeps.apply(moved)

    def adjoint(self, weights: Floats) -> Floats:
        """J^T w for weights of shape (m, all features): of shape (m, n_atoms, 3).

        Raises
        ------
        ValueError
            If there is another number of weights than of features.
        """
        given = as_floats("weights", weights)[0]
        if given.ndim != 2 or given.shape[1] != self.features.size:
            raise ValueError(
                f"`weights` has shape {given.shape} but must be (any, {self.features.size})"
            )
        if "_columns" in vars(self):
            return (given @ self._columns.T).reshape(len(given), self.n_atoms, 3)
        if False in self._blocks:
            return self._blocks[False].adjoint(given)
        return self._sweeps.adjoint(given)

    def gram(self, atoms: Ints | None = None) -> Floats:
        """J^T J over the coordinates of n atoms, by default all: of shape (3 n, 3 n)."""
        chosen = np.arange(self.n_atoms)
        if atoms is not None:
            chosen = as_indices("atoms", atoms, 0, self.n_atoms)
        self._n_asked += len(chosen)
        if self._shared is not None and self._n_asked > self._shared.n_colors:
            return self.as_blocks().gram(chosen)
        most = 2 * len(chosen) > self.n_atoms and self._is_small
        if most or "_columns" in vars(self):
            columns = self._columns.reshape(self.n_atoms, 3, -1)[chosen]
            columns = columns.reshape(3 * len(chosen), -1)
            return columns @ columns.T
        if 3 * len(chosen) * self.features.size <= LARGE:
            columns = np.concatenate(list(self._changes(chosen)))
            return columns @ columns.T
        total = np.concatenate([self.adjoint(some)[:, chosen] for some in self._changes(chosen)])
        square = total.reshape(3 * len(chosen), -1)
        return (square + square.T) / 2

    @property
    def _is_small(self) -> bool:
        return 3 * self.n_atoms * self.features.size <= LARGE

    def _changes(self, atoms: Ints) -> Iterator[Floats]:
        """Columns of J along all coordinates of some atoms, some at a time."""
        several = max(1, int(LARGE / 10 / max(self.features.size, 1)))
        wanted = (3 * atoms[:, None] + np.arange(3)).ravel()
        for start in range(0, len(wanted), several):
            some = wanted[start : start + several]
            unit = np.zeros((len(some), 3 * self.n_atoms))
            unit[np.arange(len(some)), some] = 1.0
            yield self.apply(unit.reshape(len(some), self.n_atoms, 3))

    @cached_property
    def _shared(self) -> Shared | None:
        """Atoms that are displaced together, where that takes fewer products."""
        known = self.ranges[0]
        found = shared(self._atoms, self._centers, known.cutoff, known.reach)
        return found if found is not None and 3 * found.n_colors < self.features.size else None

    @cached_property
    def _columns(self) -> Floats:
        """The whole J, transposed: of shape (3 n_atoms, all features)."""
        check_fits(
            8 * 3 * self.n_atoms * self.features.size,
            f"the Jacobian of {self.features.size} features by {3 * self.n_atoms} coordinates",
            "give a smaller structure, or fewer features",
        )
        found = whole(self._sweeps)
        self._forget()
        return found

    def _forget(self) -> None:
        """Drop the graph of what was computed, which takes memory."""
        vars(self).pop("_sweeps", None)

    @cached_property
    def _sweeps(self) -> Sweeps:
        return self._sweeps_of(self._atoms)

    def as_blocks(self, per_image: bool = False) -> FeatureJacobian:
        """A block for each row and atom, or for each row and image of an atom if wanted."""
        apart = per_image and not self._one_image_each
        if apart not in self._blocks:
            self._blocks[apart] = self._by_image() if apart else self._by_atom()
        return self._blocks[apart]

    def _by_atom(self) -> FeatureJacobian:
        known = self._shared
        if known is not None:
            found = known.jacobian(
                self._sweeps.apply, self.features, per_image=self._one_image_each, **self._facts
            )
            self._forget()
            return found
        return in_rows(
            self._atoms,
            self.features,
            _by_row(self._columns, self.features.shape),
            self._centers,
            **self._facts,
        )

    def _by_image(self) -> FeatureJacobian:
        assert self._cluster is not None, "`per_image` tells whether there is one"
        cluster, parent = self._cluster
        sweeps = self._sweeps_of(cluster)
        n = self.n_atoms
        shape = (n, sweeps.features.shape[1])
        gradient = _by_row(whole(sweeps)[:, : n * shape[1]], shape)
        row, column = pairs_within(cluster, n, self._facts["reach"])
        features, blocks = sweeps.features[:n], gradient[row, column]
        return in_images(cluster, parent, features, row, column, blocks, **self._facts)

    @property
    def _facts(self) -> dict[str, Any]:
        known = self.ranges[0]
        return {
            "cutoff": known.cutoff,
            "reach": known.reach,
            "precision": self.precision,
            "rotation_invariant": known.rotation_invariant,
        }


def whole(sweeps: Sweeps) -> Floats:
    """The whole J, transposed, by as few products as possible: (3 n_atoms, all features)."""
    n_coordinates, n_features = 3 * len(sweeps._x), sweeps.features.size
    if n_features < n_coordinates:
        return sweeps.adjoint(np.eye(n_features)).reshape(n_features, n_coordinates).T.copy()
    return sweeps.apply(np.eye(n_coordinates).reshape(n_coordinates, -1, 3))


def _by_row(columns: Floats, shape: tuple[int, ...]) -> Floats:
    """J of shape (n_rows, n_atoms, 3, n_features) from its transpose."""
    return columns.reshape(-1, 3, *shape).transpose(2, 0, 1, 3)
