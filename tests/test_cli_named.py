"""Potentials and functions of one's own on the command line, without the packages of potentials."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule

from ase_sensitivity import SOAP, FiniteDifferenceDescriptor, ScanResult, analyze
from ase_sensitivity.cli.app import main
from ase_sensitivity.cli.descriptor import descriptor_of
from tests.structures import rattled

CODE = """
import numpy as np
from ase_sensitivity import SOAP, FiniteDifferenceDescriptor

def inverse(atoms):
    return np.sort(1 / (atoms.get_all_distances() + np.eye(len(atoms))), axis=1)

near = FiniteDifferenceDescriptor(inverse, cutoff=5.0)
soap = SOAP(["H", "O"], 3.0, 3, 2)
number = 3
"""

EXTRAS = {"mace": "mace:some.model", "sevenn": "sevenn:7net-0", "chgnet": "chgnet"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("my_features", "package_of_mine", "package_of_mine.inner", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    ase.io.write("data.xyz", [rattled(molecule("H2O2"), 0.05, seed) for seed in (0, 2, 3)])
    Path("my_features.py").write_text(CODE)
    Path("some.model").write_text("?")
    yield
    for name in ("my_features", "package_of_mine", "package_of_mine.inner", "broken"):
        sys.modules.pop(name, None)


def chosen(*texts: str, species: str | None = None):
    return descriptor_of(texts, None, species, frames=lambda: [], tell=print)


def inverse(atoms):
    return np.sort(1 / (atoms.get_all_distances() + np.eye(len(atoms))), axis=1)


class TestCodeOfTheUser:
    def test_analyze(self, capsys):
        assert main(["analyze", "data.xyz", "-d", "my_features:inverse", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        expected = analyze(ase.io.read("data.xyz"), FiniteDifferenceDescriptor(inverse), k=6)
        np.testing.assert_allclose(
            found["singular_values"][-1], expected.singular_values[-1], rtol=1e-9
        )

    def test_an_object(self, capsys):
        assert main(["analyze", "data.xyz", "-d", "my_features:soap", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        expected = analyze(ase.io.read("data.xyz"), SOAP(["H", "O"], 3.0, 3, 2), k=6)
        np.testing.assert_allclose(
            found["singular_values"], expected.singular_values[:6], atol=1e-9
        )
        assert isinstance(chosen("my_features:near"), FiniteDifferenceDescriptor)
        assert chosen("my_features:near").cutoff == 5.0
        assert chosen("my_features:inverse").cutoff == np.inf

    @pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
    def test_scan(self, workers: str):
        arguments = ["-o", "results.db", "--workers", workers]
        assert main(["scan", "data.xyz", "-d", "my_features:inverse", *arguments]) == 0
        rows = ScanResult.read("results.db").rows
        assert len(rows) == 3
        assert not any(row["error"] for row in rows)
        expected = [
            analyze(atoms, FiniteDifferenceDescriptor(inverse)).ratio
            for atoms in ase.io.read("data.xyz", ":")
        ]
        np.testing.assert_allclose([row["ratio"] for row in rows], expected, rtol=1e-6)

    def test_in_a_package_and_a_table(self):
        Path("package_of_mine").mkdir()
        Path("package_of_mine/__init__.py").touch()
        Path("package_of_mine/inner.py").write_text(CODE)
        assert chosen("package_of_mine.inner:near").cutoff == 5.0
        Path("a.toml").write_text('function = "package_of_mine.inner:near"\n')
        assert chosen("a.toml").cutoff == 5.0

    def test_the_help_says_that_it_runs(self, capsys):
        assert main(["analyze", "-h"]) == 0
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "module:function, which imports and runs your own code" in text


@pytest.fixture
def hidden(monkeypatch):
    for name in ("torch", *EXTRAS):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("command", ["analyze", "scan"])
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("how", ["text", "table", "arguments"])
def test_a_package_that_is_missing(command: str, extra: str, how: str, capsys):
    text = EXTRAS[extra]
    model = text.partition(":")[2] or "0.3.0"
    if how == "table":
        Path("a.toml").write_text(f'{extra} = "{model}"\n')
    if how == "arguments":
        Path("a.toml").write_text(f'[{extra}]\nmodel = "{model}"\nlayers = [1]\n')
    assert main([command, "data.xyz", "-d", text if how == "text" else "a.toml"]) == 2
    line = one_line(capsys)
    assert line.endswith(f'pip install "ase-sensitivity[{extra}]"')


def one_line(capsys) -> str:
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def in_a_table(text: str) -> str:
    Path("a.toml").write_text(text)
    return "a.toml"


MISTAKES = {
    "no such module": (lambda: "nothing_here:f", ["there is no module nothing_here", "mace:..."]),
    "no such module inside": (lambda: "my_features.more:f", ["no module my_features.more"]),
    "no such name": (lambda: "my_features:inverze", ["my_features.py has no inverze"]),
    "a number": (lambda: "my_features:number", ["number is int", "members of Descriptor"]),
    "a class": (lambda: "my_features:SOAP", ["SOAP is a class", "name an object"]),
    "no default of mace": (lambda: "mace", ["mace:FILE"]),
    "no string in a table": (lambda: in_a_table("function = 3\n"), ["function", "string"]),
    "no such argument": (
        lambda: in_a_table('[sevenn]\nmodell = "7net-0"\n'),
        ["[sevenn] in a.toml", "did you mean `model`"],
    ),
    "species": (lambda: in_a_table('mace = "a"\nspecies = ["H"]\n'), ["no meaning with mace"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str, capsys):
    build, expected = MISTAKES[mistake]
    assert main(["analyze", "data.xyz", "-d", build()]) == 2
    line = one_line(capsys)
    for word in expected:
        assert word in line


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_at_all\n", "broken needs nothing_at_all"),
        ("1 / 0\n", "importing broken failed: ZeroDivisionError"),
        ("def f(:\n", "importing broken failed: SyntaxError"),
    ],
)
def test_code_that_does_not_import(code: str, said: str, capsys):
    Path("broken.py").write_text(code)
    assert main(["scan", "data.xyz", "-d", "broken:f"]) == 2
    assert said in one_line(capsys)


def test_nothing_beside_it_and_no_species(capsys):
    other = ["-d", "soap cutoff=3 n_max=2 l_max=1 atom_sigma=0.5"]
    for text in ("chgnet", "my_features:inverse"):
        assert main(["scan", "data.xyz", "-d", text, *other]) == 2
        assert f"--descriptor {text} is a whole descriptor" in one_line(capsys)
        assert main(["scan", "data.xyz", "-d", text, "--species", "H,O"]) == 2
        assert "--species has no meaning" in one_line(capsys)


@pytest.mark.filterwarnings("default")  # of the packages
class TestWithThePackages:
    def test_chgnet(self):
        pytest.importorskip("chgnet")
        from ase_sensitivity import CHGNetDescriptor

        assert repr(chosen("chgnet")) == repr(chosen("chgnet:0.3.0")) == repr(CHGNetDescriptor())
        table = in_a_table('[chgnet]\nlayers = [1, 4]\ndtype = "float32"\n')
        assert chosen(table).layers == (1, 4)
        with pytest.raises(ValueError, match="chgnet gives no descriptor of 99"):
            chosen("chgnet:99")

    def test_sevenn(self):
        pytest.importorskip("sevenn")
        from ase_sensitivity import SevenNetDescriptor

        assert repr(chosen("sevenn:7net-0")) == repr(SevenNetDescriptor()) == repr(chosen("sevenn"))
        with pytest.raises(ValueError, match="sevenn gives no descriptor of none"):
            chosen("sevenn:none")

    def test_mace(self, capsys):
        if importlib.util.find_spec("mace") is None:
            pytest.skip("mace is not installed")
        import torch

        from ase_sensitivity import MACEDescriptor
        from tests.test_mace import random_mace

        model = random_mace([1, 8])
        Path("models").mkdir()
        torch.save(model, "models/a.model")
        expected = repr(MACEDescriptor(model))
        assert repr(chosen("mace:models/a.model")) == expected
        Path("models/a.toml").write_text('mace = "a.model"\n')  # relative to the file
        assert repr(chosen("models/a.toml")) == expected
        assert main(["analyze", "data.xyz", "-d", "mace:none.model"]) == 2
        assert capsys.readouterr().err.splitlines()[-1].endswith("there is no file none.model")
        with pytest.raises(ValueError, match=r"mace gives no descriptor of some\.model"):
            chosen("mace:some.model")
