"""What an observer costs a run: the same dynamics of Si64 with and without it, trained models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from ase_sensitivity import SOAP, SensitivityObserver
from benchmarks.cases import BASIS, CUTOFF, silicon
from benchmarks.timing import paired, seconds

INTERVAL = 10


def stillinger_weber() -> Any:
    """QUIP's Stillinger-Weber potential."""
    from quippy.potential import Potential

    return Potential("IP SW", param_str=SW)


def mace() -> Any:
    """A small MACE model with random weights: what is timed does not depend on them."""
    import torch

    torch.serialization.add_safe_globals([slice])  # in the constants that e3nn loads
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator
    from mace.tools import AtomicNumberTable

    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = AtomicNumberTable([14])
    model = modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=1,
        hidden_irreps=o3.Irreps("64x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(1),
        avg_num_neighbors=28,
        atomic_numbers=table.zs,
        correlation=3,
        atomic_inter_scale=1e-3,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=model, device="cpu", default_dtype="float32")


def measure(budget: float) -> list[dict[str, Any]]:
    """A row for each potential that is installed."""
    rows = []
    potentials: dict[str, tuple[Callable[[], Any], int]] = {
        "quippy, Stillinger-Weber": (stillinger_weber, 500),
        "mace-torch, 64x0e, float32": (mace, 150),
    }
    for name, (prepare, steps) in potentials.items():
        try:
            calculator = prepare()
        except ImportError:
            continue

        inside: list[float] = []

        def run(
            observed: bool,
            calculator: Any = calculator,
            steps: int = steps,
            inside: list[float] = inside,
        ) -> None:
            atoms = silicon(64)
            atoms.calc = calculator
            dyn = VelocityVerlet(atoms, 1.0 * units.fs)
            if observed:
                soap = SOAP(["Si"], CUTOFF, *BASIS, threads=1)
                observer = SensitivityObserver(dyn, soap, on_singular="log")
                dyn.attach(lambda: inside.append(seconds(observer)), interval=INTERVAL)
            dyn.run(steps)

        run(True)  # loads or compiles the kernels
        inside.clear()
        with_it, without, ratio = paired(lambda: run(True), lambda: run(False), budget)
        per_step = sum(inside) / len(inside) / INTERVAL
        rows.append(
            {
                "potential": name,
                "steps": steps,
                "without / ms a step": round(1e3 * without / steps, 2),
                "with / ms a step": round(1e3 * with_it / steps, 2),
                "overhead / %": round(100 * (1 / ratio - 1), 1),
                "spent in its calls / %": round(100 * per_step * steps / without, 1),
            }
        )
    return rows


def trained() -> list[dict[str, Any]]:
    """A row for each run of the trained CHGNet, if it is installed, watched by its own features."""
    try:
        import torch
        from chgnet.model.dynamics import CHGNetCalculator
    except ImportError:
        return []

    torch.set_num_threads(1)
    ethanol = molecule("CH3CH2OH", vacuum=7.0, pbc=True)  # CHGNet takes no isolated structure
    calculator = CHGNetCalculator(use_device="cpu", on_isolated_atoms="ignore")
    molecule_runs = [(10, None, 200), (100, None, 400), (10, 0.05, 8000)]
    crystal_runs = [(10, None, 20), (100, None, 200), (10, 0.05, 8000)]
    return [
        trained_row(name, atoms, calculator, timestep, *run)
        for name, atoms, timestep, runs in (
            ("ethanol", ethanol, 0.5, molecule_runs),
            ("Si64", silicon(64), 1.0, crystal_runs),
        )
        for run in runs
    ]


def trained_row(
    name: str,
    atoms: Atoms,
    calculator: Any,
    timestep: float,
    interval: int,
    max_overhead: float | None,
    steps: int,
) -> dict[str, Any]:
    """What the observer of one run costs."""
    moved = atoms.copy()
    moved.calc = calculator
    observer, inside, total = _observed(moved, timestep, interval, max_overhead, steps)
    without = total - sum(inside)
    looked = sorted(inside)[-observer.n_calls :]
    return {
        "structure": name,
        "interval": interval,
        "max_overhead": max_overhead,
        "steps": steps,
        "calls that look": observer.n_calls,
        "without / ms a step": round(1e3 * without / steps, 1),
        "a call / steps": round(float(np.median(looked)) / without * steps, 1),
        "overhead / %": round(100 * sum(inside) / without, 1),
    }


def _observed(
    atoms: Atoms, timestep: float, interval: int, max_overhead: float | None, steps: int
) -> tuple[SensitivityObserver, list[float], float]:
    """An observer of a run, the seconds of each of its calls, and those of the whole run."""
    random = np.random.default_rng(0)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=random)
    dyn = Langevin(
        atoms,
        timestep * units.fs,
        temperature_K=300,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=random,
    )
    dyn.run(20)  # what is loaded at the first use
    inside: list[float] = []
    observer = SensitivityObserver(dyn, on_singular="log", max_overhead=max_overhead)
    dyn.attach(lambda: inside.append(seconds(observer)), interval=interval)
    return observer, inside, seconds(lambda: dyn.run(steps))


SW = """
<SW_params n_types="1"><comment>Stillinger and Weber, Phys. Rev. B 31, 5262 (1985)</comment>
<per_type_data type="1" atomic_num="14" />
<per_pair_data atnum_i="14" atnum_j="14" AA="7.049556277" BB="0.6022245584"
 p="4" q="0" a="1.80" sigma="2.0951" eps="2.1675" />
<per_triplet_data atnum_c="14" atnum_j="14" atnum_k="14" lambda="21.0" gamma="1.20" eps="2.1675" />
</SW_params>
"""
