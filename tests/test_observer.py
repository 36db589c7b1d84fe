"""What the observer does to a run, and what it must not do."""

from __future__ import annotations

import io
import logging
import os
import pickle
import warnings
from contextlib import nullcontext
from pathlib import Path

import ase.io
import ase.optimize
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLengths
from ase.filters import FrechetCellFilter
from ase.md import VelocityVerlet, nose_hoover_chain
from ase.md.andersen import Andersen
from ase.md.bussi import Bussi
from ase.md.contour_exploration import ContourExploration
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.melchionna import MelchionnaNPT
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, NoseHooverChainNVT
from ase.md.npt import NPT
from ase.md.nptberendsen import Inhomogeneous_NPTBerendsen, NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.switch_langevin import SwitchLangevin
from ase.mep import NEB
from ase.mep.neb import NEBOptimizer
from ase.optimize import (
    BFGS,
    FIRE,
    FIRE2,
    LBFGS,
    BFGSLineSearch,
    CellAwareBFGS,
    GoodOldQuasiNewton,
    GPMin,
    LBFGSLineSearch,
    MDMin,
    ODE12r,
)
from ase.optimize.basin import BasinHopping
from ase.optimize.precon import Exp, PreconFIRE, PreconLBFGS
from ase.optimize.sciopt import SciPyFmin, SciPyFminBFGS, SciPyFminCG, SciPyFminPowell

from ase_sensitivity import (
    ConstraintWarning,
    EvaluationWarning,
    FiniteDifferenceDescriptor,
    SensitivityObserver,
    SensitivityWarning,
    SingularConfiguration,
    SingularWarning,
    analyze,
    read_log,
    replay,
)
from tests.conftest import CountingEMT, Still, Told, ammonia, copper, ours, warm

ALWAYS = 10.0  # every ratio is below this threshold
STEP = 1.0 * units.fs
BAR = 1e-4 * units.GPa
SOFT = 1 / (140 * units.GPa)  # compressibility of copper

PRECON_IGNORE = "ignore:The system is likely too small"


def _md(kind, **settings):
    """How to make one MD class, by its name in the test's report."""
    return pytest.param(lambda atoms: kind(atoms, STEP, **settings), id=kind.__name__)


DYNAMICS = [
    _md(VelocityVerlet),
    _md(Langevin, temperature_K=300, friction=0.01, fixcm=False, rng=np.random.RandomState(0)),
    _md(LangevinBAOAB, temperature_K=300, T_tau=50 * units.fs, rng=0),
    _md(NVTBerendsen, temperature_K=300, taut=50 * units.fs),
    _md(
        NPTBerendsen,
        temperature_K=300,
        taut=50 * units.fs,
        pressure_au=BAR,
        taup=500 * units.fs,
        compressibility_au=SOFT,
    ),
    _md(
        Inhomogeneous_NPTBerendsen,
        temperature_K=300,
        taut=50 * units.fs,
        pressure_au=BAR,
        taup=500 * units.fs,
        compressibility_au=SOFT,
    ),
    _md(
        NPT,
        temperature_K=300,
        externalstress=-BAR,
        ttime=25 * units.fs,
        pfactor=75**2 * units.fs**2,
    ),
    _md(
        MelchionnaNPT,
        temperature_K=300,
        externalstress=-BAR,
        ttime=25 * units.fs,
        pfactor=75**2 * units.fs**2,
    ),
    _md(Andersen, temperature_K=300, andersen_prob=0.1, rng=np.random.RandomState(0)),
    _md(Bussi, temperature_K=300, taut=50 * units.fs, rng=np.random.RandomState(0)),
    _md(NoseHooverChainNVT, temperature_K=300, tdamp=50 * units.fs),
    _md(
        IsotropicMTKNPT,
        temperature_K=300,
        pressure_au=BAR,
        tdamp=50 * units.fs,
        pdamp=500 * units.fs,
    ),
    _md(MTKNPT, temperature_K=300, pressure_au=BAR, tdamp=50 * units.fs, pdamp=500 * units.fs),
]
if hasattr(nose_hoover_chain, "MaskedMTKNPT"):  # as of ASE 3.28
    DYNAMICS.append(
        _md(
            nose_hoover_chain.MaskedMTKNPT,
            mask=(True, True, True),
            temperature_K=300,
            pressure_au=BAR,
            tdamp=50 * units.fs,
            pdamp=500 * units.fs,
        )
    )


def _optimizer(kind, cell_filter=None, **settings):
    def make(atoms):
        return kind(atoms if cell_filter is None else cell_filter(atoms), logfile=None, **settings)

    name = kind.__name__ + ("" if cell_filter is None else f"-{cell_filter.__name__}")
    return pytest.param(make, id=name)


def cell_filter(atoms):
    """The scaling that CellAwareBFGS insists on."""
    return FrechetCellFilter(atoms, exp_cell_factor=1.0)


OPTIMIZERS = [
    *map(_optimizer, (BFGS, LBFGS, LBFGSLineSearch, BFGSLineSearch)),
    *map(_optimizer, (FIRE, FIRE2, MDMin, GPMin, GoodOldQuasiNewton)),
    _optimizer(PreconLBFGS, precon=Exp(A=3), use_armijo=True),
    _optimizer(PreconFIRE, precon=Exp(A=3), use_armijo=False),
    _optimizer(BFGS, FrechetCellFilter),
    _optimizer(FIRE, FrechetCellFilter),
    _optimizer(CellAwareBFGS, cell_filter),
]
if hasattr(ase.optimize, "RFO"):  # as of ASE 3.29
    OPTIMIZERS.append(_optimizer(ase.optimize.RFO))

