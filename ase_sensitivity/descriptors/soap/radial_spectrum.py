"""Radial spectrum: the l = 0 coefficients, which do not depend on angles."""

from __future__ import annotations

import numpy as np

from ase_sensitivity.descriptors.soap.basis import Basis, normalised
from ase_sensitivity.descriptors.soap.environments import ALL_SPECIES, Environments
from ase_sensitivity.types import Floats


def radial_spectrum(
    basis: Basis, environments: Environments, normalise: bool, features: Floats, blocks: Floats
) -> None:
    """Fill ``features`` (n_rows, n_species n_max) and ``blocks`` (n_blocks, 3, the same).

    ``blocks`` may be empty.
    """
    row, own, vectors = environments.row, environments.own, environments.vectors
    distance = np.linalg.norm(vectors, axis=1)
    values, slopes = basis.radial(distance)
    y00 = 1.0 / np.sqrt(4.0 * np.pi)
    coefficients = features.reshape(len(features), basis.n_species, basis.n_max)
    center = environments.center_species[:, None]
    present = (center == np.arange(basis.n_species)) | (center == ALL_SPECIES)
    coefficients[...] = present[:, :, None] * basis.central
    np.add.at(coefficients, (row, environments.species), y00 * values[:, :, 0])
    if len(blocks):
        pair = np.arange(len(row)) + row + 1
        blocks[...] = 0.0
        by_species = blocks.reshape(len(blocks), 3, basis.n_species, basis.n_max)
        unit = vectors / distance[:, None]
        derivative = y00 * unit[:, :, None] * slopes[:, None, :, 0]
        by_species[pair, :, environments.species] = derivative
        total = np.zeros((len(own), *blocks.shape[1:]))
        np.add.at(total, row, blocks[pair])
        blocks[own] = -total
    if normalise:
        normalised(features, blocks, np.append(own, environments.n_blocks))
