"""QUIP's argument strings: parse them, fill in species, and refuse what QUIP would crash on."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ase.data import atomic_numbers, chemical_symbols

from ase_sensitivity.descriptors.quip.syntax import OTHER_KINDS, SWITCHES, descriptors, words

BODY_ORDER = {
    "soap": 3,
    "soap_turbo": 3,
    "bispectrum_so3": 4,
    "bispectrum_so4": 4,
    "power_so3": 3,
    "power_so4": 3,
    "behler": 3,
    "cosnx": 3,
    "rdf": 2,
    "coordination": 2,
    "distance_2b": 2,
    "angle_3b": 3,
    "distance_Nb": 2,
}
"""The QUIP descriptors that have a center and gradients, and their body orders. The body order of
distance_Nb is its `order`."""

SPECIES_AS_CENTERS = {"soap"}
SPECIES_BY_WEIGHT = {"bispectrum_so3", "bispectrum_so4", "power_so3", "power_so4"}
SPECIES_AS_NEIGHBORS = {"soap", "soap_turbo"} | SPECIES_BY_WEIGHT

CORRELATED = {
    "distance_2b": ("Z1", "Z2"),
    "angle_3b": ("Z", "Z1", "Z2"),
    "distance_Nb": ("Z",),
}
"""Options in which descriptors of pairs and triplets name the elements of their atoms."""

KERNEL_OPTIONS = {
    "add_species", "config_type_kernel_regularisation", "config_type_n_sparse",
    "covariance_type", "delta", "energy_scale", "f0", "mark_sparse_atoms", "n_sparse",
    "n_sparse_file", "print_sparse_index", "prior_mean", "sparse_file", "sparse_method",
    "theta_fac", "theta_file", "theta_uniform", "unique_descriptor_tolerance",
    "unique_hash_tolerance", "zeta",
}  # fmt: skip
"""Options of a GAP's kernel and fit; they do not change features."""
OF_SAME_COMPONENT = KERNEL_OPTIONS | {
    "Z", "Z1", "Z2", "central_index", "n_Z", "n_species", "resid_name", "species_Z", "xml_version",
}  # fmt: skip
"""Strings that differ only in these options are one descriptor to a user."""

MANDATORY = {
    "soap": ("cutoff", "n_max", "l_max", "atom_sigma"),
    "soap_turbo": (),
    "behler": (),
    "distance_Nb": ("order", "cutoff"),
}
"""Options that QUIP needs. All other descriptors need a `cutoff`: by default they see no atom."""

# Outside of these ranges, QUIP ends the process or writes out of bounds. The upper bounds are far
# above useful values, and keep QUIP from allocating more memory than there is.
INTEGER_RANGE = {
    "n_max": (1, 200),
    "l_max": (0, 200),
    "j_max": (0, 50),
    "n_gauss": (1, 10_000),
    "n_species": (1, 118),
    "n_Z": (1, 118),
    "n_exponents": (1, 100),
    "K": (1, 10_000),
    "alpha_max": (1, 200),
    "radial_enhancement": (0, 2),
    "central_index": (1, 118),
    "nu_R": (0, 2),
    "nu_S": (0, 2),
    "order": (2, 5),
}
PRESENT_VERSIONS = {"soap": (1426512068, 1987654320), "distance_Nb": (1596837814, math.inf)}
"""The first and last version of GAP files with the same defaults as a string without a version. In
earlier versions, soap's centers contribute to the density of every species, and features have no
factor (2l + 1)^(-1/2); clusters of distance_Nb are compact only if asked for. In later versions,
soap has another radial basis."""

POSITIVE = {
    "cutoff",
    "atom_sigma",
    "rcut_hard",
    "rcut_soft",
    "atom_sigma_r",
    "atom_sigma_t",
    "w_gauss",
}
NOT_NEGATIVE = {"cutoff_transition_width", "transition_width", "min_cutoff"}
FINITE = {"central_weight", "covariance_sigma0", "atom_sigma_r_scaling", "atom_sigma_t_scaling"}

