"""QUIP ends the process on some arguments, at times with status 0: never the user's."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from ase_sensitivity import QUIPDescriptor
from ase_sensitivity.descriptors.quip import probe as quip_probe
from ase_sensitivity.descriptors.quip import quip
from ase_sensitivity.descriptors.quip.arguments import QUIPArguments

TURBO = {
    "l_max": "2",
    "alpha_max": "{4 4}",
    "atom_sigma_r": "{0.5 0.5}",
    "atom_sigma_t": "{0.5 0.5}",
    "rcut_soft": "3.5",
    "rcut_hard": "4",
    "basis": "poly3gauss",
    "n_species": "2",
    "species_Z": "{6 14}",
    "central_weight": "{1 1}",
}
GTO = "radial_basis=GTO cutoff=3 n_max=12 n_species=1 species_Z=6 n_Z=1 Z=6 atom_sigma=0.5"


def turbo(**changes: str | None) -> str:
    given = {key: value for key, value in (TURBO | changes).items() if value is not None}
    return "soap_turbo " + " ".join(f"{key}={value}" for key, value in given.items())


ENDS = {
    "alpha_max": (turbo(alpha_max="{4 12}"), "`alpha_max` is 12 but must not exceed 11"),
    "alpha_max of poly3": (turbo(alpha_max="{11 4}", basis="poly3"), "must not exceed 10"),
    "n_max": (turbo(alpha_max=None, n_max="12"), "`n_max` is 12"),
    "compress_mode": (turbo(compress_mode="linear"), "`compress_mode` is 'linear'"),
    "unequal": (turbo(alpha_max="{4 5}", compress_mode="1_2"), "needs the same `alpha_max`"),
    "compress_file": (turbo(compress_file="absent.dat"), "'absent.dat', which cannot be read"),
    "gto": (f"soap l_max=11 {GTO}", "`l_max` is 11, too large"),
}
"""QUIP ends the process on these."""

BLIND = {
    "basis": (turbo(basis="poly3tab"), "`basis` is 'poly3tab' but must be one of poly3, poly3g"),
    "scaling_mode": (turbo(scaling_mode="x"), "`scaling_mode` is 'x' but must be one of poly"),
    "central_index": (turbo(central_index="3"), "`central_index` is 3 but `n_species` is 2"),
    "letters": (turbo(compress_file="/tmp/é"), "ASCII only"),
}
"""On these it sees nothing, or what happens to be in memory."""


@pytest.mark.parametrize(("text", "message"), [*ENDS.values(), *BLIND.values()])
def test_refused_before(text, message, monkeypatch):
    monkeypatch.setattr(quip, "refuse_crashes", lambda left: pytest.fail("left to QUIP"))
    with pytest.raises(ValueError, match=message):
        QUIPDescriptor(text)


@pytest.mark.slow
def test_what_is_not_foreseen_ends_another_process():
    """The same strings, none of them known: the first in turn is told, with QUIP's reason."""
    fine = turbo()
    texts = [text for text, _ in ENDS.values()]
    reasons = ["instabilities", "instabilities", "instabilities", "compress_mode", "number of"]
    reasons += ["Cannot open file", "gamma_incomplete_upper"]
    for text, reason in zip(texts, reasons, strict=True):
        parsed = [QUIPArguments.parse(word) for word in (fine, text)]
        with pytest.raises(ValueError, match=reason) as caught:
            quip_probe.refuse_crashes(parsed)
        message = str(caught.value)
        assert message.startswith("QUIP ends the process (status ")
        assert str(parsed[1]) in message
        assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        turbo(alpha_max="{11 4}"),
        turbo(alpha_max="{10 4}", basis="poly3"),
        turbo(alpha_max=None, n_max="11"),
        turbo(compress_mode="1_2"),
        turbo(compress_mode="trivial", alpha_max="{4 5}"),
        f"soap l_max=10 {GTO}",
    ],
)
def test_the_largest_that_work(text):
    atoms = bulk("SiC", "zincblende", 4.36, cubic=True)
    atoms.rattle(0.1, seed=1)
    jacobian = QUIPDescriptor(text).jacobian(atoms)
    assert np.abs(jacobian.features).max() > 0.01