DEAF = [SciPyFminCG, SciPyFminBFGS, SciPyFmin, SciPyFminPowell, ODE12r, BasinHopping]


def hot_copper():
    atoms = copper()
    warm(atoms, 300)
    return atoms


def run(dyn, steps):
    """Run ``steps`` steps, without an optimizer stopping because it is content."""
    if isinstance(dyn, CellAwareBFGS):
        return dyn.run(fmax=1e-9, smax=1e-9, steps=steps)
    return dyn.run(steps=steps) if not hasattr(dyn, "fmax") else dyn.run(fmax=1e-9, steps=steps)


class TestEveryDynamics:
    @pytest.mark.parametrize("make", DYNAMICS + OPTIMIZERS)
    @pytest.mark.filterwarnings(PRECON_IGNORE)
    def test_logs_halts_and_goes_on(self, make, copper_soap, tmp_path):
        atoms = hot_copper()
        dyn = make(atoms)
        log = tmp_path / "log"
        observer = SensitivityObserver(
            dyn, copper_soap, logfile=log, threshold=ALWAYS, on_singular="halt", patience=3
        )
        dyn.attach(observer)
        run(dyn, 8)
        assert dyn.nsteps == 2
        assert observer.halted is not None
        assert observer.halted.startswith("step 2:")
        assert read_log(log).state.tolist() == ["below", "below", "singular"]
        run(dyn, 3)
        assert dyn.nsteps == 5
        found = read_log(log)
        assert found.step.tolist() == [0, 1, 2, 3, 4, 5]
        assert np.isfinite(found.ratio).all()
        assert observer.sensitivity.ratio == analyze(atoms, copper_soap, k=3).ratio

    @pytest.mark.parametrize("make", DYNAMICS)
    def test_time_is_in_femtoseconds(self, make, copper_soap):
        dyn, log = make(hot_copper()), io.StringIO()
        dyn.attach(
            SensitivityObserver(dyn, copper_soap, logfile=log, on_singular="log"), interval=2
        )
        dyn.run(4)
        log.seek(0)
        assert read_log(log).time == pytest.approx([0, 2, 4])

    def test_contour_exploration(self, copper_soap):
        atoms = hot_copper()
        dyn = ContourExploration(atoms, maxstep=0.1, rng=np.random.RandomState(0))
        observer = SensitivityObserver(dyn, copper_soap, threshold=ALWAYS, on_singular="halt")
        dyn.attach(observer, interval=2)
        dyn.run(5)
        assert dyn.nsteps == 0
        dyn.run(5)
        assert dyn.nsteps == 5

    @pytest.mark.parametrize("kind", DEAF)
    def test_loops_of_their_own_cannot_halt(self, kind, soap, nh3, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # BasinHopping opens files in the working directory
        told = f"halt.*cannot stop {kind.__name__}.*raise"
        with kind(nh3, logfile=None) as dyn, pytest.raises(ValueError, match=told):
            SensitivityObserver(dyn, soap, on_singular=["log", "halt"])

    def test_switching_cannot_halt(self, soap, nh3):
        dyn = SwitchLangevin(
            nh3,
            EMT(),
            EMT(),
            STEP,
            temperature_K=300,
            friction=0.1,
            n_eq=2,
            n_switch=2,
            fixcm=False,
        )
        with pytest.raises(ValueError, match="cannot stop SwitchLangevin"):
            SensitivityObserver(dyn, soap, on_singular="halt")

    @pytest.mark.parametrize("kind", [SciPyFminCG, SciPyFminBFGS, ODE12r])
    def test_loops_of_their_own_can_raise(self, kind, nh3, tmp_path):
        optimizer = kind(nh3, logfile=None)
        log = tmp_path / "log"
        observer = SensitivityObserver(
            optimizer, Told([0.5, 1e-5]), logfile=log, on_singular="raise", threshold=1e-3
        )
        optimizer.attach(observer)
        with pytest.raises(SingularConfiguration):
            optimizer.run(fmax=1e-9, steps=10)
        assert read_log(log).state.tolist() == ["ok", "singular"]

    def test_images_of_a_neb_one_by_one(self, soap, tmp_path):
        images = [ammonia() for _ in range(4)]
        images[-1].positions[0, 2] *= -1
        neb = NEB(images, method="improvedtangent")
        neb.interpolate()
        optimizer = FIRE(neb, logfile=None)
        with pytest.raises(ValueError, match="NEB, not one structure; say with `atoms`"):
            SensitivityObserver(optimizer, soap)
        logs = [tmp_path / f"{i}" for i in range(4)]
        for image, log in zip(images, logs, strict=True):
            optimizer.attach(
                SensitivityObserver(optimizer, soap, atoms=image, logfile=log, on_singular="log")
            )
        optimizer.run(fmax=1e-9, steps=2)
        for image, log in zip(images, logs, strict=True):
            found = read_log(log)
            assert found.step.tolist() == [0, 1, 2]
            assert found.ratio[-1] == pytest.approx(analyze(image, soap).ratio, rel=1e-5)
        assert len({read_log(log).ratio[-1] for log in logs}) == 4

    def test_a_neb_halts_for_one_of_its_images(self, soap):
        neb = NEB([ammonia() for _ in range(3)], method="improvedtangent")
        neb.images[-1].positions[0, 2] *= -1
        neb.interpolate()
        image = neb.images[1]
        settings = {"atoms": image, "threshold": ALWAYS, "on_singular": "halt", "patience": 2}
        optimizer = FIRE(neb, logfile=None)
        optimizer.attach(SensitivityObserver(optimizer, soap, **settings))
        optimizer.run(fmax=1e-9, steps=5)
        assert optimizer.nsteps == 1
        with pytest.raises(ValueError, match="cannot stop NEBOptimizer"):
            SensitivityObserver(NEBOptimizer(neb, logfile=None), soap, **settings)

    def test_intervals_are_those_of_ase(self, copper_soap, tmp_path):
        dyn = VelocityVerlet(hot_copper(), STEP)
        every, once = tmp_path / "every", tmp_path / "once"
        dyn.attach(SensitivityObserver(dyn, copper_soap, logfile=every, on_singular="log"), 3)
        dyn.attach(SensitivityObserver(dyn, copper_soap, logfile=once, on_singular="log"), -4)
        dyn.run(5)
        dyn.run(5)
        assert read_log(every).step.tolist() == [0, 3, 6, 9]
        assert read_log(once).step.tolist() == [4]


class TestConstraints:
    @pytest.mark.parametrize(
        "constraint", [FixAtoms([0]), FixBondLengths([[0, 1], [0, 2]])], ids=["atoms", "bonds"]
    )
    @pytest.mark.parametrize("suffix", [".xyz", ".traj"])
    def test_runs_halt_and_record_with_constraints(self, constraint, suffix, soap, nh3, tmp_path):
        nh3.set_constraint(constraint)
        dyn = VelocityVerlet(nh3, STEP)
        path = tmp_path / f"flagged{suffix}"
        observer = SensitivityObserver(
            dyn, soap, trajectory=path, threshold=ALWAYS, on_singular="halt", patience=2
        )
        dyn.attach(observer)
        dyn.run(5)
        assert dyn.nsteps == 1
        observer.close()
        assert len(ase.io.read(path, ":")) == 1
        assert nh3.constraints == [constraint]

    def test_coordinates_of_fixed_atoms_are_left_out_on_request(self, soap, nh3):
        nh3.set_constraint(FixAtoms([1, 2]))
        dyn = VelocityVerlet(nh3, STEP)
        observer = SensitivityObserver(dyn, soap, apply_constraints=True, on_singular="log")
        observer()
        assert observer.sensitivity.n_coordinates == 6
        assert np.abs(observer.sensitivity.modes[:, 1:3]).max() == 0

    def test_other_constraints_are_ignored_with_a_warning(self, soap, nh3):
        nh3.set_constraint(FixBondLengths([[0, 1]]))
        dyn = VelocityVerlet(nh3, STEP)
        observer = SensitivityObserver(dyn, soap, apply_constraints=True, on_singular="log")
        with pytest.warns(ConstraintWarning, match="only FixAtoms"):
            observer()
        assert observer.sensitivity.n_coordinates == 12


class RudeDescriptor(Told):
    """Moves what it is given, and asks its calculator."""

    def jacobian(self, atoms):
        found = super().jacobian(atoms)
        if atoms.calc is not None:
            atoms.rattle(0.5)
            atoms.get_potential_energy()
        atoms.positions += 1.0
        atoms.set_cell([1, 1, 1])
        atoms.info["seen"] = True
        atoms.set_constraint(FixAtoms([0]))
        return found


def bfgs(atoms):
    return BFGS(atoms, logfile=None)


def bfgs_cell(atoms):
    return BFGS(FrechetCellFilter(atoms), logfile=None)


def langevin(atoms):
    # ASE's default: the global state of NumPy, which the observer must not touch either
    np.random.seed(4)  # noqa: NPY002
    return Langevin(atoms, STEP, temperature_K=900, friction=0.02, fixcm=False)


def npt(atoms):
    return NPT(
        atoms,
        STEP,
        temperature_K=300,
        externalstress=-BAR,
        ttime=25 * units.fs,
        pfactor=75**2 * units.fs**2,
    )


class TestBitIdentical:
    @pytest.mark.parametrize("make", [bfgs, bfgs_cell, langevin, npt])
    @pytest.mark.parametrize("cache", [True, False], ids=["cache", "no cache"])
    @pytest.mark.parametrize("kind", ["soap", "rude", "finite differences"])
    def test_with_and_without(self, make, cache, kind, copper_soap, tmp_path):
        descriptor = {
            "soap": copper_soap,
            "rude": RudeDescriptor([1e-5]),
            "finite differences": FiniteDifferenceDescriptor(copper_soap.features),
        }[kind]
        results = []
        for observed in (False, True):
            atoms = hot_copper()
            atoms.calc = CountingEMT(cache)
            dyn = make(atoms)
            if observed:
                observer = SensitivityObserver(
                    dyn,
                    descriptor,
                    logfile=tmp_path / "log",
                    trajectory=tmp_path / "frames.xyz",
                    threshold=ALWAYS,
                    on_singular=["record", lambda *_: None],
                )
                dyn.attach(observer)
            run(dyn, 5)
            state = (
                atoms.positions.tobytes(),
                atoms.get_momenta().tobytes(),
                bytes(atoms.cell.array),
            )
            results.append((*state, atoms.calc.n_calculations, atoms.info, dyn.nsteps))
        assert observer.n_singular == 6
        assert results[0] == results[1]

    def test_an_outdated_calculator_is_not_asked(self, soap, nh3, tmp_path):
        nh3.calc = CountingEMT()
        nh3.get_forces()
        nh3.positions[0, 0] += 0.1
        dyn = Still(nh3)
        path = tmp_path / "frames.xyz"
        observer = SensitivityObserver(
            dyn, soap, trajectory=path, threshold=ALWAYS, on_singular="record"
        )
        observer()
        assert nh3.calc.n_calculations == 1
        assert ase.io.read(path).calc is None

    def test_results_at_hand_are_recorded(self, soap, nh3, tmp_path):
        energy, forces = nh3.get_potential_energy(), nh3.get_forces()
        path = tmp_path / "frames.traj"
        dyn = Still(nh3)
        observer = SensitivityObserver(
            dyn, soap, trajectory=path, threshold=ALWAYS, on_singular="record"
        )
        observer()
        observer.close()
        frame = ase.io.read(path)
        assert frame.get_potential_energy() == energy
        assert frame.get_forces() == pytest.approx(forces)

    def test_a_calculator_that_cannot_compare_does_no_harm(self, soap, nh3, tmp_path):
        class Odd(SinglePointCalculator):
            def check_state(self, atoms, tol=1e-15):
                raise RuntimeError("no state")

        nh3.calc = Odd(nh3, energy=1.0)
        dyn = Still(nh3)
        observer = SensitivityObserver(
            dyn, soap, trajectory=tmp_path / "a.xyz", threshold=ALWAYS, on_singular="record"
        )
        with pytest.warns(EvaluationWarning, match="could not be written"):
            observer()
        assert observer.n_unwritten == 1


def states(still, ratios, **settings):
    """The states that a series of ratios goes through."""
    log = io.StringIO()
    settings = {"on_singular": "log"} | settings
    settings = {"threshold": 1e-3} | settings
    observer = SensitivityObserver(still, Told(ratios), logfile=log, **settings)
    still.play(observer, len(ratios))
    log.seek(0)
    return "".join(
        {"ok": "o", "below": "b", "singular": "S", "calibrating": "c"}[word]
        for word in read_log(log).state
    ), observer


class TestThreshold:
    LOW, HIGH = 1e-4, 0.5

    @pytest.mark.parametrize(
        ("pattern", "patience", "expected"),
        [
            ("LLLL", 1, "SSSS"),
            ("LLLL", 3, "bbSS"),
            ("LLHLLL", 3, "bbobbS"),
            ("HLHLHL", 2, "obobob"),
            ("LLLHLLL", 3, "bbSobbS"),
            ("HHHH", 1, "oooo"),
        ],
    )
    def test_patience_counts_consecutive_calls(self, still, pattern, patience, expected):
        ratios = [self.LOW if letter == "L" else self.HIGH for letter in pattern]
        found, observer = states(still, ratios, patience=patience)
        assert found == expected
        assert observer.n_singular == expected.count("S")

    def test_a_failed_call_neither_counts_nor_resets(self, still):
        ratios = [self.LOW, ValueError("no"), self.LOW, self.LOW]
        log = io.StringIO()
        observer = SensitivityObserver(
            still, Told(ratios), logfile=log, patience=3, on_singular="log", threshold=1e-3
        )
        with pytest.warns(EvaluationWarning):
            still.play(observer, 4)
        log.seek(0)
        assert read_log(log).state.tolist() == ["below", "failed", "below", "singular"]

    def test_the_threshold_itself_is_not_below(self, still):
        observer = SensitivityObserver(still, Told([0.25]), threshold=0.25 * (1 - 1e-12))
        observer()
        assert observer.n_singular == 0

    def test_none_never_flags(self, still):
        found, observer = states(
            still, [self.LOW, 1e-15, self.HIGH], threshold=None, distance_threshold=None
        )
        assert found == "ooo"
        assert observer.threshold is None

    def test_auto_learns_from_the_first_calls(self, still, tmp_path):
        ratios = [0.1, 0.2, 0.3, 0.4, 0.5, 0.19, 0.21]
        log = tmp_path / "log"
        settings = {"threshold": "auto", "calibration": 5, "quantile": 0.25, "on_singular": "log"}
        observer = SensitivityObserver(still, Told(ratios), logfile=log, **settings)
        still.play(observer, 7)
        assert observer.threshold == pytest.approx(0.2)
        assert read_log(log).state.tolist() == ["calibrating"] * 5 + ["singular", "ok"]
        text = log.read_text()
        assert "threshold=auto" in text.splitlines()[1]
        assert text.splitlines()[8] == "# threshold=2.000000e-01 from the first 5 calls"

    def test_auto_learns_from_frames(self, still):
        ratios = [0.1, 0.2, 0.3, 0.4, 0.5, 0.15]
        descriptor = Told(ratios)
        observer = SensitivityObserver(
            still,
            descriptor,
            threshold="auto",
            calibration=(ammonia() for _ in range(5)),
            quantile=0.25,
            on_singular="log",
        )
        assert observer.threshold == pytest.approx(0.2)
        observer()
        assert observer.n_singular == 1

    def test_a_failed_call_does_not_calibrate(self, still):
        observer = SensitivityObserver(
            still, Told([0.3, ValueError("no"), 0.3, 0.3]), threshold="auto", calibration=2
        )
        with pytest.warns(EvaluationWarning):
            still.play(observer, 2)
        assert observer.threshold is None
        observer()
        assert observer.threshold == pytest.approx(0.3)

    def test_auto_on_blind_frames_still_tells_zeros(self, still):
        """A quantile of rounding errors would flag by chance."""
        found, observer = states(
            still, [1e-17, 3e-17, 1e-17, 1e-6], threshold="auto", calibration=2
        )
        assert observer.threshold == 1e-10
        assert found == "ccSo"

    def test_one_atom_alone_has_nothing_to_resolve(self, copper_soap):
        dyn = Still(bulk("Cu"))
        log = io.StringIO()
        observer = SensitivityObserver(dyn, copper_soap, logfile=log, k=2)
        observer()
        log.seek(0)
        found = read_log(log)
        assert found.state.tolist() == ["ok"]
        assert np.isnan(found.ratio).all()
        assert found.worst_atom.tolist() == [-1]


class TestActions:
    RATIOS = (0.5, 1e-5, 1e-5, 0.5, 1e-5)

    def test_log_only(self, still):
        found, observer = states(still, self.RATIOS)
        assert found == "oSSoS"
        assert still.nsteps == 5
        assert observer.halted is None

    def test_warn_once(self, still):
        observer = SensitivityObserver(still, Told(self.RATIOS), threshold=1e-3)
        with pytest.warns(SingularWarning) as caught:
            still.play(observer, 5)
        assert len(ours(caught)) == 1

    def test_halt_once_per_excursion(self, still):
        observer = SensitivityObserver(still, Told(self.RATIOS), on_singular="halt", threshold=1e-3)
        still.play(observer, 5)
        assert still.nsteps == 2
        assert observer.halted.startswith("step 2: sigma_min / sigma_max = 1.000e-05 is below")
        still.play(observer, 5)
        assert still.nsteps == 5
        assert observer.halted.startswith("step 5:")

    def test_raise_once_per_excursion(self, still):
        observer = SensitivityObserver(
            still, Told(self.RATIOS), on_singular="raise", threshold=1e-3
        )
        for step in (2, 5):
            with pytest.raises(SingularConfiguration) as caught:
                still.play(observer, 5)
            assert caught.value.step == still.nsteps == step

    def test_the_error_carries_what_was_found(self, still):
        observer = SensitivityObserver(still, Told([1e-5]), on_singular="raise", threshold=1e-3)
        with pytest.raises(
            SingularConfiguration, match=r"step 1: .*\(1 consecutive calls\)"
        ) as caught:
            still.play(observer, 1)
        error = caught.value
        assert error.sensitivity is observer.sensitivity
        assert error.atoms == still.atoms
        assert error.atoms is not still.atoms
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert again.step == 1
        assert again.atoms == error.atoms
        assert again.sensitivity.ratio == error.sensitivity.ratio

    def test_a_function_gets_sensitivity_atoms_and_step(self, still):
        calls = []
        observer = SensitivityObserver(
            still, Told(self.RATIOS), on_singular=lambda *given: calls.append(given), threshold=1e-3
        )
        still.play(observer, 5)
        assert [step for _, _, step in calls] == [2, 3, 5]
        assert all(atoms is still.atoms for _, atoms, _ in calls)
        assert calls[-1][0] is observer.sensitivity

    def test_an_error_of_a_function_is_the_users(self, still):
        def stop(*_):
            raise KeyError("mine")

        observer = SensitivityObserver(
            still, Told([1e-5]), on_singular=[stop, "halt"], threshold=1e-3
        )
        with pytest.raises(KeyError, match="mine"):
            still.play(observer, 1)

    @pytest.mark.parametrize("stop", ["halt", "raise"])
    def test_all_together_and_the_frame_comes_before_the_stop(self, still, stop, tmp_path):
        path, seen = tmp_path / "frames.xyz", []

        def look(found, atoms, step):
            seen.append(len(ase.io.read(path, ":")))

        observer = SensitivityObserver(
            still,
            Told([1e-5]),
            trajectory=path,
            on_singular=["log", "warn", "record", look, stop],
            threshold=1e-3,
        )
        stopped = pytest.raises(SingularConfiguration) if stop == "raise" else nullcontext()
        with pytest.warns(SingularWarning), stopped:
            still.play(observer, 5)
        assert seen == [1]
        assert still.nsteps == 1
        assert len(ase.io.read(path, ":")) == 1

    def test_the_frame_is_there_even_if_warnings_are_errors(self, still, tmp_path):
        path = tmp_path / "frames.xyz"
        observer = SensitivityObserver(
            still, Told([1e-5]), trajectory=path, on_singular=["warn", "record"], threshold=1e-3
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", SensitivityWarning)
            with pytest.raises(SingularWarning):
                observer()
        assert len(ase.io.read(path, ":")) == 1

    @pytest.mark.parametrize("suffix", ["xyz", "extxyz", "traj"])
    def test_frames_come_back_with_their_mode(self, still, suffix, tmp_path):
        path = tmp_path / f"frames.{suffix}"
        still.atoms.info["mine"] = "kept"
        with SensitivityObserver(
            still, Told(self.RATIOS), trajectory=path, on_singular="record", threshold=1e-3
        ) as observer:
            still.play(observer, 5)
        frames = ase.io.read(path, ":")
        assert [frame.info["step"] for frame in frames] == [2, 3, 5]
        frame, found = frames[-1], observer.sensitivity
        mode = (
            frame.info["sensitivity_mode"] if suffix == "traj" else frame.arrays["sensitivity_mode"]
        )
        assert mode == pytest.approx(found.modes[0], abs=1e-8)
        assert np.linalg.norm(mode) == pytest.approx(1)
        assert frame.positions == pytest.approx(still.atoms.positions, abs=1e-8)
        assert frame.info["sigma_ratio"] == pytest.approx(1e-5)
        assert frame.info["sigma_min"] == pytest.approx(found.singular_values[0])
        assert frame.info["sensitivity_scope"] == "structure"
        assert frame.info["worst_atom"] == found.worst_atom
        assert frame.info["mine"] == "kept"

    @pytest.mark.parametrize("suffix", ["xyz", "traj"])
    def test_what_no_file_can_hold_spoils_no_frame(self, still, suffix, tmp_path):
        atoms, path = still.atoms, tmp_path / f"frames.{suffix}"
        atoms.info |= {"object": object(), ("a", 1): 2, "lines": "one\ntwo", "plain": 'a "b" = c'}
        atoms.info |= {"number": 3, "vector": np.arange(3.0), "cube": np.zeros((2, 2, 2))}
        atoms.new_array("tensors", np.zeros((4, 3, 3)))
        atoms.new_array("objects", np.array([object()] * 4))
        atoms.new_array("weights", np.arange(4.0))
        with SensitivityObserver(
            still, Told([1e-5]), trajectory=path, on_singular="record", threshold=1e-3
        ) as observer:
            still.play(observer, 2)
        frames = ase.io.read(path, ":")
        assert [frame.info["step"] for frame in frames] == [1, 2]
        assert frames[1].info["plain"] == 'a "b" = c'
        assert frames[1].info["number"] == 3
        assert frames[1].info["vector"] == pytest.approx([0, 1, 2])
        assert observer.n_unwritten == 0
        assert "object" in atoms.info
        assert "tensors" in atoms.arrays

    @pytest.mark.parametrize("suffix", ["xyz", "traj"])
    def test_frames_are_appended_on_request(self, still, suffix, tmp_path):
        path = tmp_path / f"frames.{suffix}"
        for append in (False, False, True):
            with SensitivityObserver(
                still,
                Told([1e-5]),
                trajectory=path,
                on_singular="record",
                append=append,
                threshold=1e-3,
            ) as observer:
                observer()
        assert len(ase.io.read(path, ":")) == 2

    @pytest.mark.parametrize("scope", ["environment", "atom"])
    @pytest.mark.parametrize("center", [None, 2])
    def test_other_scopes(self, nh3, soap, scope, center, tmp_path):
        path = tmp_path / "frames.xyz"
        dyn = Still(nh3)
        observer = SensitivityObserver(
            dyn,
            soap,
            scope=scope,
            center=center,
            trajectory=path,
            threshold=ALWAYS,
            on_singular="record",
        )
        observer()
        frame = ase.io.read(path)
        assert frame.info["worst_atom"] == (observer.sensitivity.center if center is None else 2)
        assert frame.info["sensitivity_scope"] == scope
        assert np.linalg.norm(frame.arrays["sensitivity_mode"]) > 0


def on_top(atoms):
    atoms.positions[1] = atoms.positions[2]


def not_a_number(atoms):
    atoms.positions[1, 1] = np.nan


def infinite(atoms):
    atoms.positions[3, 0] = np.inf


def flat_cell(atoms):
    atoms.set_cell([[1, 0, 0], [1, 0, 0], [0, 0, 1]])
    atoms.pbc = True


def no_species(atoms):
    atoms.symbols = "ArArArAr"


class TestFailures:
    @pytest.mark.parametrize("spoil", [on_top, not_a_number, infinite, flat_cell, no_species])
    def test_a_run_goes_on(self, spoil, still, soap, caplog):
        log = io.StringIO()
        observer = SensitivityObserver(still, soap, logfile=log, on_singular="log")
        good = still.atoms.copy()
        observer()
        spoil(still.atoms)
        with pytest.warns(
            EvaluationWarning, match="^the sensitivity could not be .*of the observer$"
        ):
            still.play(observer, 2)
        still.atoms = good
        still.play(observer, 1)
        log.seek(0)
        found = read_log(log)
        assert found.step.tolist() == [0, 1, 2, 3]
        assert found.state.tolist() == ["ok", "failed", "failed", "ok"]
        assert np.isnan(found.sigma[1:3]).all()
        assert found.worst_atom[1:3].tolist() == [-1, -1]
        assert observer.n_failed == 2
        assert observer.n_calls == 4
        assert "# step 1: ValueError: " in log.getvalue()
        aloud = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(aloud) == 1

    @pytest.mark.parametrize(
        "error", [ValueError("several\nlines\tof text"), MemoryError(), ZeroDivisionError("x")]
    )
    def test_whatever_a_descriptor_raises(self, error, still):
        log = io.StringIO()
        observer = SensitivityObserver(still, Told([0.5, error]), logfile=log, threshold=1e-3)
        with pytest.warns(EvaluationWarning):
            still.play(observer, 4)
        log.seek(0)
        assert read_log(log).state.tolist() == ["ok", "failed"] * 2
        comments = [line for line in log.getvalue().splitlines() if line.startswith("# step")]
        assert len(comments) == 2

    def test_an_interrupt_is_no_failure(self, still):
        observer = SensitivityObserver(still, Told([KeyboardInterrupt()]), threshold=1e-3)
        with pytest.raises(KeyboardInterrupt):
            observer()

    def test_raise_on_request_after_it_is_logged(self, still):
        log = io.StringIO()
        observer = SensitivityObserver(
            still,
            Told([0.5, ZeroDivisionError("x")]),
            logfile=log,
            on_failure="raise",
            threshold=1e-3,
        )
        with pytest.raises(ZeroDivisionError, match="x"):
            still.play(observer, 4)
        assert observer.n_failed == 1
        log.seek(0)
        assert read_log(log).state.tolist() == ["ok", "failed"]


class TestWarnings:
    def test_they_point_here_and_appear_once(self, still, copper_soap):
        dyn = VelocityVerlet(hot_copper(), STEP)
        dyn.attach(SensitivityObserver(dyn, copper_soap, threshold=ALWAYS))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            dyn.run(3)
            dyn.run(3)
        assert [warning.filename for warning in ours(caught)] == [__file__]
        line = Path(__file__).read_text().splitlines()[ours(caught)[0].lineno - 1]
        assert line.strip() == "dyn.run(3)"

    @pytest.mark.parametrize("kind", [BFGS, SciPyFminBFGS])
    def test_failures_point_here(self, kind, nh3):
        optimizer = kind(nh3, logfile=None)
        optimizer.attach(
            SensitivityObserver(optimizer, Told([0.5, ValueError("no")]), threshold=1e-3)
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            optimizer.run(fmax=1e-9, steps=4)
        assert [warning.filename for warning in ours(caught)] == [__file__]

    def test_replay_points_here(self, nh3):
        with pytest.warns(SingularWarning) as caught:
            replay([nh3, nh3], Told([1e-5]), threshold=1e-3)
        assert [warning.filename for warning in ours(caught)] == [__file__]

    def test_a_calculator_that_catches_warnings_does_not_bring_them_back(self, nh3):
        class Catching(EMT):
            def calculate(self, *arguments, **settings):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    super().calculate(*arguments, **settings)

        nh3.calc = Catching()
        dyn = VelocityVerlet(nh3, STEP)
        dyn.attach(SensitivityObserver(dyn, Told([1e-5, ValueError("no")]), threshold=1e-3))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            dyn.run(5)
        assert [warning.category for warning in ours(caught)] == [
            SingularWarning,
            EvaluationWarning,
        ]

    def test_folders_with_a_like_name_are_the_users(self, tmp_path, monkeypatch, nh3):
        """Such as ase_sensitivity_runs next to the package."""
        import ase_sensitivity

        name = str(Path(ase_sensitivity.__file__).parent) + "_runs/script.py"
        code = compile("observer()", name, "exec")
        dyn = Still(nh3)
        observer = SensitivityObserver(dyn, Told([1e-5]), threshold=1e-3)
        with pytest.warns(SingularWarning) as caught:
            exec(code, {"observer": observer})
        assert ours(caught)[0].filename == name


def _open_below(directory: Path) -> list[str]:
    """Files that this process has open there."""
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    targets = [os.readlink(name) for name in names if os.path.lexists(name)]
    return [target for target in targets if target.startswith(str(directory))]


class TestLife:
    def test_the_dynamics_is_not_kept_alive(self, nh3):
        dyn = VelocityVerlet(nh3, STEP)
        observer = SensitivityObserver(dyn, Told(), threshold=1e-3)
        del dyn
        with pytest.raises(ReferenceError):
            observer()

    def test_closed_files_are_told(self, still, tmp_path):
        log = tmp_path / "log"
        with SensitivityObserver(still, Told(), logfile=log, threshold=1e-3) as observer:
            observer()
        with pytest.warns(EvaluationWarning, match="could not be written"):
            observer()
        assert observer.n_unwritten == 1
        assert len(read_log(log)) == 1

    def test_closing_twice_and_leaving_the_users_file_open(self, still):
        log = io.StringIO()
        observer = SensitivityObserver(still, Told(), logfile=log, threshold=1e-3)
        observer()
        observer.close()
        observer.close()
        assert not log.closed

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
    def test_no_descriptor_is_left_open(self, still, tmp_path):
        for suffix in ("xyz", "traj"):
            observer = SensitivityObserver(
                still,
                Told(),
                logfile=tmp_path / "log",
                trajectory=tmp_path / f"a.{suffix}",
                threshold=1e-3,
            )
            observer()
            assert _open_below(tmp_path)
            del observer
        assert not _open_below(tmp_path)

    def test_only_rank_zero_writes(self, still, tmp_path):
        class Second:
            rank, size = 1, 2

            def sum_scalar(self, value):
                return value

        log = tmp_path / "log"
        observer = SensitivityObserver(
            still,
            Told([1e-5]),
            logfile=log,
            trajectory=tmp_path / "a.xyz",
            on_singular="halt",
            comm=Second(),
            threshold=1e-3,
        )
        still.play(observer, 3)
        assert observer.halted
        assert os.listdir(tmp_path) == []


@pytest.mark.slow
class TestRealRuns:
    """Each a short piece of the work the observer is for."""

    def check(self, log, steps, interval=1):
        found = read_log(log)
        assert found.step.tolist() == list(range(0, steps + 1, interval))
        assert not (found.state == "failed").any()
        assert ((found.ratio > 0) & (found.ratio < 1)).all()
        assert (np.diff(found.sigma, axis=1) >= 0).all()
        return found

    def test_ethanol_with_xtb(self, tmp_path):
        tblite = pytest.importorskip("tblite.ase", reason="tblite is not installed")
        from ase_sensitivity import QUIPDescriptor

        atoms = molecule("CH3CH2OH")
        atoms.calc = tblite.TBLite(method="GFN2-xTB", verbosity=0)
        warm(atoms, 500)
        dyn = Langevin(
            atoms,
            0.5 * units.fs,
            temperature_K=500,
            friction=0.01 / units.fs,
            fixcm=False,
            rng=np.random.RandomState(1),
        )
        soap = QUIPDescriptor(
            "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.4", species=["C", "H", "O"]
        )
        log = tmp_path / "log"
        dyn.attach(SensitivityObserver(dyn, soap, logfile=log, on_singular="log"), interval=4)
        dyn.run(40)
        assert self.check(log, 40, 4).time[-1] == pytest.approx(20)

    @pytest.mark.parametrize("temperature", [300, 6000], ids=["300 K", "to melt"])
    def test_silicon(self, temperature, tmp_path):
        from matscipy.calculators.manybody import Manybody
        from matscipy.calculators.manybody.explicit_forms import StillingerWeber
        from matscipy.calculators.manybody.explicit_forms.stillinger_weber import (
            Stillinger_Weber_PRB_31_5262_Si,
        )

        from ase_sensitivity import QUIPDescriptor

        atoms = bulk("Si", cubic=True) * 2
        atoms.calc = Manybody(**StillingerWeber(Stillinger_Weber_PRB_31_5262_Si))
        rng = np.random.RandomState(2)
        warm(atoms, 2 * temperature)
        dyn = Langevin(
            atoms,
            units.fs,
            temperature_K=temperature,
            friction=0.02 / units.fs,
            fixcm=False,
            rng=rng,
        )
        soap = QUIPDescriptor("soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5", species=["Si"])
        log = tmp_path / "log"
        start = atoms.positions.copy()
        dyn.attach(SensitivityObserver(dyn, soap, logfile=log, on_singular="log"), interval=50)
        dyn.run(200)
        self.check(log, 200, 50)
        moved = np.sqrt(((atoms.positions - start) ** 2).sum(axis=1).mean())
        assert (moved > 0.9) == (temperature > 300)  # Lindemann: a melt has lost its sites

    def test_copper_with_emt(self, tmp_path):
        from ase_sensitivity import QUIPDescriptor

        atoms = bulk("Cu", cubic=True) * 2
        atoms.calc = EMT()
        rng = np.random.RandomState(3)
        warm(atoms, 600)
        dyn = Langevin(
            atoms, 2 * units.fs, temperature_K=600, friction=0.01 / units.fs, fixcm=False, rng=rng
        )
        soap = QUIPDescriptor("soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5", species=["Cu"])
        log = tmp_path / "log"
        dyn.attach(SensitivityObserver(dyn, soap, logfile=log, on_singular="log"), interval=10)
        dyn.run(50)
        self.check(log, 50, 10)

    def test_optimization_of_a_distorted_molecule(self, tmp_path):
        tblite = pytest.importorskip("tblite.ase", reason="tblite is not installed")
        from ase_sensitivity import QUIPDescriptor

        atoms = molecule("CH3OH")
        atoms.rattle(0.15, seed=5)
        atoms.calc = tblite.TBLite(method="GFN2-xTB", verbosity=0)
        optimizer = BFGS(atoms, logfile=None)
        soap = QUIPDescriptor(
            "soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.4", species=["C", "H", "O"]
        )
        log = tmp_path / "log"
        optimizer.attach(SensitivityObserver(optimizer, soap, logfile=log, on_singular="log"))
        assert optimizer.run(fmax=0.05, steps=100)
        found = self.check(log, optimizer.nsteps)
        assert np.isnan(found.time).all()


class TestFilesOfOthers:
    """What no observer wrote is never emptied."""

    def test_logs(self, still, tmp_path):
        path = tmp_path / "md.log"
        path.write_text("precious\n")
        for append in (False, True):
            with pytest.raises(ValueError, match="is not a log"):
                SensitivityObserver(still, Told(), logfile=path, append=append)
        assert path.read_text() == "precious\n"

    @pytest.mark.parametrize("suffix", ["xyz", "extxyz", "traj"])
    def test_frames(self, still, tmp_path, suffix):
        path = tmp_path / f"start.{suffix}"
        ase.io.write(path, [still.atoms] * 2)
        with pytest.raises(ValueError, match="holds other frames"):
            SensitivityObserver(still, Told(), trajectory=path)
        assert len(ase.io.read(path, ":")) == 2

    @pytest.mark.parametrize("suffix", ["xyz", "traj"])
    def test_those_of_an_earlier_run_are_replaced(self, still, tmp_path, suffix):
        path = tmp_path / f"flagged.{suffix}"
        for _ in range(2):
            with SensitivityObserver(
                still,
                Told([1e-5]),
                trajectory=path,
                logfile=tmp_path / "log",
                on_singular="record",
                threshold=1e-3,
            ) as observer:
                observer()
        assert len(ase.io.read(path, ":")) == 1
        assert len(read_log(tmp_path / "log")) == 1
