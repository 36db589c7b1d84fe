"""Any differentiable function of a structure that is written with torch, as a descriptor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.base import Rows
from ase_sensitivity.descriptors.function import FunctionDescriptor
from ase_sensitivity.geometry.neighbors import check_apart, neighbor_pairs, shortest_distance
from ase_sensitivity.types import Floats, Ints
from ase_sensitivity.validation import as_flag, as_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ase_sensitivity.jacobian.autograd import AutogradJacobian, Sweeps

    TorchFunction = Callable[[Atoms, Tensor, Tensor], Tensor]

PRECISIONS = {"float64": 1e-14, "float32": 1e-6}
"""Relative accuracy of derivatives, by the data type in which the function computes: tens of
rounding errors. A network makes thousands, which cancel in part."""


def needs_torch(what: str, extra: str = "torch") -> Any:
    """The module torch; ImportError that names the extra, if there is none."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(f'{what} needs torch: pip install "ase-sensitivity[{extra}]"') from error
    return torch


def torch_settings(
    dtype: torch.dtype | str, device: torch.device | str, precision: float | None
) -> tuple[torch.dtype, torch.device, float]:
    """The data type and the device that a function gets, and the accuracy of its derivatives.

    Raises
    ------
    TypeError, ValueError
        If one of them has no meaning.
    """
    torch = needs_torch("a torch function")
    name = str(dtype).removeprefix("torch.")
    if name not in PRECISIONS:
        raise ValueError(f"`dtype` is {dtype!r} but must be one of {', '.join(PRECISIONS)}")
    accuracy = PRECISIONS[name]
    if precision is not None:
        accuracy = as_number("precision", precision, "positive")
    return getattr(torch, name), torch.device(device), accuracy


def features_of(found: object) -> Tensor:
    """What a function returned, if it can be features: of shape (n_rows, n_features).

    Raises
    ------
    TypeError, ValueError
        If it is no tensor of real numbers, or has another shape.
    """
    torch = needs_torch("a torch function")
    if not isinstance(found, torch.Tensor):
        raise TypeError(
            f"`function` returned {type(found).__name__} but must return a torch.Tensor"
        )
    if found.ndim != 2 or found.numel() == 0 or not found.is_floating_point():
        raise ValueError(
            f"`function` returned a tensor of {found.dtype} and shape {tuple(found.shape)} but "
            "must return real numbers (n_rows, n_features); make one row of a vector by "
            "`vector[None]`"
        )
    return found


