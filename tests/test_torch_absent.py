"""Without torch everything else works, and what needs it says so in a line."""

import subprocess
import sys

import pytest

HIDDEN = """
import sys
for name in ("torch", "chgnet", "jax", "mace", "metatomic", "sevenn"):
    sys.modules[name] = None
from ase.build import molecule
from ase_sensitivity import SOAP, TorchDescriptor, analyze
from ase_sensitivity import CHGNetDescriptor, EdgeDescriptor, JaxDescriptor, MACEDescriptor
from ase_sensitivity import MetatomicDescriptor, SevenNetDescriptor
assert analyze(molecule("CH4"), SOAP(["C", "H"], 3.0, 2, 2)).n_null > 0
"""


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("TorchDescriptor(print)", '[torch]"'),
        ("EdgeDescriptor(print, 3.0)", '[torch]"'),
        ("JaxDescriptor(print)", '[jax]"'),
        ("CHGNetDescriptor()", '[chgnet]"'),
        ("MACEDescriptor(None)", '[mace]"'),
        ("MetatomicDescriptor('a.pt')", '[metatomic]"'),
        ("SevenNetDescriptor()", '[sevenn]"'),
    ],
)
def test_what_is_missing(use: str, said: str):
    ended = subprocess.run([sys.executable, "-c", HIDDEN + use], capture_output=True, text=True)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert last.endswith(f'pip install "ase-sensitivity{said}')
