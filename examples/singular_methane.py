"""From random methane geometries to configurations that SOAP on carbon alone cannot resolve.

Three kinds of them are known; B and B' are two hydrogen atoms at the same distance.
S1: a third in the plane of B, B' and the carbon atom, the fourth in the other plane that halves
their angle. S2: one on the bisector of B and B'. S3: one on the axis of a ring of the other three.
"""

import argparse
from collections import Counter
from itertools import combinations, permutations

import numpy as np
from ase.build import molecule
from ase.io import write

from ase_sensitivity import SOAP, find_singular


def families(points: np.ndarray, tolerance: float = 0.01) -> set[str]:
    """Which of the three kinds four points about the origin are, up to a tolerance in Å."""
    r = np.linalg.norm(points, axis=1)
    unit = points / r[:, None]
    found = set()
    for b, c in combinations(range(4), 2):
        if abs(r[b] - r[c]) > tolerance:
            continue
        bisector = unit[b] + unit[c]
        bisector /= np.linalg.norm(bisector)
        normal = np.cross(unit[b], unit[c])
        normal /= np.linalg.norm(normal)
        across = np.cross(normal, bisector)
        for p, q in permutations(set(range(4)) - {b, c}):
            if max(abs(points[p] @ normal), abs(points[q] @ across)) < tolerance:
                found.add("S1")
            if max(abs(points[q] @ normal), abs(points[q] @ across)) < tolerance:
                found.add("S2")
    for tip in range(4):
        ring = [i for i in range(4) if i != tip]
        if max(np.ptp(r[ring]), np.ptp(points[ring] @ unit[tip])) < tolerance:
            found.add("S3")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--walks", type=int, default=6, help="from each start")
    parser.add_argument("--displacement", type=float, default=0.6, help="in Å")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", metavar="FILE", help="write them, for instance to singular.xyz")
    arguments = parser.parse_args()

    soap = SOAP(["H"], cutoff=3.0, n_max=8, l_max=8, atom_sigma=0.3, centers=["C"])
    search = find_singular(
        molecule("CH4"),
        soap,
        cause="incompleteness",
        n_starts=arguments.starts,
        n_walks=arguments.walks,
        displacement=arguments.displacement,
        rng=arguments.seed,
    )
    print(search.message)
    print(f"{search.n_walks} walks, {search.n_evaluations} Jacobians; ends: {search.causes}")
    kinds: Counter[str] = Counter()
    starts: dict[str, set[int]] = {}
    for point in search.points:
        own = families(point.atoms.positions[1:] - point.atoms.positions[0]) or {"other"}
        for kind in own:
            kinds[kind] += 1
            starts.setdefault(kind, set()).add(point.start)
    for kind in sorted(kinds):
        print(f"{kind:6} {kinds[kind]:3} configurations, from {len(starts[kind])} starts")
    if arguments.write:
        write(arguments.write, [point.atoms for point in search.points])
