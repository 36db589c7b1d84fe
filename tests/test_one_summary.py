"""Whoever sums up a scan says the same: scan, check, report and converge, in words and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from ase_sensitivity import SOAP
from ase_sensitivity.causes.cause import NULL_CAUSES, SPURIOUS
from ase_sensitivity.cli.app import main
from ase_sensitivity.dataset.basis.converge import converge
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.summary import LARGE_LOSS, NET_FORCE
from ase_sensitivity.report.verdict import verdict
from tests.structures import rattled

NO_LIMIT = 1_000_000
TORN = Atoms("CH4", np.zeros((5, 3)))  # all atoms at one place
APART = molecule("CH4") + molecule("CH4")
APART.positions[5:] += (9.0, 0.3, 0.2)

SETS: dict[str, tuple[list[Atoms], int, int, Callable[[Atoms], np.ndarray] | None]] = {
    "symmetric, generic": ([molecule("CH4"), rattled(molecule("CH4"))], 4, 3, None),
    "several causes": ([molecule("CH4"), molecule("C2H6"), rattled(molecule("C2H6"))], 1, 1, None),
    "a frame fails": ([TORN, rattled(molecule("CH4")), rattled(molecule("CH4"))], 2, 0, None),
    "fragments": ([APART, rattled(APART)], 4, 3, lambda atoms: atoms.positions**2),
    "an element is unseen": ([molecule("CH3OH"), rattled(molecule("CH4"))], 4, 3, None),
    "forces": (
        [rattled(molecule("CH4"), seed=seed) for seed in range(4)],
        1,
        0,
        lambda atoms: np.sin(3 * atoms.positions),
    ),
    "nothing is lost, with small net forces": (
        [rattled(molecule("CH4"), seed=seed) for seed in range(3)],
        6,
        4,
        lambda atoms: np.sin(3 * atoms.positions) - np.sin(3 * atoms.positions).mean(axis=0) + 4e-4,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_all_agree(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frames, n_max, l_max, forces = SETS[name]
    for frame in frames:
        if forces is not None:
            frame.arrays["f"] = forces(frame)
    write("set.xyz", frames, format="extxyz")
    soap = f"soap cutoff=4 n_max={n_max} l_max={l_max} atom_sigma=0.5"
    options = ["set.xyz", "--species", "C,H", "-d", soap]
    options += [] if forces is None else ["--forces-key", "f"]

    def said(*arguments: str) -> str:
        main([*arguments])
        return capsys.readouterr().out

    scanned = json.loads(said("scan", *options, "-o", "set.db", "--json"))
    limited = ["failed", "unseen", "truncation", "incompleteness"]
    limited += [] if forces is None else ["irreducible", "slope", "net-force"]
    limits = [f"--max-{word}={NO_LIMIT}" for word in limited]
    checked = {
        one["name"]: one["value"]
        for one in json.loads(said("check", *options, *limits, "--json"))["checks"]
    }
    result = ScanResult.read("set.db")
    page = verdict(result.totals)
    seen = result.summary()
    (basis,) = converge(
        "set.xyz",
        SOAP(["C", "H"], 4.0, 1, 0, atom_sigma=0.5),
        n_max=n_max,
        l_max=l_max,
        forces_key=None if forces is None else "f",
    ).rows
    _same_counts(scanned, checked, basis, result, page.sentences, seen)
    if forces is not None:
        _same_forces(scanned, checked, basis, page, seen)


def _same_counts(
    scanned: dict[str, Any],
    checked: dict[str, float],
    basis: dict[str, Any],
    result: ScanResult,
    sentences: tuple[str, ...],
    seen: str,
) -> None:
    rows = [row for row in result.rows if row["error"] is None]
    assert scanned["n_analyzed"] == len(rows)
    assert scanned["n_failed"] == checked["failed"] == basis["n_failed"] == len(result) - len(rows)
    assert scanned["n_unseen"] == checked["unseen"] == sum(bool(row["unseen"]) for row in rows)
    for cause in NULL_CAUSES:
        number = sum(bool(row[f"n_{cause}"]) or row["cause"] == cause for row in rows)
        assert scanned["causes"][cause] == checked.get(cause, number) == number
        assert basis[f"n_{cause}"] == sum(row[f"n_{cause}"] for row in rows)
        words = f"{number} frame{'s' * (number != 1)} because of {cause}:"
        assert (words in seen) == (number > 0)
        counted = [s for s in sentences if f"because of {cause}:" in s]
        assert len(counted) == (number > 0)
        if number:
            every = "The only frame" if len(rows) == 1 else f"All {len(rows)} frames"
            assert counted[0].startswith(every if number == len(rows) else f"{number} of")
    assert basis["frames_truncated"] == scanned["causes"]["truncation"]
    assert basis["smallest_ratio"] == pytest.approx(
        scanned["worst"]["ratio"]["value"], rel=1e-6, abs=1e-9
    )
    blind = any(scanned["causes"][cause] for cause in SPURIOUS) or scanned["n_unseen"]
    assert bool(result.totals.n_spurious) == bool(blind)


def _same_forces(
    scanned: dict[str, Any], checked: dict[str, float], basis: dict[str, Any], page: Any, seen: str
) -> None:
    error = scanned["irreducible_force_error"]
    assert checked["irreducible"] == error
    assert basis["irreducible_force_error"] == pytest.approx(error, rel=1e-9)
    assert basis["required_slope"] == pytest.approx(scanned["median_slope"], rel=1e-6)
    steepest = scanned["worst"]["required_slope"]["value"]
    assert checked["slope"] == steepest
    assert basis["largest_slope"] == pytest.approx(steepest, rel=1e-6)
    words = " ".join(page.sentences)
    assert (error == 0) == ("No force is lost" in words) == ("is out of reach" in seen)
    assert (page.level == "bad") == (error >= LARGE_LOSS)
    net = scanned["worst"]["net_force"]["value"]
    assert checked["net-force"] == net
    told = net > NET_FORCE
    assert told == ("with a net force above" in seen) == ("do not add up to zero" in words)
    assert told == (scanned["n_net"] > 0)
