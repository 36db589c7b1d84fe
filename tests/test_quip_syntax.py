"""QUIP's strings as people write them mean what they mean to quippy, or are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from ase_sensitivity import QUIPDescriptor
from ase_sensitivity.descriptors.quip import quip
from tests.quip_strings import STRINGS
from tests.structures import rattled

PLAIN = "soap cutoff=4 n_max=3 l_max=2 atom_sigma=0.5 n_species=2 species_Z={6 14}"


def carbide() -> Atoms:
    return rattled(bulk("SiC", "zincblende", 4.36, cubic=True), 0.1, seed=1)


def quippys(text: str, atoms: Atoms) -> np.ndarray:
    from quippy.descriptors import Descriptor

    return np.asarray(Descriptor(text).calc(atoms)["data"])


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=1e-11)


@pytest.mark.parametrize(
    "text",
    [
        f"{PLAIN} n_Z=2 Z={{6 14}} average",
        f"{PLAIN} n_Z=2 Z={{6 14}} average=",
        f"{PLAIN} n_Z=2 Z={{6 14}} average add_species normalise=f",
        f"{PLAIN} n_Z=2 Z={{6 14}} AVERAGE=True N_max=2",
        "SOAP Cutoff=4 N_MAX=3 L_Max=2 ATOM_GAUSSIAN_WIDTH=0.5d0 normalize=F",
        "soap=T, cutoff = 4, n_max=4, n_max=3, l_max=2, atom_sigma =0.5",
        f"{PLAIN} Z=0 normalise=F",
        f"{PLAIN} Z=0 normalise=F central_reference_all_species",
        f"{PLAIN} n_Z=2 Z={{0 14}}",
        f"{PLAIN} normalise=F",
        "soap cutoff=4 n_max=3 l_max=2 atom_sigma=0.5 n_species=1 species_Z=0 Z=14",
        "soap cutoff=4 n_max=3 l_max=2 atom_sigma=0.5 n_species=2 species_Z='6 14' Z=\"6\"",
        "soap cutoff=4 n_max=3 l_max=2 atom_sigma=0.5 n_species=2 species_Z={6, 14}",
        "soap cutoff=4 n_max=3 \\ l_max=2 atom_sigma=0.5 \\",
        "average=F normalise=T soap cutoff=4 n_max=3 l_max=2 atom_sigma=0.5",
    ],
)
def test_as_quippy_reads_it(text):
    assert_same(QUIPDescriptor(text).features(carbide()), quippys(text, carbide()))


def test_all_centers_of_other_elements():
    """`Z=0` takes centers that are not among the species, whose own density is left out."""
    atoms = carbide()
    atoms.symbols[0] = "Ge"
    text = f"{PLAIN} Z=0 normalise=F"
    assert_same(QUIPDescriptor(text).features(atoms), quippys(text, atoms))
    assert QUIPDescriptor(text).soap is not None
    assert QUIPDescriptor(text).elements is None
    assert QUIPDescriptor(PLAIN).elements is None  # so says no `Z`


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        (PLAIN.replace("{6 14}", "{{6 14}}"), PLAIN),
        (PLAIN.replace("{6 14}", "{ {6  14 } }"), PLAIN),
        (PLAIN.replace(" l_max", " \\\n\tl_max"), PLAIN),
        (PLAIN.replace(" l_max", "\\\nl_max"), PLAIN),
        (f"gap={{{PLAIN}}}", PLAIN),
    ],
)
def test_as_gap_fit_is_called(written, plain):
    assert QUIPDescriptor(written).specification == QUIPDescriptor(plain).specification


PAIRS, TRIPLETS = "distance_2b cutoff=4.0 add_species=T", "angle_3b cutoff=2.5"


@pytest.mark.parametrize(
    "text",
    [
        f"{PAIRS} : {TRIPLETS} : {PLAIN}",
        f"{PAIRS} :{TRIPLETS}:{PLAIN}",
        f"{PAIRS};{TRIPLETS} ;{PLAIN} :",
        f"gap={{{PAIRS} : {TRIPLETS} : {PLAIN}}}",
        f"gap={{ {{{PAIRS}}}: \\\n {{{TRIPLETS}}}: \\\n\t{{{PLAIN}}} }}",
        f"{{{PAIRS}}}:{{{TRIPLETS}}}:{{{PLAIN}}}",
    ],
)
def test_several_in_one_string(text):
    assert QUIPDescriptor(text).specification == (PAIRS, TRIPLETS, PLAIN)


@pytest.mark.parametrize("value", ["liquid:5:bulk:6", "{liquid:5:bulk:6}", "{{liquid:5:bulk:6}}"])
def test_colons_that_do_not_separate(value):
    text = f"{PLAIN} config_type_n_sparse={value} zeta=2"
    assert QUIPDescriptor(text).specification == (
        f"{PLAIN} config_type_n_sparse=liquid:5:bulk:6 zeta=2",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{PLAIN} averaged", "`averaged` .* is neither an option that can stand alone"),
        (f"{PLAIN} average=.TRUE.", "`average` is '.TRUE.' but must be T or F"),
        (f"{PLAIN} zeta", "`zeta` has no value"),
        ("soap cutoff= n_max=3 l_max=2 atom_sigma=0.5", "`cutoff` has no value"),
        ("soap=F cutoff=4 n_max=3 l_max=2 atom_sigma=0.5", "must name one of"),
        (f"{PAIRS} : foo cutoff=3", "foo cutoff=3' must name one of"),
        (PLAIN.replace("{6 14}", "{6,14}"), "`species_Z` has '6,14'"),
        (PLAIN.replace("{6 14}", "{0 14}"), "`species_Z` has '0'"),
        (f"{PLAIN} Z={{6", "cannot read '{'"),
    ],
)
def test_refused_by_name(text, message):
    with pytest.raises(ValueError, match=message):
        QUIPDescriptor(text)


@pytest.mark.parametrize(("source", "text"), STRINGS)
def test_strings_of_the_field(source, text, monkeypatch):
    """As many features as quippy, of the same norm, or refused by both."""
    # quippy reads each of them here without a crash
    monkeypatch.setattr(quip, "refuse_crashes", lambda left: None)
    atoms = rattled(bulk("SiC", "zincblende", 4.36), 0.1, seed=1)
    try:
        expected = quippys(text, atoms)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"."):
            QUIPDescriptor(text)
        return
    assert_same(QUIPDescriptor(text).features(atoms), expected)
