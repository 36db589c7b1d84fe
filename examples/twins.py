"""Two structures that SOAP on a carbon atom cannot tell apart, found from one of them.

Of the first, the twin lies beyond a fold of the features; around the second, nothing is singular.
"""

import argparse

import numpy as np
from ase import Atoms
from ase.io import write

from ase_sensitivity import SOAP, analyze, find_twin

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("structures", nargs="*", default=["line", "pair"], help="line, pair, or both")
parser.add_argument("--starts", type=int, default=100)
parser.add_argument("--write", metavar="FILE", help="write the pairs, for instance to twins.xyz")
arguments = parser.parse_args()


def polar(u: float, v: float) -> np.ndarray:
    return 1.09 * np.array([np.cos(u) * np.cos(v), np.sin(u) * np.cos(v), np.sin(v)])


pi = np.pi
corners = [polar(pi, -3 * pi / 8), polar(pi / 5, -pi / 6), polar(-pi / 5, pi / 6)]
hydrogens = {
    "line": [*corners, polar(0.95 * pi, 0)],
    "pair": [(1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7), (-0.72, 0.96, 0.3)],
}
soap = SOAP(["H"], cutoff=3.0, n_max=8, l_max=8, atom_sigma=0.3, centers=["C"])
frames = []
for name in arguments.structures:
    atoms = Atoms("CH4", [(0, 0, 0), *hydrogens[name]])
    result = find_twin(atoms, soap, n_starts=arguments.starts)
    print(f"{name}: sigma_min / sigma_max = {analyze(atoms, soap).ratio:.1e}; {result.message}")
    print(f"  {result.n_starts} starts, {result.n_evaluations} Jacobians")
    if result.twin is not None:
        print(f"  found from: {result.start}; largest distance of an atom {result.maximum:.3f} Å")
        frames += [result.atoms, result.twin]
if arguments.write and frames:
    write(arguments.write, frames)
