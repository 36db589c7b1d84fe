"""Features that tests write with torch: of atoms about a center, and by messages."""

from __future__ import annotations

import torch
from ase import Atoms
from torch import Tensor

from ase_sensitivity import neighbor_vectors

RADII = (0.8, 1.1, 1.4, 1.7, 2.0, 2.4, 2.8)


def inverse_distances(atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
    """One row of the whole structure: all of them, in ascending order."""
    first, second = torch.triu_indices(len(atoms), len(atoms), 1)
    return (1 / (positions[first] - positions[second]).norm(dim=1)).sort()[0][None]


def radial(distances: Tensor, cutoff: float) -> Tensor:
    """Gaussians about `RADII` times a smooth cutoff, of shape (n_pairs, len(RADII))."""
    smooth = torch.where(distances < cutoff, (1 - (distances / cutoff) ** 2) ** 3, 0.0)
    centers = torch.tensor(RADII, dtype=distances.dtype)
    return torch.exp(-4 * (distances[:, None] - centers) ** 2) * smooth[:, None]


class SymmetryFunctions:
    """Atom-centered symmetry functions of pairs, or of pairs and triplets."""

    def __init__(self, cutoff: float, body_order: int) -> None:
        self.cutoff, self.body_order = cutoff, body_order

    def __call__(self, atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
        return self.of_vectors(atoms, *neighbor_vectors(atoms, positions, cell, self.cutoff))

    def of_vectors(self, atoms: Atoms, center: Tensor, neighbor: Tensor, vectors: Tensor) -> Tensor:
        n, dtype = len(atoms), vectors.dtype
        z = torch.as_tensor(atoms.numbers, dtype=dtype) / 8
        lengths = vectors.norm(dim=1)
        g = radial(lengths, self.cutoff) * z[neighbor, None]
        heard = torch.zeros(n, g.shape[1], dtype=dtype).index_add(0, center, g)
        if self.body_order == 2:
            return torch.cat([z[:, None], heard], dim=1)
        same = (center[:, None] == center) & ~torch.eye(len(center), dtype=torch.bool)
        a, b = torch.nonzero(same, as_tuple=True)
        cosine = (vectors[a] * vectors[b]).sum(dim=1) / (lengths[a] * lengths[b])
        angular = torch.stack([((1 + cosine) / 2) ** k for k in (1, 2, 3, 4, 6)], dim=1)
        triplets = g[a, :, None, None] * g[b, None, :, None] * angular[:, None, None]
        triplets = triplets.reshape(len(a), g.shape[1] ** 2 * 5)
        seen = torch.zeros(n, triplets.shape[1], dtype=dtype).index_add(0, center[a], triplets)
        return torch.cat([z[:, None], heard, seen], dim=1)


def two_hops(atoms: Atoms, positions: Tensor, cell: Tensor) -> Tensor:
    """Every atom sums over those within 3 Å what they have summed over those within 3 Å."""
    center, neighbor, vectors = neighbor_vectors(atoms, positions, cell, 3.0)
    g = radial(vectors.norm(dim=1), 3.0)
    z = torch.as_tensor(atoms.numbers, dtype=positions.dtype)[:, None] / 8

    def hear(h: Tensor) -> Tensor:
        messages = (g[:, :, None] * h[neighbor, None]).reshape(len(g), -1)
        total = torch.zeros(len(atoms), messages.shape[1], dtype=h.dtype)
        return total.index_add(0, center, messages)

    first = hear(z)
    first = torch.cat([z, first, first**2], dim=1)
    return torch.cat([first, hear(first)], dim=1)
