"""How many directions SOAP cannot see in symmetric molecules, and after a small displacement."""

import argparse

from ase.build import molecule

from ase_sensitivity import SOAP, analyze

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("molecules", nargs="*", default=["H2O", "NH3", "CH4", "C2H4", "CO2"])
for name in parser.parse_args().molecules:
    atoms = molecule(name)
    soap = SOAP(atoms.get_chemical_symbols(), cutoff=8.0, n_max=8, l_max=8)
    symmetric = analyze(atoms, soap)
    atoms.rattle(0.05, seed=0)
    displaced = analyze(atoms, soap)
    print(
        f"{name:6} {symmetric.n_trivial} rigid motions, {symmetric.n_null} null directions; "
        f"after a displacement {displaced.n_null}, ratio {displaced.ratio:.1e}"
    )
