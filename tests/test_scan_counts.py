"""Frames are counted, and their errors told, in one way everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from ase_sensitivity import SOAP, scan
from ase_sensitivity.dataset.record import FrameRecord, row_of
from ase_sensitivity.dataset.records import MemoryStore
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.report.verdict import verdict
from tests.structures import rattled


def said(result: ScanResult) -> str:
    found = verdict(result.totals)
    return "\n".join([found.headline, *found.sentences])


def test_near_null_directions_count_wherever_frames_are_counted() -> None:
    """The coordinates of ethane are symmetric to six digits only."""
    structures = [molecule("CH4"), molecule("C2H6"), rattled(molecule("CH4"))]
    result = scan(structures, SOAP(["C", "H"], 4.0, 6, 4))
    assert list(result.column("n_null")) == [2, 0, 0]
    assert list(result.column("n_near_null")) == [0, 1, 0]
    lines = result.summary().splitlines()
    assert lines[1].startswith("2 of 3 have directions along which, to first order, no feature")
    assert lines[1].endswith("; in 1 of these, if small errors of the geometry are neglected.")
    assert lines[3].startswith("2 frames because of symmetry")
    assert "2 of 3 frames have directions that are invisible because of symmetry" in said(result)
    assert result.totals.todict()["causes"]["symmetry"] == 2


def test_a_frame_with_two_causes_counts_for_both() -> None:
    store = MemoryStore({})
    common = {"formula": "H", "n_atoms": 1, "ratio": 0.0}
    both = {"cause": "incompleteness", "n_null": 2, "n_incompleteness": 1, "n_truncation": 1}
    one = {"cause": "truncation", "n_null": 1, "n_truncation": 1}
    for index, given in enumerate((both, one)):
        row = row_of(source="a", index=index, **common, **given)
        store.write([FrameRecord(row, molecule("H2"))])
    result = ScanResult(store)
    assert "2 of 2 have directions" in result.summary()
    for number, cause in ((1, "incompleteness"), (2, "truncation")):
        assert f"{number} frame{'s' * (number > 1)} because of {cause}" in result.summary()
        assert result.totals.todict()["causes"][cause] == number
    assert "1 of 2 frames has directions that are invisible because of incomp" in said(result)
    assert "All 2 frames have directions that are invisible because of trunc" in said(result)
    assert "blind to some motion in all 2 frames" in said(result)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_lost_forces_that_are_rounding_are_zero(scale: float) -> None:
    structures = [rattled(molecule("CH3OH"), seed=seed) for seed in range(3)]
    for seed, atoms in enumerate(structures):
        atoms.arrays["f"] = scale * np.random.default_rng(seed).normal(size=(6, 3))
    result = scan(structures, SOAP(["C", "H", "O"], 4.0, 6, 4), forces_key="f")
    assert list(result.column("irreducible_force_error")) == [0, 0, 0]
    assert result.irreducible_force_error == 0
    assert result.species_loss == {"C": 0, "H": 0, "O": 0}
    assert result.curve[1][0] == 0
    assert (result.record(0).lost_forces == 0).all()
    assert result.totals.todict()["worst"]["irreducible_force_error"]["value"] == 0
