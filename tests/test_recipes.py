"""The recipes of the documentation, with the packages that they are for where these are here."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.io import read

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor, SensitivityCalculator, analyze, scan
from ase_sensitivity.auditing.reference import GENERIC
from ase_sensitivity.testing import check_descriptor

RECIPES = Path(__file__).parent.parent / "docs" / "recipes"
STEPS = 4


def recipe(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Model:
    """Has a calculator that hardly moves any atom."""

    def get_calculator(self, **kwargs: object) -> LennardJones:
        return LennardJones(epsilon=1e-6, sigma=1.0, rc=3.0)


def cluster() -> Atoms:
    """Five atoms without any symmetry."""
    return Atoms("Cu5", 2.2 * np.array([(0, 0, 0), *GENERIC]))


# Where every atom is a center of inversion nothing is seen, and rightly so. Five features, one for
# each atom of the cluster, cannot see nine directions.
CASES = [
    pytest.param(bulk("Cu", cubic=True), 4, False, id="perfect crystal"),
    pytest.param(cluster(), 4, False, id="cluster"),
    pytest.param(cluster(), 0, True, id="truncation"),
]


@pytest.mark.filterwarnings("ignore")  # of what is theirs
@pytest.mark.parametrize(("atoms", "l_max", "stops"), CASES)
def test_wfl(atoms, l_max, stops, monkeypatch, tmp_path, capsys):
    pytest.importorskip("wfl", reason="wfl is not installed")
    from wfl.configset import ConfigSet, OutputSpec
    from wfl.generate import md

    monkeypatch.chdir(tmp_path)
    soap = SOAP(["Cu"], cutoff=5.0, n_max=max(1, l_max), l_max=l_max)
    found = md.md(
        ConfigSet([atoms.copy()]),
        OutputSpec(),
        calculator=SensitivityCalculator(Model().get_calculator(), soap),
        steps=STEPS,
        dt=1.0,
        abort_check=recipe("wfl_abort").AbortOnSingular(0.05),
    )
    assert len(list(found)) == (1 if stops else STEPS + 1)
    assert ("AbortOnSingular" in capsys.readouterr().err) == stops


@pytest.mark.filterwarnings("ignore")  # of what is theirs
@pytest.mark.parametrize(("atoms", "l_max", "stops"), CASES)
def test_ipsuite(atoms, l_max, stops, monkeypatch, tmp_path, caplog):
    ips = pytest.importorskip("ipsuite", reason="ipsuite is not installed")
    monkeypatch.chdir(tmp_path)
    basis = {"n_max": max(1, l_max), "l_max": l_max}
    dynamics = ips.ASEMD(
        model=recipe("ipsuite_model").SensitivityModel(Model(), ["Cu"], **basis),
        data=[atoms.copy()],
        data_ids=[0],
        checks=[ips.ThresholdCheck(key="spurious_proximity", max_value=20.0)],
        thermostat=ips.LangevinThermostat(time_step=1.0, temperature=10.0, friction=0.01),
        steps=STEPS,
    )
    with caplog.at_level(logging.CRITICAL):
        dynamics.run()
    assert len(dynamics.frames) == (0 if stops else STEPS)
    assert ("spurious_proximity" in caplog.text) == stops


def methane(seed: int = 1) -> Atoms:
    atoms = molecule("CH4", cell=[10, 10, 10])
    atoms.rattle(0.1, seed=seed)
    return atoms


METHANE = SOAP(["C", "H"], cutoff=4.0, n_max=4, l_max=4)


@pytest.mark.filterwarnings("ignore")  # of what is theirs
def test_chemiscope(tmp_path):
    pytest.importorskip("chemiscope", reason="chemiscope is not installed")
    frames = [methane(1), methane(2), Atoms("CH4", np.full((5, 3), np.nan))]
    forces = np.random.default_rng(0).normal(size=(5, 3))
    for frame in frames:
        frame.arrays["f"] = forces
    result = scan(frames, METHANE, forces_key="f")
    result.to_chemiscope(tmp_path / "modes.json", n_modes=2, scale=3.0)
    written = json.loads((tmp_path / "modes.json").read_text())
    assert len(written["structures"]) == 2
    assert written["properties"]["frame"]["values"] == ["frames@0", "frames@1"]
    for n, frame in enumerate(frames[:2]):
        found = analyze(frame, METHANE, k=2)
        assert written["properties"]["ratio"]["values"][n] == pytest.approx(found.ratio)
        for mode in range(2):
            arrows = written["shapes"][f"mode {mode}"]["parameters"]["atom"][5 * n : 5 * n + 5]
            vectors = np.array([arrow["vector"] for arrow in arrows])
            assert abs((vectors * found.modes[mode]).sum()) == pytest.approx(3.0)
    with pytest.raises(ValueError, match=r"ends in \.json"):
        result.to_chemiscope(tmp_path / "modes.html")


@pytest.mark.filterwarnings("ignore")  # of what is theirs
def test_ovito():
    pytest.importorskip("ovito", reason="ovito is not installed")
    from ovito.io.ase import ase_to_ovito
    from ovito.pipeline import Pipeline, StaticSource

    atoms = methane()
    pipeline = Pipeline(source=StaticSource(data=ase_to_ovito(atoms)))
    pipeline.modifiers.append(recipe("ovito_modifier").SoftestMode())
    data = pipeline.compute()
    found = analyze(atoms, SOAP(["C", "H"], cutoff=5.0, n_max=8, l_max=6), k=1)
    assert data.attributes["Sensitivity ratio"] == pytest.approx(found.ratio)
    np.testing.assert_allclose(data.particles["Softest mode"], found.modes[0], atol=1e-9)


@pytest.mark.filterwarnings("ignore")  # of what is theirs
def test_ipi(monkeypatch, tmp_path):
    pytest.importorskip("ipi", reason="ipi is not installed")
    from ipi.scripting import (
        InteractiveSimulation,
        forcefield_xml,
        motion_nvt_xml,
        simulation_xml,
    )

    monkeypatch.chdir(tmp_path)
    wanted = "<properties filename='out'>[step, ratio]</properties>"
    simulation = InteractiveSimulation(
        simulation_xml(
            [methane(seed) for seed in range(3)],
            forcefield_xml("springs", pes="harmonic", parameters={"k1": 1e-3}),
            motion_nvt_xml(timestep=0.05, path_integrals=True),
            temperature=300,
            output=f"<output prefix='run'>{wanted}</output>",
        ),
        custom_properties={"ratio": recipe("ipi_property").least_ratio(METHANE)},
    )
    simulation.run(2)
    beads = [analyze(bead, METHANE, k=1).ratio for bead in simulation.get_structures()]
    assert len(beads) == 3
    assert simulation.properties("ratio") == pytest.approx(min(beads))
    assert np.loadtxt("run.out")[-1, 1] == pytest.approx(min(beads))


@pytest.mark.filterwarnings("ignore")  # of what is theirs
def test_torch_sim(monkeypatch, tmp_path):
    ts = pytest.importorskip("torch_sim", reason="torch_sim is not installed")
    import torch
    from torch_sim.models.lennard_jones import LennardJonesModel

    monkeypatch.chdir(tmp_path)
    systems = [bulk("Ar", "fcc", a=5.26, cubic=True).repeat((n, 1, 1)) for n in (1, 2)]
    for system in systems:
        system.rattle(0.1, seed=1)
    soap = SOAP(["Ar"], cutoff=5.0, n_max=4, l_max=4)

    def run(ratio):
        ts.integrate(
            system=systems,
            model=LennardJonesModel(
                sigma=3.4, epsilon=0.0104, cutoff=8.5, dtype=torch.float64, compute_forces=True
            ),
            integrator=ts.integrators.nve,
            n_steps=4,
            timestep=0.002,
            temperature=50,
            trajectory_reporter={
                "filenames": ["small.h5", "large.h5"],
                "state_frequency": 2,
                "prop_calculators": {2: {"ratio": ratio}},
            },
        )

    made = recipe("torchsim_ratio").SensitivityRatio
    run(made(soap))
    for name in ("small", "large"):
        with ts.TorchSimTrajectory(f"{name}.h5") as trajectory:
            ratios = trajectory.get_array("ratio").ravel()
            trajectory.write_ase_trajectory(f"{name}.traj")
        frames = read(f"{name}.traj", ":")
        # TorchSim keeps positions in single precision.
        expected = [analyze(frame, soap, k=1).ratio for frame in frames]
        np.testing.assert_allclose(ratios, expected, rtol=1e-4)
    with pytest.raises(RuntimeError, match="sigma_min / sigma_max is"):
        run(made(soap, stop_below=0.9))


def random_nep() -> str:
    """A potential for C and H with random weights and cutoffs of 5 and 4 Å."""
    n_features, n_neurons = 30, 10
    n_weights = 2 * (n_features + 2) * n_neurons + 1 + 4 * 2 * 5 * 7
    weights = np.random.default_rng(0).normal(size=n_weights)
    head = "nep4 2 C H\ncutoff 5 4 50 40\nn_max 4 4\nbasis_size 6 6\nl_max 4 2 0\nANN 10 0\n"
    return head + "".join(f"{x:.8e}\n" for x in [*weights, *np.ones(n_features)])


@pytest.mark.filterwarnings("ignore")  # of what is theirs
def test_calorine(tmp_path):
    pytest.importorskip("calorine", reason="calorine is not installed")
    (tmp_path / "nep.txt").write_text(random_nep())
    features = recipe("nep_features").NEPFeatures(tmp_path / "nep.txt")
    nep = FiniteDifferenceDescriptor(features, cutoff=5.0, species=["C", "H"])
    perfect = molecule("CH4")
    assert features(perfect).shape == (5, 30)
    assert analyze(perfect, nep, causes=True).counts["symmetry"] == 2
    check_descriptor(nep, methane(), tolerance=1e-7)
    assert analyze(methane(), nep).n_null == 0
