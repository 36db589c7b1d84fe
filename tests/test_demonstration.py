"""The potential of the demonstration, and the methane that it is shown on."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from matplotlib.image import imread

from ase_sensitivity import SOAP, analyze, read_log
from ase_sensitivity.demonstration.blindness import measure, watch
from ase_sensitivity.demonstration.methane import (
    BEFORE,
    TIMESTEP,
    invisible_direction,
    passages,
    run,
    singular_methane,
    soap_of,
    start,
    twisted,
    xtb,
)
from ase_sensitivity.demonstration.model import FourierPotential, force_error
from ase_sensitivity.demonstration.picture import save_picture
from tests.structures import rattled


def labelled(atoms, n=12, size=0.08, calculator=EMT):
    frames = [rattled(atoms, size, seed) for seed in range(n)]
    for frame in frames:
        frame.calc = calculator()
    return frames


@pytest.mark.parametrize(
    "atoms", [molecule("CH3OH"), bulk("Cu", cubic=True)], ids=["isolated", "periodic"]
)
def test_forces_are_derivatives_of_the_energy(atoms):
    frames = labelled(atoms)
    symbols = sorted(set(atoms.symbols))
    potential = FourierPotential.fit(SOAP(symbols, 3.5, 3, 2), frames[2:], n_fourier=100)
    here = frames[0].copy()
    here.calc = potential
    forces = here.get_forces()
    step = 1e-4
    for atom, axis in ((0, 0), (3, 2)):
        energies = []
        for sign in (1, -1):
            moved = here.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = potential
            energies.append(moved.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(-slope, abs=1e-5)
    assert np.abs(forces.sum(axis=0)).max() < 1e-9


def test_carbon_alone_does_not_see_one_direction_and_all_atoms_do():
    found = analyze(singular_methane(), soap_of(["C"]), causes=True)
    assert found.causes[: found.n_null] == ("incompleteness",)
    assert analyze(singular_methane(), soap_of()).n_null == 0
    pytest.importorskip("tblite")
    direction = invisible_direction()
    frames = labelled(singular_methane(), 22, calculator=xtb)
    true = singular_methane()
    true.calc = xtb()
    along = float(np.vdot(true.get_forces(), direction))
    assert along == pytest.approx(1.043, abs=1e-3)
    learned = {}
    for centers in (["C"], None):
        atoms = singular_methane()
        atoms.calc = FourierPotential.fit(soap_of(centers), frames[2:], n_fourier=300)
        learned[str(centers)] = float(np.vdot(atoms.get_forces(), direction))
    assert abs(learned["['C']"]) < 1e-9
    assert learned["None"] == pytest.approx(along, rel=0.2)
    true = np.concatenate([frame.get_forces() for frame in frames[:2]])
    assert force_error(atoms.calc, frames[:2]) < 0.2 * np.sqrt((true**2).mean())


def test_runs_come_through_the_singular_configuration():
    atoms = start(EMT(), seed=1)
    frames = run(atoms, EMT(), BEFORE)
    assert len(frames) == round(BEFORE / TIMESTEP) + 1
    assert np.abs(frames[0].positions - singular_methane().positions).max() > 0.1
    assert np.abs(frames[-1].positions - singular_methane().positions).max() < 1e-9
    kept = passages(EMT(), 1, every=30)
    assert len(kept) == 7
    np.testing.assert_allclose(kept[0].get_forces().sum(axis=0), 0, atol=1e-9)


def test_what_cannot_be_fitted():
    soap = soap_of()
    with pytest.raises(ValueError, match="`frames` is empty"):
        FourierPotential.fit(soap, [])
    with pytest.raises(ValueError, match="frame 0 of `frames` has no energy"):
        FourierPotential.fit(soap, [molecule("CH4")])
    frames = labelled(molecule("CH4"), 1)
    with pytest.raises(ValueError, match="`ridge` is 0"):
        FourierPotential.fit(soap, frames, ridge=0.0)
    with pytest.raises(ValueError, match="is a center"):
        FourierPotential.fit(SOAP(["H"], 4.0, 4, 3, centers=["N"]), frames)


@pytest.mark.slow
def test_what_models_miss_and_the_picture(tmp_path):
    true = EMT()
    found = measure(true, n_passages=1, n_twists=3, progress=lambda done: None)
    assert abs(found.blind.forces[1]) < 1e-9 < 1e-3 < abs(found.forces[1])
    expected = twisted(0.4)
    expected.calc = true
    assert found.energies[2] == pytest.approx(expected.get_potential_energy())
    log = tmp_path / "methane.log"
    models = [found.blind, found.seeing]
    settings = {"progress": lambda done: None, "before": 5.0, "logfile": log, "price": EMT()}
    blind, seeing = watch(true, models, 1, on_singular="log", **settings)
    assert blind.distance.shape == seeing.distance.shape == (1, 21)
    assert blind.distance[0, 0] == seeing.distance[0, 0] == 0
    assert np.isfinite(blind.flagged).all()
    assert np.isnan(seeing.flagged).all()
    assert len(read_log(log).partners) > 0
    picture = tmp_path / "picture.png"
    save_picture(picture, found, blind, seeing)
    assert np.ptp(imread(picture)[:, :, :3]) == pytest.approx(1.0)
