"""The recipes of the documentation, with the packages that they are for where these are here."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from ase_sensitivity import SOAP, SensitivityCalculator
from ase_sensitivity.auditing.reference import GENERIC

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