def test_each_string_is_tried_once(monkeypatch):
    text = "distance_2b cutoff=3.21 Z1=14 Z2=6"
    calls = []
    tried = quip_probe._Process.tried
    monkeypatch.setattr(
        quip_probe._Process, "tried", lambda self, task: calls.append(task[1]) or tried(self, task)
    )
    for _ in range(2):
        QUIPDescriptor([text, "coordination cutoff=3.21 Z=6"])
        QUIPDescriptor(text)
    pickle.loads(pickle.dumps(QUIPDescriptor(text)))
    assert calls == [text, "coordination cutoff=3.21 Z=6"]


@pytest.mark.slow
def test_one_process_tries_all_strings_while_there_are_some(monkeypatch):
    QUIPDescriptor("coordination cutoff=3.31 Z=6")
    first = quip_probe._Process.latest
    QUIPDescriptor("coordination cutoff=3.32 Z=6")
    assert quip_probe._Process.latest is first
    first.process.stdin.close()  # as if it had waited for too long
    first.process.wait()
    QUIPDescriptor("coordination cutoff=3.33 Z=6")
    second = quip_probe._Process.latest
    assert second is not first
    second.process.kill()
    # It may end just before it is asked.
    monkeypatch.setattr(second.process, "poll", lambda: None)
    QUIPDescriptor("coordination cutoff=3.34 Z=6")
    assert quip_probe._Process.latest is not second


@pytest.mark.slow
def test_a_process_that_is_not_needed_any_more_ends(monkeypatch):
    monkeypatch.setattr(quip_probe._Process, "latest", None)
    monkeypatch.setattr(quip_probe, "CHILD", quip_probe.CHILD.replace("child()", SHORT))
    QUIPDescriptor("coordination cutoff=3.41 Z=6")
    process = quip_probe._Process.latest
    assert process.process.wait(timeout=300) == 0
    process.close()


SHORT = """
from ase_sensitivity.descriptors.quip import probe as quip_probe
quip_probe.IDLE = 0.5
child()
"""


@pytest.mark.parametrize("frozen", [False, True])
def test_no_further_process(frozen, monkeypatch, caplog):
    """Where none may be started, the strings are left to QUIP, and that is logged.

    A program that bundles Python would start itself.
    """

    def refused(*args, **kwargs):
        raise OSError("no more processes")

    monkeypatch.setattr(quip_probe._Process, "latest", None)
    monkeypatch.setattr(subprocess, "Popen", refused)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    QUIPDescriptor(f"distance_2b cutoff=3.2{int(frozen)}")
    assert ("there is no Python to start" if frozen else "no more processes") in caplog.text


COMPRESSION = {
    "list": "4 4 2 3\n1\n2\n108\n",
    "matrix": "4 4 2 2\nP_transformation\n1 1 .5\n1 2 0.3\n2 108 .4\nend_transformation\n",
}


