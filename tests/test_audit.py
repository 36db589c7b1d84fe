"""An audit: counts known from theory, descriptors with one fault each, and what is written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from dscribe.descriptors import ACSF

from ase_sensitivity import (
    SOAP,
    Audit,
    DScribeDescriptor,
    FiniteDifferenceDescriptor,
    analyze,
    audit,
    gradient,
    nearest_singular,
    write_audit,
)
from ase_sensitivity.auditing import run
from ase_sensitivity.auditing.blindness import environment_checks, pair_checks
from ase_sensitivity.auditing.check import Check
from ase_sensitivity.auditing.contract import contract_checks
from ase_sensitivity.auditing.cutoff import smoothness
from ase_sensitivity.auditing.reference import ENVIRONMENTS, PAIRS, blind_directions
from ase_sensitivity.auditing.result import compared
from ase_sensitivity.auditing.structures import crystals, molecules
from ase_sensitivity.auditing.symmetry import symmetry_checks
from ase_sensitivity.cli.app import main
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.testing import check_descriptor
from tests.structures import isolated, rattled

# Null directions at nu = 1, 2, 3 with an infinite basis (docs/theory).
COUNTS = {
    "S1": (6, 1, 0),
    "S2": (7, 1, 0),
    "S3": (7, 1, 0),
    "D(pi)": (8, 1, 0),
    "B3": (16, 7, 1),
    "T": (8, 0, 0),
}


def reference(nu: int = 2, l_max: int | None = None) -> SOAP:
    """A basis large enough for all reference environments, unless l_max is given."""
    if l_max is None:
        l_max = 4 if nu == 3 else 8
    return SOAP(
        ["H", "C", "O"],
        3.0,
        8,
        l_max,
        0.3,
        normalise=False,
        central_weight=0,
        centers=["C"],
        body_order=nu + 1,
    )


@pytest.fixture(scope="module")
def soap() -> Audit:
    """That of a SOAP with a small basis."""
    return audit(SOAP(["C", "H", "O"], 3.5, 6, 2, 0.4))


class TestReferenceEnvironments:
    @pytest.mark.parametrize("nu", [1, 2, 3])
    @pytest.mark.parametrize("name", COUNTS)
    def test_counts(self, name, nu):
        expected = COUNTS[name][nu - 1]
        assert len(blind_directions(ENVIRONMENTS[name], nu)) == expected
        (row,) = environment_checks(reference(nu), name, ENVIRONMENTS[name])
        assert (row.values["n_null"], row.verdict) == (expected, "ok")
        assert row.expected == f"{expected} at nu = {nu}"

    @pytest.mark.parametrize(("l_max", "rank"), [(1, 3), (2, 5), (3, 7), (4, 8), (5, 9)])
    def test_a_small_basis_is_a_finding(self, l_max, rank):
        (row,) = environment_checks(reference(2, l_max), "T", ENVIRONMENTS["T"])
        assert row.values["n_null"] == 9 - rank
        assert row.verdict == ("ok" if rank == 9 else "finding")
        assert ("truncation" in row.note) == (rank < 9)

    @pytest.mark.parametrize("name", ["S1", "B3"])
    def test_blind_directions_are_not_seen(self, name):
        atoms = ENVIRONMENTS[name]
        modes = blind_directions(atoms, 2)
        np.testing.assert_allclose(
            np.einsum("max,nax->mn", modes, modes), np.eye(len(modes)), atol=1e-12
        )
        assert np.abs(modes.sum(axis=1)).max() < 1e-12
        jacobian = reference().jacobian(atoms)
        assert np.abs(jacobian.apply(modes)).max() < 1e-9 * np.abs(jacobian.blocks).max()
        higher = reference(3).jacobian(atoms)
        assert np.abs(higher.apply(modes)).max() > 1e-3 * np.abs(higher.blocks).max()

    @pytest.mark.parametrize("nu", [1, 2, 3])
    @pytest.mark.parametrize("name", PAIRS)
    def test_pairs(self, name, nu):
        (row,) = pair_checks(reference(nu), name, PAIRS[name])
        assert row.verdict == "ok"
        assert row.values["same"] == (nu < 3)
        assert (row.values["distance"] > 1e-2) == (nu == 3)

    def test_symmetry_functions_see_angles(self):
        """With enough functions they resolve what nu = 2 can resolve at all."""
        g4 = [[0.1 * k, zeta, sign] for k in (1, 3, 6) for zeta in (1, 2, 4) for sign in (1, -1)]
        acsf = ACSF(
            species=["H", "C", "O"],
            r_cut=3.0,
            g2_params=[[e, r] for e in (1, 4) for r in (0.8, 1.2, 1.6)],
            g4_params=g4,
        )
        for name in ("S1", "S2", "S3", "D(pi)", "T"):
            (row,) = environment_checks(DScribeDescriptor(acsf), name, ENVIRONMENTS[name])
            assert (row.values["n_null"], row.verdict) == (COUNTS[name][1], "ok"), name
        radial = ACSF(species=["H", "C", "O"], r_cut=3.0, g2_params=[[4, 0.8], [4, 1.2], [4, 1.6]])
        for name in ("S1", "S2", "B3"):
            (row,) = environment_checks(DScribeDescriptor(radial), name, ENVIRONMENTS[name])
            assert (row.values["n_null"], row.verdict) == (COUNTS[name][0], "ok"), name

    def test_a_body_order_that_is_not_true(self):
        lying = Wrapped(reference(3))
        lying.body_order = 3
        (row,) = environment_checks(lying, "S1", ENVIRONMENTS["S1"])
        assert row.verdict == "failed"
        (row,) = pair_checks(lying, "X+/X-", PAIRS["X+/X-"])
        assert row.verdict == "failed"

    def test_an_unknown_body_order(self):
        unknown = Wrapped(reference(2))
        unknown.body_order = None
        (row,) = environment_checks(unknown, "S1", ENVIRONMENTS["S1"])
        assert (row.verdict, row.expected) == ("finding", "unknown")
        assert row.values["blind_at_nu_2"] < 1e-12
        (row,) = environment_checks(unknown, "T", ENVIRONMENTS["T"])
        assert (row.verdict, row.values["n_null"]) == ("ok", 0)
        assert pair_checks(unknown, "X+/X-", PAIRS["X+/X-"])[0].verdict == "finding"

    def test_the_layer_where_blindness_ends(self):
        (row,) = environment_checks(Layered(), "S1", ENVIRONMENTS["S1"])
        assert row.values["n_null_by_layer"] == [6, 1, 0, 0]
        assert "lifted at layer 3" in row.note
        (row,) = environment_checks(Layered((1, 2)), "B3", ENVIRONMENTS["B3"])
        assert row.values["n_null_by_layer"] == [16, 7, 1, 1]
        assert "1 remain in all layers together" in row.note
        (row,) = pair_checks(Layered(), "X+/X-", PAIRS["X+/X-"])
        first, second, third = row.values["distance_by_layer"]
        assert max(first, second) < 1e-12
        assert third > 1e-2

    def test_other_elements(self):
        silicon = SOAP(["Si"], 3.0, 4, 3, 0.5)
        for row in (
            *environment_checks(silicon, "S1", ENVIRONMENTS["S1"]),
            *pair_checks(silicon, "X+/X-", PAIRS["X+/X-"]),
        ):
            assert row.verdict == "not applicable"
            assert row.note == "it does not know C, H"


class Wrapped:
    """Another descriptor, parts of which can be changed."""

    def __init__(self, inner: Descriptor) -> None:
        self.inner = inner
        self.species = inner.species
        self.cutoff = inner.cutoff
        self.body_order: int | None = inner.body_order

    def features(self, atoms: Atoms) -> np.ndarray:
        return self.inner.features(atoms)

    def jacobian(self, atoms: Atoms):
        return self.inner.jacobian(atoms)


class Layered(Wrapped):
    """SOAPs of higher and higher body order."""

    n_layers = 3

    def __init__(self, layers: Sequence[int] = (3,)) -> None:
        super().__init__(reference(max(layers)))
        self.body_order = None

    def at_layers(self, layers: Sequence[int]) -> Layered:
        return Layered(layers)


class Wrong(Wrapped):
    """Has a wrong derivative by one coordinate, and that of the center so that the sum is zero."""

    def jacobian(self, atoms: Atoms):
        found = self.inner.jacobian(atoms)
        blocks = found.blocks.copy()
        blocks[:, 0] *= 1.001
        return replace(found, blocks=blocks)


class Steep(Wrapped):
    """Counts neighbors, which jump in and out."""

    def features(self, atoms: Atoms) -> np.ndarray:
        return np.hstack([self.inner.features(atoms), self._numbers(atoms)])

    def _numbers(self, atoms: Atoms) -> np.ndarray:
        distances = atoms.get_all_distances()
        return 0.01 * (distances < self.cutoff).sum(axis=1)[:, None]

    def jacobian(self, atoms: Atoms):
        found = self.inner.jacobian(atoms)
        none = np.zeros((*found.blocks.shape[:2], 1))
        return replace(
            found,
            features=np.hstack([found.features, self._numbers(atoms)]),
            blocks=np.concatenate([found.blocks, none], axis=2),
        )


def oriented(atoms: Atoms) -> np.ndarray:
    """Invariant under translations only."""
    vectors = atoms.positions - atoms.positions[:, None]
    return np.exp(-(vectors[:, :, :2] ** 2).sum(axis=2) / 4).sum(axis=1)[:, None] + np.exp(
        -(vectors**2).sum(axis=2)[:, :, None] / np.array([1.0, 2.0, 4.0, 8.0])
    ).sum(axis=1)


def anchored(atoms: Atoms) -> np.ndarray:
    """Depends on where the origin is."""
    return np.exp(-np.linalg.norm(atoms.positions, axis=1))[:, None]


class TestFaults:
    def test_a_sound_one(self, soap):
        assert soap.passed
        names = [check.name for check in soap.checks if check.group == "contract"]
        assert {"finite differences", "invariances", "sum rule", "smooth at the cutoff"} <= {*names}
        for name in names:
            assert soap.check(name).verdict == "ok", name

    def test_a_wrong_derivative(self):
        found = audit(Wrong(SOAP(["C", "H"], 3.0, 3, 2, 0.5)))
        assert not found.passed
        row = found.check("finite differences")
        assert (row.verdict, row.measured) == ("failed", "violated")
        assert "is off by" in row.note
        assert found.check("invariances").verdict == "ok"
        assert found.check("smooth at the cutoff").verdict == "ok"

    def test_not_invariant_under_rotations(self):
        found = audit(FiniteDifferenceDescriptor(oriented))
        row = found.check("invariances")
        assert row.verdict == "failed"
        assert "not invariant under rotation" in row.note
        assert found.check("reflection").verdict == "not applicable"
        assert found.check("finite differences").verdict == "ok"
        # No numbers where rotations are taken for rigid motions that nothing sees.
        assert "a rigid motion changes the features" in found.check("molecules").note
        assert found.check("smooth at the cutoff").verdict == "not applicable"

    def test_left_and_right(self):
        """Told apart by a triple product, which is no fault."""

        def handed(atoms: Atoms) -> np.ndarray:
            vectors = atoms.positions - atoms.positions[:, None]
            weights = np.exp(-(vectors**2).sum(axis=2)[:, :, None] / np.array([1.0, 2.0, 4.0]))
            means = np.einsum("ija,ijx->iax", weights, vectors)
            return np.hstack([np.linalg.det(means)[:, None], weights.sum(axis=1)])

        rows = contract_checks(FiniteDifferenceDescriptor(handed), {"molecule": isolated()})
        verdicts = {row.name: row.verdict for row in rows}
        assert verdicts["reflection"] == "finding"
        assert verdicts["invariances"] == "ok"

    def test_a_jump_at_the_cutoff(self):
        steep = Steep(SOAP(["C", "H"], 3.0, 3, 2, 0.5))
        (row,) = smoothness(steep)
        assert row.verdict == "failed"
        assert "features jump by" in row.note
        assert row.values["features"] > 1e-3
        assert smoothness(steep.inner)[0].verdict == "ok"

    def test_a_kink_at_the_cutoff(self):
        kink = SOAP(["C", "H"], 3.0, 3, 2, 0.5, cutoff_transition_width=0.0)
        assert smoothness(kink)[0].verdict == "failed"  # QUIP's, without a transition

        def linear(atoms: Atoms) -> np.ndarray:
            left = np.clip(3.0 - atoms.get_all_distances(), 0.0, None)
            return np.stack([left.sum(axis=1), (left**2).sum(axis=1)], axis=1)

        (row,) = smoothness(FiniteDifferenceDescriptor(linear, cutoff=3.0, step=1e-8))
        assert row.verdict == "finding"
        assert "forces are not continuous" in row.note

    def test_an_error_costs_one_row(self, monkeypatch):
        def broken(*_):
            raise ZeroDivisionError("out of order")

        monkeypatch.setattr(run.cutoff, "smoothness", broken)
        found = audit(SOAP(["H"], 3.0, 2, 1, 0.5))
        row = found.check("smooth at the cutoff")
        assert (row.verdict, row.note) == ("failed", "ZeroDivisionError: out of order")
        assert [check.name for check in found.of("failed")] == [row.name]

    def test_no_descriptor(self):
        with pytest.raises(TypeError, match="`descriptor` must be a Descriptor, not str"):
            audit("soap")
        with pytest.raises(TypeError, match="`full` is 'yes'"):
            audit(SOAP(["H"], 3.0, 2, 1, 0.5), full="yes")


class TestSumRule:
    """A Jacobian that rigid motions see gives no numbers."""

    @pytest.mark.parametrize("function", [anchored, oriented])
    @pytest.mark.parametrize("ask", [analyze, gradient, nearest_singular])
    def test_it_is_broken(self, function, ask):
        descriptor = FiniteDifferenceDescriptor(function)
        with pytest.raises(
            ValueError, match=rf"{function.__name__}.* breaks the sum rule in H2O2: a rig"
        ):
            ask(rattled(molecule("H2O2"), 0.1), descriptor)

    def test_in_an_environment(self):
        descriptor = FiniteDifferenceDescriptor(anchored)
        with pytest.raises(ValueError, match="breaks the sum rule in CH4O"):
            analyze(isolated(), descriptor, scope="environment", center=0)

    def test_beyond_the_cutoff(self):
        """Two molecules that are no fragments of their own, whatever the cutoff says."""
        pair = molecule("H2O") + molecule("H2O")
        pair.positions[3:] += (0, 0, 3.5)
        pair.rattle(0.05, seed=0)

        def far(atoms: Atoms) -> np.ndarray:
            distances = atoms.get_all_distances()[:, :, None]
            return np.exp(-((distances / np.array([1.0, 2.0, 4.0])) ** 2)).sum(axis=1)

        with pytest.raises(ValueError, match="breaks the sum rule in H4O2"):
            analyze(pair, FiniteDifferenceDescriptor(far, cutoff=2.0))
        assert analyze(pair, FiniteDifferenceDescriptor(far, cutoff=9.0)).n_trivial == 6

    def test_declared_otherwise(self):
        """Rotations count as seen then, and are compared with all other displacements."""
        atoms = rattled(molecule("H2O2"), 0.1)
        jacobian = replace(
            FiniteDifferenceDescriptor(oriented).jacobian(atoms), rotation_invariant=False
        )
        turning = Wrapped(FiniteDifferenceDescriptor(oriented))
        turning.jacobian = lambda _: jacobian  # type: ignore[method-assign]
        found = analyze(atoms, turning, causes=True)
        assert (found.n_trivial, found.n_coordinates) == (3, 12)
        # One of them is not seen either: that about the axis which `oriented` has.
        assert found.n_null == 1
        assert found.counts["unknown"] == 1


class TestSymmetry:
    def test_cubic_cells(self):
        """Perfect Si8 hides 15 directions, rock salt everything: 21."""
        soap = SOAP(["Si", "Na", "Cl"], 5.0, 6, 4, 0.5)
        cubic = {
            "Si": bulk("Si", cubic=True),
            "NaCl": bulk("NaCl", "rocksalt", 5.64, cubic=True),
        }
        (row,) = symmetry_checks(soap, "crystals", cubic)
        assert (row.values["symmetry"], row.values["predicted"]) == (36, 36)
        assert row.verdict == "ok"

    def test_more_than_symmetry(self, soap):
        """Methane has 2; a center alone, without the other atoms, sees less."""
        (row,) = symmetry_checks(reference(1), "molecules", {"CH4": molecule("CH4")})
        assert row.values["predicted"] == row.values["symmetry"] == 8
        (row,) = symmetry_checks(
            SOAP(["C", "H"], 4.0, 6, 0, 0.5), "molecules", {"CH4": rattled(molecule("CH4"))}
        )
        assert row.verdict == ("finding" if row.values.get("n_truncation") else "ok")
        assert (
            soap.check("molecules").values["predicted"]
            == soap.check("molecules").values["symmetry"]
        )

    def test_full_sets(self):
        assert len(molecules(True)) > 100
        assert set(molecules(False)) < set(molecules(True))
        assert all(len(atoms) > 1 for atoms in molecules(True).values())
        assert "Si (cubic)" in crystals(True)


class TestResult:
    def test_json_and_back(self, soap, tmp_path):
        soap.write(tmp_path / "audit.json")
        again = Audit.read(tmp_path / "audit.json")
        assert again == soap
        assert json.loads((tmp_path / "audit.json").read_text())["passed"] is True

    def test_a_table_on_one_screen(self, soap):
        lines = str(soap).splitlines()
        assert len(lines) < 50
        assert max(len(line) for line in lines[1:]) < 200
        assert lines[0].startswith("Audit of SOAP(")
        assert sum(line.startswith("-- ") for line in lines) == 5
        finding = soap.of("finding")[0]
        assert f"finding: {finding.name}: {finding.note}." in lines

    def test_numbers_that_json_does_not_know(self):
        check = Check(
            "a", "b", "c", "d", "ok", values={"x": math.nan, "y": [np.float64(1), math.inf]}
        )
        assert check.values == {"x": None, "y": [1.0, None]}
        with pytest.raises(ValueError, match="`verdict` is 'fine'"):
            Check("a", "b", "c", "d", "fine")

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "other"}', "nonsense", "[" * 9000])
    def test_files_that_are_none(self, text, tmp_path):
        (tmp_path / "audit.json").write_text(text)
        with pytest.raises(ValueError, match=r"audit\.json is no audit"):
            Audit.read(tmp_path / "audit.json")

    def test_a_comparison(self, soap):
        table = [line.split(" | ") for line in compared({"small": soap, "too": soap}).splitlines()]
        assert table[0] == ["| ", "small", "too |"]
        assert {len(row) for row in table} == {3}
        found = {row[0].removeprefix("| "): row[1] for row in table}
        assert found["S1"] == f"{soap.check('S1').values['n_null']} of 9"
        assert found["X+/X-"] == "the same"
        assert found["failed"] == "0"

    def test_the_page(self, soap, tmp_path):
        write_audit(soap, tmp_path / "audit.html")
        page = (tmp_path / "audit.html").read_text()
        for check in soap.checks:
            assert check.name in page
        assert "verdict attention" in page
        assert "<script" not in page
        with pytest.raises(TypeError, match="`audit` must be an Audit"):
            write_audit("audit.json", tmp_path / "audit.html")  # type: ignore[arg-type]


class TestCommand:
    TEXT = ("-d", "soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.5", "--species", "C,H")

    @pytest.fixture(autouse=True)
    def _in_a_directory(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_files_are_read_again(self, capsys, tmp_path):
        assert main(["audit", *self.TEXT, "-o", "small.json", "--html", "small.html"]) == 0
        told = capsys.readouterr().out
        found = Audit.read("small.json")
        assert told == f"{found}\n"
        assert found.check("B3").verdict == "not applicable"
        assert "Audit of a descriptor" in (tmp_path / "small.html").read_text()
        assert main(["audit", "small.json"]) == 0
        assert capsys.readouterr().out == compared({"small": found}) + "\n"

    def test_json(self, capsys):
        assert main(["audit", *self.TEXT, "--json"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        assert Audit.fromdict(json.loads(captured.out)).passed

    def test_a_failure_has_a_status(self, tmp_path, capsys):
        (tmp_path / "seen_from_here.py").write_text(
            "import numpy as np\n\n"
            "def anchored(atoms):\n"
            "    return np.exp(-np.linalg.norm(atoms.positions, axis=1))[:, None]\n"
        )
        assert main(["audit", "-d", "seen_from_here:anchored"]) == 1
        assert "failed: invariances: " in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "say which descriptor"),
            (["small.json"], "there is no file small.json"),
            (["small.json", *TEXT], "audits are compared alone"),
            ([*TEXT, "-o", "nowhere/audit.json"], "there is no folder nowhere"),
            ([*TEXT, "--html", "nowhere/audit.html"], "there is no folder nowhere"),
        ],
    )
    def test_mistakes(self, arguments, message, capsys):
        assert main(["audit", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_the_contract_in_parts():
    """What the audit asks for is what `check_descriptor` checks."""
    with pytest.raises(AssertionError, match="is off by"):
        check_descriptor(Wrong(SOAP(["C", "H", "O"], 3.0, 3, 2, 0.5)), isolated())
