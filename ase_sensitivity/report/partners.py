"""The partners of the structures on a page, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.descriptors.given import Given
from ase_sensitivity.plain_text import reason
from ase_sensitivity.singular.nearest import NearestSingular, nearest_singular, priced
from ase_sensitivity.singular.price import Pricing, check_price

PartnerOf = Callable[[Atoms], dict[str, Any]]
"""What the page draws of the partner of a structure: vectors to it, and a text."""


def partner_drawing(descriptor: Given, price: Any, scope: object) -> PartnerOf:
    """A function that looks for the partner of a structure.

    Parameters
    ----------
    descriptor
        That of the scan.
    price
        A calculator, or None.
    scope
        That of the scan.

    Raises
    ------
    TypeError, ValueError
        If ``price`` is no calculator, or the scan is not one of whole structures.
    """
    if price is not None:
        check_price(price)
    if scope not in (None, "structure"):
        raise ValueError(f'`partners` needs a scan with scope="structure", not {scope!r}')

    def partner_of(atoms: Atoms) -> dict[str, Any]:
        try:
            nearest = nearest_singular(atoms, descriptor)
            if price is not None:
                nearest = priced(nearest, Pricing(atoms, price))
        except Exception as error:  # the page has all the rest
            return {"text": f"no partner: {reason(error)}"}
        shown = nearest if nearest.harmful is None else nearest.harmful
        if shown.partner is None:
            return {"text": f"no partner: {shown.no_partner}"}
        vectors = shown.partner.atoms.positions - shown.partner.given.positions
        return {"text": words(shown), "vectors": np.round(vectors, 4).tolist()}

    return partner_of


def words(nearest: NearestSingular) -> str:
    """The partner in one line."""
    partner, price = nearest.partner, nearest.price
    assert partner is not None
    text = (
        f"partner beyond {nearest.cause}, {partner.displacement:.3f} Å away "
        f"(best match {partner.rmsd:.3f} Å), features {partner.feature_distance:.1e} apart"
    )
    if not partner.agrees:
        text += ", which do not return: no fold"
    if price is not None:
        text += f"; price {price.energy:.4f} eV, {price.forces:.3f} eV/Å"
    elif nearest.no_price is not None:
        text += f"; {nearest.no_price}"
    return text
