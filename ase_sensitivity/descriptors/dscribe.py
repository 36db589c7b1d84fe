"""Features of DScribe's descriptors."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from scipy.spatial.distance import cdist

from ase_sensitivity.descriptors.base import Rows, Shortcuts
from ase_sensitivity.descriptors.finite_difference import (
    PRECISION,
    WEIGHTS,
    FiniteDifferenceDescriptor,
)
from ase_sensitivity.descriptors.trained import needs_package
from ase_sensitivity.geometry.neighbors import check_apart
from ase_sensitivity.geometry.structure import symbols_in
from ase_sensitivity.geometry.unfolding import pairs_within, unfolded
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.whole import centers_of, in_images
from ase_sensitivity.types import Floats, Ints

ANALYTIC = 1e-13
"""Relative accuracy of DScribe's analytic derivatives."""

STEP, SMALLEST_STEP = 1e-3, 1e-7
"""Displacement of finite differences in Å, and how small it may be made to cross no radius."""

SETTINGS = (
    "species", "r_cut", "n_max", "l_max", "sigma", "rbf", "weighting", "average", "compression",
    "g2_params", "g3_params", "g4_params", "g5_params", "n_atoms_max", "permutation", "geometry",
    "grid", "normalization", "normalize_gaussians", "periodic",
)  # fmt: skip
"""What tells a descriptor from others of its kind."""

MEMORY = 3e8
"""Bytes of derivatives that DScribe is asked for at once."""


