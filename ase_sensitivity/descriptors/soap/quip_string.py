"""Arguments of SOAP from QUIP's argument string of a soap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ase.data import chemical_symbols

from ase_sensitivity.descriptors.quip.arguments import (
    KERNEL_OPTIONS,
    QUIPArguments,
    real_number,
)

REALS = ("cutoff", "cutoff_transition_width", "atom_sigma", "central_weight")
INTEGERS = ("n_max", "l_max")
SWITCHES = ("normalise", "central_reference_all_species")
SPECIES = ("n_species", "species_Z", "n_Z", "Z")


def _symbols(words: str) -> list[str]:
    numbers = [int(word) for word in words.split()]
    return chemical_symbols[1:119] if 0 in numbers else [chemical_symbols[z] for z in numbers]


def _equals(value: float) -> Callable[[str], bool]:
    return lambda word: real_number("option", word) == value


def _off(word: str) -> bool:
    return word == "F"


NEUTRAL: dict[str, tuple[str, Callable[[str], bool]]] = {
    "K": ("0", _equals(0)),
    "R_mix": ("F", _off),
    "Z_mix": ("F", _off),
    "average": ("F", _off),
    "basis_error_exponent": ("10", _equals(10)),
    "coupling": ("T", lambda word: word == "T"),
    "covariance_sigma0": ("0", _equals(0)),
    "cutoff_dexp": ("0", _equals(0)),
    "diagonal_radial": ("F", _off),
    "mix_shift": ("0", _equals(0)),
    "nu_R": ("2", _equals(2)),
    "nu_S": ("2", _equals(2)),
    "radial_basis": ("EQUISPACED_GAUSS", lambda word: word.upper() == "EQUISPACED_GAUSS"),
    "sym_mix": ("F", _off),
    # Earlier versions have other conventions, later ones another radial basis.
    "xml_version": (
        "1426512068 to 1987654320",
        lambda word: 1426512068 <= real_number("xml_version", word) <= 1987654320,
    ),
}
"""Options that SOAP supports with one value only: that value, and a test of a word for it."""


def soap_arguments(text: str) -> dict[str, Any]:
    """Arguments of :class:`ase_sensitivity.SOAP` for a QUIP string.

    Raises
    ------
    ValueError
        If it is malformed, is not a soap, or has an option that SOAP lacks.
    """
    parsed = QUIPArguments.parse(text)
    if parsed.kind != "soap":
        raise ValueError(f"SOAP.from_quip reads soap strings, not {parsed.kind}")
    given = dict(parsed.arguments)
    for key, (neutral, holds) in NEUTRAL.items():
        if key in given and not holds(given.pop(key)):
            raise ValueError(
                f"SOAP lacks QUIP's option `{key}` other than {neutral}; use QUIPDescriptor"
            )
    arguments: dict[str, Any] = {}
    for key in (*INTEGERS, "cutoff", "atom_sigma", "species_Z", "Z"):
        if key not in given:
            raise ValueError(
                f"SOAP needs `{key}`, which the QUIP string {text[:200]!r} does not give"
            )
    known = {*REALS, *INTEGERS, *SWITCHES, *SPECIES, *KERNEL_OPTIONS}
    lacking = [key for key in given if key not in known]
    if lacking:
        raise ValueError(
            f"SOAP lacks QUIP's option `{lacking[0]}={given[lacking[0]]}`; use QUIPDescriptor"
        )
    for key in REALS:
        if key in given:
            arguments[key] = real_number(key, given[key])
    for key in INTEGERS:
        arguments[key] = int(given[key])
    for key in SWITCHES:
        if key in given:
            arguments[key] = given[key] == "T"
    if given["species_Z"] == "0":
        raise ValueError("SOAP distinguishes species, which `species_Z=0` does not")
    arguments["species"] = _symbols(given["species_Z"])
    arguments["centers"] = _symbols(given["Z"])
    return arguments
