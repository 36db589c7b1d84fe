"""Jacobians for lower ``l_max`` from that for a higher one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ase import Atoms

from ase_sensitivity.descriptors.soap.basis import normalised
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.types import Floats


@dataclass(frozen=True, eq=False)
class KnownJacobian:
    """A SOAP for one structure, with a Jacobian that is known already.

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
        """The known Jacobian."""
        return self.known


def with_lower_l_max(soap: SOAP, jacobian: FeatureJacobian, l_max: int) -> KnownJacobian:
    """A SOAP with a lower ``l_max``, with the Jacobian computed from that for a higher one.

    Parameters
    ----------
    soap
        The descriptor with the lower ``l_max``.
    jacobian
        The Jacobian of the same descriptor with the higher ``l_max``.
    l_max
        The higher ``l_max``.

    Notes
    -----
    Without normalisation, the lower features f are a subset of the higher ones, F. With it, F / |F|
    is known. Its subset g = f / |F| has the direction of f in every structure, so f / |f| =
    g / |g|, and the derivatives agree as well: d(g / |g|) = (1 - u u^T) dg / |g| with u = g / |g|.
    """
    n_max, own_l_max = soap.basis_size
    if own_l_max == l_max:
        return KnownJacobian(soap, jacobian)
    chosen = soap.with_basis(n_max, l_max).orders <= own_l_max
    part = replace(
        jacobian, features=jacobian.features[:, chosen], blocks=jacobian.blocks[..., chosen]
    )
    if soap.normalise:
        starts = part.bounds
        normalised(part.features, part.blocks, starts)
    return KnownJacobian(soap, part)