class DScribeDescriptor(Shortcuts):
    r"""A descriptor of DScribe.

    ``SOAP`` and ``ACSF`` have a row of features for each atom, and periodic images apart. A SOAP
    with ``average``, and what describes a structure (``CoulombMatrix``, ``SineMatrix``,
    ``EwaldSumMatrix``, ``MBTR``), have one row for the whole structure.

    Parameters
    ----------
    descriptor
        The descriptor of DScribe. It is copied, and the copy computes dense features in double
        precision.

    Raises
    ------
    ImportError
        If there is no dscribe.
    TypeError, ValueError
        If it is none, or its features are no function of the structure (random permutations).

    Notes
    -----
    Derivatives of SOAP are DScribe's analytic ones, with centers that move with their atoms. It has
    none for the polynomial basis, weighting, most compressions, ACSF and features of a whole
    structure; these are differentiated by finite differences of our own, which are accurate to
    1e-10.

    The periodic boundary conditions are those of the structure: ``periodic`` of SOAP and ACSF does
    not matter. DScribe has no derivatives for periodic structures. It is asked for a cluster
    without a cell in which every image is an atom.

    SOAP has no cutoff function. Neighbors count up to :math:`r_{cut} + \sigma \sqrt{2 \ln 1000}`,
    which is the cutoff here; there features jump by some 1e-5 of the largest. Derivatives do not
    know of the jump, and no finite difference crosses it.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from dscribe.descriptors import SOAP
    >>> from ase_sensitivity import analyze
    >>> soap = SOAP(species=["C", "H"], r_cut=4.0, n_max=4, l_max=3, sigma=0.4)
    >>> analyze(molecule("CH4"), DScribeDescriptor(soap)).n_null
    2
    """

    def __init__(self, descriptor: Any) -> None:
        needs_package("dscribe", "DScribeDescriptor", torch=False)
        from dscribe.descriptors import ACSF, LMBTR, SOAP
        from dscribe.descriptors.descriptorglobal import DescriptorGlobal
        from dscribe.descriptors.descriptorlocal import DescriptorLocal

        name = type(descriptor).__name__
        if not isinstance(descriptor, DescriptorLocal | DescriptorGlobal):
            raise TypeError(f"`descriptor` must be a descriptor of DScribe, not {name}")
        if isinstance(descriptor, LMBTR) or (
            isinstance(descriptor, DescriptorLocal) and not isinstance(descriptor, SOAP | ACSF)
        ):
            raise TypeError(f"`descriptor` is {name}; of those with a row for each atom, SOAP and "
                            "ACSF are supported")  # fmt: skip
        if getattr(descriptor, "permutation", None) == "random":
            raise ValueError(f"`descriptor` is {name} with random permutations; choose another")
        self.descriptor = copy.deepcopy(descriptor)
        self.descriptor.sparse = False
        self.descriptor.dtype = "float64"
        self.cutoff = math.inf
        self.body_order: int | None = None
        self.species: tuple[str, ...] | None = None
        if getattr(descriptor, "species", None) is not None:
            self.species = tuple(str(symbol) for symbol in descriptor.species)
        self._local = isinstance(descriptor, SOAP | ACSF)
        self._jumps = isinstance(descriptor, SOAP)
        self._analytic = False
        if self._local:
            self.descriptor.periodic = False  # images are atoms
        average = getattr(descriptor, "average", "off")
        self.radius = math.inf
        """Within which a center sees atoms, in Å."""
        if isinstance(descriptor, SOAP):
            self.radius = float(descriptor._r_cut + descriptor.get_cutoff_padding())
            self.body_order = 3
            self._analytic = _is_analytic(self.descriptor)
        elif isinstance(descriptor, ACSF):
            self.radius = float(descriptor.r_cut)
            self.body_order = 3 if len(descriptor.g4_params or descriptor.g5_params or ()) else 2
        if average != "inner":  # there, features depend on how fragments are rotated
            self.cutoff = self.radius
        self._is_whole = not self._local or average != "off"

    def __repr__(self) -> str:
        found = {name: getattr(self.descriptor, f"_{name}", None) for name in SETTINGS}
        found |= {name: getattr(self.descriptor, name, found[name]) for name in SETTINGS}
        settings = [f"{name}={_plain(value)}" for name, value in found.items() if value is not None]
        return f"DScribeDescriptor({type(self.descriptor).__name__}({', '.join(settings)}))"

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features)."""
        self._check(atoms)
        if self._is_whole:
            return self._row(atoms)
        return self._create(unfolded(atoms, self.radius)[0], np.arange(len(atoms)))

    def rows(self, atoms: Atoms) -> list[Rows]:
        """Features and the atom at the center of each row; one part."""
        features = self.features(atoms)
        return [(features, centers_of(None, len(features), len(atoms)))]

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """Features and their derivatives; of rows of atoms with every periodic image apart."""
        self._check(atoms)
        if self._is_whole:
            return self._differences_of_row(atoms)
        n = len(atoms)
        cluster, parent = unfolded(atoms, self.radius)
        row, column = pairs_within(cluster, n, self.radius)
        features = self._create(cluster, np.arange(n))
        blocks = np.empty((len(row), 3, features.shape[1]))
        precision = ANALYTIC
        if self._analytic:
            self._fill_analytic(cluster, row, column, blocks)
        else:
            precision = self._fill_differences(cluster, row, column, blocks)
        return in_images(
            cluster,
            parent,
            features,
            row,
            column,
            blocks,
            cutoff=self.cutoff,
            precision=precision,
        )

    def _check(self, atoms: Atoms) -> None:
        check_apart(atoms)
        name = type(self.descriptor).__name__
        other = set() if self.species is None else symbols_in(atoms) - set(self.species)
        if other:
            raise ValueError(f"the structure has {', '.join(sorted(other))}, which {name} was not "
                             f"made for: {', '.join(self.species or ())}")  # fmt: skip
        if not self._local and atoms.pbc.any() and not _sees_images(self.descriptor):
            raise ValueError(f"{name} sees no periodic images; set `atoms.pbc = False`")

    def _row(self, atoms: Atoms) -> Floats:
        """Features of a whole structure, of shape (1, n_features)."""
        if self._local:
            return self._create(unfolded(atoms, self.radius)[0], np.arange(len(atoms)))
        return self._create(atoms, None)

    def _create(self, atoms: Atoms, centers: Ints | None) -> Floats:
        chosen = {} if centers is None else {"centers": centers.tolist()}
        try:
            found = self.descriptor.create(atoms, **chosen)
        except Exception as error:  # of many types
            name = type(self.descriptor).__name__
            raise ValueError(f"{name} gave no features for {atoms.symbols}: {error}") from error
        return np.atleast_2d(np.asarray(found, dtype=np.float64))

    def _fill_analytic(self, cluster: Atoms, row: Ints, column: Ints, blocks: Floats) -> None:
        n = int(row[-1]) + 1
        size = max(1, int(MEMORY / (8 * len(cluster) * 3 * blocks.shape[2])))
        for first in range(0, n, size):
            centers = np.arange(first, min(first + size, n))
            found = self.descriptor.derivatives(
                cluster,
                centers=centers.tolist(),
                attach=True,
                method="analytical",
                return_descriptor=False,
            )
            own = slice(*np.searchsorted(row, (first, first + size)))
            blocks[own] = found[row[own] - first, column[own]]

    def _fill_differences(self, cluster: Atoms, row: Ints, column: Ints, blocks: Floats) -> float:
        """Fill in finite differences, and return their relative accuracy."""
        moving = cluster.copy()
        order = np.argsort(column, kind="stable")
        bounds = np.searchsorted(column[order], np.arange(len(cluster) + 1))
        smallest = STEP
        for atom in range(len(cluster)):
            own = order[bounds[atom] : bounds[atom + 1]]
            if len(own) == 0:
                continue
            step = self._step(cdist(cluster.positions[[atom]], cluster.positions))
            smallest = min(smallest, step)
            for k in range(3):
                total = np.zeros((len(own), blocks.shape[2]))
                for steps, weight in WEIGHTS.items():
                    moving.positions[atom, k] = cluster.positions[atom, k] + steps * step
                    total += weight * self._create(moving, row[own])
                moving.positions[atom, k] = cluster.positions[atom, k]
                blocks[own, k] = total / step
        return _accuracy(smallest)

    def _differences_of_row(self, atoms: Atoms) -> FeatureJacobian:
        step = STEP
        if self._local:
            cluster, _ = unfolded(atoms, self.radius + 3 * STEP)
            step = self._step(cdist(cluster.positions[: len(atoms)], cluster.positions))
        whole = FiniteDifferenceDescriptor(self._row, cutoff=self.cutoff, step=step)
        return replace(whole.jacobian(atoms), precision=_accuracy(step))

    def _step(self, distances: Floats) -> float:
        """A displacement of an atom; no distance crosses the radius after two of them."""
        step = float(np.abs(distances - self.radius).min() / 3)
        if self._jumps and step < SMALLEST_STEP:
            raise ValueError(
                f"two atoms are {self.radius:.9g} Å apart, where features jump; change `r_cut` of "
                "the descriptor a little"
            )
        return min(max(step, SMALLEST_STEP), STEP)


def _accuracy(step: float) -> float:
    """Relative accuracy of finite differences; rounding matters with small steps."""
    return max(PRECISION, 1e-16 / step)


def _plain(value: Any) -> str:
    """A setting as text, whole and without the types of NumPy."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    return str(np.asarray(value).tolist())


def _is_analytic(soap: Any) -> bool:
    """Whether DScribe has analytic derivatives."""
    try:
        return soap.validate_derivatives_method("auto", True) == "analytical"
    except ValueError:
        return False


def _sees_images(descriptor: Any) -> bool:
    """Whether a descriptor of a whole structure depends on periodic images."""
    kind = type(descriptor).__name__
    return kind in ("SineMatrix", "EwaldSumMatrix") or bool(descriptor.periodic)
