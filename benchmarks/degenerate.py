"""Twins that a reference set finds, in runs that have none and where some are planted.

``python -m benchmarks.degenerate`` prints the confusion table and what a comparison costs. Runs
are made once, and kept in the folder that ``--folder`` names.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before anybody loads a library that reads it

import numpy as np  # noqa: E402
from ase import Atoms, units  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402
from ase.io import read, write  # noqa: E402
from ase.md.langevin import Langevin  # noqa: E402
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution  # noqa: E402

from ase_sensitivity import SOAP, Descriptor, ReferenceSet, analyze  # noqa: E402
from ase_sensitivity.environments.query import Query  # noqa: E402
from ase_sensitivity.environments.twins import Candidate, measured  # noqa: E402
from benchmarks.frames import of_water  # noqa: E402
from benchmarks.tables import markdown  # noqa: E402
from benchmarks.timing import seconds  # noqa: E402

CHOSEN = ("CH4", "NH3", "methanol", "Cu32")
"""Runs that the thresholds were chosen on; the others confirm them."""

RUNS: dict[str, tuple[float, float]] = {
    "CH4": (1000.0, 0.5),
    "NH3": (1500.0, 0.5),
    "methanol": (800.0, 0.5),
    "Cu32": (900.0, 2.0),
    "ethanol": (600.0, 0.5),
    "Si64": (1000.0, 1.0),
    "water": (300.0, 1.0),
}
"""Temperature in K and time step in fs."""

EVERY = 4
"""Steps between two frames; of water, ten."""

SIZES = (0.01, 0.03, 0.1)
"""Displacements of planted twins in Å: the square root of the sum of all squares."""


def started(name: str) -> Atoms:
    """The structure that a run starts from, with its calculator."""
    if name == "Cu32":
        from ase.calculators.emt import EMT

        atoms = bulk("Cu", cubic=True) * 2
        atoms.calc = EMT()
        return atoms
    if name == "Si64":
        from benchmarks.overhead import stillinger_weber

        atoms = bulk("Si", cubic=True) * 2
        atoms.calc = stillinger_weber()
        return atoms
    from tblite.ase import TBLite

    atoms = molecule({"methanol": "CH3OH", "ethanol": "CH3CH2OH"}.get(name, name))
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    return atoms


def run_of(name: str, n: int, folder: Path, seed: int) -> list[Atoms]:
    """N frames of a run, from a file in a folder or made anew and put there."""
    file = folder / f"degenerate_{name}_{n}_{seed}.traj"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(file, list(of_water(n, seed) if name == "water" else _dynamics(name, n, seed)))
    return read(file, ":")


def _dynamics(name: str, n: int, seed: int) -> Iterator[Atoms]:
    temperature, timestep = RUNS[name]
    atoms, rng = started(name), np.random.default_rng(5 + seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    dyn = Langevin(
        atoms,
        timestep * units.fs,
        temperature_K=temperature,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=rng,
    )
    for _ in range(n):
        dyn.run(EVERY)
        frame = atoms.copy()
        frame.calc = None
        yield frame


def soap(atoms: Atoms) -> SOAP:
    """The descriptor of runs: all atoms are centers."""
    return SOAP(sorted(set(atoms.get_chemical_symbols())), 4.0, 6, 4, atom_sigma=0.4)


def alarms(name: str, n: int, folder: Path, seed: int) -> dict[str, Any]:
    """Twins found in the second half of a run by comparison with its first half."""
    frames = run_of(name, n, folder, seed)
    half = len(frames) // 2
    reference = ReferenceSet(frames[:half], soap(frames[0]))
    found = [reference.compare(frame) for frame in frames[half:]]
    return {
        "run": name,
        "part": "chosen on" if name in CHOSEN else "held out",
        "frames": len(found),
        "twin alarms": sum(one.twin is not None for one in found),
        "median novelty": f"{np.median([one.novelty for one in found]):.2f}",
        "largest novelty": f"{max(one.novelty for one in found):.2f}",
    }


Pair = tuple[Atoms, Atoms, Descriptor]


def _around(points: Any, symbol: str = "C") -> Atoms:
    return Atoms(f"{symbol}H{len(points)}", [(0, 0, 0), *points])


def _carbon(l_max: int = 6, n_max: int = 8) -> SOAP:
    return SOAP(["H"], 3.0, n_max, l_max, atom_sigma=0.3, centers=["C"])


def x_pair(rng: np.random.Generator) -> Pair:
    """X+ and X-."""
    three = [(1, 0, 0.5), (-1, 0, 0.5), (0.72, 0.54, -0.7)]
    ends = [_around([*three, one]) for one in ((-0.72, 0.96, 0.3), (0.72, -0.96, 0.3))]
    rng.shuffle(ends)
    return ends[0], ends[1], _carbon()


def d_pair(rng: np.random.Generator) -> Pair:
    """D(u) and D(-u)."""

    def point(u: float, v: float) -> Any:
        return 1.09 * np.array([np.cos(u) * np.cos(v), np.sin(u) * np.cos(v), np.sin(v)])

    three = [
        point(np.pi, -3 * np.pi / 8),
        point(np.pi / 5, -np.pi / 6),
        point(-np.pi / 5, np.pi / 6),
    ]
    u = rng.uniform(0.9, 2.7)
    ends = [_around([*three, point(sign * u, 0)]) for sign in (1, -1)]
    return ends[0], ends[1], _carbon()


def turned_pair(rng: np.random.Generator) -> Pair:
    """B and B' at one distance, A across their bisector, and C on either side.

    A and C are orthogonal across the bisector e; C- is C+ turned by pi about e.
    """
    while True:
        radius, half = rng.uniform(0.95, 1.3), rng.uniform(0.7, 1.2)
        b = radius * np.array([np.sin(half), 0, np.cos(half)])
        turn = rng.uniform(0.3, np.pi / 2 - 0.3)
        across = np.array([np.cos(turn), np.sin(turn), 0])
        other = np.array([-np.sin(turn), np.cos(turn), 0])
        a = rng.uniform(0.7, 1.1) * across + [0, 0, rng.uniform(-0.9, 0.3)]
        size, height = rng.uniform(0.7, 1.1), rng.uniform(-0.6, 0.6)
        c_plus, c_minus = size * other + [0, 0, height], -size * other + [0, 0, height]
        points = np.array([b, b * [-1, 1, 1], a])
        ends = [_around([*points, c]) for c in (c_plus, c_minus)]
        if all(end.get_all_distances()[np.triu_indices(5, 1)].min() > 0.85 for end in ends):
            return ends[0], ends[1], _carbon()


def radial_pair(rng: np.random.Generator) -> Pair:
    """The same distances from the center, other angles; features of distances alone."""
    radii = rng.uniform(0.95, 1.25, 4)
    ends = [_around(radii[:, None] * _directions(rng)) for _ in range(2)]
    return ends[0], ends[1], _carbon(l_max=0)


def dipole_pair(rng: np.random.Generator) -> Pair:
    """Four atoms at one distance with the same sum of directions; l_max = 1 sees no more."""
    while True:
        one = _directions(rng)
        total = one.sum(axis=0)
        # Two pairs, each turned about the sum of its two directions or about the sum of all.
        axis = one[0] + one[1]
        turned = _turned(one[:2], axis, rng.uniform(0.7, 2.4))
        other = np.concatenate([turned, one[2:]])
        apart = np.linalg.norm(other[:, None] - other, axis=2)[np.triu_indices(4, 1)]
        if np.linalg.norm(total) > 0.2 and apart.min() > 0.8:
            return _around(1.1 * one), _around(1.1 * other), _carbon(l_max=1)


def heavy_pair(rng: np.random.Generator) -> Pair:
    """Hydroxyl radicals about which nothing but a heavy center is asked: X with other species."""
    plus, minus, _ = turned_pair(rng)
    for end in (plus, minus):
        end.symbols[:] = ["C", "H", "H", "O", "F"]
    return plus, minus, SOAP(["C", "H", "O", "F"], 3.0, 6, 5, atom_sigma=0.3, centers=["C"])


def _directions(rng: np.random.Generator) -> Any:
    while True:
        found = rng.normal(size=(4, 3))
        found /= np.linalg.norm(found, axis=1)[:, None]
        if np.linalg.norm(found[:, None] - found, axis=2)[np.triu_indices(4, 1)].min() > 0.8:
            return found


def _turned(points: Any, axis: Any, angle: float) -> Any:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).apply(points)


PLANTED: dict[str, tuple[Callable[[np.random.Generator], Pair], bool]] = {
    "X+, X-": (x_pair, True),
    "D(u), D(-u)": (d_pair, True),
    "radial features": (radial_pair, True),
    "turned about a bisector": (turned_pair, False),
    "l_max = 1": (dipole_pair, False),
    "four species, heavy center": (heavy_pair, False),
}
"""How pairs are made, and whether thresholds were chosen on these."""


def detected(name: str, n: int) -> Iterator[dict[str, Any]]:
    """Planted twins that are found, for each size of the displacement.

    The reference has the twin, and 20 structures within .3 Å of each coordinate of the other one.
    Displaced, some are no longer twins by definition, and nothing could find them.
    """
    make, chosen = PLANTED[name]
    for size in SIZES:
        rng = np.random.default_rng(11)
        hits, far, still = 0, 0, 0
        for _ in range(n):
            one, other, descriptor = make(rng)
            filler = []
            for _ in range(20):
                frame = one.copy()
                frame.positions += 0.3 * rng.normal(size=frame.positions.shape)
                filler.append(frame)
            reference = ReferenceSet([*filler, other], descriptor)
            step = rng.normal(size=one.positions.shape)
            one.positions += size * step / np.linalg.norm(step)
            query = Query.of(reference, one, None, None)
            still += measured(reference, query, Candidate(0, 20, 0.0, np.inf)) is not None
            twin = reference.compare(one).twin
            hits += twin is not None and twin.frame == 20
            far += twin is not None
        yield {
            "twins": name,
            "part": "chosen on" if chosen else "held out",
            "displaced by (Å)": size,
            "pairs": n,
            "twins by definition": still,
            "any twin found": far,
            "the planted one": hits,
        }


def cost(name: str, n: int, folder: Path, environments: int, kind: str) -> dict[str, Any]:
    """Processor time of a comparison over that of an analysis, for a reference of some size."""
    frames = run_of(name, n, folder, 0)
    descriptor = soap(frames[0]) if kind == "SOAP" else torch_function(frames[0])
    rng = np.random.default_rng(0)
    half = frames[: len(frames) // 2]

    def many() -> Iterator[Atoms]:
        for k in range(-(-environments // len(frames[0]))):
            frame = half[k % len(half)].copy()
            if k >= len(half):
                frame.positions += 0.03 * rng.normal(size=frame.positions.shape)
            yield frame

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made: list[ReferenceSet] = []
    build = seconds(lambda: made.append(ReferenceSet(many(), descriptor)))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queries = frames[len(frames) // 2 :][:60:2]
    for frame in queries[:5]:
        analyze(frame, descriptor, each=False)
        made[0].compare(frame)
    analysis = np.median([seconds(lambda f=f: analyze(f, descriptor, each=False)) for f in queries])
    compared = np.median([seconds(lambda f=f: made[0].compare(f)) for f in queries])
    features = np.median([seconds(lambda f=f: descriptor.features(f)) for f in queries])
    return {
        "structure": name,
        "descriptor": kind,
        "environments": len(made[0]),
        "built in (s)": f"{build:.1f}",
        "more memory (MB)": (after - before) // 1024,
        "analyze (ms)": f"{1e3 * analysis:.1f}",
        "features (ms)": f"{1e3 * features:.1f}",
        "compare (ms)": f"{1e3 * compared:.1f}",
        "compare / analyze": f"{compared / analysis:.2f}",
    }


def torch_function(atoms: Atoms) -> Descriptor:
    """A function of torch: radial functions and squared dipoles of the neighbors of each atom."""
    import torch

    from ase_sensitivity import EdgeDescriptor

    centers = torch.linspace(0.8, 3.6, 12, dtype=torch.float64)

    def features(atoms: Atoms, center: Any, neighbor: Any, vectors: Any) -> Any:
        distance = vectors.norm(dim=1)
        weight = 0.5 * (1 + torch.cos(torch.pi * distance / 4.0))
        radial = weight[:, None] * torch.exp(-(((distance[:, None] - centers) / 0.3) ** 2))
        unit = vectors / distance[:, None]
        several = torch.cat([radial[:, :, None], radial[:, :, None] * unit[:, None]], dim=2)
        sums = torch.zeros((len(atoms), 12, 4), dtype=vectors.dtype)
        sums = sums.index_add(0, center, several)
        return torch.cat([sums[:, :, 0], (sums[:, :, 1:] ** 2).sum(dim=2)], dim=1)

    return EdgeDescriptor(features, cutoff=4.0)


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["alarms", "planted", "cost"])
    parser.add_argument("--frames", type=int, default=1600, help="of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the runs")
    parser.add_argument("--pairs", type=int, default=40, help="of each kind")
    parser.add_argument("--runs", nargs="*", default=list(RUNS))
    parser.add_argument("--structures", nargs="*", default=["ethanol", "Si64"])
    parser.add_argument("--environments", type=int, nargs="*", default=[10_000])
    parser.add_argument("--descriptors", nargs="*", default=["SOAP", "torch"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "runs")
    given = parser.parse_args()
    if "alarms" in given.parts:
        rows = [alarms(name, given.frames, given.folder, given.seed) for name in given.runs]
        print(f"## False alarms\n\n{markdown(rows)}", flush=True)
    if "planted" in given.parts:
        rows = [row for name in PLANTED for row in detected(name, given.pairs)]
        print(f"## Planted twins\n\n{markdown(rows)}", flush=True)
    if "cost" in given.parts:
        rows = [
            cost(name, given.frames, given.folder, size, kind)
            for name in given.structures
            for kind in given.descriptors
            for size in given.environments
        ]
        print(f"## Cost\n\n{markdown(rows)}", flush=True)


if __name__ == "__main__":
    main()
