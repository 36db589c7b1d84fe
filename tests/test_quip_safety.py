"""What QUIP would crash on, hang on or get silently wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_sensitivity import QUIPDescriptor, analyze
from tests.structures import fit_gap, isolated

GOOD = {
    "cutoff": "4",
    "n_max": "4",
    "l_max": "3",
    "atom_sigma": "0.5",
    "n_Z": "2",
    "Z": "{1 6}",
    "n_species": "2",
    "species_Z": "{1 6}",
}


def soap_with(**changes: str | None) -> str:
    arguments = {key: value for key, value in (GOOD | changes).items() if value is not None}
    return "soap " + " ".join(f"{key}={value}" for key, value in arguments.items())


BAD_ARGUMENTS = [
    {"n_max": "0"},
    {"n_max": "-1"},
    {"n_max": "2.5"},
    {"n_max": "abc"},
    {"n_max": "60"},
    {"n_max": "100000"},
    {"n_max": None},
    {"l_max": "-1"},
    pytest.param({"l_max": "200"}, marks=pytest.mark.slow),
    {"l_max": "1000000"},
    {"atom_sigma": "0"},
    {"atom_sigma": "-1"},
    {"atom_sigma": "nan"},
    {"atom_sigma": None},
    {"cutoff": "0"},
    {"cutoff": "-1"},
    {"cutoff": "inf"},
    {"cutoff": "nan"},
    {"cutoff": "abc"},
    {"cutoff": None},
    {"cutoff_transition_width": "-1"},
    {"central_weight": "nan"},
    {"n_Z": "3"},
    {"n_Z": None},
    {"Z": None},
    {"Z": "{1 x}"},
    {"n_species": "0", "species_Z": None},
    {"n_species": "1"},
    {"species_Z": "{1 1}"},
    {"species_Z": "{1 200}"},
    {"species_Z": "{a b}"},
    {"normalise": "X"},
    {"nu_R": "7"},
    {"nu_S": "-1"},
    {"Z_mix": "T"},
    {"Z_mix": "T", "K": "0"},
    {"R_mix": "T", "K": "-1"},
    {"basis_error_exponent": "-5"},
]


@pytest.mark.parametrize("native", [True, False], ids=["ours", "QUIP"])
@pytest.mark.parametrize("changes", BAD_ARGUMENTS, ids=str)
def test_bad_soap_arguments(changes, native):
    if native and changes.get("l_max") == "200":
        pytest.skip("only QUIP loses all digits here")
    with pytest.raises(ValueError, match=r".") as caught:
        QUIPDescriptor(soap_with(**changes), native=native).jacobian(molecule("CH4"))
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "foo",
        "=",
        "soap {",
        "}{",
        "soap cutoff=",
        "soap soap",
        "soap",
        "x" * 5000,
        "water_dimer cutoff=4",
        "soap cutoff=4 rdf",
        "bispectrum_so4 cutoff=3 j_max=-1",
        "bispectrum_so4 cutoff=3 j_max=5000",
        "bispectrum_so3 cutoff=3 n_max=0 l_max=3",
        "cosnx cutoff=3 n_max=3 l_max=-3",
        "rdf cutoff=3 n_gauss=0",
        "coordination cutoff=-1",
        "distance_2b cutoff=-1",
        "angle_3b cutoff=nan",
        "soap_turbo n_species=0",
    ],
)
def test_bad_strings(text):
    with pytest.raises(ValueError, match=r"."):
        QUIPDescriptor(text).jacobian(molecule("CH4"))


def test_wrong_types():
    with pytest.raises(TypeError, match="is a string, not int"):
        QUIPDescriptor([3])
    with pytest.raises(ValueError, match="lists no descriptor"):
        QUIPDescriptor([])
    with pytest.raises(TypeError, match="`species` must be a list"):
        QUIPDescriptor(soap_with(), species="CH")
    with pytest.raises(TypeError, match="`specification` is 3"):
        QUIPDescriptor(3)
    with pytest.raises(ValueError, match="must be chemical symbols"):
        QUIPDescriptor(soap_with(), species=["C", "Qq"])
    with pytest.raises(ValueError, match="cannot be filled in for rdf"):
        QUIPDescriptor("rdf cutoff=3", species=["C"])


def two(second, **kwargs) -> Atoms:
    return Atoms("CH", [(0, 0, 0), second], **kwargs)


BAD_STRUCTURES = {
    "no atoms": (Atoms(), "no atoms"),
    "nan": (two((np.nan, 0, 0)), "position of atom 1"),
    "infinite": (two((np.inf, 0, 0)), "position of atom 1"),
    "on top": (two((0, 0, 0)), "atoms 0 and 1 are 0 Å apart"),
    "almost on top": (two((1e-4, 0, 0)), "on top of each other"),
    "on top of an image": (two((3, 3, 0), cell=[3, 3, 3], pbc=True), "on top of each other"),
    "negative number": (Atoms(numbers=[6, -1], positions=[(0, 0, 0), (1, 0, 0)]), "number -1"),
    "number 119": (Atoms(numbers=[6, 119], positions=[(0, 0, 0), (1, 0, 0)]), "number 119"),
    "no cell": (two((1, 0, 0), pbc=True), "zero or linearly dependent"),
    "one cell vector": (two((1, 0, 0), cell=[3, 0, 0], pbc=True), "zero or linearly dependent"),
    "coplanar": (
        two((1, 0, 0), cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True),
        "linearly dependent",
    ),
    "flat": (
        two((1, 0, 0), cell=[[3, 0, 0], [0, 3, 0], [3, 3, 1e-8]], pbc=True),
        "linearly dependent",
    ),
    "nan cell": (two((1, 0, 0), cell=[3, np.nan, 3], pbc=True), "is not finite"),
    "vast cell": (two((1, 0, 0), cell=[1e6, 1e6, 1e6], pbc=True), "volume"),
    "tiny cell": (Atoms("C", cell=[0.02, 0.02, 0.02], pbc=True), "neighbors"),
}


@pytest.mark.parametrize("native", [True, False], ids=["ours", "QUIP"])
@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_bad_structures(name, native):
    atoms, message = BAD_STRUCTURES[name]
    with pytest.raises(ValueError, match=message):
        QUIPDescriptor(soap_with(), native=native).jacobian(atoms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (soap_with(averge="T"), "did you mean `average`"),
        (soap_with(cutoff_transition_widht="1"), "did you mean `cutoff_transition_width`"),
        (soap_with(centrall_weight="0"), "did you mean `central_weight`"),
        ("bispectrum_so3 cutof=3 n_max=3 l_max=3", "`cutoff` is missing"),
        (soap_with(atom_sigma=None), "`atom_sigma` is missing"),
    ],
)
def test_misspelt_and_missing_options(text, message):
    """QUIP ignores what it does not know, and sees nothing without a cutoff."""
    with pytest.raises(ValueError, match=message):
        QUIPDescriptor(text)


def test_options_of_a_gap_are_let_through():
    QUIPDescriptor(soap_with(zeta="4", delta="0.1", n_sparse="10", covariance_type="dot_product"))


def test_not_atoms():
    with pytest.raises(TypeError, match=r"`atoms` must be an ase.Atoms, not list"):
        analyze([], QUIPDescriptor(soap_with()))  # type: ignore[arg-type]


def test_absurd_cutoff():
    atoms = Atoms("CH", [(0, 0, 0), (1, 0, 0)], cell=[3, 3, 3], pbc=True)
    with pytest.raises(ValueError, match="reduce the cutoff"):
        QUIPDescriptor(soap_with(cutoff="1000")).jacobian(atoms)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("C"),
        two((1e9, 0, 0)),
        two((1, 0, 0), cell=[1e6, 1e6, 1e6]),
        two((1, 0, 0), cell=[[0, 3, 0], [3, 0, 0], [0, 0, 3]], pbc=True),
        two((1, 0, 0), cell=[[3, 0, 0], [300, 3, 0], [0, 0, 3]], pbc=True),
        Atoms("CX", [(0, 0, 0), (1, 0, 0)]),
    ],
    ids=["single", "far apart", "vast box", "left-handed", "skew", "ghost"],
)
def test_odd_structures_that_are_fine(atoms):
    jacobian = QUIPDescriptor(soap_with()).jacobian(atoms)
    assert np.isfinite(jacobian.blocks).all()
    jacobian.check_finite()


def test_skew_cell_has_the_neighbors_of_the_straight_one():
    straight = two((1, 0, 0), cell=[[3, 0, 0], [0, 3, 0], [0, 0, 3]], pbc=True)
    skew = two((1, 0, 0), cell=[[3, 0, 0], [30, 3, 0], [0, 0, 3]], pbc=True)
    soap = QUIPDescriptor(soap_with())
    np.testing.assert_allclose(soap.features(skew), soap.features(straight), atol=1e-12)


@pytest.mark.slow
def test_bispectra_do_not_disturb_each_other():
    """QUIP keeps one table of coefficients for both and does not notice a wrong one."""
    script = textwrap.dedent(
        """
        import sys
        from ase.build import molecule
        from ase_sensitivity import QUIPDescriptor
        for text in sys.argv[1:]:
            last = QUIPDescriptor(text).features(molecule("CH3OH"))
        print(float(last.sum()))
        """
    )
    so3, so4 = "bispectrum_so3 cutoff=3 n_max=2 l_max=2", "bispectrum_so4 cutoff=3 j_max=2"

    def last(*texts: str) -> float:
        run = [sys.executable, "-c", script, *texts]
        return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    assert last(so3, so4) == pytest.approx(last(so4), rel=1e-12)
    assert last(so4, so3) == pytest.approx(last(so3), rel=1e-12)


class TestGAP:
    @pytest.fixture(scope="class")
    @staticmethod
    def gap(tmp_path_factory) -> Path:
        """A GAP potential file, fitted by QUIP's own program on a few EMT frames."""
        folder = tmp_path_factory.mktemp("gap")
        fit_gap(
            folder / "gp.xml",
            "distance_2b cutoff=3.0 Z1=6 Z2=1 covariance_type=ard_se delta=1 "
            "theta_uniform=1.0 sparse_method=uniform n_sparse=5 add_species=F : "
            "soap cutoff=3.0 n_max=3 l_max=2 atom_sigma=0.5 covariance_type=dot_product "
            "zeta=2 delta=1 n_sparse=10 sparse_method=cur_points add_species=T",
        )
        return folder / "gp.xml"

    def test_descriptors_are_read(self, gap):
        descriptor = QUIPDescriptor.from_gap(gap)
        kinds = [text.split()[0] for text in descriptor.specification]
        assert kinds == ["distance_2b", "soap", "soap", "soap"]
        found = analyze(isolated(), descriptor)
        soap = analyze(
            isolated(),
            QUIPDescriptor(
                "soap cutoff=3.0 n_max=3 l_max=2 atom_sigma=0.5", species=["C", "O", "H"]
            ),
        )
        assert found.n_trivial == 6
        # More features resolve no less.
        assert (found.singular_values >= soap.singular_values * (1 - 1e-9)).all()
        assert found.sigma_max > soap.sigma_max

    def test_not_a_gap_file(self, tmp_path):
        (tmp_path / "other.xml").write_text("<a><b/></a>")
        (tmp_path / "no.xml").write_text("soap cutoff=3")
        with pytest.raises(ValueError, match="no <descriptor>"):
            QUIPDescriptor.from_gap(tmp_path / "other.xml")
        with pytest.raises(ValueError, match="is not an XML file"):
            QUIPDescriptor.from_gap(tmp_path / "no.xml")
        with pytest.raises(FileNotFoundError):
            QUIPDescriptor.from_gap(tmp_path / "absent.xml")
