"""Smaller bases from the Jacobian of a larger one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ase import Atoms

from ase_sensitivity.descriptors.soap.basis import normalised
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.types import Floats


@dataclass(frozen=True, eq=False)
class GivenJacobian:
    """A SOAP whose Jacobian of one structure is known already.

    Parameters
    ----------
    soap
        The descriptor.
    known
        Its Jacobian.
    """

    soap: SOAP
    known: FeatureJacobian

    @property
    def species(self) -> tuple[str, ...]:
        """As in :class:`~ase_sensitivity.Descriptor`."""
        return self.soap.species

    @property
    def cutoff(self) -> float:
        """As in :class:`~ase_sensitivity.Descriptor`."""
        return self.soap.cutoff

    @property
    def body_order(self) -> int:
        """As in :class:`~ase_sensitivity.Descriptor`."""
        return self.soap.body_order

    def features(self, atoms: Atoms) -> Floats:
        """Features of shape (n_rows, n_features)."""
        return self.known.features

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        """The Jacobian that is known."""
        return self.known


def lower(soap: SOAP, jacobian: FeatureJacobian, l_max: int) -> GivenJacobian:
    """What a SOAP with a lower ``l_max`` gives, from the Jacobian of one with a higher one.

    Parameters
    ----------
    soap
        The descriptor with the lower ``l_max``.
    jacobian
        Of the same descriptor but for ``l_max``.
    l_max
        The higher one.

    Notes
    -----
    Without normalisation the lower features f are some of the higher ones, F. With it, F / |F| is
    known. Its part g = f / |F| has the direction of f in every structure, so f / |f| = g / |g|, and
    the derivatives agree as well: d(g / |g|) = (1 - u u^T) dg / |g| with u = g / |g|.
    """
    n_max, own_l_max = soap.basis_size
    if own_l_max == l_max:
        return GivenJacobian(soap, jacobian)
    chosen = soap.with_basis(n_max, l_max).orders <= own_l_max
    part = replace(
        jacobian, features=jacobian.features[:, chosen], blocks=jacobian.blocks[..., chosen]
    )
    if soap.normalise:
        starts = part.bounds
        normalised(part.features, part.blocks, starts)
    return GivenJacobian(soap, part)