@pytest.mark.parametrize("name", COMPRESSION)
def test_compress_file(name, tmp_path):
    path = tmp_path / "compress.dat"
    path.write_text(COMPRESSION[name])
    atoms = bulk("SiC", "zincblende", 4.36, cubic=True)
    atoms.rattle(0.1, seed=1)
    found = QUIPDescriptor(turbo(compress_file=str(path))).features(atoms)
    whole = QUIPDescriptor(turbo()).features(atoms)[:, [0, 1, 107]]
    expected = whole if name == "list" else whole @ [[0.5, 0], [0.3, 0], [0, 0.4]]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ends too early"),
        ("4 4 2 3\n1\n2\n", "ends too early"),
        ("4 4 2 1\nP_transformation\n1 1 .5\n", "ends too early"),
        ("4 4 2 x\n1\n", "no list of features"),
        ("4 4 2 0\n\n", "lists no features"),
        ("4 4 2 3\n1\n2\n109\n", "feature 109 of 108"),
        ("4 4 2 3\n1\n0\n2\n", "feature 0 of 108"),
        ("4 4 2 1\nP_transformation\n1 300 .5\nend_transformation\n", "feature 300 of 108"),
        ("4 4 2 1\nP_transformation\n999999999 1 .5\nend_transformation\n", "feature 999999999"),
    ],
)
def test_bad_compress_file(text, message, tmp_path):
    (tmp_path / "compress.dat").write_text(text)
    with pytest.raises(ValueError, match=message):
        QUIPDescriptor(turbo(compress_file=str(tmp_path / "compress.dat")))


class TestBesideAnXML:
    @pytest.fixture
    @staticmethod
    def gap(tmp_path) -> Path:
        folder = tmp_path / "potential"
        folder.mkdir()
        path = folder / "gap.xml"
        path.write_text(f"<a><descriptor>{turbo(compress_file='compress.dat')}</descriptor></a>")
        (folder / "compress.dat").write_text(COMPRESSION["list"])
        return path

    def test_found(self, gap, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        atoms = bulk("SiC", "zincblende", 4.36, cubic=True)
        descriptor = QUIPDescriptor.from_gap("potential/gap.xml")
        assert str(gap.with_name("compress.dat")) in descriptor.specification[0]
        assert descriptor.features(atoms).shape == (4, 3)

    def test_that_of_the_working_directory_comes_first(self, gap, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "compress.dat").write_text("4 4 2 2\n1\n2\n")
        descriptor = QUIPDescriptor.from_gap(gap)
        assert descriptor.features(bulk("SiC", "zincblende", 4.36, cubic=True)).shape == (4, 2)

    def test_missing(self, gap):
        gap.with_name("compress.dat").unlink()
        with pytest.raises(ValueError, match=r"`compress_file` is 'compress.dat'.*No such file"):
            QUIPDescriptor.from_gap(gap)

    def test_a_name_that_quip_cannot_read(self, gap):
        folder = gap.parent.with_name("q'é")
        os.rename(gap.parent, folder)
        with pytest.raises(ValueError, match="a name that QUIP cannot read"):
            QUIPDescriptor.from_gap(folder / "gap.xml")

    def test_missing_where_it_is_unpickled(self, gap):
        sent = pickle.dumps(QUIPDescriptor.from_gap(gap))
        gap.with_name("compress.dat").unlink()
        with pytest.raises(ValueError, match="cannot be read"):
            pickle.loads(sent)


@pytest.mark.slow
def test_check_says_what_is_wrong(tmp_path):
    atoms = bulk("SiC", "zincblende", 4.36, cubic=True)
    write(tmp_path / "sic.xyz", atoms)
    run = [sys.executable, "-c", "from ase_sensitivity.cli.app import main; exit(main())", "check"]
    for text in (turbo(alpha_max="{12 12}"), turbo(compress_mode="linear")):
        done = subprocess.run(
            [*run, "sic.xyz", "-d", text, "--max-truncation", "0"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("ase-sensitivity: error: `")
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
@pytest.mark.parametrize(("stop", "status"), [(True, 2), (False, 0)])
def test_a_stop_within_a_call_has_a_status_and_a_line(stop, status):
    script = textwrap.dedent(
        """
        import sys
        from ase_sensitivity.descriptors.quip.library import _quip_library, quip_calls
        import quippy
        with quip_calls("QUIP failed on this structure"):
            if sys.argv[1] == "True":
                _quip_library()._gfortran_stop_string(None, 0, False)
        print("the end")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(stop)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    if stop:
        assert done.stderr == "QUIP failed on this structure: QUIP ended the process\n"
    else:
        assert (done.stdout, done.stderr) == ("the end\n", "")
