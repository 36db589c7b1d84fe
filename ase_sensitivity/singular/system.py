"""What is moved when a singular configuration is approached: a structure, or one environment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import analyze, check_arguments
from ase_sensitivity.descriptors.base import (
    Descriptor,
    jacobian_of,
    restricted,
    squared_jvp_gradient,
)
from ase_sensitivity.descriptors.components import components, weighted, weights
from ase_sensitivity.descriptors.given import Given, as_descriptor, species_in
from ase_sensitivity.geometry.fragments import Fragment
from ase_sensitivity.geometry.structure import check_atoms, check_points
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import Jacobian, in_blocks
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.jacobian.streamed import StreamedJacobian
from ase_sensitivity.spectrum.rigid import trivial_modes
from ase_sensitivity.spectrum.scopes import (
    View,
    atom_view,
    environment_views,
    rows_of_center,
    structure_view,
)
from ase_sensitivity.types import Floats, Ints, Scope

STEP = 1e-4
"""Displacement in Å for the derivative of the Jacobian along a mode."""


@dataclass(frozen=True, eq=False)
class System:
    """Points that move, and the rows of features that look at them.

    Attributes
    ----------
    start
        The points as they are given. In environment scope a cluster, the center first, in which
        every neighbor image is an atom of its own; the structure in all other scopes.
    descriptor
        The descriptor.
    scope
        As in :func:`~ase_sensitivity.analyze`.
    center
        The center of the cluster, which is 0, or the atom of the atom scope.
    points
        The atom of the structure that each point belongs to, of shape (n_points,).
    moving
        The points that may move, of shape (n_columns,).
    weights
        Of the parts of the Jacobian, where several descriptors are seen together. They are those of
        the structure as it was given and stay what they are.
    calls
        How many Jacobians were computed.
    """

    start: Atoms
    descriptor: Descriptor
    scope: Scope
    center: int | None
    points: Ints
    moving: Ints
    weights: tuple[Floats, ...] | None = None
    calls: Counter[str] = field(default_factory=Counter)

    @cached_property
    def fixed(self) -> Ints:
        """The points that may not move."""
        return np.setdiff1d(np.arange(len(self.start)), self.moving)

    def jacobian(self, atoms: Atoms) -> StackedJacobian:
        """The rows that belong to the system, at other positions of its points."""
        self.calls["jacobian"] += 1
        return self._rows_of(self.descriptor.jacobian(atoms))

    def _rows_of(self, whole: Jacobian) -> StackedJacobian:
        blocks = tuple(in_blocks(whole, "a gradient or a walk").parts)
        parts: Sequence[FeatureJacobian] = weighted(blocks, self.weights)
        if self.scope == "environment":
            parts = [rows_of_center(part, 0) for part in parts]
        return StackedJacobian(tuple(parts))

    def quick_view(self, atoms: Atoms) -> View:
        """The view at other positions, of a Jacobian that does without blocks if it can."""
        if self.scope == "structure" and self.weights is None:
            found = jacobian_of(self.descriptor, atoms)
            if isinstance(found, FeatureJacobian | StackedJacobian):
                self.calls["jacobian"] += 1
                return self.view(self._rows_of(found), atoms)
            if isinstance(found, StreamedJacobian) and found.spares_blocks:
                self.calls["jacobian"] += 1
                return self.view(found, atoms)
        return self.view(self.jacobian(atoms), atoms)

    def view(self, jacobian: Jacobian, atoms: Atoms) -> View:
        """Those rows against the coordinates that may move."""
        return replace(self._view(jacobian, atoms), of=(self.descriptor, atoms))

    def _view(self, jacobian: Jacobian, atoms: Atoms) -> View:
        if self.scope == "structure":
            return structure_view(jacobian, atoms, self.fixed)
        if self.scope == "atom":
            assert self.center is not None
            return atom_view(jacobian, self.center)
        points, positions = np.arange(len(atoms)), atoms.positions
        rotates = all(known.rotation_invariant for known in jacobian.ranges)
        piece = Fragment(points, positions, np.empty((0, 3)), rotates)
        return View(
            jacobian=jacobian,
            column=lambda part: part.atom,
            atoms=points,
            displacements=positions - positions[0],
            trivial=trivial_modes([piece], len(atoms)),
            center=0,
        )

    def displaced(self, atoms: Atoms, displacement: Floats) -> Atoms:
        """A copy of the points, moved by a displacement of the view's columns (3 n_columns,)."""
        moved = atoms.copy()
        moved.set_constraint()
        moved.positions += self.shift(displacement)
        return moved

    def shift(self, displacement: Floats) -> Floats:
        """Displacements of all points, of shape (n_points, 3), from those of the columns."""
        shift = np.zeros((len(self.start), 3))
        shift[self.moving] = displacement.reshape(-1, 3)
        return shift

    def ahead(self, atoms: Atoms, mode: Floats) -> StackedJacobian:
        """The Jacobian a small step from ``atoms`` along a mode (3 n_columns,)."""
        return self.jacobian(self.displaced(atoms, STEP * mode))

    def quick_gradient(
        self, atoms: Atoms, modes: Floats, step: float, *, central_difference: bool = True
    ) -> tuple[Floats, Floats] | None:
        """Derivatives of |J v|² at ``atoms`` for modes (m, 3 n_columns) without any Jacobian.

        By positions, of shape (m, n_points, 3), and by strain, (m, 3, 3); None if the descriptor
        has no way to them. As :meth:`SOAP.squared_jvp_gradient`.
        """
        shifts = np.zeros((len(modes), len(self.start), 3))
        shifts[:, self.moving] = modes.reshape(len(modes), len(self.moving), 3)
        if self.weights is not None:
            return None
        only = self.center if self.scope == "environment" else None
        return squared_jvp_gradient(
            self.descriptor, atoms, shifts, step, center=only, central_difference=central_difference
        )


