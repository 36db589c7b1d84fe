"""Arguments for which QUIP ends the process with `STOP`, writes out of bounds or sees no atom."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

from ase_sensitivity.descriptors.quip.arguments import QUIPArguments, real_number

MOST_RADIAL = {"poly3": 10, "poly3gauss": 11}
"""The largest `alpha_max` of each basis of soap_turbo; with any other basis QUIP sees no atom."""

CORRELATED = tuple(f"{nu_r}_{nu_s}" for nu_r in range(3) for nu_s in range(3))
CHOICES = {
    "basis": tuple(MOST_RADIAL),
    "scaling_mode": ("polynomial",),
    "compress_mode": ("None", "trivial", "Trivial", *CORRELATED),
}


def refuse_stops(words: QUIPArguments) -> None:
    """Refuse arguments that are known to make QUIP end the process.

    Raises
    ------
    ValueError
        The message names the argument and its allowed values.
    """
    if words.kind == "soap_turbo":
        _check_turbo(words.arguments)
    elif words.kind == "soap" and words.arguments.get("radial_basis") == "GTO":
        _check_gto(words.arguments)


def with_compress_file(words: QUIPArguments, folder: Path) -> QUIPArguments:
    """The same with the ``compress_file`` in a folder, if the working directory has none."""
    name = words.arguments.get("compress_file")
    if name is None or Path(name).exists() or not (folder / name).exists():
        return words
    path = str((folder / name).absolute())
    if not path.isascii() or re.search(r"[{}\"']", path):
        raise ValueError(
            f"`compress_file` is {path!r}, a name that QUIP cannot read; call from its folder"
        )
    return replace(words, arguments=words.arguments | {"compress_file": path})


def _check_turbo(given: dict[str, str]) -> None:
    for key, allowed in CHOICES.items():
        if given.get(key, allowed[0]) not in allowed:
            raise ValueError(f"`{key}` is {given[key]!r} but must be one of {', '.join(allowed)}")
    n_species = int(given.get("n_species", "1"))
    if int(given.get("central_index", "1")) > n_species:
        raise ValueError(
            f"`central_index` is {given['central_index']} but `n_species` is {n_species}"
        )
    key = "alpha_max" if "alpha_max" in given else "n_max"  # one n_max is that of all species
    sizes = [int(word) for word in given.get(key, "").split()]
    sizes = sizes * n_species if key == "n_max" else sizes
    basis = given.get("basis", "poly3")
    if sizes and max(sizes) > MOST_RADIAL[basis]:
        raise ValueError(
            f"`{key}` is {max(sizes)} but must not exceed {MOST_RADIAL[basis]} with "
            f"basis={basis}: more of its functions are not independent"
        )
    if given.get("compress_file", "None") != "None":
        _check_compression(given["compress_file"], sizes, int(given.get("l_max", "0")))
    elif given.get("compress_mode") in CORRELATED and len(set(sizes)) > 1:
        raise ValueError(
            f"`compress_mode` is {given['compress_mode']}, which needs the same `alpha_max` for "
            f"all species, not {given['alpha_max']}"
        )


def _check_compression(name: str, sizes: list[int], l_max: int) -> None:
    """Raise ValueError if the file lists features that do not exist: QUIP writes out of bounds."""
    try:
        lines = Path(name).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise ValueError(f"`compress_file` is {name!r}, which cannot be read: {reason}") from None
    n_radial = sum(sizes)
    n_features = n_radial * (n_radial + 1) // 2 * (l_max + 1)
    try:
        if lines[1].rstrip() == "P_transformation":
            matrix = lines[2 : [line.rstrip() for line in lines].index("end_transformation")]
            pairs = [(int(line.split()[0]), int(line.split()[1])) for line in matrix]
        else:
            count = int(lines[0].split()[len(sizes) + 1])
            pairs = [(1, int(line.split()[0])) for line in lines[1 : count + 1]]
            if len(pairs) < count:
                raise ValueError
    except (IndexError, ValueError):
        raise ValueError(
            f"`compress_file` is {name!r}, which is no list of features of soap_turbo for "
            f"{len(sizes)} species, or ends too early"
        ) from None
    if not pairs:
        raise ValueError(f"`compress_file` is {name!r}, which lists no features")
    for number in (number for pair in pairs for number in pair):
        if not 1 <= number <= n_features:
            raise ValueError(
                f"`compress_file` is {name!r}, which lists feature {number} of {n_features}"
            )


def _check_gto(given: dict[str, str]) -> None:
    """Raise ValueError unless the exponents a of the radial functions r^l exp(-a r²) are positive.

    QUIP chooses them so that the functions fall to 1e-3 of 1 Å^l.
    """
    exponent = real_number("basis_error_exponent", given.get("basis_error_exponent", "10"))
    n_max, l_max = int(given["n_max"]), int(given["l_max"])
    reach = real_number("cutoff", given["cutoff"]) + real_number(
        "atom_sigma", given["atom_sigma"]
    ) * math.sqrt(2 * max(exponent, 0.0) * math.log(10))
    if math.log(1000) + l_max * math.log(reach / n_max) <= 0:
        raise ValueError(
            f"`l_max` is {l_max}, too large for QUIP's radial_basis=GTO with n_max={n_max}; "
            "reduce either, or take a larger cutoff"
        )
