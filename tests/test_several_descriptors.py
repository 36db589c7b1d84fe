"""Several descriptors seen together: each one alone, what they weigh, and pair terms that mask."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from ase_sensitivity import (
    QUIPDescriptor,
    ScanResult,
    Sensitivity,
    analyze,
    converge,
    gradient,
    nearest_singular,
    replay,
    scan,
)
from ase_sensitivity.cli.app import main
from ase_sensitivity.descriptors.components import weighted, weights
from ase_sensitivity.md.bias import Repel
from ase_sensitivity.report.verdict import verdict
from ase_sensitivity.singular.system import system_of
from tests.structures import SHARED, rattled

PAIRS = "distance_2b cutoff=4 Z1=6 Z2=6"
NORMALISED = "soap cutoff=4 cutoff_transition_width=0.5 n_max=1 l_max=0 atom_sigma=0.4 n_Z=1 Z=6 "
NORMALISED += "n_species=1 species_Z=6"
SMALL = f"{NORMALISED} normalise=F"
CARBON = SHARED / "carbon_reduced_100.xyz"


def carbon(seed: int = 0) -> Atoms:
    atoms = rattled(bulk("C", cubic=True), 0.15, seed)
    forces = np.random.default_rng(seed).normal(size=(8, 3))
    atoms.arrays["f"] = forces - forces.mean(axis=0)
    return atoms


@pytest.fixture(scope="module")
def both() -> QUIPDescriptor:
    return QUIPDescriptor([PAIRS, SMALL])


def test_each_one_alone_is_what_it_is_without_the_other(both: QUIPDescriptor) -> None:
    atoms = carbon()
    found = analyze(atoms, both, causes=True)
    assert found.n_null == 0
    assert found.masking == ("distance_2b",)
    assert list(found.alone) == ["distance_2b", "soap"]
    for name, text in (("distance_2b", PAIRS), ("soap", SMALL)):
        own = analyze(atoms, QUIPDescriptor(text), causes=True)
        assert found.alone[name].counts == own.counts
        assert found.alone[name].singular_values == pytest.approx(own.singular_values, abs=1e-14)
    assert found.alone["soap"].counts["truncation"] > 0
    assert "Pair terms mask: distance_2b has" in str(found)
    assert "soap alone: sigma_min / sigma_max = " in str(found)
    again = Sensitivity.fromdict(json.loads(json.dumps(found.todict(), default=np.ndarray.tolist)))
    assert again.alone["soap"].counts == found.alone["soap"].counts
    assert str(again) == str(found)
    assert analyze(atoms, both, each=False).alone is None
    single = analyze(atoms, QUIPDescriptor(SMALL))
    assert (single.alone, single.masking) == (None, ())
    assert "alone" not in str(single)


@pytest.mark.parametrize("scope", ["environment", "atom"])
def test_other_scopes(scope: str, both: QUIPDescriptor) -> None:
    atoms = carbon()
    found = analyze(atoms, both, scope=scope, center=1)
    own = analyze(atoms, QUIPDescriptor(SMALL), scope=scope, center=1)
    assert found.alone["soap"].singular_values == pytest.approx(own.singular_values, abs=1e-14)


def test_scan_tells_each_alone_and_jointly(both: QUIPDescriptor, tmp_path: Path) -> None:
    frames = [carbon(seed) for seed in range(3)]
    result = scan(frames, both, forces_key="f", store=tmp_path / "r.db")
    soap = scan(frames, QUIPDescriptor(SMALL), forces_key="f")
    assert result.irreducible_force_error == 0
    assert soap.irreducible_force_error > 0.1
    assert result.irreducible_alone["soap"] == pytest.approx(soap.irreducible_force_error)
    for name in ("ratio", "n_null", "n_truncation", "cause", "required_slope", "rms_force"):
        mine = [row[name] for row in result.alone["soap"]]
        theirs = [row[name] for row in soap.rows]
        assert mine == (theirs if name == "cause" else pytest.approx(theirs, rel=1e-6, abs=1e-12))
    assert "Pair terms mask: distance_2b" in result.summary()
    alone = result.summary().split("soap alone:\n")[1]
    assert "3 of 3 have directions" in alone
    assert "3 frames because of truncation" in alone
    assert ScanResult.read(tmp_path / "r.db").summary() == result.summary()
    assert "is out of reach" not in result.summary()
    found = verdict(result.totals)
    assert found.level == "attention"
    assert found.headline == "Pair terms mask that soap alone is blind to some motion."
    said = found.sentences
    assert any(sentence.startswith("Pair terms mask: distance_2b") for sentence in said)
    assert any("oap alone has truncation in all 3 frames; it loses" in text for text in said)
    assert soap.alone == {}
    assert soap.rows[0]["alone"] is None
    only = scan(frames, QUIPDescriptor(PAIRS), forces_key="f")
    assert only.masking == ["distance_2b"]
    assert "Pair terms mask" in only.summary()


def test_commands_tell_that_pair_terms_mask(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write("c.xyz", [carbon()], format="extxyz")
    chosen = ["-d", PAIRS, "-d", SMALL, "--forces-key", "f"]
    assert main(["check", "c.xyz", *chosen, "--max-truncation", "0"]) == 0
    captured = capsys.readouterr()
    assert "Pair terms mask: distance_2b" in captured.out + captured.err
    assert "1 frame because of truncation" in captured.out + captured.err
    assert main(["scan", "c.xyz", *chosen, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["masking"] == ["distance_2b"]
    assert found["alone"]["soap"]["causes"]["truncation"] == 1
    assert found["alone"]["soap"]["irreducible_force_error"] > 0.1


def test_sweeps_and_logs_tell_it_too(both: QUIPDescriptor) -> None:
    assert "Pair terms mask" in str(converge([carbon()], both, n_max=[1, 2], l_max=[0]))
    log = io.StringIO()
    replay([carbon(), carbon(1)], both, logfile=log)
    lines = log.getvalue().splitlines()
    assert sum(line.startswith("# Pair terms mask: distance_2b") for line in lines) == 1


def test_strings_that_differ_by_species_are_one_descriptor() -> None:
    texts = [f"distance_2b cutoff=3 Z1={a} Z2={b}" for a, b in ((6, 1), (1, 1))]
    texts += [f"soap cutoff={c} n_max=2 l_max=2 atom_sigma=0.5" for c in (3, 4)]
    several = QUIPDescriptor(texts, species=["C", "H"])
    assert [part.parts for part in several.components] == [(0, 1), (2,), (3,)]
    names = [part.name for part in several.components]
    assert names[0] == "distance_2b"
    assert names[1] == "soap cutoff=3 n_max=2 l_max=2 atom_sigma=0.5"
    found = analyze(rattled(molecule("CH4")), several)
    assert list(found.alone) == names


def test_weights_take_off_the_unit(both: QUIPDescriptor) -> None:
    """Twice the features of one descriptor change no ratio where no kernel is known."""

    class Scaled(QUIPDescriptor):
        def jacobian(self, atoms):
            whole = super().jacobian(atoms)
            return type(whole)(weighted(whole.parts, (np.array(1000.0), np.array(1.0))))

    atoms = carbon()
    other = Scaled([PAIRS, SMALL])
    assert analyze(atoms, other).ratio == pytest.approx(analyze(atoms, both).ratio, rel=1e-9)
    factors = weights(both, both.jacobian(atoms))
    for part in weighted(both.jacobian(atoms).parts, factors):
        assert (part.blocks**2).sum() == pytest.approx(len(atoms))
    # Normalised, the only feature is 1, and its derivative rounding that no weight may enlarge.
    constant = QUIPDescriptor([PAIRS, NORMALISED])
    assert weights(constant, constant.jacobian(atoms))[1] == 1
    # By symmetry all derivatives cancel in a perfect crystal of one atom; the weights do not.
    perfect = bulk("Cu")
    copper = QUIPDescriptor([text.replace("=6", "=29") for text in (PAIRS, SMALL)])
    assert all(np.isfinite(w) and w > 0 for w in weights(copper, copper.jacobian(perfect)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{PAIRS} delta=0.5 covariance_type=ard_se theta_uniform=2", 0.25),
        (f"{PAIRS} delta=0.5 covariance_type=ard_se theta_fac=2", None),
        (f"{NORMALISED} delta=0.5 covariance_type=dot_product zeta=4", 1.0),
        (f"{SMALL} delta=0.5 covariance_type=dot_product zeta=4", None),
        (f"{SMALL} delta=0.5 covariance_type=dot_product zeta=1", 0.5),
        (SMALL, None),
    ],
)
def test_kernels_that_are_known(text: str, expected: float | None) -> None:
    known = QUIPDescriptor(text).kernel_weights
    assert known is None if expected is None else known == (pytest.approx(expected),)


def test_weights_are_what_the_kernels_make_of_a_displacement() -> None:
    """|w J v|² h² is the distance of two configurations by the kernel, in eV²."""
    theta, delta, zeta, h = 1.5, 0.3, 4, 1e-3
    atoms = rattled(molecule("CH4"))
    rng = np.random.default_rng(0)
    step = h * rng.normal(size=(5, 3))
    moved = atoms.copy()
    moved.positions += step
    soap = "soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5"
    for text, kernel in (
        (
            f"distance_2b cutoff=6 Z1=6 Z2=1 covariance_type=ard_se delta={delta} "
            f"theta_uniform={theta}",
            lambda x, y: delta**2 * np.exp(-((x - y) ** 2).sum() / (2 * theta**2)),
        ),
        (
            f"{soap} covariance_type=dot_product delta={delta} zeta={zeta}",
            lambda x, y: delta**2 * (x @ y) ** zeta,
        ),
    ):
        takes = {"species": ["C", "H"]} if text.startswith("soap") else {}
        descriptor = QUIPDescriptor(text, **takes)
        (weight,) = descriptor.kernel_weights
        here, there = descriptor.features(atoms), descriptor.features(moved)
        distance = sum(
            kernel(x, x) + kernel(y, y) - 2 * kernel(x, y) for x, y in zip(here, there, strict=True)
        )
        part = descriptor.jacobian(atoms).parts[0]
        change = weight * (part.dense(part.atom, 5) @ step.ravel())
        assert (change**2).sum() == pytest.approx(distance, rel=0.02)


def test_a_gap_file_has_its_length_scales(tmp_path: Path) -> None:
    """As gap_fit writes them: taken from the data, they are in no string."""
    soap = NORMALISED.replace("n_max=1 l_max=0", "n_max=3 l_max=2")
    (tmp_path / "gp.xml").write_text(
        '<GAP_params gap_version="1686220958"><gpSparse>'
        '<gpCoordinates signal_variance=".5" covariance_type="1"><theta> 0.25 </theta>'
        f"<descriptor>{PAIRS} covariance_type=ard_se delta=0.5 theta_fac=0.3</descriptor>"
        '</gpCoordinates><gpCoordinates signal_variance=".3" covariance_type="2" zeta="4.0">'
        f"<descriptor>{soap} covariance_type=dot_product delta=0.3 zeta=4</descriptor>"
        "</gpCoordinates>"
        "</gpSparse></GAP_params>"
    )
    gap = QUIPDescriptor.from_gap(tmp_path / "gp.xml")
    assert gap.kernel_weights == (pytest.approx(2.0), pytest.approx(0.6))
    atoms = carbon()
    found = analyze(atoms, gap)
    # Sums of squares weigh 4 and .36.
    parts = [analyze(atoms, QUIPDescriptor(text), k=None) for text in (PAIRS, soap)]
    (J, K) = (
        part.dense(part.atom, 8)
        for text in (PAIRS, soap)
        for part in QUIPDescriptor(text).jacobian(atoms).parts
    )
    values = np.linalg.svd(np.vstack([2.0 * J, 0.6 * K]), compute_uv=False)
    assert found.sigma_max == pytest.approx(values[0])
    assert found.singular_values[0] == pytest.approx(values[-4])
    assert found.alone["soap"].sigma_max == pytest.approx(parts[1].sigma_max)


def test_approach_and_gradient_have_the_same_weights() -> None:
    texts = ["soap cutoff=4 n_max=4 l_max=3 atom_sigma=0.5"]
    texts.append("soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.3 normalise=F")
    several = QUIPDescriptor(texts, species=["N", "H"])
    atoms = rattled(molecule("NH3"))
    found = analyze(atoms, several)
    value = gradient(atoms, several).value
    assert value == pytest.approx(found.singular_values[0])
    flat = molecule("NH3")
    flat.positions[0, 2] = flat.positions[1, 2] + 0.1
    near = nearest_singular(flat, several)
    assert (near.cause, near.distance) == ("symmetry", pytest.approx(0.0866, rel=0.01))
    # A bias is an energy: weights that depend on the structure would spoil its forces.
    bias = Repel(ratio=0.9, strength=0.1)
    forces = bias.evaluate(atoms, several).forces
    for sign in (1, -1):
        atoms.positions[1, 0] += sign * 1e-4
        atoms.info[str(sign)] = bias.evaluate(atoms, several).energy
        atoms.positions[1, 0] -= sign * 1e-4
    numeric = (atoms.info["-1"] - atoms.info["1"]) / 2e-4
    assert forces[1, 0] == pytest.approx(numeric, rel=1e-4)
    assert system_of(atoms, several, "structure", None).weights is not None


@pytest.mark.skipif(not CARBON.exists(), reason="the reference data are not here")
def test_carbon() -> None:
    """Truncated in 10 of 10 frames, with .31 eV/Å lost; beside pairs nothing shows of that."""
    result = scan(f"{CARBON}@::10", QUIPDescriptor([PAIRS, SMALL]), forces_key="force")
    assert result.irreducible_force_error == 0
    assert [row["cause"] for row in result.alone["soap"]] == ["truncation"] * 10
    assert result.irreducible_alone["soap"] == pytest.approx(0.3125, abs=5e-4)
