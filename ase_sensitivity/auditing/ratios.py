"""The smallest singular values where symmetry hides nothing, beside those of SOAP."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import analyze
from ase_sensitivity.auditing.check import FINDING, OK, Check, skipped
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.sensitivity import NEARLY

GROUP = "smallest sigma_min / sigma_max"


def soap_beside(atoms: Atoms) -> SOAP:
    """The SOAP that a descriptor is compared with, for the elements of a structure."""
    return SOAP(sorted(set(atoms.symbols)), cutoff=5.0, n_max=8, l_max=6, atom_sigma=0.5)


def ratio_checks(descriptor: Descriptor, name: str, structures: dict[str, Atoms]) -> list[Check]:
    """The smallest and the median ratio of structures without symmetry, and SOAP's."""
    if not structures:
        return [skipped(GROUP, name, "it does not know the elements")]
    own = {where: _ratio(atoms, descriptor) for where, atoms in structures.items()}
    soap = {where: _ratio(atoms, soap_beside(atoms)) for where, atoms in structures.items()}
    own = {where: ratio for where, ratio in own.items() if np.isfinite(ratio)}
    if not own:
        return [skipped(GROUP, name, "there is nothing but rigid motions of fragments")]
    worst = min(own, key=own.__getitem__)
    least = own[worst]
    low = [where for where, ratio in own.items() if ratio < NEARLY]
    note = ""
    if low:
        note = f"nearly invisible directions in {len(low)} of {len(own)} structures"
    return [
        Check(
            GROUP,
            name,
            f"{least:.1e} ({worst}), median {np.median(list(own.values())):.1e}",
            f"SOAP: {np.nanmin(list(soap.values())):.1e}, "
            f"median {np.nanmedian(list(soap.values())):.1e}",
            FINDING if low else OK,
            note,
            {"names": [*own], "ratios": [*own.values()], "soap": [soap[where] for where in own]},
        )
    ]


def _ratio(atoms: Atoms, descriptor: Descriptor) -> float:
    return analyze(atoms, descriptor, k=1, each=False).ratio
