"""Structures that descriptors are audited on, as far as these know the elements."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2, s22
from ase.data import atomic_numbers, covalent_radii

from ase_sensitivity.descriptors.base import Descriptor, HasElements

SHAKEN = 0.05
"""Standard deviation in Å of random displacements, where symmetry must not hide anything."""

MOLECULES = (
    "H2O", "NH3", "CH4", "C2H2", "C2H4", "C2H6", "CO2", "H2CO", "CH3OH", "H2O2", "HCN", "SiH4",
    "PH3", "SH2", "C6H6", "CH3CH2OH",
)  # fmt: skip
DIMERS = ("Water_dimer", "Ammonia_dimer", "Formic_acid_dimer", "Methane_dimer")
"""Of g2 and s22, those that a quick audit takes."""

CRYSTALS = {
    "Si": ("diamond", 5.43),
    "C": ("diamond", 3.57),
    "Cu": ("fcc", 3.61),
    "Fe": ("bcc", 2.87),
    "NaCl": ("rocksalt", 5.64),
    "CsCl": ("cesiumchloride", 4.12),
    "SiC": ("zincblende", 4.36),
    "MgO": ("rocksalt", 4.21),
}
"""Crystal structures and lattice constants in Å."""

QUICK_CRYSTALS = ("Si", "Cu", "NaCl")
"""Those that a quick audit takes."""


def elements_of(descriptor: Descriptor) -> set[str] | None:
    """Elements that a descriptor sees as neighbors; None for all."""
    found = descriptor.elements if isinstance(descriptor, HasElements) else descriptor.species
    return None if found is None else set(found)


def lacking(descriptor: Descriptor, atoms: Atoms) -> list[str]:
    """Elements of a structure that the descriptor does not know, sorted."""
    known = elements_of(descriptor)
    return [] if known is None else sorted(set(atoms.symbols) - known)


def known_of(descriptor: Descriptor, structures: dict[str, Atoms]) -> dict[str, Atoms]:
    """Those structures whose elements the descriptor knows."""
    return {name: atoms for name, atoms in structures.items() if not lacking(descriptor, atoms)}


def molecules(full: bool) -> dict[str, Atoms]:
    """Molecules of the g2 set with more than one atom."""
    names = [name for name in (g2.names if full else MOLECULES) if len(g2[name]) > 1]
    return {name: molecule(name) for name in names}


def dimers(full: bool) -> dict[str, Atoms]:
    """Pairs of molecules of the s22 set."""
    return {name: s22[name] for name in (s22.names if full else DIMERS)}


def crystals(full: bool) -> dict[str, Atoms]:
    """Perfect crystals with primitive cells, and also with cubic ones in a full audit."""
    names = CRYSTALS if full else QUICK_CRYSTALS
    found = {name: bulk(name, *CRYSTALS[name]) for name in names}
    if full:
        found |= {f"{name} (cubic)": bulk(name, *CRYSTALS[name], cubic=True) for name in names}
    return found


def shaken(structures: dict[str, Atoms]) -> dict[str, Atoms]:
    """Copies with atoms displaced at random; small cells repeated before, to four atoms."""
    found = {}
    for name, atoms in structures.items():
        small = atoms.pbc.all() and len(atoms) <= 2
        found[name] = atoms.repeat((2, 2 // len(atoms), 1) if small else 1)
        found[name].rattle(SHAKEN, seed=0)
    return found


def generic(descriptor: Descriptor) -> dict[str, Atoms]:
    """Structures without any symmetry, of two elements that the descriptor knows.

    A molecule, a crystal with a small cell, and a slab of it.
    """
    known = elements_of(descriptor)
    pair = ["C", "H"] if known is None else [x for x in ("C", "H", "Si", "O") if x in known]
    if known is not None:
        pair += sorted(known - set(pair))
    one, other = (pair * 2)[:2]
    bond = float(sum(covalent_radii[atomic_numbers[symbol]] for symbol in (one, other)))
    points = [(0, 0, 0), (1.0, 0.1, 0.2), (-0.3, 1.1, 0.1), (0.2, -0.4, 1.2)]
    isolated = Atoms([one, other, other, one], bond * np.array(points))
    cell = bond * np.array([(2.5, 0.2, 0.1), (0.4, 2.7, -0.2), (0.3, 0.5, 2.6)])
    periodic = Atoms(
        [one, other], bond * np.array([(0, 0, 0), (1.1, 0.5, 0.4)]), cell=cell, pbc=True
    )
    slab = periodic.copy()
    slab.pbc = (True, True, False)
    return {"molecule": isolated, "crystal": periodic, "slab": slab}


def named_in_audit(full: bool) -> list[Atoms]:
    """All structures with given elements, from which a descriptor may take its species."""
    from ase_sensitivity.auditing.reference import ENVIRONMENTS

    return [
        *ENVIRONMENTS.values(),
        *molecules(full).values(),
        *dimers(full).values(),
        *crystals(full).values(),
    ]