# QUIP ignores options that it does not know. It knows these, in addition to the ones above. An
# unknown option that is spelt almost like a known one is an error.
OTHER_OPTIONS = {
    "Z", "Z1", "Z2", "Z_center", "Z_map", "amplitude_scaling", "basis", "basis_error_exponent",
    "behler_file", "compress_file", "compress_mode", "config_type_n_sparse", "covariance_type",
    "cutoff_dexp", "cutoff_rate", "cutoff_scale", "delta", "energy_scale", "exponents", "f0",
    "mix_shift", "n_sparse", "nf", "print_sparse_index", "prior_mean", "r_max", "r_min",
    "radial_basis", "resid_name", "scaling_mode", "sparse_file", "sparse_method", "species",
    "species_Z", "tail_exponent", "tail_range", "theta_fac", "theta_file", "theta_uniform",
    "unique_hash_tolerance", "w", "xml_version", "zeta", "z0",
}  # fmt: skip

ALIASES = {"normalize": "normalise", "atom_gaussian_width": "atom_sigma"}

KNOWN = OTHER_OPTIONS | SWITCHES | INTEGER_RANGE.keys() | POSITIVE | NOT_NEGATIVE | FINITE
# QUIP does not distinguish upper and lower case.
_KINDS = {kind.lower(): kind for kind in (*BODY_ORDER, *OTHER_KINDS)}
_KEYS = {key.lower(): key for key in KNOWN} | ALIASES


class UnsupportedDescriptorError(ValueError):
    """A descriptor of QUIP that is not supported."""


