"""Without torch everything else works, and what needs it says so in a line."""

import json
import subprocess
import sys

import pytest

MISSING = {
    "TorchDescriptor(print)": "torch",
    "EdgeDescriptor(print, 3.0)": "torch",
    "JaxDescriptor(print)": "jax",
    "CHGNetDescriptor()": "chgnet",
    "MACEDescriptor(None)": "mace",
    "MetatomicDescriptor('a.pt')": "metatomic",
    "SevenNetDescriptor()": "sevenn",
    "DScribeDescriptor(None)": "dscribe",
    "FeatomicDescriptor(None, ['H'])": "featomic",
}

CODE = """
import json, sys
import scipy.stats  # looks at torch itself
for name in ("torch", "jax", "chgnet", "mace", "metatomic", "sevenn", "dscribe", "featomic"):
    sys.modules[name] = None
from ase.build import molecule
from ase_sensitivity import *
assert analyze(molecule("CH4"), SOAP(["C", "H"], 3.0, 2, 2)).n_null > 0
said = {}
for use in json.loads(sys.argv[1]):
    try:
        eval(use)
    except ImportError as error:
        said[use] = str(error)
print(json.dumps(said))
"""


@pytest.mark.slow
def test_what_is_missing():
    given = [sys.executable, "-c", CODE, json.dumps([*MISSING])]
    ended = subprocess.run(given, capture_output=True, text=True, check=True)
    said = json.loads(ended.stdout)
    assert said.keys() == MISSING.keys()
    for use, extra in MISSING.items():
        assert said[use].endswith(f'pip install "ase-sensitivity[{extra}]"')
    needed = "DScribeDescriptor needs dscribe"
    assert said["DScribeDescriptor(None)"].startswith(needed)
