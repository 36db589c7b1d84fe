"""Force evaluations of common tasks: wrapping a calculator costs none."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_stress
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons

from ase_sensitivity import SOAP, Repel, SensitivityCalculator


class CountingEMT(EMT):
    """Counts what it computes."""

    n_evaluations = 0

    def calculate(self, *arguments, **settings):
        """Count, and compute."""
        self.n_evaluations += 1
        super().calculate(*arguments, **settings)


def ammonia() -> Atoms:
    atoms = molecule("NH3")
    atoms.rattle(0.1, seed=0)
    return atoms


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def dynamics(calc: Calculator) -> None:
    atoms = ammonia()
    atoms.calc = calc
    dyn = VelocityVerlet(atoms, 0.5 * units.fs)
    dyn.attach(atoms.get_total_energy)
    dyn.run(20)


def optimization(calc: Calculator) -> None:
    atoms = ammonia()
    atoms.calc = calc
    atoms.set_constraint(FixAtoms([0]))
    BFGS(atoms, logfile=None).run(steps=8)
    atoms.get_potential_energy()
    atoms.get_forces(apply_constraint=False)


def cell(calc: Calculator) -> None:
    atoms = copper()
    atoms.calc = calc
    BFGS(FrechetCellFilter(atoms), logfile=None).run(steps=8)


def numerical_stress(calc: Calculator) -> None:
    atoms = copper()
    atoms.calc = calc
    calculate_numerical_stress(atoms)


def band(calc: Calculator) -> None:
    images = [ammonia() for _ in range(5)]
    for n, image in enumerate(images):
        image.positions[0, 2] -= 0.1 * n
        image.calc = calc
    neb = NEB(images, allow_shared_calculator=True, method="improvedtangent")
    FIRE(neb, logfile=None).run(steps=4)


def phonons(calc: Calculator) -> None:
    with TemporaryDirectory() as folder:
        Phonons(bulk("Cu"), calc, supercell=(2, 2, 2), name=str(Path(folder) / "phonons")).run()


def evaluations(task: Callable[[Calculator], None], wrap: Callable[[EMT], Calculator]) -> int:
    inner = CountingEMT()
    task(wrap(inner))
    return inner.n_evaluations


soap = SOAP(species=["N", "H", "Cu"], cutoff=4.0, n_max=4, l_max=3)
print(f"{'':20} {'bare':>6} {'wrapped':>8}  with a bias of little strength")
for task in (dynamics, optimization, cell, numerical_stress, band, phonons):
    counts = [
        evaluations(task, lambda inner: inner),
        evaluations(task, lambda inner: SensitivityCalculator(inner, soap)),
        evaluations(task, lambda inner: SensitivityCalculator(inner, soap, bias=Repel(0.1, 1e-9))),
    ]
    print(f"{task.__name__:20} {counts[0]:6} {counts[1]:8} {counts[2]:8}")
