"""Ammonia turns inside out, and the observer stays silent: it is symmetry that hides the motion.

Half way, nitrogen is in the plane of the hydrogen atoms, and no feature changes when it moves out
of it. But there the force out of the plane vanishes as well: no potential misses anything.
"""

import argparse
import io
import warnings
from collections import Counter

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from threadpoolctl import threadpool_limits

from ase_sensitivity import SOAP, SensitivityObserver, SingularWarning, read_log

try:
    from tblite.ase import TBLite
except ImportError:
    raise ImportError(
        'this example needs tblite for its forces: pip install "ase-sensitivity[demo]"'
    ) from None

threadpool_limits(1)  # threads of the force engine would only wait for each other

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=150, help="of 0.5 fs")
parser.add_argument("--kick", type=float, default=0.5, help="of N towards the plane, in eV")
parser.add_argument("--temperature", type=float, default=300.0, help="of all else, in K")
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()


def height(atoms: Atoms) -> float:
    """Of N over the plane of the hydrogen atoms, in Å."""
    p = atoms.positions
    normal = np.cross(p[2] - p[1], p[3] - p[1])
    return float(normal @ (p[0] - p[1]) / np.linalg.norm(normal))


atoms = molecule("NH3")
atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
masses = atoms.get_masses()
spread = np.sqrt(masses * units.kB * arguments.temperature)
momenta = np.random.default_rng(arguments.seed).normal(size=(4, 3)) * spread[:, None]
kick = np.sqrt(2 * arguments.kick / (1 / masses[0] + 1 / masses[1:].sum()))
momenta[:, 2] += kick * np.array([-1, 1 / 3, 1 / 3, 1 / 3])
atoms.set_momenta(momenta)
dyn = VelocityVerlet(atoms, 0.5 * units.fs)
soap = SOAP(species=["N", "H"], cutoff=4.0, n_max=8, l_max=6)
written = io.StringIO()
observer = SensitivityObserver(dyn, soap, logfile=written)  # as it is by default
dyn.attach(observer)
heights: list[float] = []
dyn.attach(lambda: heights.append(height(atoms)))
with warnings.catch_warnings():
    warnings.simplefilter("error", SingularWarning)  # one would end this
    dyn.run(arguments.steps)

written.seek(0)
log, z = read_log(written), np.array(heights)
unknown = np.isnan(log.distance)
print("N passes    seen   height   distance   true   arrival   true   cause")
print("      fs      fs        Å          Å      Å        fs     fs")
for last in np.flatnonzero(z[1:] * z[:-1] < 0):  # the last call before a passage
    share = z[last] / (z[last] - z[last + 1])
    passage = log.time[last] + share * (log.time[last + 1] - log.time[last])
    seen = 1 + np.flatnonzero(unknown[: last + 1]).max(initial=-1)  # the first with a distance
    if seen > last:
        print(f"{passage:8.2f}   no call came near enough")
        continue
    print(
        f"{passage:8.2f} {log.time[seen]:7.1f} {z[seen]:8.3f} {log.distance[seen]:10.4f} "
        f"{np.sqrt(0.75) * abs(z[seen]):6.4f} {log.arrival[seen]:9.2f} "
        f"{passage - log.time[seen]:6.2f}   {log.cause[seen]}"
    )
causes = Counter(log.cause[~unknown].tolist())
print(f"{observer.n_calls} calls; sigma_min / sigma_max < 0.1 in {(log.ratio < 0.1).sum()}.")
print("Causes:", ", ".join(f"{cause} in {n} calls" for cause, n in causes.items()))
print(f"Calls that matter to the observer: {observer.n_singular}. It gave no warning.")
