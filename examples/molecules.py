"""How many directions SOAP cannot see in symmetric molecules, and after a small displacement."""

import argparse

from ase.build import molecule

from ase_sensitivity import QUIPDescriptor, analyze

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("molecules", nargs="*", default=["H2O", "NH3", "CH4", "C2H4", "CO2"])
for name in parser.parse_args().molecules:
    atoms = molecule(name)
    soap = QUIPDescriptor(
        "soap cutoff=8 n_max=8 l_max=8 atom_sigma=0.5",
        species=sorted(set(atoms.get_chemical_symbols())),
    )
    symmetric = analyze(atoms, soap)
    atoms.rattle(0.05, seed=0)
    displaced = analyze(atoms, soap)
    print(
        f"{name:6} {symmetric.n_trivial} rigid motions, {symmetric.n_null} null directions; "
        f"after a displacement {displaced.n_null}, ratio {displaced.ratio:.1e}"
    )
