"""The report: what it says, that it stands alone, and how it works in a browser."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import shutil
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from ase_sensitivity import SOAP
from ase_sensitivity.causes.cause import CAUSES
from ase_sensitivity.cli.app import main
from ase_sensitivity.dataset.record import FrameRecord, row_of
from ase_sensitivity.dataset.records import MemoryStore
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.dataset.summary import Summary
from ase_sensitivity.report import plots
from ase_sensitivity.report.contents import MOST_STRUCTURES, contents, kept_rows, severity
from ase_sensitivity.report.html import render, write_report
from ase_sensitivity.report.verdict import verdict

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("jinja2", reason="jinja2 is not installed")

PARAMETERS = {"descriptor": "one made up", "null_tolerance": 1e-9, "scope": "structure"}


@pytest.fixture(scope="module")
def result() -> ScanResult:
    """Ethanol seen from its oxygen only, which is not enough, and one frame that fails."""
    frames = []
    for seed in range(12):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.1, seed=seed)
        atoms.arrays["reference"] = np.random.default_rng(seed).normal(size=(9, 3)) * (1 + seed)
        frames.append(atoms)
    frames[5].positions[3] = np.nan
    soap = SOAP(["C", "O", "H"], cutoff=3.0, n_max=2, l_max=1, centers=["O"])
    return scan(frames, soap, forces_key="reference")


def made_up(count: int, seed: int = 0, atoms: Atoms | None = None) -> ScanResult:
    """Results that cost nothing to make."""
    rng = np.random.default_rng(seed)
    store = MemoryStore(PARAMETERS)
    atoms = molecule("CH3CH2OH") if atoms is None else atoms
    n = len(atoms)
    records = []
    for index in range(count):
        ratio = float(10 ** rng.normal(-1.5, 0.4))
        blind = rng.random() < 0.1
        cause = str(rng.choice(["incompleteness", "truncation", "symmetry"])) if blind else None
        ratio = ratio * 1e-15 if blind else ratio
        row = row_of(
            source="run.xyz", index=index, formula="C2H6O", n_atoms=n, ratio=ratio,
            sigma_min=2 * ratio, sigma_max=2.0, n_null=int(blind), cause=cause,
            n_incompleteness=int(cause == "incompleteness"),
            n_truncation=int(cause == "truncation"), n_symmetry=int(cause == "symmetry"),
            n_fragment=0, n_unknown=0, worst_atom=0,
        )  # fmt: skip
        values = 2 * np.sort(np.concatenate([[ratio], 10 ** rng.normal(-1, 0.2, 2)]))
        modes = rng.normal(size=(3, n, 3))
        modes /= np.linalg.norm(modes, axis=(1, 2))[:, None, None]
        records.append(FrameRecord(row, atoms, values, modes, (cause, None, None)))
    store.write(records)
    return ScanResult(store)


def data_of(page: str) -> dict:
    (packed,) = re.findall(r'<script id="data" type="text/plain">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


class TestContents:
    def test_the_table_is_that_of_the_scan(self, result):
        columns = {column["key"]: column for column in contents(result)["columns"]}
        assert set(columns) == {
            key for key in result.rows[0] if any(row[key] is not None for row in result.rows)
        } - {"energy"}
        for key, column in columns.items():
            expected = [row[key] for row in result.rows]
            if "words" in column:
                words = [None if i is None else column["words"][i] for i in column["values"]]
                assert words == expected
            else:
                known = [i for i, value in enumerate(expected) if value is not None]
                assert [i for i, v in enumerate(column["values"]) if v is not None] == known
                found = [column["values"][i] for i in known]
                assert found == pytest.approx([expected[i] for i in known], rel=1e-4)

    def test_structures_are_the_worst_ones_in_order(self, result):
        data = contents(result)
        lost = [
            result.rows[entry["number"]]["irreducible_force_error"] for entry in data["structures"]
        ]
        assert lost == sorted(lost, reverse=True)
        assert len(lost) == 11  # one failed
        worst = data["structures"][0]
        record = result.record(worst["number"])
        assert worst["numbers"] == record.atoms.numbers.tolist()
        np.testing.assert_allclose(worst["positions"], record.atoms.positions, atol=1e-4)
        np.testing.assert_allclose(worst["modes"], record.modes[:4], atol=1e-4)
        np.testing.assert_allclose(worst["force_loss"], record.force_loss, rtol=1e-3)
        assert np.linalg.norm(worst["force_loss"]) / np.sqrt(27) == pytest.approx(lost[0], rel=1e-3)
        assert data["elements"][8]["symbol"] == "O"

    def test_curve_and_species(self, result):
        data = contents(result)
        assert data["curve"]["irreducible"][0] == pytest.approx(
            result.irreducible_force_error, rel=1e-4
        )
        assert data["species_loss"] == pytest.approx(result.species_loss, rel=1e-4)

    def test_without_forces_there_is_no_curve(self):
        data = contents(made_up(5))
        assert data["curve"] is None
        assert data["species_loss"] == {}
        assert [entry["key"] for entry in data["quantities"]] == ["ratio", "sigma_min"]

    def test_time(self):
        assert contents(made_up(4), timestep=0.5)["x"]["values"] == [0, 0.5, 1, 1.5]

    def test_many_frames_are_few_structures_and_columns(self):
        found = made_up(3000)
        data = contents(found)
        assert data["n_rows"] == 3000
        assert len(data["structures"]) == MOST_STRUCTURES
        map_rows = data["spectrum"]["rows"]
        assert len(map_rows) == len(data["spectrum"]["z"][0]) == 400
        assert map_rows == sorted(map_rows)
        # each column is the worst of its frames: none of the blind ones is left out by chance
        ratios = np.array([row["ratio"] for row in found.rows])
        for some, chosen in zip(np.array_split(np.arange(3000), 400), map_rows, strict=True):
            assert ratios[chosen] == ratios[some].min()

    def test_large_structures_are_fewer(self):
        found = made_up(30, atoms=bulk("Si", cubic=True) * 8)
        assert len(contents(found)["structures"]) == 20_000 // 4096

    def test_of_too_many_rows_the_worst_are_kept(self):
        rows = made_up(1000).rows
        kept = kept_rows(rows, most=100)
        assert len(kept) <= 100
        assert (np.diff(kept) > 0).all()
        worst = sorted(range(1000), key=lambda i: severity(rows[i]))[-50:]
        assert set(worst) <= set(kept.tolist())
        assert np.histogram(kept, bins=10, range=(0, 1000))[0].min() > 0


class TestVerdict:
    def rows(self, *causes: str | None, ratio: float = 0.1, n_null: int = 0) -> list[dict]:
        return [
            row_of(source="a", index=i, ratio=ratio, cause=cause, n_null=n_null)
            for i, cause in enumerate(causes)
        ]

    def test_nothing_is_wrong(self):
        found = verdict(Summary.of(self.rows(None, None)))
        assert found.level == "good"
        assert "sees every motion" in found.headline.replace("see ", "sees ")
        assert any("no reference forces" in sentence for sentence in found.sentences)

    def test_symmetry_is_harmless(self):
        found = verdict(Summary.of(self.rows("symmetry", None, ratio=0.1)))
        assert found.level == "good"
        assert any("harmless" in sentence for sentence in found.sentences)

    @pytest.mark.parametrize("cause", ["incompleteness", "truncation"])
    def test_blindness_needs_attention_and_has_a_cure(self, cause):
        found = verdict(Summary.of(self.rows(cause, None)))
        assert found.level == "attention"
        assert "1 of 2 frames" in found.headline
        (sentence,) = [s for s in found.sentences if cause in s]
        assert CAUSES[cause].cure in sentence

    def test_lost_force_is_bad(self, result):
        found = verdict(result.totals)
        assert found.level == "bad"
        assert f"{result.irreducible_force_error:.3g} eV/Å" in found.headline
        largest = max(row["irreducible_force_error"] or 0 for row in result.rows)
        assert f"{largest:.3g} eV/Å in the worst" in " ".join(found.sentences)
        net = max(row["net_force"] or 0 for row in result.rows)
        assert f"up to {net:.3g} eV/Å" in " ".join(found.sentences)
        assert "1 of 12 frames could not be analyzed" in " ".join(found.sentences)

    def test_small_ratios(self):
        """Which mean nothing in environment scope, where they are always small."""
        rows = self.rows(None, ratio=1e-5)
        assert verdict(Summary.of(rows)).level == "attention"
        assert verdict(Summary.of(rows), "environment").level == "good"

    def test_null_directions_without_causes(self):
        found = verdict(Summary.of(self.rows(None, ratio=0.0, n_null=1)))
        assert found.level == "attention"
        assert any("not asked" in sentence for sentence in found.sentences)

    def test_nothing_is_lost(self):
        (row,) = self.rows(None)
        row |= {"n_atoms": 1, "irreducible_force_error": 0.0, "rms_force": 0.9, "net_force": 0.0}
        found = verdict(Summary.of([row | {"required_slope": 3.0}]))
        assert found.level == "good"
        assert any(
            "No force is lost in any single frame" in sentence for sentence in found.sentences
        )
        assert any("required slope is 3 eV/Å" in sentence for sentence in found.sentences)

    def test_nothing_worked(self):
        rows = [row_of(source="a", index=0, error="no atoms")]
        found = verdict(Summary.of(rows))
        assert found.level == "bad"
        assert "no atoms" in found.sentences[0]
        assert verdict(Summary()).level == "bad"


class TestFile:
    def test_it_stands_alone(self, result, tmp_path):
        path = tmp_path / "report.html"
        write_report(result, path)
        page = path.read_text(encoding="utf-8")
        assert data_of(page)["n_rows"] == 12
        # what is outside of scripts and styles asks for nothing
        bare = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
        assert not re.search(r'(src|href)="(?!data:)', bare)
        assert "<script src" not in page
        assert "@import" not in page
        assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]

    def test_names_cannot_break_out(self):
        store = MemoryStore(PARAMETERS)
        nasty = "</script><script>document.title='broken'</script>"
        row = row_of(source=nasty, index=0, error=nasty)
        store.write([FrameRecord(row, Atoms())])
        page = render(ScanResult(store), title=nasty)
        assert "document.title='broken'" not in re.sub(
            r'<script id="data".*?</script>', "", page, flags=re.DOTALL
        )

    def test_a_report_that_cannot_be_written_leaves_the_old_one(
        self, result, tmp_path, monkeypatch
    ):
        path = tmp_path / "report.html"
        path.write_text("old")

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="space"):
            write_report(result, path)
        monkeypatch.undo()
        assert path.read_text() == "old"

    def test_a_database_does_as_well_as_what_is_read_from_it(self, tmp_path):
        atoms = molecule("H2O")
        found = scan([atoms], SOAP(["H", "O"], 3.0, 2, 1), store=tmp_path / "results.db")
        write_report(tmp_path / "results.db", tmp_path / "report.html")
        assert (tmp_path / "report.html").read_text() == render(found)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"result": 3}, "`result` is 3"),
            ({"path": 3}, "`path` is 3"),
            ({"path": "none/report.html"}, "none/report.html cannot be written: .* folder none"),
            ({"timestep": "x"}, "`timestep` is 'x' but must be a number"),
        ],
    )
    def test_bad_arguments(self, changes, words, result, tmp_path):
        arguments = {"result": result, "path": tmp_path / "report.html"} | changes
        with pytest.raises((TypeError, OSError), match=words):
            write_report(**arguments)

    def test_partners_are_drawn_with_their_price(self, tmp_path):
        frames = []
        for height in (0.15, 0.1):
            atoms = molecule("NH3")
            atoms.positions[0, 2] = atoms.positions[1, 2] + height
            frames.append(atoms)
        soap = SOAP(["N", "H"], 4.0, 6, 4)
        found = scan(frames, soap)
        assert "partner" not in data_of(render(found))["structures"][0]
        data = data_of(render(found, partners=soap, price=EMT()))
        for entry in data["structures"]:
            before, vectors = entry["positions"], entry["partner"]["vectors"]
            height = before[0][2] - before[1][2]
            # N passes the plane of H: the mirror image.
            after = np.array(before) + vectors
            assert after[0, 2] - after[1, 2] == pytest.approx(-height, abs=1e-3)
            assert "partner beyond symmetry" in entry["partner"]["text"]
            assert "price 0.0000 eV" in entry["partner"]["text"]
        flat = molecule("BF3")
        soap = SOAP(["B", "F"], 4.0, 6, 4)
        (entry,) = data_of(render(scan([flat], soap), partners=soap))["structures"]
        assert entry["partner"]["text"].startswith("no partner: the structure is singular itself")
        assert "vectors" not in entry["partner"]

    def test_partners_that_cannot_be_drawn(self, result):
        with pytest.raises(ValueError, match="`price` needs `partners`"):
            render(result, price=EMT())
        soap = SOAP(["C", "O", "H"], 3.0, 2, 1)
        with pytest.raises(TypeError, match="`price` is 3"):
            render(result, partners=soap, price=3)
        environments = scan([molecule("H2O")], SOAP(["H", "O"], 3.0, 2, 1), scope="environment")
        with pytest.raises(ValueError, match='scope="structure"'):
            render(environments, partners=soap)
        with pytest.raises(ValueError, match=r"`partners` is SOAP.*must be the descriptor of the"):
            render(result, partners=soap)

    def test_a_symbolic_link_stays_one(self, result, tmp_path):
        (tmp_path / "real.html").write_text("old")
        (tmp_path / "link.html").symlink_to("real.html")
        write_report(result, tmp_path / "link.html")
        assert (tmp_path / "link.html").is_symlink()
        assert (tmp_path / "real.html").read_text() != "old"

    def test_without_plotly(self, result, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "plotly.offline", None)
        with pytest.raises(ImportError, match=r"ase-sensitivity\[report\]"):
            render(result)

    def test_the_size_is_sensible(self):
        small, large = (len(render(made_up(count))) for count in (10, 10_000))
        assert large - small < 2e6


class TestPlots:
    @pytest.mark.parametrize(
        "plot",
        [plots.plot_ratio, plots.plot_spectrum, plots.plot_irreducible, plots.plot_species_loss],
    )
    def test_no_result(self, plot):
        with pytest.raises(TypeError, match="`result` is 'x' but must be a ScanResult"):
            plot("x")
        assert not plt.get_fignums()

    @pytest.fixture(autouse=True)
    def _close(self):
        yield
        plt.close("all")

    def test_ratio(self, result):
        ax = plots.plot_ratio(result, timestep=2.0)
        x = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() == "."])
        expected = [2.0 * row["index"] for row in result.rows if row["ratio"] is not None]
        assert sorted(x) == expected
        assert ax.get_xlabel() == "time (fs)"
        assert ax.get_yscale() == "log"

    def test_spectrum(self):
        result = made_up(7)
        image = plots.plot_spectrum(result).images[0].get_array()
        assert image.shape == (3, 7)
        for i, record in enumerate(result.records()):
            expected = np.log10(np.maximum(record.singular_values / 2.0, 1e-9))
            np.testing.assert_allclose(image[:, i], expected)

    def test_forces(self, result):
        _, axes = plt.subplots(3)
        assert plots.plot_irreducible(result, axes[0]) is axes[0]
        y = axes[0].lines[0].get_ydata()
        np.testing.assert_allclose(y, result.curve[1])
        plots.plot_species_loss(result, axes[1])
        heights = [bar.get_height() for bar in axes[1].patches]
        assert heights == list(result.species_loss.values())
        record = result.record(0)
        plots.plot_atom_loss(record, axes[2])
        np.testing.assert_allclose([b.get_height() for b in axes[2].patches], record.force_loss)

    def test_without_forces(self):
        result = made_up(2)
        for plot in (plots.plot_irreducible, plots.plot_species_loss):
            with pytest.raises(ValueError, match="forces_key"):
                plot(result)
        with pytest.raises(ValueError, match="forces_key"):
            plots.plot_atom_loss(result.record(0))


# In a browser -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    browser = webdriver.Chrome(options=options, service=service)
    browser.set_script_timeout(60)
    browser.execute_cdp_cmd("Network.enable", {})
    network = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", network)
    browser.shown = None
    browser.downloads = tmp_path_factory.mktemp("downloads")
    where = {"behavior": "allow", "downloadPath": str(browser.downloads)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    yield browser
    browser.quit()


def opened(browser, path: Path, width: int = 1280, dark: bool = False) -> None:
    """Show a page; without motion, which takes a software renderer long."""
    if browser.shown == (path, width, dark):
        return
    browser.shown = (path, width, dark)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())
    wait_for(browser, "return document.documentElement.dataset.ready === 'true'")


def wait_for(browser, script: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not browser.execute_script(script):
        assert time.monotonic() < end, f"never: {script}"
        time.sleep(0.05)


def complaints(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def selected(browser) -> tuple[str, list[str], str]:
    """The frame of the heading, the rows marked in the table, and the frame of the structure."""
    return tuple(
        browser.execute_script(
            "return [document.getElementById('frame-title').textContent,"
            "[...document.querySelectorAll('tr[aria-selected=true]')].map(r => r.dataset.row),"
            "document.getElementById('frame').dataset.row]"
        )
    )


@pytest.fixture(scope="module")
def page(result, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(result, path)
    return path


@pytest.mark.slow
class TestBrowser:
    def test_the_worst_frame_is_shown_first(self, browser, page, result):
        opened(browser, page)
        worst = int(np.argmax([row["irreducible_force_error"] or 0 for row in result.rows]))
        title, rows, structure = selected(browser)
        assert title == f"Frame {worst} of frames"
        assert rows == [str(worst)]
        assert structure == str(worst)
        headline = browser.find_element("id", "verdict").text
        assert f"{result.irreducible_force_error:.3g}" in headline
        assert complaints(browser) == []

    def test_a_click_on_a_row_selects_the_frame(self, browser, page):
        opened(browser, page)
        browser.find_element("css selector", "#table tbody tr[data-row='2'] td").click()
        assert selected(browser) == ("Frame 2 of frames", ["2"], "2")
        # by keyboard as well
        button = browser.find_element("css selector", "#table tr[data-row='7'] button")
        button.send_keys("\n")
        assert selected(browser) == ("Frame 7 of frames", ["7"], "7")
        assert complaints(browser) == []

    def test_words_of_files_are_only_words(self, browser, tmp_path):
        """Not a property that every object has, not a tag that plotly obeys."""
        store = MemoryStore(PARAMETERS)
        source = "<b>bold</b> <i>&amp;</i>"
        for index, cause in enumerate(("constructor", "__proto__", "symmetry")):
            row = row_of(
                source=source, index=index, ratio=0.1, sigma_max=1.0, n_null=0, cause=cause
            )
            store.write([FrameRecord(row, molecule("H2O"), np.ones(1), np.ones((1, 3, 3)))])
        write_report(ScanResult(store), tmp_path / "report.html")
        opened(browser, tmp_path / "report.html")
        names = "return [...document.getElementById('overview').data].map(t => t.name)"
        assert browser.execute_script(names) == ["symmetry", "unknown", "selected"]
        texts = "return document.getElementById('overview').data[0].text[0]"
        shown = "&lt;b>bold&lt;/b> &lt;i>&amp;amp;&lt;/i>"
        assert browser.execute_script(texts).startswith(f"Frame 2 of {shown}<br>")
        assert browser.find_element("id", "frame-title").text.endswith(source)
        assert complaints(browser) == []

    def test_a_click_on_a_point_selects_the_frame(self, browser, page, result):
        from selenium.webdriver import ActionChains

        opened(browser, page)
        chart = browser.find_element("id", "overview")
        row = 4
        x, y = browser.execute_script(
            "const l = arguments[0]._fullLayout, r = arguments[0].getBoundingClientRect();"
            "return [l.xaxis._offset + l.xaxis.d2p(arguments[1]) - r.width / 2,"
            "        l.yaxis._offset + l.yaxis.d2p(arguments[2]) - r.height / 2]",
            chart,
            row,
            max(result.rows[row]["ratio"], 1e-10),
        )
        ActionChains(browser).move_to_element_with_offset(
            chart, round(x), round(y)
        ).click().perform()
        wait_for(browser, "return document.getElementById('frame').dataset.row === '4'", 10)
        assert selected(browser) == ("Frame 4 of frames", ["4"], "4")
        ring = browser.execute_script("return document.getElementById('overview').data.at(-1).x")
        assert ring == [row]

    def test_sorting_paging_and_filter(self, browser, tmp_path):
        result = made_up(50)
        write_report(result, tmp_path / "report.html")
        opened(browser, tmp_path / "report.html")
        shown = "return [...document.querySelectorAll('#table tbody tr')].map(r => +r.dataset.row)"
        assert browser.execute_script(shown) == list(range(20))
        browser.find_element("id", "next").click()
        assert browser.execute_script(shown) == list(range(20, 40))
        by_ratio = np.argsort([row["ratio"] for row in result.rows]).tolist()
        head = "//th/button[contains(., 'σ min / σ max')]"
        browser.find_element("xpath", head).click()
        assert browser.execute_script(shown) == by_ratio[:20]
        browser.find_element("xpath", head).click()
        assert browser.execute_script(shown) == by_ratio[::-1][:20]
        browser.execute_script(
            "const f = document.getElementById('filter'); f.value = 'truncation'; f.onchange()"
        )
        truncated = [i for i in by_ratio if result.rows[i]["cause"] == "truncation"]
        assert browser.execute_script(shown) == truncated[::-1]
        assert len(truncated) > 0
        assert complaints(browser) == []

    def test_the_csv_is_the_table(self, browser, page, result):
        opened(browser, page)
        browser.find_element("id", "csv").click()
        path = browser.downloads / "frames.csv"
        end = time.monotonic() + 300
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.05)
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["index"] for row in rows] == [str(row["index"]) for row in result.rows]
        for mine, theirs in zip(rows, result.rows, strict=True):
            assert mine["error"] == (theirs["error"] or "")
            if theirs["ratio"] is not None:
                assert float(mine["ratio"]) == pytest.approx(theirs["ratio"], rel=1e-4)

    @pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
    def test_it_fits_the_screen_and_its_light(self, browser, page, width, dark):
        opened(browser, page, width, dark)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness = np.mean([int(part) for part in re.findall(r"\d+", color)[:3]])
        assert (brightness < 80) if dark else (brightness > 200)
        # charts follow
        text = browser.execute_script(
            "return document.getElementById('overview')._fullLayout.font.color"
        )
        assert text == ("#e6e9ee" if dark else "#1d2129")
        assert complaints(browser) == []

    def test_the_soft_mode_moves_if_motion_is_wanted(self, browser, page):
        opened(browser, page, 390, dark=True)  # few pixels to draw, and open already
        browser.execute_script("document.getElementById('structure').scrollIntoView()")
        places = "['x', 'y', 'z'].flatMap(c => document.getElementById('structure').data[0][c])"
        before = browser.execute_script(f"return {places}")
        play = browser.find_element("id", "play")
        assert play.text == "Play"
        play.click()
        wait_for(browser, f"return {places}.some((p, i) => Math.abs(p - {before}[i]) > 0.01)")
        play.click()
        assert play.text == "Play"
        assert complaints(browser) == []

    def test_the_partner_is_drawn_beside_the_structure(self, browser, tmp_path):
        atoms = molecule("NH3")
        atoms.positions[0, 2] = atoms.positions[1, 2] + 0.15
        soap = SOAP(["N", "H"], 4.0, 6, 4)
        write_report(scan([atoms], soap), tmp_path / "report.html", partners=soap)
        opened(browser, tmp_path / "report.html")
        assert "partner beyond symmetry" in browser.find_element("id", "partner").text
        traces = "return document.getElementById('structure').data.length"
        before = browser.execute_script(traces)
        browser.execute_script(
            "const mode = document.getElementById('mode');"
            "mode.value = mode.options.length - 1; mode.onchange()"
        )
        wait_for(browser, f"{traces} === {before + 2}")
        assert complaints(browser) == []

    def test_nothing_but_failures(self, browser, tmp_path):
        store = MemoryStore(PARAMETERS)
        store.write([FrameRecord(row_of(source="a", index=0, error="torn"), Atoms())])
        write_report(ScanResult(store), tmp_path / "report.html")
        opened(browser, tmp_path / "report.html")
        assert "No frame could be analyzed" in browser.find_element("id", "verdict").text
        assert selected(browser)[0] == "Frame 0 of a"
        assert complaints(browser) == []

    def test_without_loss_there_are_no_empty_charts(self, browser, tmp_path):
        atoms = molecule("H2O")
        atoms.arrays["reference"] = np.zeros((3, 3))
        found = scan([atoms], SOAP(["H", "O"], 3.0, 4, 3), forces_key="reference")
        write_report(found, tmp_path / "report.html")
        opened(browser, tmp_path / "report.html")
        assert browser.execute_script("return document.getElementById('species').hidden")
        script = "return document.getElementById('atoms').layout.yaxis.title.text"
        assert browser.execute_script(script) == "motion in this mode"
        assert complaints(browser) == []

    def test_many_frames(self, browser, tmp_path):
        path = tmp_path / "report.html"
        write_report(made_up(100_000), path)
        assert path.stat().st_size < 12e6
        opened(browser, path)
        browser.find_element("css selector", "#table tbody tr[data-row='3'] td").click()
        assert selected(browser)[0] == "Frame 3 of run.xyz"
        assert complaints(browser) == []


def test_the_command(tmp_path, monkeypatch, capsys):
    import ase.io

    monkeypatch.chdir(tmp_path)
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=0)
    ase.io.write("data.xyz", [atoms, atoms])
    soap = "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"
    assert main(["scan", "data.xyz", "-d", soap]) == 0
    arguments = ["report", "results.db", "-o", "page.html", "--title", "Water & more"]
    assert main([*arguments, "--timestep", "0.5"]) == 0
    assert "page.html" in capsys.readouterr().err
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<h1>Water &amp; more</h1>" in page
    assert data_of(page)["x"] == {"label": "time (fs)", "values": [0, 0.5]}
