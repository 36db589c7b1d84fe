"""The joint unavoidable force error on frames with equal features (:ref:`fits`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from ase import Atoms

from ase_sensitivity.analysis import analyze
from ase_sensitivity.dataset.evaluation import SCAN_NULL_TOLERANCE
from ase_sensitivity.dataset.forces import NOISE, force_loss, internal_forces, outside
from ase_sensitivity.descriptors.base import Descriptor, restricted
from ase_sensitivity.descriptors.components import balanced
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import in_blocks
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.spectrum.scopes import View, structure_view
from ase_sensitivity.spectrum.solvers import spectrum
from ase_sensitivity.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class BoundedFrame:
    """A frame, and the forces that are lost on it alone.

    Attributes
    ----------
    atoms, forces
        The structure, and its reference forces in eV/Å of shape (n_atoms, 3).
    lost
        Sum of the squares of the lost forces, in eV²/Å².
    soft
        Modes with singular values that are not zero but below ``epsilon`` times sigma_max, of shape
        (any, 3 n_atoms).
    """

    atoms: Atoms
    forces: Floats
    lost: float
    soft: Floats


def bounded_frame(
    atoms: Atoms, forces: Floats, descriptor: Descriptor, epsilon: float
) -> BoundedFrame:
    """Bound the force error of one frame by itself, as a scan does."""
    found = analyze(atoms, descriptor, k=None, null_tolerance=SCAN_NULL_TOLERANCE, each=False)
    lost = force_loss(atoms, forces, found).lost
    values = found.singular_values[found.n_null :]
    soft = found.modes[found.n_null :][values < epsilon * found.scale]
    return BoundedFrame(atoms, forces, float((lost**2).sum()), soft.reshape(-1, forces.size))


def jointly_lost(frames: Sequence[BoundedFrame], descriptor: Descriptor, epsilon: float) -> float:
    """The lost forces of some frames, for models with one slope for equal features.

    Parameters
    ----------
    frames
        The frames; some have features in common.
    descriptor
        The descriptor.
    epsilon
        Features of one part of the descriptor, about centers of one species, are the same if their
        distance is at most this fraction of the larger norm.

    Returns
    -------
    lost
        Sum of the squares in eV²/Å², at least that of the frames by themselves.

    Notes
    -----
    Rows of all Jacobians with the same features are put side by side. With one slope w for each of
    these, the forces of frame a are -J_a^T w, and the forces of all frames are in the row space of
    [J_1 J_2 ...]. Joint directions along which features change by less than ``epsilon`` times
    sigma_max do not count, as a model that uses them would distinguish equal features. They do
    count if they are directions of one frame.
    """
    starts = np.concatenate([[0], np.cumsum([len(frame.atoms) for frame in frames])])
    n_atoms = int(starts[-1])
    numbers = np.concatenate([frame.atoms.numbers for frame in frames])
    descriptor = restricted(descriptor, Atoms(numbers, np.zeros((n_atoms, 3))))
    each = [in_blocks(descriptor.jacobian(frame.atoms), "a joint bound") for frame in frames]
    parts = [
        _side_by_side(same, numbers, starts, epsilon)
        for same in zip(*(jacobian.parts for jacobian in each), strict=True)
    ]
    joint = balanced(descriptor, StackedJacobian(tuple(parts)) if len(parts) > 1 else parts[0])
    trivial = [
        structure_view(jacobian, frame.atoms).trivial
        for jacobian, frame in zip(each, frames, strict=True)
    ]
    view = View(
        jacobian=joint,
        column=lambda part: part.atom,
        atoms=np.arange(n_atoms),
        displacements=None,
        trivial=scipy.linalg.block_diag(*trivial),
        center=None,
    )
    found = spectrum(view, null_tolerance=epsilon)
    soft = scipy.linalg.block_diag(*(frame.soft for frame in frames))
    forces = np.concatenate([internal_forces(frame.atoms, frame.forces) for frame in frames])
    known = max(NOISE, epsilon * float(np.sqrt((forces**2).mean())))
    lost = outside(np.concatenate([found.modes.T[found.n_null :], soft]), forces.ravel(), known)
    return max(float((lost**2).sum()), sum(frame.lost for frame in frames))


def _side_by_side(
    parts: Sequence[FeatureJacobian], numbers: Ints, starts: Ints, epsilon: float
) -> FeatureJacobian:
    """A Jacobian with one row for each of the different features of some frames.

    Parameters
    ----------
    parts
        The same part of the Jacobian of each frame.
    numbers
        Atomic numbers of all atoms, of shape (n_atoms,).
    starts
        The first atom of each frame, and the number of all atoms.
    epsilon
        As in :func:`jointly_lost`.
    """
    shifts = starts[:-1].tolist()
    rows = np.cumsum([0, *(len(part.features) for part in parts[:-1])]).tolist()
    each = list(zip(parts, shifts, rows, strict=True))
    centers = np.concatenate([np.where(p.centers < 0, -1, p.centers + n) for p, n, _ in each])
    features = np.concatenate([part.features for part in parts])
    species = np.where(centers < 0, 0, numbers[centers])
    label, first = equal_features(features, species, epsilon)
    row = np.concatenate([label[part.row + n] for part, _, n in each])
    order = np.argsort(row, kind="stable")
    return replace(
        parts[0],
        features=features[first],
        centers=centers[first],
        row=row[order],
        atom=np.concatenate([part.atom + n for part, n, _ in each])[order],
        displacement=np.concatenate([part.displacement for part in parts])[order],
        blocks=np.concatenate([part.blocks for part in parts])[order],
        n_atoms=len(numbers),
        center_atoms=np.concatenate([part.center_atoms + n for part, n, _ in each]),
        precision=max(part.precision for part in parts),
        pairs=None,
    )


def equal_features(features: Floats, kinds: Ints, epsilon: float) -> tuple[Ints, Ints]:
    """Group equal rows: each row without a group begins one, with all such rows near to it.

    Parameters
    ----------
    features
        Of shape (n, n_features).
    kinds
        Rows of different kinds are never the same; of shape (n,).
    epsilon
        The largest distance relative to the larger norm.

    Returns
    -------
    label
        The number of each row's class, of shape (n,).
    first
        The row that represents each class, of shape (n_classes,).
    """
    label = np.full(len(features), -1, dtype=np.intp)
    first: list[int] = []
    norm = np.linalg.norm(features, axis=1)
    for row in range(len(features)):
        if label[row] >= 0:
            continue
        near = np.flatnonzero((label < 0) & (kinds == kinds[row]))
        near = near[np.abs(norm[near] - norm[row]) <= epsilon * np.maximum(norm[near], norm[row])]
        distance = np.linalg.norm(features[near] - features[row], axis=1)
        label[near[distance <= epsilon * np.maximum(norm[near], norm[row])]] = len(first)
        first.append(row)
    return label, np.array(first, dtype=np.intp)