@dataclass(frozen=True)
class QUIPArguments:
    """A parsed QUIP descriptor string.

    Attributes
    ----------
    kind
        The name of the descriptor, such as ``"soap"``.
    arguments
        Its arguments, in the order given; lists without their braces.
    gap_version
        Version of the GAP file that determines the conventions; None for the present ones.
    """

    kind: str
    arguments: dict[str, str]
    gap_version: int | None = None

    @classmethod
    def parse(cls, text: str) -> QUIPArguments:
        """Parse a string and check it.

        Raises
        ------
        TypeError
            If ``text`` is not a string.
        ValueError
            If it is malformed, names no known descriptor, or has an argument out of range.
        """
        if not isinstance(text, str):
            raise TypeError(f"a QUIP descriptor is a string, not {type(text).__name__}: {text!r}")
        if not text.isascii():
            raise ValueError(f"QUIP reads ASCII only, not {text[:200]!r}")
        kinds: list[str] = []
        others: list[str] = []
        arguments: dict[str, str] = {}
        for word, value in words(text):
            key = _KEYS.get(word.lower(), word)
            if word.lower() in _KINDS:
                kinds += [_KINDS[word.lower()]] * (value is None or _switch(word, value) == "T")
            elif key in SWITCHES:
                arguments[key] = _switch(key, value or "T")
            elif value:
                arguments[key] = value
            elif value is None and key not in KNOWN:
                others.append(word)
            else:
                raise ValueError(f"`{key}` has no value in the QUIP descriptor {text[:200]!r}")
        if len(kinds) != 1:
            raise ValueError(
                f"the QUIP descriptor {text[:200]!r} must name one of {', '.join(BODY_ORDER)}"
            )
        if kinds[0] not in BODY_ORDER:
            raise UnsupportedDescriptorError(
                f"QUIP's {kinds[0]} is not supported; supported are {', '.join(BODY_ORDER)}"
            )
        if kinds[0] == "angle_3b" and "Z_center" in arguments:
            arguments["Z"] = arguments.pop("Z_center")
        if others:
            raise ValueError(
                f"`{others[0][:40]}` in the QUIP descriptor {text[:200]!r} is neither an option "
                "that can stand alone nor a descriptor"
            )
        parsed = cls(kinds[0], arguments)
        parsed._check()
        return parsed

    @classmethod
    def parse_all(cls, text: str) -> list[QUIPArguments]:
        """Parse a string of one or several descriptors, separated by colons as for gap_fit.

        Raises
        ------
        TypeError, ValueError
            As :meth:`parse`.
        """
        several = descriptors(text, frozenset(_KINDS)) if isinstance(text, str) else [text]
        return [cls.parse(one) for one in several]

    def __str__(self) -> str:
        written = [self.kind]
        for key, value in self.arguments.items():
            written.append(f"{key}={{{value}}}" if " " in value else f"{key}={value}")
        return " ".join(written)

    def of_gap(self, version: int) -> QUIPArguments:
        """The arguments with the conventions of a GAP file of a version (0 if it states none).

        QUIP does the same: it appends the version to each string of a GAP and passes it to each
        calculation.
        """
        lowest, highest = PRESENT_VERSIONS.get(self.kind, (0, math.inf))
        if lowest <= version <= highest:
            return self
        arguments = self.arguments | {"xml_version": str(version)}
        return replace(self, arguments=arguments, gap_version=version)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays of atoms that features depend on."""
        if {"only_inter", "only_intra"} & {k for k, word in self.arguments.items() if word == "T"}:
            return (self.arguments["resid_name"],)
        return ()

    def with_species(self, species: Sequence[str]) -> QUIPArguments:
        """Fill in ``species_Z``, ``n_species`` and, for soap, ``Z``, ``n_Z`` unless given.

        Bispectra and power spectra get equal weights ``w``: all species are seen, but not
        distinguished.

        Raises
        ------
        ValueError
            If a symbol is unknown or listed twice, or this descriptor has no such arguments.
        """
        species = chemical_species("species", species)
        if self.kind not in SPECIES_AS_NEIGHBORS:
            raise ValueError(
                f"`species` cannot be filled in for {self.kind}; give Z, Z1, Z2 in the string"
            )
        numbers = " ".join(str(atomic_numbers[symbol]) for symbol in species)
        filled = dict(self.arguments)
        if "species_Z" not in filled:
            filled |= {"n_species": str(len(species)), "species_Z": numbers}
            if self.kind in SPECIES_BY_WEIGHT and "w" not in filled:
                filled["w"] = " ".join(["1"] * len(species))
        if self.kind in SPECIES_AS_CENTERS and "Z" not in filled:
            filled |= {"n_Z": str(len(species)), "Z": numbers}
        completed = replace(self, arguments=filled)
        completed._check()
        return completed

    @property
    def body_order(self) -> int:
        """Number of atoms that features correlate."""
        return int(self.arguments.get("order", BODY_ORDER[self.kind]))

    @property
    def species(self) -> tuple[str, ...] | None:
        """Symbols of the species that are distinguished, or None if the string lists none."""
        if self.arguments.get("species_Z", "0") == "0":
            return None
        return tuple(chemical_symbols[int(z)] for z in self.arguments["species_Z"].split())

    @property
    def elements(self) -> frozenset[str] | None:
        """Symbols of the elements that features depend on; None for all elements."""
        numbers: list[str] = []
        if self.kind in SPECIES_AS_NEIGHBORS:
            if "species_Z" not in self.arguments:
                return None
            every = "0" if self.kind in SPECIES_AS_CENTERS else ""
            numbers = f"{self.arguments['species_Z']} {self.arguments.get('Z', every)}".split()
        elif self.kind in CORRELATED:
            listed = [self.arguments.get(key, "0") for key in CORRELATED[self.kind]]
            numbers = " ".join(listed).split()
        found = {int(number) for number in numbers if number.isdigit() and int(number) <= 118}
        # Zero stands for any element.
        return None if not found or 0 in found else frozenset(chemical_symbols[z] for z in found)

    @property
    def without_species_and_kernel(self) -> QUIPArguments:
        """The arguments without those of the species and of the kernel."""
        kept = {k: word for k, word in self.arguments.items() if k not in OF_SAME_COMPONENT}
        return replace(self, arguments=kept)

    @property
    def kernel_weight(self) -> float | None:
        """The prior of a GAP for the change of the local energy with each feature, in eV.

        None if the string does not determine it, or it is not the same everywhere
        (docs/descriptors).
        """
        given = self.arguments
        if "delta" not in given:
            return None
        delta = real_number("delta", given["delta"])
        kind = given.get("covariance_type", "").lower()
        if kind in ("ard_se", "1") and "theta_uniform" in given:
            return delta / real_number("theta_uniform", given["theta_uniform"])
        zeta = real_number("zeta", given.get("zeta", "1"))
        normalised = self.kind.startswith("soap") and (
            self.kind == "soap_turbo" or given.get("normalise", "T") == "T"
        )
        if kind in ("dot_product", "2") and (zeta == 1 or normalised):
            return delta * math.sqrt(zeta)
        return None

    @property
    def averaged(self) -> bool:
        """Whether there is one row of features for the whole structure."""
        return self.arguments.get("average") == "T"

    @property
    def takes_species(self) -> bool:
        """Whether :meth:`with_species` can fill in species."""
        return self.kind in SPECIES_AS_NEIGHBORS

    def _check(self) -> None:
        self._check_names()
        asked = [key for key in ("only_inter", "only_intra") if self.arguments.get(key) == "T"]
        if asked and "resid_name" not in self.arguments:
            raise ValueError(f"`{asked[0]}` needs `resid_name`, the name of an array of atoms")
        for key, (lowest, highest) in INTEGER_RANGE.items():
            for word in self.arguments.get(key, "").split():
                if not re.fullmatch(r"[+-]?\d{1,9}", word) or not lowest <= int(word) <= highest:
                    raise ValueError(
                        f"`{key}` is {word} but must be an integer from {lowest} to {highest}"
                    )
        for keys, rule, holds in (
            (POSITIVE, "positive", lambda x: x > 0),
            (NOT_NEGATIVE, "zero or positive", lambda x: x >= 0),
            (FINITE, "finite", lambda x: True),
        ):
            for key in sorted(keys & self.arguments.keys()):
                for word in self.arguments[key].split():
                    value = real_number(key, word)
                    if not (math.isfinite(value) and holds(value)):
                        raise ValueError(f"`{key}` is {word} but must be {rule}")
        self._check_species_lists()

    def _check_names(self) -> None:
        for key in MANDATORY.get(self.kind, ("cutoff",)):
            if key not in self.arguments:
                raise ValueError(f"`{key}` is missing in the QUIP descriptor {str(self)[:200]!r}")
        for key in self.arguments.keys() - KNOWN:
            similar = difflib.get_close_matches(key, KNOWN, n=1, cutoff=0.85)
            if similar:
                raise ValueError(f"`{key}` is no option of QUIP; did you mean `{similar[0]}`?")

    def _check_species_lists(self) -> None:
        for count, listed in (("n_species", "species_Z"), ("n_Z", "Z")):
            if listed == "Z" and self.kind not in SPECIES_AS_CENTERS:
                continue
            numbers = self.arguments.get(listed, "").split()
            for word in numbers:
                if numbers == ["0"] or (word == "0" and listed == "Z"):
                    continue  # all elements
                if not re.fullmatch(r"\d{1,3}", word) or not 1 <= int(word) <= 118:
                    raise ValueError(f"`{listed}` has {word!r}, not an atomic number (1 to 118)")
            if len(set(numbers)) != len(numbers):
                raise ValueError(f"`{listed}` lists a species twice: {numbers}")
            stated = self.arguments.get(count, "1" if numbers else "0")  # QUIP's default is 1
            if int(stated) != len(numbers) and (numbers or stated != "1"):
                raise ValueError(
                    f"`{count}` is {stated} but `{listed}` lists {len(numbers)} species"
                )
        if self.kind == "distance_Nb" and "Z" in self.arguments:
            numbers = self.arguments["Z"].split()
            valid = all(re.fullmatch(r"\d{1,3}", word) and int(word) <= 118 for word in numbers)
            if not valid or len(numbers) != self.body_order:
                raise ValueError(
                    f"`Z` is {self.arguments['Z']!r} but must be {self.body_order} atomic numbers, "
                    "as many as `order` says"
                )
        mixing = {"Z_mix", "R_mix", "sym_mix"} & self.arguments.keys()
        if mixing and "K" not in self.arguments:
            raise ValueError(f"`{sorted(mixing)[0]}` needs `K`, the number of mixed channels")


def _switch(key: str, word: str) -> str:
    if word.lower() not in ("t", "true", "f", "false"):
        raise ValueError(f"`{key}` is {word!r} but must be T or F")
    return word[0].upper()


def chemical_species(name: str, symbols: Sequence[str]) -> tuple[str, ...]:
    """Chemical symbols without repetitions.

    Raises
    ------
    TypeError, ValueError
        If ``symbols``, given as the argument ``name``, is anything else.
    """
    if isinstance(symbols, str):
        raise TypeError(f'`{name}` must be a list such as ["H", "C"], not {symbols!r}')
    if not isinstance(symbols, Iterable):
        raise TypeError(f'`{name}` must be a list such as ["H", "C"], not {symbols!r}')
    listed = tuple(dict.fromkeys(symbols))
    unknown = [s for s in listed if not isinstance(s, str) or s not in atomic_numbers or s == "X"]
    if unknown or not listed:
        what = repr(unknown[0]) if unknown else "an empty list"
        raise ValueError(f'`{name}` must be chemical symbols such as ["H", "C"], not {what}')
    return tuple(str(symbol) for symbol in listed)


def real_number(key: str, word: str) -> float:
    """The argument ``key`` as a number in Fortran notation; ValueError if it is not a number."""
    try:
        return float(re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", word))
    except ValueError:
        raise ValueError(f"`{key}` is {word!r}, not a number") from None
