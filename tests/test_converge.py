"""The sweep over bases: what one Jacobian gives for all l_max, and which basis is enough."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_sensitivity import SOAP, FeatureJacobian, QUIPDescriptor
from ase_sensitivity.auditing.reference import GENERIC, S1, around_carbon
from ase_sensitivity.dataset.basis.converge import converge
from ase_sensitivity.dataset.basis.nested import with_lower_l_max
from ase_sensitivity.dataset.basis.result import Convergence
from tests.structures import SHARED, TD, isolated, periodic, rattled

FAMILIES = {
    "plain": {"normalise": False},
    "normalised": {},
    "gto": {"radial_basis": "gto"},
    "two bodies": {"body_order": 2},
    "four bodies": {"body_order": 4, "normalise": False},
    "four bodies, normalised": {"body_order": 4},
}


class Alone:
    """A descriptor that nobody knows to be a SOAP."""

    def __init__(self, soap: SOAP) -> None:
        self.soap = soap
        self.species, self.cutoff, self.body_order = soap.species, soap.cutoff, soap.body_order

    def features(self, atoms: Atoms) -> np.ndarray:
        return self.soap.features(atoms)

    def jacobian(self, atoms: Atoms) -> FeatureJacobian:
        return self.soap.jacobian(atoms)


def with_forces(atoms: Atoms, seed: int = 0) -> Atoms:
    atoms = atoms.copy()
    forces = np.random.default_rng(seed).normal(size=(len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    return atoms


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("atoms", [isolated(), periodic()], ids=["molecule", "crystal"])
def test_a_lower_l_max_is_part_of_a_higher_one(name: str, atoms: Atoms) -> None:
    n_max = 2 if "four" in name else 3
    soap = SOAP(["C", "H"], 3.0, n_max, 3, **FAMILIES[name])
    jacobian = soap.jacobian(atoms)
    for l_max in range(4):
        small = soap.with_basis(n_max, l_max)
        assert small.basis_size == (n_max, l_max)
        truth = SOAP(["C", "H"], 3.0, n_max, l_max, **FAMILIES[name]).jacobian(atoms)
        found = with_lower_l_max(small, jacobian, 3).jacobian(atoms)
        assert len(small.orders) == small.n_features == truth.features.shape[1]
        for part in ("features", "blocks"):
            wanted = getattr(truth, part)
            scale = np.abs(wanted).max()
            assert scale > 0
            np.testing.assert_allclose(getattr(found, part), wanted, atol=1e-12 * scale, rtol=0)


def test_a_lower_n_max_is_no_part_of_a_higher_one() -> None:
    """That is why each n_max has a Jacobian of its own: not even the spaces are nested."""
    distances = np.linspace(0.8, 2.4, 20)
    pairs = [Atoms("CH", [(0, 0, 0), (r, 0, 0)]) for r in distances]
    options = {"central_weight": 0.0, "centers": ["C"], "body_order": 2, "normalise": False}
    for radial_basis in ("quip", "gto"):
        small, large = (
            np.array(
                [
                    SOAP(["H"], 3, n, 0, radial_basis=radial_basis, **options).features(a)[0]
                    for a in pairs
                ]
            )
            for n in (3, 4)
        )
        rest = small - large @ np.linalg.lstsq(large, small, rcond=None)[0]
        assert np.abs(rest).max() > 1e-4 * np.abs(small).max()


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("scope", ["structure", "environment"])
def test_the_sweep_equals_separate_computations(normalise: bool, scope: str) -> None:
    if scope == "structure":
        frames = [with_forces(isolated()), with_forces(rattled(molecule("CH4")), 1)]
        soap = SOAP(["C", "H", "O"], 5.0, 1, 0, normalise=normalise)
    else:
        frames = [around_carbon(GENERIC), around_carbon(1.2 * np.array(GENERIC))]
        frames = [with_forces(atoms) for atoms in frames]
        soap = SOAP(["H"], 3.0, 1, 0, atom_sigma=0.3, centers=["C"], normalise=normalise)
    sizes = {"n_max": (3, 4), "l_max": (0, 1, 3, 6), "scope": scope}
    swept = converge(frames, soap, **sizes)
    separate = converge(frames, lambda n, m: Alone(soap.with_basis(n, m)), **sizes)
    assert len(swept.rows) == 8
    for row, other in zip(swept.rows, separate.rows, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            if name not in ("cost", "front") and value is not None:
                assert value == pytest.approx(other[name], rel=1e-10, abs=1e-10), name
    assert swept.rows[-1]["required_slope"] > 0.1
    assert swept.rows[-1]["median_ratio"] > 1e-6
    assert (swept.resolving, swept.flat) == (separate.resolving, separate.flat)


def test_the_sweep_takes_one_jacobian_per_n_max(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[int, int]] = []
    whole = SOAP.jacobian

    def counted(soap: SOAP, atoms: Atoms) -> FeatureJacobian:
        computed.append(soap.basis_size)
        return whole(soap, atoms)

    monkeypatch.setattr(SOAP, "jacobian", counted)
    monkeypatch.setattr(SOAP, "stream", counted)
    monkeypatch.setattr("ase_sensitivity.dataset.basis.converge.costs", lambda *_: {})
    frames = [rattled(molecule("CH4"))]
    converge(frames, SOAP(["C", "H"], 3.0, 1, 0), n_max=(2, 4), l_max=range(5))
    assert computed == [(2, 4), (4, 4)]


def test_ranks_of_four_like_neighbors() -> None:
    """docs/theory: environment T, of nine internal directions."""
    quip = QUIPDescriptor(
        "soap cutoff=3.0 cutoff_transition_width=0.5 n_max=1 l_max=1 atom_sigma=0.3 n_Z=1 Z=6 "
        "n_species=1 species_Z=1 normalise=F central_weight=0"
    )
    for scope in ("environment", "structure"):
        found = converge([around_carbon(GENERIC)], quip, n_max=[8], l_max=range(1, 7), scope=scope)
        ranks = [9 - row["n_null"] for row in found.rows]
        assert ranks == [3, 5, 7, 8, 9, 9]
        assert [row["n_truncation"] for row in found.rows] == [6, 4, 2, 1, 0, 0]
        assert found.resolving == found.recommended == (8, 5)
        assert found.flat is None
        assert "n_max=8, l_max=5 is the smallest that truncates nothing." in str(found)


def test_symmetry_and_incompleteness_are_not_cured() -> None:
    """No basis lifts them, and none is asked to."""
    frames = [around_carbon(S1), around_carbon(TD)]
    soap = SOAP(["H"], 3.0, 1, 0, atom_sigma=0.3, centers=["C"])
    found = converge(frames, soap, n_max=[8], l_max=[4, 5, 6])
    last = found.rows[-1]
    assert (last["n_incompleteness"], last["n_symmetry"], last["n_truncation"]) == (1, 8, 0)
    assert found.resolving is not None


def test_the_slope_stops_falling() -> None:
    frames = [with_forces(rattled(molecule("CH4"), 0.1, seed), seed) for seed in range(3)]
    soap = SOAP(["C", "H"], 4.0, 1, 0, normalise=False)
    found = converge(frames, soap, n_max=(1, 4), l_max=(0, 1, 2, 4, 6))
    rows = {(row["n_max"], row["l_max"]): row for row in found.rows}
    assert rows[1, 0]["irreducible_force_error"] > 0.1
    assert found.flat is not None
    assert rows[found.flat]["frames_truncated"] == 0
    slope = rows[found.flat]["required_slope"]
    for (n, m), row in rows.items():
        if n >= found.flat[0] and m >= found.flat[1]:
            assert row["required_slope"] > 0.9 * slope
    before = [
        row["required_slope"]
        for basis, row in rows.items()
        if row["frames_truncated"] == 0 and row["n_features"] < rows[found.flat]["n_features"]
    ]
    assert before
    assert min(before) > slope
    assert found.recommended == found.flat
    ended = converge(frames, soap, n_max=(4,), l_max=(0, 1))
    assert ended.recommended is None
    assert "No candidate is where the required slope stops falling." in ended.summary()


def test_a_function_as_family_and_files(tmp_path) -> None:
    frames = [with_forces(rattled(molecule("CH4"), seed=seed), seed) for seed in range(4)]
    write(tmp_path / "data.xyz", frames)
    text = "soap cutoff=3 n_max={} l_max={} atom_sigma=0.5"
    seen: list[int] = []
    found = converge(
        f"{tmp_path / 'data.xyz'}@::2",
        lambda n, m: QUIPDescriptor(text.format(n, m), species=["C", "H"], native=False),
        n_max=[3],
        l_max=[1, 0],
        progress=seen.append,
    )
    direct = converge(frames[::2], SOAP(["C", "H"], 3.0, 1, 0), n_max=[3], l_max=[0, 1])
    assert seen == [1, 2]
    for row, other in zip(found.rows, direct.rows, strict=True):
        assert row["required_slope"] == pytest.approx(other["required_slope"], rel=1e-6)
        assert row["n_features"] == other["n_features"]


def test_quip_strings_that_are_not_ours() -> None:
    """One Jacobian per basis, and the same strings otherwise."""
    texts = ["soap cutoff=3 n_max=9 l_max=9 atom_sigma=0.5", "distance_2b cutoff=3 Z1=6 Z2=1"]
    both = QUIPDescriptor(texts, species=["C", "H"])
    small = both.with_basis(2, 1)
    assert small.specification[0].count("n_max=2 l_max=1") == 1
    assert small.specification[1] == both.specification[1]
    found = converge([rattled(molecule("CH4"))], both, n_max=[2], l_max=[0, 1])
    assert [row["n_failed"] for row in found.rows] == [0, 0]
    assert found.rows[0]["n_features"] < found.rows[1]["n_features"]


def test_a_structure_that_fails_is_counted() -> None:
    broken = molecule("CH4")
    broken.positions[1] = np.inf
    frames = [rattled(molecule("CH4")), broken]
    found = converge(frames, SOAP(["C", "H"], 3.0, 1, 0), n_max=[4], l_max=[2])
    assert (found.rows[0]["n_frames"], found.rows[0]["n_failed"]) == (2, 1)
    assert "1 of 2 structures had an error." in found.summary()
    with pytest.raises(ValueError, match=r"no structure could be evaluated: .*not finite"):
        converge([broken], SOAP(["C", "H"], 3.0, 1, 0))


def test_one_basis() -> None:
    found = converge([molecule("CH4")], SOAP(["C", "H"], 3.0, 1, 0), n_max=2, l_max=np.int64(1))
    assert [(row["n_max"], row["l_max"]) for row in found.rows] == [(2, 1)]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_max": [0]}, ValueError, "`n_max` has 0"),
        ({"l_max": [1.5]}, ValueError, "`l_max` has 1.5"),
        ({"l_max": []}, ValueError, "`l_max` has no values"),
        ({"l_max": "2"}, ValueError, "`l_max` has '2'"),
        ({"n_max": [None]}, ValueError, "`n_max` has None"),
        (
            {"family": QUIPDescriptor("distance_2b cutoff=4 Z1=6 Z2=1")},
            ValueError,
            "`n_max` is no option of .*distance_2b",
        ),
        ({"scope": "all"}, ValueError, "`scope` is 'all'"),
        ({"tolerance": -1.0}, ValueError, "`tolerance` is -1.0"),
        ({"family": 3}, TypeError, "`family` is 3"),
        ({"family": SOAP}, TypeError, "`family`"),
        ({"family": lambda n, m: None}, TypeError, "Descriptor"),
        ({"frames": []}, ValueError, "no frames"),
    ],
)
def test_bad_arguments(options: dict, error: type[Exception], message: str) -> None:
    arguments = {"frames": [molecule("CH4")], "family": SOAP(["C", "H"], 3.0, 1, 0)} | options
    with pytest.raises(error, match=message):
        converge(arguments.pop("frames"), arguments.pop("family"), **arguments)


@pytest.fixture(scope="module")
def carbon() -> Convergence:
    path = SHARED / "carbon_reduced_100.xyz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    soap = SOAP(["C"], 4.0, 1, 0, atom_sigma=0.4, normalise=False)
    return converge(f"{path}@::20", soap, n_max=(1, 2, 8), l_max=(0, 1, 2), forces_key="force")


def test_carbon(carbon: Convergence) -> None:
    """What small bases lose, and large ones do not."""
    rows = {(row["n_max"], row["l_max"]): row for row in carbon.rows}
    error = {basis: row["irreducible_force_error"] for basis, row in rows.items()}
    assert error[1, 0] > error[2, 0] > 0.1
    assert 1e-5 < error[2, 1] < 1e-3
    assert max(error[2, 2], error[8, 2]) < 1e-9
    assert carbon.resolving == (2, 2)
    assert rows[2, 2]["required_slope"] > 3 * rows[8, 2]["required_slope"]
