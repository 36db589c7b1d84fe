"""Trivial modes: the rigid motions of each fragment, which no descriptor can see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy

from ase_sensitivity.geometry.fragments import Fragment
from ase_sensitivity.geometry.rotations import rotation_generators
from ase_sensitivity.types import Floats, Ints

DEPENDENT = 1e-6
"""Generators with an independent part smaller than this, relative to the largest, are dropped. An
example is the rotation of a linear molecule about its axis."""

CLEAR = 0.01
"""Generators of which each has an independent part larger than this need no singular values."""


def trivial_modes(
    pieces: Sequence[Fragment], n_atoms: int, fixed: Ints | None = None, *, jointly: bool = False
) -> Floats:
    """Orthonormal rigid motions of all fragments, of shape (3 n_atoms, n_trivial).

    Parameters
    ----------
    pieces
        The fragments.
    n_atoms
        Number of atoms.
    fixed
        Atoms that cannot move. Then only rigid motions that leave them in place are trivial. The
        rows of these atoms are zero.
    jointly
        Whether all fragments must rotate together; each may still be translated. This holds for
        rows of the whole structure (:class:`~ase_sensitivity.Range`).
    """
    if jointly and len(pieces) > 1:
        return _orthonormal(_joint_generators(pieces, n_atoms), np.arange(n_atoms), n_atoms, fixed)
    free = fixed is None or not len(fixed)
    if free and len(pieces) == 1 and len(pieces[0].atoms) == n_atoms:
        piece = pieces[0]
        return _of_whole(piece.positions.tobytes(), piece.axes.tobytes(), piece.rotates)
    modes = [
        _orthonormal(
            piece.generators().reshape(-1, 3 * len(piece.atoms)).T, piece.atoms, n_atoms, fixed
        )
        for piece in pieces
    ]
    return np.concatenate(modes, axis=1)


@lru_cache(maxsize=1)
def _of_whole(positions: bytes, axes: bytes, rotates: bool) -> Floats:
    """Those of all atoms as one fragment, which the spectrum and the forces of a frame both need.

    The arrays of a :class:`Fragment` are given as bytes. The result cannot be written to.
    """
    points, vectors = (np.frombuffer(part).reshape(-1, 3) for part in (positions, axes))
    everything = np.arange(len(points))
    piece = Fragment(everything, points, vectors, rotates)
    motions = piece.generators().reshape(-1, 3 * len(points)).T
    found = _orthonormal(motions, everything, len(points), None)
    found.flags.writeable = False
    return found


def _orthonormal(generators: Floats, atoms: Ints, n_atoms: int, fixed: Ints | None) -> Floats:
    """Modes of shape (3 n_atoms, any) spanned by generators (3 m, any) of some atoms (m,)."""
    if fixed is not None and len(fixed):
        rows = np.repeat(np.isin(atoms, fixed), 3)
        if rows.any():
            generators = generators @ scipy.linalg.null_space(generators[rows], rcond=DEPENDENT)
            generators[rows] = 0.0
    independent = _basis_of(generators, DEPENDENT * math.sqrt(len(atoms)))
    if len(atoms) == n_atoms:
        return independent
    wide = np.zeros((n_atoms, 3, independent.shape[1]))
    wide[atoms] = independent.reshape(len(atoms), 3, -1)
    return wide.reshape(3 * n_atoms, -1)


def _basis_of(generators: Floats, least: float) -> Floats:
    """An orthonormal basis of columns (n, m), without what is smaller than ``least``; (n, any)."""
    n, m = generators.shape
    if 0 < m <= n:
        # What numpy.linalg.qr calls, but that takes three times as long for a molecule.
        lapack = scipy.linalg.lapack
        factor, scales, _, _ = lapack.dgeqrf(generators, lwork=32 * m)
        sizes = np.abs(factor.diagonal())
        if sizes.min() > max(CLEAR * sizes.max(), least):
            basis: Floats = lapack.dorgqr(factor, scales, lwork=32 * m, overwrite_a=1)[0]
            return basis
    u, s, _ = np.linalg.svd(generators, full_matrices=False)
    return u[:, s > least]


def _joint_generators(pieces: Sequence[Fragment], n_atoms: int) -> Floats:
    """Translations of every fragment, and rotations of all by the same angle, as columns."""
    motions = []
    rotations = np.zeros((3, n_atoms, 3))
    for piece in pieces:
        for e in np.eye(3):
            shift = np.zeros((n_atoms, 3))
            shift[piece.atoms] = e
            motions.append(shift)
        relative = piece.positions - piece.positions.mean(axis=0)
        rotations[:, piece.atoms] = rotation_generators(relative)
    # Every fragment must allow the rotation. A wire allows that about its axis, a crystal none.
    forbidden = np.zeros((3, 3))
    for piece in pieces:
        if not piece.rotates or len(piece.axes) > 1:
            forbidden += np.eye(3)
        elif len(piece.axes) == 1:
            axis = piece.axes[0] / np.linalg.norm(piece.axes[0])
            forbidden += np.eye(3) - np.outer(axis, axis)
    weights, axes = np.linalg.eigh(forbidden)
    for axis in axes.T[weights < DEPENDENT]:
        rotation = np.einsum("k,kij->ij", axis, rotations)
        motions.append(rotation / (np.linalg.norm(rotation) / np.sqrt(n_atoms) or 1.0))
    return np.array(motions).reshape(len(motions), -1).T
