"""The other side of a fold, and what a reference calculator says to the two."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.optimize import BFGS
from typer.testing import CliRunner

from ase_sensitivity import (
    SOAP,
    EvaluationWarning,
    FiniteDifferenceDescriptor,
    SensitivityObserver,
    best_match,
    nearest_singular,
    read_log,
    replay,
)
from ase_sensitivity.auditing.reference import line
from ase_sensitivity.cli.app import app
from ase_sensitivity.demonstration.methane import singular_methane, soap_of, xtb
from ase_sensitivity.singular.partner import Partner, partner_beyond
from ase_sensitivity.singular.system import system_of
from tests.conftest import ours
from tests.structures import rattled

AMMONIA = SOAP(["N", "H"], 4.0, 6, 4)
CARBON = SOAP(["H"], 3.0, 8, 8, 0.3, 0.5, 0.0, normalise=False, centers=["C"])


def pyramid(height: float, seed: int | None = None) -> Atoms:
    atoms = molecule("NH3")
    atoms.positions[0, 2] = atoms.positions[1:, 2].mean() + height
    if seed is not None:
        atoms.rattle(0.02, seed=seed)
    return atoms


class Counting(EMT):
    n_calls = 0

    def calculate(self, *arguments, **keywords):
        self.n_calls += 1
        super().calculate(*arguments, **keywords)


def test_the_partner_of_a_pyramid_is_its_mirror_image():
    atoms = pyramid(0.15)
    before = atoms.copy()
    found = nearest_singular(atoms, AMMONIA)
    partner = found.partner
    assert found.no_partner is None
    assert atoms == before
    # N goes by 3/4 of the height through the plane, each H by 1/4: twice from here to there.
    assert partner.displacement == pytest.approx(np.sqrt(3) * 0.15, rel=1e-6)
    assert partner.displacement == pytest.approx(2 * found.distance, rel=1e-3)
    assert partner.rmsd < 1e-7
    assert partner.feature_distance < 1e-12
    assert partner.ratio < 1e-11
    assert partner.agrees
    relative = partner.atoms.positions - partner.atoms.positions.mean(axis=0)
    middle = atoms.positions.mean(axis=0)
    np.testing.assert_allclose(relative, (atoms.positions - middle) * [1, 1, -1], atol=1e-6)
    assert partner.atoms.info["rmsd"] == partner.rmsd
    assert "agrees=True" in repr(partner)


def test_the_partner_on_the_degenerate_line_is_known():
    atoms, other = line(0.99 * np.pi), line(-0.99 * np.pi)
    partner = nearest_singular(atoms, CARBON).partner
    known = best_match(other.numbers, _centered(other), other.numbers, _centered(atoms))
    assert partner.rmsd == pytest.approx(known.rmsd, rel=1e-6)
    assert partner.rmsd > 0.01
    assert partner.feature_distance < 1e-12
    size = np.linalg.norm(CARBON.features(atoms))
    apart = np.linalg.norm(CARBON.features(partner.atoms) - CARBON.features(atoms))
    assert apart / size == pytest.approx(partner.feature_distance, abs=1e-12)


def _centered(atoms: Atoms) -> np.ndarray:
    return atoms.positions - atoms.positions.mean(axis=0)


def test_any_descriptor_scope_and_cell_gives_the_same_partner():
    atoms = pyramid(0.12, seed=1)
    expected = nearest_singular(atoms, AMMONIA).partner.displacement
    by_differences = FiniteDifferenceDescriptor(
        AMMONIA.features, species=["N", "H"], cutoff=4.0, body_order=3
    )
    in_a_box = atoms.copy()
    in_a_box.set_cell([15.0, 15.0, 15.0])
    in_a_box.pbc = True
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3))
    on_nitrogen = SOAP(["N", "H"], 4.0, 6, 4, centers=["N"])
    others = {
        "differences": nearest_singular(atoms, by_differences),
        "box": nearest_singular(in_a_box, AMMONIA),
        "turned": nearest_singular(turned, AMMONIA),
    }
    for name, found in others.items():
        assert found.partner.displacement == pytest.approx(expected, rel=1e-3), name
        assert found.partner.agrees, name
    whole = nearest_singular(atoms, on_nitrogen).partner
    environment = nearest_singular(atoms, AMMONIA, scope="environment", center=0).partner
    assert environment.displacement == pytest.approx(whole.displacement, rel=1e-3)
    assert environment.feature_distance < 1e-6


def test_a_price_of_two_single_points_and_none_unless_asked():
    atoms = pyramid(0.2, seed=3)
    calculator = Counting()
    atoms.calc = calculator
    _ = nearest_singular(atoms, AMMONIA).partner
    assert calculator.n_calls == 0
    for settings in ({}, {"scope": "environment", "center": 0}):
        calculator = Counting()
        found = nearest_singular(atoms, AMMONIA, price=calculator, **settings)
        assert calculator.n_calls == 2
        assert found.price.energy < 1e-6
        assert found.price.forces < 1e-5
        assert found.price.energies[0] == pytest.approx(atoms.get_potential_energy())
        assert found.no_price is None
        assert "the price of confusing the two" in str(found)
        assert found.partner.atoms.info["price_energy"] == found.price.energy


def test_energies_of_real_molecules_agree_where_symmetry_is_the_cause():
    pytest.importorskip("tblite")
    calculator = xtb()
    heavy = SOAP(["C", "H", "O"], 4.0, 6, 4, centers=["C", "O"])
    harmless = [
        (pyramid(0.15, seed=2), AMMONIA),
        (rattled(molecule("C6H6"), 0.03, 1), SOAP(["C", "H"], 4.0, 6, 4)),
        (rattled(molecule("CH3OH"), 0.05, 2), heavy),
    ]
    for atoms, soap in harmless:
        found = nearest_singular(atoms, soap, price=calculator)
        assert found.cause == "symmetry"
        assert found.partner.displacement > 0.15
        assert found.partner.rmsd < 1e-5
        assert found.partner.feature_distance < 1e-8
        assert found.price.energy < 1e-4
    harmful = rattled(singular_methane(), 0.05, 1)
    found = nearest_singular(harmful, soap_of(["C"]), price=calculator)
    assert found.cause == "incompleteness"
    assert found.partner.agrees
    assert found.partner.rmsd > 0.03
    assert found.partner.feature_distance < 1e-3
    assert found.price.energy > 0.005
    assert found.price.forces > 0.1


def test_features_that_do_not_agree_are_told():
    atoms = rattled(molecule("CH3OH"), 0.1, 3)
    system = system_of(atoms, SOAP(["C", "H", "O"], 4.0, 6, 4), "structure", None)
    end = rattled(atoms, 0.02, 4)  # is not singular
    found = partner_beyond(system, end)
    assert isinstance(found, Partner)
    assert not found.agrees
    assert found.remaining > 0.2


def test_methane_has_no_mirror_image_near_the_tetrahedron():
    # Invariants of the third order tell a distortion of cubic symmetry from the opposite one.
    for seed in range(3):
        found = nearest_singular(rattled(molecule("CH4"), 0.05, seed), soap_of())
        assert found.cause == "symmetry"
        assert not found.partner.agrees


def test_no_partner_and_why():
    flat = nearest_singular(pyramid(0.0), AMMONIA)
    assert flat.partner is None
    assert "its own partner" in flat.no_partner
    far = nearest_singular(pyramid(0.4), AMMONIA, max_distance=0.05, price=EMT())
    assert far.partner is None
    assert "no singular configuration was found" in far.no_partner
    assert far.price is None
    assert "there is no partner" in far.no_price


def test_a_calculator_that_fails_costs_nothing_else():
    atoms = pyramid(0.2)
    atoms.symbols[0] = "P"  # EMT has no parameters of it
    soap = SOAP(["P", "H"], 4.0, 6, 4)
    with pytest.warns(EvaluationWarning, match="no price of the partner") as told:
        found = nearest_singular(atoms, soap, price=EMT())
    assert ours(told)[0].filename == __file__
    assert found.cause == "symmetry"
    assert found.partner.rmsd < 1e-6
    assert found.price is None
    assert "the calculator failed" in found.no_price
    for wrong in (EMT, "emt", 3):
        with pytest.raises(TypeError, match=r"`price` is .* ASE calculator"):
            nearest_singular(atoms, soap, price=wrong)


def test_the_two_can_be_written(tmp_path):
    partner = nearest_singular(pyramid(0.2), AMMONIA, price=EMT()).partner
    write(tmp_path / "pair.xyz", [partner.given, partner.atoms])
    back = read(tmp_path / "pair.xyz", ":")
    assert back[1].info["displacement"] == pytest.approx(partner.displacement, rel=1e-6)
    assert back[1].info["price_energy"] < 1e-6


def passing(n: int = 9) -> list[Atoms]:
    """Ammonia that goes through its plane."""
    return [pyramid(height) for height in np.linspace(0.2, -0.2, n)]


def test_a_replay_prices_where_singular_states_begin(tmp_path):
    calculator = Counting()
    frames = [pyramid(0.5), *passing(), pyramid(-0.5), *passing()]
    log = replay(
        frames,
        AMMONIA,
        price=calculator,
        logfile=tmp_path / "run.log",
        on_singular={"symmetry": "log"},
        distance_threshold=0.1,
    )
    assert (log.state == "singular").sum() > 4
    assert len(log.partners) == 2
    assert calculator.n_calls == 4
    begins = np.flatnonzero((log.state == "singular") & (np.roll(log.state, 1) != "singular"))
    assert [partner.step for partner in log.partners] == log.step[begins].tolist()
    for partner in log.partners:
        assert partner.cause == "symmetry"
        assert partner.agrees == 1
        assert partner.displacement == pytest.approx(np.sqrt(3) * 0.05, abs=1e-3)
        assert partner.energy < 1e-5
    assert read_log(tmp_path / "run.log").partners == log.partners
    assert replay(frames[:3], AMMONIA).partners == ()


def test_an_observer_goes_on_where_there_is_no_price(tmp_path):
    frames = passing()
    for atoms in frames:
        atoms.symbols[0] = "P"
    soap = SOAP(["P", "H"], 4.0, 6, 4)
    with pytest.warns(EvaluationWarning, match="no price of a partner") as told:
        log = replay(frames, soap, price=EMT(), on_singular={"symmetry": "log"})
    assert len(ours(told)) == 1
    assert len(log) == len(frames)
    assert np.isnan(log.partners[0].energy)
    run = frames[0]
    run.calc = EMT()
    with BFGS(run, logfile=None) as dyn, pytest.raises(ValueError, match="calculator of the run"):
        SensitivityObserver(dyn, soap, price=run.calc)
    with BFGS(run, logfile=None) as dyn, pytest.raises(ValueError, match="`apply_constraints`"):
        SensitivityObserver(dyn, soap, price=EMT(), apply_constraints=True)


def test_the_command_prices(tmp_path, monkeypatch):
    write(tmp_path / "run.xyz", passing())
    command = ["replay", str(tmp_path / "run.xyz"), "-d", "soap cutoff=4 n_max=6 l_max=4"]
    command[-1] += " atom_sigma=0.5"
    text = CliRunner().invoke(app, [*command, "--price", "ase.calculators.emt:EMT"])
    assert text.exit_code == 0, text.output
    assert "Partner of frame" not in text.output  # symmetry does not matter by default
    command += ["--threshold", "0.2"]
    text = CliRunner().invoke(app, [*command, "--price", "ase.calculators.emt:EMT"])
    assert "Partner of frame" in text.output
    assert "price 0.0000 eV" in text.output
    for wrong, said in (
        ("emt", "name a calculator as module:name"),
        ("ase.calculators.emt:Nothing", "has no Nothing"),
        ("ase.build:molecule", "no calculator comes of it"),
        ("os:getcwd", "is not an ASE calculator"),
    ):
        failed = CliRunner().invoke(app, [*command, "--price", wrong])
        assert failed.exit_code != 0
        assert said in str(failed.exception)