def neighbor_vectors(
    atoms: Atoms, positions: Tensor, cell: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of neighbors and the vectors between them, as functions of positions and cell.

    Parameters
    ----------
    atoms
        The structure, whose neighbors are listed.
    positions, cell
        As a function of :class:`~ase_sensitivity.TorchDescriptor` gets them.
    cutoff
        In Å.

    Returns
    -------
    center, neighbor
        Indices of atoms, of shape (n_pairs,), sorted by the center. Periodic images are pairs of
        their own.
    vectors
        From the center to that image of the neighbor in Å, of shape (n_pairs, 3).
    """
    torch = needs_torch("neighbor_vectors")
    pairs = neighbor_pairs(atoms, cutoff)
    center, neighbor = (
        torch.as_tensor(index, device=positions.device) for index in (pairs.first, pairs.second)
    )
    shift = torch.as_tensor(pairs.shift, dtype=positions.dtype, device=positions.device)
    return center, neighbor, positions[neighbor] - positions[center] + shift @ cell


class TorchDescriptor(FunctionDescriptor):
    r"""A torch function as a descriptor; its Jacobian comes from automatic differentiation.

    Parameters
    ----------
    function
        ``function(atoms, positions, cell)`` returns features of shape (n_rows, n_features) as a
        tensor that depends differentiably on the tensors ``positions``, of shape (n_atoms, 3), and
        ``cell``, of shape (3, 3). ``atoms`` is for what is not differentiated: elements, boundary
        conditions, the list of neighbors. Images of an atom are at its position plus integers times
        the rows of ``cell``; :func:`~ase_sensitivity.neighbor_vectors` gives all pairs.
    cutoff
        Radius in Å beyond which an atom has no direct effect on a center. Infinite by default: the
        whole structure is then one fragment.
    reach
        Radius in Å beyond which a row does not depend on an atom, where it is more than the cutoff:
        for messages that are passed on twice, two times the cutoff.
    centers
        Atom at the center of each row. By default row i belongs to atom i, and a single row of a
        structure with several atoms to the whole structure.
    species, body_order
        As in :class:`~ase_sensitivity.Descriptor`.
    dtype
        The data type that positions and cell have: ``torch.float64`` or ``torch.float32``, or its
        name.
    device
        Where they are: what torch takes for a device. Products are returned in the memory of the
        host, in doubles.
    precision
        Relative accuracy of the derivatives. By default 1e-14 in double and 1e-6 in single
        precision. What is lost inside the function, such as the symmetry of constants that are kept
        in single precision, has to be told.
    batches
        Whether several products may be made by one sweep (``is_grads_batched``). Where an operation
        of the function does not know how, they are made one by one anyway.
    rotation_invariant
        Whether features stay the same when the structure is rotated. If not, rotations are no rigid
        motions that are set aside, and symmetry explains no null direction.

    Raises
    ------
    ImportError
        If there is no torch.
    TypeError, ValueError
        If an argument has no meaning.

    Notes
    -----
    Nothing is asked of the function but that it can be differentiated twice in reverse mode, as is
    every energy whose forces can be trained on. The Jacobian is computed as far as it is needed:
    J v and J^T w take one or two backward passes each, the whole J as many J v as there are
    coordinates. Derivatives of \|J v\|² by positions and strain, which gradients, distances and a
    bias are made of, take four backward passes for each v and no Jacobian.

    With one row for each atom and a finite reach, periodic images are told apart for environment
    scope: the function is asked for a cluster without a cell in which every image is an atom, if
    that has no more than 500.

    Examples
    --------
    >>> import torch
    >>> from ase.build import molecule
    >>> from ase_sensitivity import analyze
    >>> def inverse_distances(atoms, positions, cell):
    ...     first, second = torch.triu_indices(len(atoms), len(atoms), 1)
    ...     return (1 / (positions[first] - positions[second]).norm(dim=1)).sort()[0][None]
    >>> found = analyze(molecule("H2O2"), TorchDescriptor(inverse_distances))
    >>> found.n_trivial, found.n_null
    (6, 0)
    """

    # The last structure and its Jacobian, at most; None outside of `remembering`: a function may
    # change from one call to the next, as a model does that is trained.
    _memory: list[tuple[Atoms, AutogradJacobian]] | None = None

    def __init__(
        self,
        function: TorchFunction,
        cutoff: float = math.inf,
        *,
        reach: float | None = None,
        centers: Sequence[int] | None = None,
        species: Sequence[str] | None = None,
        body_order: int | None = None,
        dtype: torch.dtype | str = "float64",
        device: torch.device | str = "cpu",
        precision: float | None = None,
        batches: bool = True,
        rotation_invariant: bool = True,
    ) -> None:
        needs_torch(type(self).__name__)
        super().__init__(function, cutoff, reach, centers, species, body_order)
        self.dtype, self.device, self.precision = torch_settings(dtype, device, precision)
        self.batches = batches
        self.rotation_invariant = as_flag("rotation_invariant", rotation_invariant)

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features).

        Raises
        ------
        TypeError, ValueError
            If the function returns anything else than a two-dimensional tensor of finite numbers
            that depends on the positions, or the structure is unusable.
        """
        return self.jacobian(atoms).features

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row; one part."""
        features = self.features(atoms)
        return [(features, self._centers(len(features), len(atoms)))]

    def jacobian(self, atoms: Atoms) -> AutogradJacobian:
        """Features and their derivatives, which are computed when they are asked for."""
        from ase_sensitivity.jacobian.autograd import AutogradJacobian

        memory = self._memory
        for structure, known in memory or []:
            if structure == atoms:
                return known
        check_apart(atoms)
        structure = atoms.copy()
        found = AutogradJacobian(
            self._sweeps,
            structure,
            self._centers,
            cutoff=self.cutoff,
            reach=self.reach,
            precision=self.precision,
            rotation_invariant=self.rotation_invariant,
            unfolds=self.centers is None,
        )
        if memory is not None:
            memory[:] = [(structure, found)]
        return found

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """A context in which the last Jacobian is not computed again for the same structure.

        It is for functions that stay what they are within the context.
        """
        before = self._memory
        self._memory = [] if before is None else before
        try:
            yield
        finally:
            self._memory = before

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
        check_apart(atoms)
        modes = np.asarray(displacements, dtype=np.float64)
        if modes.ndim != 3 or modes.shape[1:] != (len(atoms), 3):
            raise ValueError(
                f"`displacements` has shape {modes.shape} but must be (any, {len(atoms)}, 3)"
            )
        sweeps = self._sweeps(atoms)
        only: Ints | None = None
        if center is not None:
            only = np.flatnonzero(self._centers(len(sweeps.features), len(atoms)) == center)
        return sweeps.squared_jvp_gradient(modes, only)

    def _sweeps(self, atoms: Atoms) -> Sweeps:
        from ase_sensitivity.jacobian.autograd import Sweeps

        cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
        return Sweeps(
            partial(self._checked, atoms),
            atoms.positions,
            cell,
            self.dtype,
            self.device,
            self.batches,
        )

    def _checked(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
        """What the function returns, if that is what was asked for."""
        found = features_of(self.function(atoms.copy(), positions, cell))
        nearest = shortest_distance(atoms, min(self.cutoff, 6.0))
        if not found.requires_grad and nearest < self.cutoff:
            raise ValueError(
                "`function` returned features that do not depend on `positions`; it must not "
                "detach them, or make arrays of them on the way"
            )
        return found
