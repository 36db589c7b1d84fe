"""converge: cutoff, widths and other options, lists of descriptors, noise, interruptions."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from ase_sensitivity import SOAP, Convergence, FiniteDifferenceDescriptor, QUIPDescriptor, converge
from ase_sensitivity.cli.app import main
from ase_sensitivity.dataset.basis.candidates import MOST
from ase_sensitivity.dataset.basis.evidence import N_LEAST, Evidence, front
from ase_sensitivity.report.plots import plot_convergence
from tests.structures import rattled
from tests.test_converge import with_forces

TEXT = "soap cutoff=3 n_max=3 l_max=2 atom_sigma=0.5"


def frames(number: int) -> list[Atoms]:
    return [with_forces(rattled(molecule("CH4"), 0.1, seed), seed) for seed in range(number)]


def soap(**options) -> SOAP:
    return SOAP(**{"species": ["C", "H"], "cutoff": 3.0, "n_max": 3, "l_max": 2} | options)


class TestCandidates:
    def test_a_grid_of_options_is_each_of_its_descriptors(self) -> None:
        found = converge(frames(3), soap(), cutoff=[3.0, 4.0], atom_sigma=(0.3, 0.5), n_max=3)
        assert found.varied == ("n_max", "cutoff", "atom_sigma")
        assert len(found.rows) == 4
        for row in found.rows:
            own = soap(cutoff=row["cutoff"], atom_sigma=row["atom_sigma"])
            (alone,) = converge(frames(3), [own]).rows
            assert alone["descriptor"] == repr(own)
            for name in ("required_slope", "median_ratio", "n_features", "irreducible_force_error"):
                assert row[name] == pytest.approx(alone[name], rel=1e-12)
        slopes = [row["required_slope"] for row in found.rows]
        assert len({*slopes}) == 4

    @pytest.mark.parametrize(
        "options",
        [
            {"radial_basis": ["quip", "gto"]},
            {"body_order": [2, 3]},
            {"cutoff_transition_width": [0.2, 1.0]},
            {"normalise": [True, False]},
        ],
    )
    def test_every_option_of_soap(self, options: dict) -> None:
        found = converge(frames(2), soap(), **options)
        ((name, values),) = options.items()
        assert {row[name] for row in found.rows} == {*values}
        assert found.rows[0]["required_slope"] != found.rows[1]["required_slope"]

    def test_strings_are_the_same(self) -> None:
        """The words of a QUIP string, with those left out that are tried."""
        short = "soap n_max=3 l_max=2 atom_sigma=0.5"
        found = converge(frames(2), short, cutoff=[3, 4.0], normalise=[False])
        ours = converge(frames(2), soap(), cutoff=[3, 4.0], normalise=False)
        for row, other in zip(found.rows, ours.rows, strict=True):
            assert row["required_slope"] == pytest.approx(other["required_slope"], rel=1e-12)
        compressed = converge(frames(1), TEXT, diagonal_radial=[False, True])
        assert compressed.rows[0]["n_features"] < compressed.rows[1]["n_features"]
        assert compressed.rows[0]["diagonal_radial"]

    def test_a_function_of_the_options(self) -> None:
        found = converge(frames(2), lambda **options: soap(**options), atom_sigma=[0.3, 0.5])
        direct = converge(frames(2), soap(), atom_sigma=[0.3, 0.5])
        assert [row["required_slope"] for row in found.rows] == [
            row["required_slope"] for row in direct.rows
        ]

    def test_a_list_of_any_descriptors(self) -> None:
        distances = FiniteDifferenceDescriptor(lambda atoms: atoms.get_all_distances(), cutoff=9.0)
        given = [TEXT, [TEXT, "distance_2b cutoff=3 Z1=6 Z2=1"], soap(), distances]
        found = converge(frames(2), given)
        assert found.varied == ("descriptor",)
        assert [row["n_failed"] for row in found.rows] == [0] * 4
        rows = {row["descriptor"]: row for row in found.rows}
        assert rows[repr(soap())]["required_slope"] == pytest.approx(
            rows[repr(QUIPDescriptor(TEXT, species=["H", "C"]))]["required_slope"], rel=1e-9
        )
        table = str(found).splitlines()
        assert all(f"{n}: {row['descriptor']}" in table for n, row in enumerate(found.rows))
        assert found.masking == ("distance_2b",)

    @pytest.mark.parametrize(
        ("family", "options", "message"),
        [
            (soap(), {"cutoff": [3, -1]}, "no candidate with cutoff=-1: `cutoff` is -1"),
            (soap(), {"colour": [1, 2]}, "`colour` is no option of SOAP, which has species, cut"),
            (soap(), {"cutoff": []}, "`cutoff` has no values"),
            (
                soap(),
                {"cutoff": np.arange(3, 5, 0.1), "n_max": range(1, 21)},
                "20 of cutoff .* 400",
            ),
            (TEXT, {"cutof": [3]}, "`cutof` is no option"),
            ("distance_2b cutoff=3 Z1=6 Z2=1", {"atom_sigma": [1]}, "`atom_sigma` is no option"),
            ([TEXT], {"cutoff": [3]}, "`cutoff` cannot be tried with a list"),
            ([TEXT, TEXT], {}, "twice"),
            ([], {}, "lists no descriptor"),
            ([soap()] * (MOST + 1), {}, f"{MOST + 1} candidates"),
        ],
    )
    def test_bad_options(self, family, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            converge(frames(1), family, **options)


class TestEvidence:
    def test_what_all_candidates_share_is_no_noise(self) -> None:
        rng = np.random.default_rng(0)
        common = np.exp(rng.normal(size=200))
        lower = 0.85 * common * np.exp(0.05 * rng.normal(size=200))
        evidence = Evidence({(1,): common, (2,): lower, (3,): 0.85 * rng.permutation(common)})
        assert evidence.lower((2,), (1,))
        assert not evidence.lower((1,), (2,))
        assert not evidence.lower((3,), (1,))  # the same medians, but nothing in common
        low, high = evidence.interval((1,))
        assert low < np.median(common) < high

    def test_less_than_a_tenth_is_of_no_use(self) -> None:
        slopes = np.linspace(1, 2, 50)
        evidence = Evidence({(1,): slopes, (2,): 0.92 * slopes, (3,): 0.8 * slopes})
        assert not evidence.lower((2,), (1,))
        assert evidence.lower((3,), (1,))

    def test_equal_candidates_are_seldom_told_apart(self) -> None:
        """Slopes of one distribution: the error of the first kind is at most what is said."""
        rng = np.random.default_rng(1)
        wrong = sum(
            Evidence(dict(enumerate(np.exp(rng.normal(size=(2, 20)))))).lower(0, 1)
            for _ in range(60)
        )
        assert wrong <= 6

    def test_few_frames_are_none(self) -> None:
        few = np.ones(N_LEAST - 1)
        evidence = Evidence({(1,): few, (2,): few / 5})
        assert not evidence.lower((2,), (1,))
        assert evidence.interval((1,)) is None
        said = str(converge(frames(3), soap(), atom_sigma=[0.3, 0.5]))
        assert "No evidence for a choice by slope: 3 structures with forces do not tell" in said

    def test_front(self) -> None:
        slopes = {(n,): s for n, s in enumerate([5.0, 3.0, 4.0, 3.0, 1.0])}
        sizes = {(n,): s for n, s in enumerate([1.0, 2.0, 3.0, 4.0, 4.0])}
        assert front(slopes, sizes) == [(0,), (1,), (4,)]


@pytest.fixture(scope="module")
def found() -> Convergence:
    return converge(frames(12), soap(), n_max=[2, 6], atom_sigma=[0.2, 0.5])


class TestChoice:
    def test_the_front_has_no_candidate_that_another_one_beats(self, found: Convergence) -> None:
        for size in ("cost", "n_features"):
            rows = [row for row in found.rows if size in row["front"]]
            assert rows
            for row in rows:
                assert not any(
                    other[size] < row[size] and other["required_slope"] <= row["required_slope"]
                    for other in found.rows
                )

    def test_a_clear_choice(self, found: Convergence) -> None:
        """The radial functions of n_max=2 with narrow atoms hardly overlap with anything."""
        best = min(found.rows, key=lambda row: row["required_slope"])
        key = best["n_max"], best["atom_sigma"]
        assert key in found.alike
        assert len(found.alike) < len(found.compared)
        assert found.cheapest in found.alike
        assert f"{found.label(found.cheapest)} is the cheapest" in str(found)
        assert (found.flat, found.recommended) == (None, None)  # no order, and no such evidence

    def test_no_evidence(self) -> None:
        found = converge(frames(12), soap(), cutoff_transition_width=[0.5, 0.51, 0.52])
        assert found.alike == found.compared
        assert found.recommended is None
        assert "No evidence for a choice by slope: those of all 3" in str(found)

    def test_what_loses_forces_is_not_compared(self) -> None:
        """Pairs alone leave out a part of the forces, and the rest needs no slope."""
        found = converge(frames(12), soap(n_max=6, l_max=6, centers=["C"]), body_order=[2, 3])
        rows = {row["body_order"]: row for row in found.rows}
        assert rows[2]["irreducible_force_error"] > 10 * rows[3]["irreducible_force_error"]
        assert [key[0] for key in found.compared] == [3]
        assert rows[2]["front"] == []

    def test_it_is_read_as_it_was_saved(self, found: Convergence, tmp_path: Path) -> None:
        found.save(tmp_path / "found.json")
        read = Convergence.read(tmp_path / "found.json")
        assert read == found
        assert str(read) == str(found)
        (tmp_path / "other.json").write_text('{"selection": {}}')
        with pytest.raises(ValueError, match=r"other.json.*no result of converge"):
            Convergence.read(tmp_path / "other.json")

    def test_the_plot_has_every_candidate(self, found: Convergence) -> None:
        with mpl.rc_context({"backend": "agg"}):
            for against in ("cost", "n_features"):
                axes = plot_convergence(found, against=against)
                assert len(axes.containers) == len(found.rows)
                front_line = axes.get_legend_handles_labels()[0][0]
                assert len(front_line.get_xdata()) == sum(
                    against in row["front"] for row in found.rows
                )
                assert np.all(np.diff(front_line.get_ydata()) < 0)
                mpl.pyplot.close(axes.figure)
        with pytest.raises(ValueError, match="no reference forces"):
            plot_convergence(converge([molecule("CH4")], soap(), cutoff=[3.0]))


class TestStore:
    def test_a_sweep_goes_on_where_it_was(self, tmp_path: Path, monkeypatch) -> None:
        path = tmp_path / "sweep.jsonl"
        options = {"atom_sigma": [0.3, 0.5], "l_max": [1, 2]}

        def stop(done: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            converge(frames(4), soap(), store=path, progress=stop, **options)
        with path.open("a") as file:
            file.write('{"digest": "of a process that was killed')
        seen: list[Atoms] = []
        whole = SOAP.jacobian
        monkeypatch.setattr(SOAP, "jacobian", lambda own, a: seen.append(a) or whole(own, a))
        found = converge(frames(4), soap(), store=path, **options)
        assert len(seen) == 2 * 2  # two frames, two widths
        direct = converge(frames(4), soap(), **options)
        for row, other in zip(found.rows, direct.rows, strict=True):
            assert row["required_slope"] == other["required_slope"]
            assert row["n_frames"] == 4
        with pytest.raises(ValueError, match="not of a sweep with the same"):
            converge(frames(4), soap(), store=path, l_max=[1])
        with pytest.raises(ValueError, match="other forces"):
            converge(frames(4)[::-1], soap(), store=path, **options)
        path.write_text(path.read_text().replace('"tried"', '"cried"'))
        with pytest.raises(ValueError, match="damaged"):
            converge(frames(4), soap(), store=path, **options)

    def test_values_of_any_kind_and_an_error_on_the_way(self, tmp_path: Path) -> None:
        path = tmp_path / "sweep.jsonl"
        options = {"species": [["C", "H", "O"], ["C", "O"]]}
        with pytest.raises(ValueError, match="units"):
            converge(frames(2), soap(), store=path, units="foo", **options)
        first = converge(frames(2), soap(), store=path, **options)
        again = converge(frames(2), soap(), store=path, **options)
        assert [row["n_null"] for row in first.rows] == [row["n_null"] for row in again.rows]

    def test_workers_find_the_same(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            found = converge(frames(6), soap(), n_max=[2, 3], l_max=[1, 2], executor=pool)
        direct = converge(frames(6), soap(), n_max=[2, 3], l_max=[1, 2])
        for row, other in zip(found.rows, direct.rows, strict=True):
            assert row["required_slope"] == pytest.approx(other["required_slope"], rel=1e-12)


class TestCommand:
    @pytest.fixture(autouse=True)
    def data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write("data.xyz", frames(3))

    def test_options(self, capsys: pytest.CaptureFixture) -> None:
        command = ["converge", "data.xyz", "-d", "soap n_max=3 l_max=2", "--cutoff", "3,4"]
        command += ["--atom-sigma", "0.3", "--option", "normalise=T,F", "--save", "found.json"]
        assert main([*command, "--plot", "plot.png", "--store", "sweep"]) == 0
        found = Convergence.read("found.json")
        assert found.varied == ("cutoff", "atom_sigma", "normalise")
        assert [row["normalise"] for row in found.rows].count(True) == 2
        assert capsys.readouterr().out == f"{found}\n"
        assert Path("plot.png").read_bytes().startswith(b"\x89PNG")
        assert main([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["varied"] == [*found.varied]

    def test_each(self, capsys: pytest.CaptureFixture) -> None:
        both = ["-d", TEXT, "-d", TEXT.replace("cutoff=3", "cutoff=4")]
        assert main(["converge", "data.xyz", *both, "--each", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["rows"]) == 2

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--cutoff", "3,x"], ["--cutoff", "3,x"]),
            (["--option", "sigma"], ["--option", "sigma"]),
            (["--each"], ["--each", "two or more"]),
            (["--plot", "plot.txt"], ["--plot", ".png"]),
            (["--body-order", "3,9"], ["body_order"]),
        ],
    )
    def test_bad_options(self, arguments, words, capsys: pytest.CaptureFixture) -> None:
        assert main(["converge", "data.xyz", "-d", TEXT, *arguments]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert all(word in told.err for word in words)
