"""Several descriptors combined to one: the parts of each, and their weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from ase_sensitivity.descriptors.base import Descriptor, optional
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import Jacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.types import Floats

CONSTANT = 1e-10
"""Features that change by less than this fraction per Å are constant; their change is rounding."""


@dataclass(frozen=True)
class Component:
    """One of several descriptors that are combined.

    Attributes
    ----------
    name
        Its name in results.
    descriptor
        The descriptor by itself.
    parts
        The numbers of its parts in the Jacobian of all.
    """

    name: str
    descriptor: Descriptor
    parts: tuple[int, ...]

    def jacobian(self, whole: Jacobian) -> Jacobian:
        """Its parts of the Jacobian of all descriptors."""
        if not isinstance(whole, StackedJacobian):
            return whole
        own = tuple(whole.parts[n] for n in self.parts)
        return own[0] if len(own) == 1 else StackedJacobian(own)


@runtime_checkable
class HasComponents(Protocol):
    """A descriptor that consists of several ones."""

    @property
    def components(self) -> Sequence[Component]:
        """The descriptors that it consists of."""
        ...


@runtime_checkable
class HasKernelWeights(Protocol):
    """A descriptor with features that are weighted by the kernels of a potential."""

    @property
    def kernel_weights(self) -> tuple[Floats, ...] | None:
        """For each part one weight, or one for each feature, in eV; None if unknown."""
        ...


def components(descriptor: Descriptor) -> Sequence[Component]:
    """The attribute ``components`` of a descriptor; empty if it has none."""
    return optional(descriptor, "components") or ()


def has_pair_rows(jacobian: Jacobian) -> bool:
    """Whether centers have several rows of features: one for each pair or triplet."""
    if not isinstance(jacobian, FeatureJacobian | StackedJacobian):
        return False
    return any(len(np.unique(part.centers)) < len(part.centers) for part in jacobian.parts)


def weights(descriptor: Descriptor, jacobian: Jacobian) -> tuple[Floats, ...] | None:
    """Factors for the features of each part when several descriptors are combined.

    Parameters
    ----------
    descriptor
        The descriptor of the Jacobian.
    jacobian
        The Jacobian of a structure.

    Returns
    -------
    weights
        For each part one factor, or one for each feature; None for a single descriptor.

    Notes
    -----
    See docs/descriptors, several descriptors. If the kernels are known, they give the change of the
    energy (eV) with each feature. Otherwise the derivatives of each component are divided by their
    norm: the root mean square over its centers of the sum over all neighbors and features. Symmetry
    alone never makes this norm zero, while sigma_max is zero in a perfect crystal.
    """
    parts = components(descriptor)
    if len(parts) < 2 or not isinstance(jacobian, StackedJacobian):
        return None
    if isinstance(descriptor, HasKernelWeights):
        known = descriptor.kernel_weights
        if known is not None:
            return known
    found = [np.ones(())] * len(jacobian.parts)
    for component in parts:
        own = [jacobian.parts[n] for n in component.parts]
        slope = _size(part.blocks for part in own)
        if slope > CONSTANT * _size(part.features for part in own):
            n_centers = sum(len(part.center_atoms) for part in own)
            for n in component.parts:
                found[n] = np.array(np.sqrt(n_centers) / slope)
    return tuple(found)


def _size(arrays: Iterable[Floats]) -> float:
    """Square root of the sum of the squares of all entries."""
    return math.sqrt(sum(float(np.vdot(array, array)) for array in arrays))


def balanced(descriptor: Descriptor, jacobian: Jacobian) -> Jacobian:
    """The Jacobian with its parts multiplied by their :func:`weights`, if there are any."""
    if not isinstance(jacobian, StackedJacobian):
        return jacobian
    factors = weights(descriptor, jacobian)
    return jacobian if factors is None else StackedJacobian(weighted(jacobian.parts, factors))


def weighted(
    parts: Sequence[FeatureJacobian], factors: Sequence[Floats] | None
) -> tuple[FeatureJacobian, ...]:
    """Parts of a Jacobian with their features multiplied by weights."""
    if factors is None:
        return tuple(parts)
    return tuple(
        replace(part, features=part.features * factor, blocks=part.blocks * factor)
        for part, factor in zip(parts, factors, strict=True)
    )
