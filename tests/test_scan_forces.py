"""Irreducible force error and required slope, against linear algebra written out."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import SOAP, QUIPDescriptor, analyze
from ase_sensitivity.dataset.evaluation import SCAN_NULL_TOLERANCE
from ase_sensitivity.dataset.forces import THRESHOLDS, force_loss
from ase_sensitivity.dataset.record import row_of
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.dataset.summary import Summary
from ase_sensitivity.io.references import unit_factors
from tests.structures import BOUNDARIES, SHARED, isolated, periodic, rattled, wire

CARBON = SHARED / "carbon_reduced_100.xyz"
ETHANOL = SHARED / "ethanol_reduced_100.xyz"

needs_data = pytest.mark.skipif(not CARBON.exists(), reason="the reference data are not here")


def blunt() -> SOAP:
    """Few features on few centers: much is lost."""
    return SOAP(["C", "H", "O"], 3.0, 1, 1, 0.4, normalise=False, centers=["C", "O"])


def dense(descriptor, atoms: Atoms) -> np.ndarray:
    """J of shape (features, 3 n_atoms), from the blocks one by one."""
    found = descriptor.jacobian(atoms)
    J = np.zeros((len(found.centers), found.features.shape[1], len(atoms), 3))
    for row, atom, block in zip(found.row, found.atom, found.blocks, strict=True):
        J[row, :, atom] += block.T
    return J.reshape(-1, 3 * len(atoms))


def random_forces(atoms: Atoms, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(atoms), 3))


def loss_of(atoms: Atoms, descriptor, forces: np.ndarray):
    found = analyze(atoms, descriptor, k=None, null_tolerance=SCAN_NULL_TOLERANCE)
    return force_loss(atoms, forces, found)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_loss_and_slope_are_those_of_the_best_linear_model(boundary: str) -> None:
    atoms = BOUNDARIES[boundary]()
    soap = blunt()
    forces = random_forces(atoms)
    loss = loss_of(atoms, soap, forces)
    J = dense(soap, atoms)
    # The model with the least slopes among those with the least error; rigid forces taken off
    # beforehand cannot change it.
    slopes, *_ = np.linalg.lstsq(-J.T, forces.ravel(), rcond=1e-9)
    learned = (-J.T @ slopes).reshape(-1, 3)
    rest = forces - learned - loss.lost
    assert np.abs(learned).max() > 0.01
    assert loss.required_slope == pytest.approx(
        np.linalg.norm(slopes) * np.linalg.norm(J, 2), rel=1e-6
    )
    # What is neither learned nor lost moves the structure as a whole.
    assert np.ptp(rest, axis=0).max() < 1e-9 or not atoms.pbc.all()
    assert np.abs(rest.sum(axis=0) - forces.sum(axis=0)).max() < 1e-9
    assert np.abs(J @ rest.ravel()).max() < 1e-9 * np.abs(J).max()
    assert np.vdot(rest, loss.lost) == pytest.approx(0, abs=1e-9)


def test_forces_of_a_model_are_not_lost() -> None:
    atoms, soap = isolated(), blunt()
    J = dense(soap, atoms)
    slopes = np.random.default_rng(0).normal(size=len(J))
    loss = loss_of(atoms, soap, (-J.T @ slopes).reshape(-1, 3))
    assert loss.rms_force > 1e-4
    assert loss.irreducible < 1e-9 * loss.rms_force
    assert loss.required_slope <= np.linalg.norm(slopes) * np.linalg.norm(J, 2) * (1 + 1e-9)
    assert loss.net_force < 1e-12 * loss.rms_force * 3 * len(atoms) + 1e-14
    assert loss.net_torque is not None
    assert loss.net_torque < 1e-9


def test_net_force_and_torque_are_reported_and_not_lost() -> None:
    atoms, soap = isolated(), blunt()
    forces = random_forces(atoms)
    before = loss_of(atoms, soap, forces)
    push, turn = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.1, -0.7])
    arm = atoms.positions - atoms.positions.mean(axis=0)
    after = loss_of(atoms, soap, forces + push + np.cross(turn, arm))
    assert np.abs(before.lost - after.lost).max() < 1e-12
    assert before.irreducible > 0.1
    inertia = (arm**2).sum() * np.eye(3) - arm.T @ arm
    torque = np.cross(arm, forces).sum(axis=0) + inertia @ turn
    net = forces.sum(axis=0) + len(atoms) * push
    assert after.net_force == pytest.approx(np.linalg.norm(net))
    assert after.net_torque == pytest.approx(np.linalg.norm(torque))


def test_a_torque_on_a_crystal_is_not_rigid() -> None:
    atoms, soap = periodic(), blunt()
    loss = loss_of(atoms, soap, random_forces(atoms))
    assert loss.net_torque is None


def test_a_wire_turns_about_its_axis_only() -> None:
    atoms, soap = wire(), blunt()
    forces = random_forces(atoms)
    arm = atoms.positions - atoms.positions.mean(axis=0)
    turn = np.cross([0, 0, 0.7], arm)
    before, after = loss_of(atoms, soap, forces), loss_of(atoms, soap, forces + turn)
    assert np.abs(before.lost - after.lost).max() < 1e-12
    assert after.net_torque == pytest.approx(abs(np.cross(arm, forces + turn)[:, 2].sum()))
    across = loss_of(atoms, soap, forces + np.cross([0.7, 0, 0], arm))
    assert np.abs(before.lost - across.lost).max() > 1e-3
    slab = BOUNDARIES["slab"]()
    assert loss_of(slab, soap, random_forces(slab)).net_torque is None


def test_a_torque_on_a_molecule_in_a_periodic_box_is_lost() -> None:
    atoms = rattled(molecule("CH3OH"))
    atoms.cell, atoms.pbc = [20.0] * 3, True
    soap = SOAP(["O", "H", "C"], cutoff=4.0, n_max=6, l_max=4, threads=1)
    turn = np.cross([0.3, -0.4, 0.7], atoms.positions - atoms.positions.mean(axis=0))
    loss = loss_of(atoms, soap, turn)
    assert np.abs(loss.lost - turn).max() < 1e-12
    assert loss.between_fragments == pytest.approx(loss.rms_force)
    atoms.pbc = False
    assert not loss_of(atoms, soap, turn).lost.any()


def test_forces_between_molecules_that_do_not_see_each_other_are_lost() -> None:
    one, other = rattled(molecule("H2O")), rattled(molecule("H2O"), seed=1)
    other.positions += [0, 0, 20.0]
    both = one + other
    line = other.positions.mean(axis=0) - one.positions.mean(axis=0)
    pull = 0.5 * line / np.linalg.norm(line)
    forces = np.array([pull] * 3 + [-pull] * 3)
    soap = SOAP(["O", "H"], cutoff=4.0, n_max=6, l_max=4)
    loss = loss_of(both, soap, forces)
    assert np.abs(loss.lost - forces).max() < 1e-9
    assert loss.irreducible == pytest.approx(0.5 / np.sqrt(3))
    assert loss.required_slope < 1e-6


def test_curve_adds_mode_after_mode() -> None:
    atoms, soap = isolated(), blunt()
    forces = random_forces(atoms)
    loss = loss_of(atoms, soap, forces)
    _, values, modes = np.linalg.svd(dense(soap, atoms))
    values = np.append(values, np.zeros(len(modes) - len(values)))
    rigid = loss_of(atoms, SOAP(["He"], 3.0, 1, 1, centers=["C", "H", "O"]), forces)
    internal = rigid.lost.ravel()  # nothing is seen: all but the rigid part is lost
    for threshold, found in zip(THRESHOLDS, loss.curve, strict=True):
        below = modes[values < max(threshold, SCAN_NULL_TOLERANCE) * values[0]]
        assert found == pytest.approx(((below @ internal) ** 2).sum(), rel=1e-6)
    assert (np.diff(loss.curve) >= 0).all()
    assert loss.curve[-1] > 1.5 * loss.curve[0]
    assert loss.curve[0] == pytest.approx((loss.lost**2).sum())


def test_set_atoms_and_species_add_up() -> None:
    frames = [isolated(), rattled(molecule("CH4"), 0.3), rattled(molecule("H2O"), 0.3)]
    for seed, frame in enumerate(frames):
        frame.arrays["reference"] = random_forces(frame, seed)
    soap = blunt()
    result = scan(frames, soap, forces_key="reference")
    records = list(result.records())
    total = sum((record.force_loss**2).sum() for record in records)
    n_coordinates = 3 * sum(map(len, frames))
    assert total > 1
    assert result.irreducible_force_error == pytest.approx(np.sqrt(total / n_coordinates))
    thresholds, curve = result.curve
    assert thresholds[0] == 1e-10
    assert curve[0] == pytest.approx(result.irreducible_force_error)
    symbols = np.concatenate([frame.symbols for frame in frames])
    by_species = {s: 3 * (symbols == s).sum() * v**2 for s, v in result.species_loss.items()}
    assert set(by_species) == {"C", "H", "O"}
    assert sum(by_species.values()) == pytest.approx(total)
    for record, frame in zip(records, frames, strict=True):
        error = np.sqrt((record.lost_forces**2).mean())
        assert record.row["irreducible_force_error"] == pytest.approx(error)
        assert record.row["rms_force"] == pytest.approx(
            np.sqrt((frame.arrays["reference"] ** 2).mean())
        )
    assert "No model on these features does better" in result.summary()


def test_frames_are_counted() -> None:
    found = {"source": "frames", "n_atoms": 3, "rms_force": 1.0, "irreducible_force_error": 0.5}
    totals = Summary()
    for index, (ratio, n_null, cause, net_force, error) in enumerate(
        [
            (0.5, 0, None, 0.0, None),
            (0.0, 1, "symmetry", 0.1, None),
            (0.0, 3, "symmetry", 0.2, None),
            (0.1, 0, "truncation", 0.0, "a part of it"),
        ]
    ):
        states = {"ratio": ratio, "n_null": n_null, "cause": cause, "net_force": net_force}
        totals.add(row_of(**found, **states, index=index, error=error))
    totals.add(row_of(source="frames", index=4, error="torn"))
    assert (totals.n_frames, totals.n_failed, totals.n_analyzed) == (5, 2, 4)
    assert (totals.n_blind, totals.n_net) == (3, 2)
    assert totals.causes == {"symmetry": 2, "truncation": 1}
    assert totals.first_error == "frames@3: a part of it"


@pytest.mark.parametrize(
    ("n_null", "n_fragment", "n_near_null", "nearly"),
    [(0, 0, 1, 1), (1, 0, 1, 0), (0, 1, 1, 0), (1, 1, 1, 0), (0, 0, 0, 0)],
)
def test_frames_that_are_blind_but_for_small_errors(
    n_null: int, n_fragment: int, n_near_null: int, nearly: int
) -> None:
    states = {"n_null": n_null, "n_fragment": n_fragment, "n_near_null": n_near_null}
    totals = Summary.of([row_of(source="frames", index=0, n_atoms=3, ratio=0.0, **states)])
    assert totals.n_nearly == nearly


def test_nothing_is_said_of_what_was_not_analyzed() -> None:
    totals = Summary.of([row_of(source="frames", index=0, error="torn")])
    assert totals.summary() == "1 frame, 1 with an error."


@pytest.mark.parametrize(("net_force", "told"), [(5e-4, False), (2e-3, True)])
def test_net_forces_that_matter_are_told(net_force: float, told: bool) -> None:
    row = row_of(source="frames", index=0, n_atoms=3, ratio=0.5, n_null=0, net_force=net_force)
    totals = Summary()
    totals.add(row | {"rms_force": 2.0, "irreducible_force_error": 0.0})
    assert ("1 frame with a net force above 0.001 eV/Å" in totals.summary()) == told
    assert ("net force" in totals.summary()) == told


@pytest.mark.parametrize(("share", "shown"), [(0.0, "0 eV/Å"), (1e-6, "2e-06 eV/Å")])
def test_rounding_is_no_force_error(share: float, shown: str) -> None:
    row = row_of(source="frames", index=0, n_atoms=3, ratio=0.5, n_null=0, net_force=0.0)
    totals = Summary()
    totals.add(row | {"rms_force": 2.0, "irreducible_force_error": 2.0 * share})
    assert f"Irreducible force error: {shown} (the forces: 2 eV/Å" in totals.summary()
    assert ("Largest:" in totals.summary()) == (share > 1e-9)


def test_the_summary_names_the_worst_frames() -> None:
    """The smallest ratio and the largest force error, wherever in the data they are."""
    frames = [rattled(molecule("CH4"), 0.3, seed=seed) for seed in range(5)]
    for seed, frame in enumerate(frames):
        frame.arrays["reference"] = random_forces(frame, seed) * (10 if seed == 3 else 1)
    frames[1].positions = molecule("CH4").positions
    fine = scan(frames, SOAP(["C", "H"], 4.0, 6, 4), forces_key="reference")
    assert np.argmin(fine.column("ratio")) == 1
    assert f"{fine.rows[1]['ratio']:.2e}, in frames@1." in fine.summary()
    coarse = scan(frames, blunt(), forces_key="reference")
    errors = coarse.column("irreducible_force_error")
    assert np.argmax(errors) == 3
    assert f"Largest: {max(errors):.3g} eV/Å, in frames@3." in coarse.summary()


def test_without_loss_the_summary_says_so() -> None:
    frame = molecule("H2O")
    frame.arrays["reference"] = np.zeros((3, 3))
    found = scan([frame], SOAP(["H", "O"], 3.0, 4, 3), forces_key="reference").summary()
    assert "0 eV/Å" in found
    assert (
        "To first order, no force of a single frame is out of reach of a model on these features."
        in found
    )
    assert "does better" not in found


def test_other_scopes_have_the_same_forces() -> None:
    frame = isolated()
    frame.arrays["reference"] = random_forces(frame)
    soap = blunt()
    rows = [
        scan([frame], soap, scope=scope, forces_key="reference").rows[0]
        for scope in ("structure", "environment", "atom")
    ]
    assert len({row["sigma_min"] for row in rows}) == 3
    assert rows[0]["irreducible_force_error"] > 0.1
    for name in ("irreducible_force_error", "required_slope", "net_torque"):
        assert rows[1][name] == rows[2][name] == pytest.approx(rows[0][name], rel=1e-9)
    assert rows[0]["center"] is None
    assert isinstance(rows[1]["center"], int)


@pytest.mark.parametrize(
    ("text", "energy", "force"),
    [
        ("eV", 1, 1),
        ("kcal/mol", 0.0433641, 0.0433641),
        ("kcal/mol/Å", 0.0433641, 0.0433641),
        ("kJ/mol/nm", 0.01036427, 0.001036427),
        ("Ha/Bohr", 27.211386, 51.422067),
        ("Hartree", 27.211386, 27.211386),
        ("Ry/Bohr", 13.605693, 25.711034),
        ("meV/A", 1e-3, 1e-3),
    ],
)
def test_units(text: str, energy: float, force: float) -> None:
    assert unit_factors(text) == pytest.approx((energy, force), rel=1e-6)


@pytest.mark.parametrize("text", ["kcal", "eV/mile", "", "mol"])
def test_unknown_units_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`units` is "):
        unit_factors(text)


def test_references_are_converted() -> None:
    frame = isolated()
    frame.arrays["reference"] = random_forces(frame)
    frame.info["total"] = -10.0
    soap = blunt()
    there, here = (
        scan([frame], soap, forces_key="reference", energy_key="total", units=u).record(0)
        for u in ("kcal/mol", "eV")
    )
    assert there.row["energy"] == pytest.approx(-0.433641, rel=1e-6)
    assert np.allclose(there.lost_forces, 0.0433641 * here.lost_forces, rtol=1e-5, atol=0)
    assert here.row["irreducible_force_error"] > 0.1
    assert np.allclose(there.atoms.get_forces(), 0.0433641 * frame.arrays["reference"], rtol=1e-5)
    assert there.row["sigma_min"] == here.row["sigma_min"]


@needs_data
@pytest.mark.parametrize(
    ("basis", "error", "slope"),
    [((1, 0), 0.215, 2.3), ((2, 0), 0.123, None), ((2, 1), 2.7e-4, 73), ((8, 6), None, 6.8)],
)
def test_carbon(basis: tuple[int, int], error: float | None, slope: float | None) -> None:
    """docs/theory, fits: means over frames of the error, medians of the slope.

    The slopes there are in units of the last frame's sigma_max, and the error of the smallest basis
    leaves out directions for which a thin SVD has no vectors; .215 is with all of them.
    """
    n_max, l_max = basis
    soap = QUIPDescriptor(
        "soap cutoff=4 cutoff_transition_width=.5 atom_sigma=.4 normalise=F "
        f"n_max={n_max} l_max={l_max}",
        species=["C"],
    )
    result = scan(f"{CARBON}@::10", soap, forces_key="force", causes=False)
    errors = result.column("irreducible_force_error")
    if error is None:
        assert errors.max() < 1e-9
    else:
        assert errors.mean() == pytest.approx(error, rel=0.02)
    if slope is not None:
        sigma_max = result.column("sigma_max")
        slopes = result.column("required_slope") / sigma_max
        assert np.median(slopes) * sigma_max[-1] == pytest.approx(slope, rel=0.02)


@needs_data
def test_carbon_forces_and_ethanol() -> None:
    from ase.io import read

    soap = SOAP(["C", "H", "O"], cutoff=4.0, n_max=3, l_max=2)
    whole = scan(CARBON, soap, forces_key="force", causes=False)
    assert whole.rms_force == pytest.approx(0.935, rel=0.002)
    ethanol = scan(f"{ETHANOL}@:20", soap, units="kcal/mol", causes=False)
    forces = np.array([frame.get_forces() for frame in read(f"{ETHANOL}@:20")])
    assert ethanol.rms_force == pytest.approx(0.0433641 * np.sqrt((forces**2).mean()), rel=1e-6)
    assert ethanol.column("required_slope").min() > 0
