"""Several descriptors seen together: which parts are whose, and what each of them weighs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.contract import Jacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.types import Floats

CONSTANT = 1e-10
"""Features that change by less than this fraction per Å are constant, and the rest is rounding."""


@dataclass(frozen=True)
class Component:
    """A descriptor among several.

    Attributes
    ----------
    name
        What to call it.
    descriptor
        The descriptor by itself.
    parts
        Which parts of the Jacobian are its own.
    """

    name: str
    descriptor: Descriptor
    parts: tuple[int, ...]

    def jacobian(self, whole: Jacobian) -> Jacobian:
        """Its own parts of the Jacobian of all."""
        if not isinstance(whole, StackedJacobian):
            return whole
        own = tuple(whole.parts[n] for n in self.parts)
        return own[0] if len(own) == 1 else StackedJacobian(own)


@runtime_checkable
class Composed(Protocol):
    """A descriptor that is made of several ones."""

    @property
    def components(self) -> Sequence[Component]:
        """What it is made of."""
        ...


@runtime_checkable
class HasKernels(Protocol):
    """A descriptor that knows what the kernels of a potential make of its features."""

    @property
    def kernel_weights(self) -> tuple[Floats, ...] | None:
        """In eV, numbers or one for each feature, for each part; None if not known."""
        ...


def components(descriptor: Descriptor) -> Sequence[Component]:
    """The descriptors that one is made of, as its attribute ``components`` has them, or none."""
    return descriptor.components if isinstance(descriptor, Composed) else ()


def has_free_rows(jacobian: Jacobian) -> bool:
    """Whether centers have several rows of features: one for each pair or triplet."""
    if not isinstance(jacobian, FeatureJacobian | StackedJacobian):
        return False
    return any(len(np.unique(part.centers)) < len(part.centers) for part in jacobian.parts)


def weights(descriptor: Descriptor, jacobian: Jacobian) -> tuple[Floats, ...] | None:
    """What to multiply the features of each part with before they are seen together.

    Parameters
    ----------
    descriptor
        Where the Jacobian is from.
    jacobian
        The Jacobian of a structure.

    Returns
    -------
    weights
        Numbers, or one for each feature, for each part; None if there is nothing to weigh.

    Notes
    -----
    docs/descriptors, several descriptors. Where the kernels are known, so is how much of the energy
    (eV) is due to a change of each feature. Otherwise the derivatives of each component are divided
    by their root mean square over its centers, all neighbors and features of a center summed up.
    This norm is never zero by symmetry only, as sigma_max is in a perfect crystal.
    """
    parts = components(descriptor)
    if len(parts) < 2 or not isinstance(jacobian, StackedJacobian):
        return None
    if isinstance(descriptor, HasKernels):
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
    """Root of the sum of all squares."""
    return math.sqrt(sum(float(np.vdot(array, array)) for array in arrays))


def balanced(descriptor: Descriptor, jacobian: Jacobian) -> Jacobian:
    """The Jacobian with its parts multiplied by their :func:`weights`, if there are any."""
    factors = weights(descriptor, jacobian)
    if factors is None or not isinstance(jacobian, StackedJacobian):
        return jacobian
    return StackedJacobian(weighed(jacobian.parts, factors))


def weighed(
    parts: Sequence[FeatureJacobian], factors: Sequence[Floats] | None
) -> tuple[FeatureJacobian, ...]:
    """Parts of a Jacobian with their features multiplied by weights."""
    if factors is None:
        return tuple(parts)
    return tuple(
        replace(part, features=part.features * factor, blocks=part.blocks * factor)
        for part, factor in zip(parts, factors, strict=True)
    )