def system_of(
    atoms: Atoms,
    descriptor: Given,
    scope: Scope,
    center: int | None,
    fixed: Ints | None = None,
    *,
    balanced: bool = True,
) -> System:
    """Check the arguments, and choose the worst center or atom where none is given.

    Parameters
    ----------
    atoms, descriptor, scope, center
        As in :func:`~ase_sensitivity.analyze`.
    fixed
        Atoms that may not move (structure scope).
    balanced
        Weigh several descriptors as :func:`~ase_sensitivity.analyze` does.

    Raises
    ------
    TypeError, ValueError
        As :func:`~ase_sensitivity.analyze`.
    """
    check_atoms(atoms)
    seen: Descriptor = as_descriptor(descriptor, lambda: species_in([atoms]))
    check_arguments(atoms, seen, scope=scope, center=center, k=1)
    seen = restricted(seen, atoms)
    everything = np.arange(len(atoms))
    factors = None
    if balanced and len(components(seen)) > 1:
        factors = weights(seen, seen.jacobian(atoms))
    if scope == "structure":
        moving = everything if fixed is None else np.setdiff1d(everything, fixed)
        return System(atoms, seen, scope, None, everything, moving, factors)
    if center is None:
        found = analyze(atoms, seen, scope=scope, k=1, each=False)
        center = found.center
        assert center is not None
    if scope == "atom":
        only = np.array([center])
        return System(atoms, seen, scope, int(center), everything, only, factors)
    view = next(environment_views(seen.jacobian(atoms), atoms, int(center)), None)
    if view is None or view.displacements is None:
        raise ValueError(f"atom {center} ({atoms.symbols[center]}) is not a center")
    check_points(view.n_columns)
    order = np.argsort(np.linalg.norm(view.displacements, axis=1), kind="stable")
    points = view.atoms[order]
    cluster = Atoms(atoms.numbers[points], atoms.positions[center] + view.displacements[order])
    return System(cluster, seen, scope, 0, points, np.arange(len(points)), factors)


def check_rows(moved: FeatureJacobian, before: FeatureJacobian) -> None:
    """Raise ValueError if rows appear or vanish with a displacement."""
    if not np.array_equal(moved.centers, before.centers):
        raise ValueError("rows of features appear or vanish with the displacement")


def difference(ahead: FeatureJacobian, behind: FeatureJacobian) -> FeatureJacobian:
    """Derivative of the Jacobian ``behind`` along a mode, from that of :meth:`System.ahead`.

    The error is of the first order in the step.

    Raises
    ------
    ValueError
        If rows appear or vanish with the displacement.
    """
    check_rows(ahead, behind)
    if aligned(ahead, behind):
        fields = ahead.row, ahead.atom, ahead.displacement, (ahead.blocks - behind.blocks) / STEP
    else:  # neighbors cross the cutoff: keep both, which are summed wherever blocks are used
        row = np.concatenate([ahead.row, behind.row])
        order = np.argsort(row, kind="stable")
        fields = (
            row[order],
            np.concatenate([ahead.atom, behind.atom])[order],
            np.concatenate([ahead.displacement, behind.displacement])[order],
            np.concatenate([ahead.blocks / STEP, behind.blocks / -STEP])[order],
        )
    row, atom, displacement, blocks = fields
    return replace(
        ahead,
        features=(ahead.features - behind.features) / STEP,
        row=row,
        atom=atom,
        displacement=displacement,
        blocks=blocks,
    )


def aligned(one: FeatureJacobian, other: FeatureJacobian) -> bool:
    """Whether two Jacobians have the same blocks, in the same order."""
    return np.array_equal(one.row, other.row) and np.array_equal(one.atom, other.atom)
