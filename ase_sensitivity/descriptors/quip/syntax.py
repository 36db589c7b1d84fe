"""How QUIP and gap_fit write descriptors: words, values, quotes, and several in one string."""

from __future__ import annotations

import re

OTHER_KINDS = (
    "A2_dimer", "AB_dimer", "AN_monomer", "alex", "as_distance_2b", "atom_real_space",
    "bond_real_space", "co_angle_3b", "co_distance_2b", "com_dimer", "general_dimer",
    "general_monomer", "general_trimer", "molecule_lo_d", "soap_express", "transfer", "trihis",
    "water_dimer", "water_monomer", "water_trimer",
)  # fmt: skip
"""Descriptors of QUIP that we do not have: the program lacks them, or they break our contract."""

SWITCHES = {
    "R_mix", "Z_mix", "add_species", "average", "central_reference_all_species",
    "compact_clusters", "coupling", "diagonal_radial", "global", "mark_sparse_atoms", "normalise",
    "only_inter", "only_intra", "sym_mix",
}  # fmt: skip
"""Options that are T or F; the name alone says T."""

_NESTED = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
# A value may stand apart from its `=`, unless what stands there is the next option.
_WORD = re.compile(
    rf"""([^\s,={{}}"']+)
    (?:\s*(=)(?:
        \s*({_NESTED}|"[^"]*"|'[^']*')
        | ([^\s,{{}}"']+)
        | \s+(?![^\s,={{}}"']+\s*=)([^\s,={{}}"']+)
    )?)?""",
    re.VERBOSE,
)


def words(text: str) -> list[tuple[str, str | None]]:
    """The options of one descriptor with their values; None where there is no ``=``.

    Blanks, line ends and commas separate; braces, even doubled, and quotes hold lists together.

    Raises
    ------
    ValueError
        If something cannot be read.
    """
    text = re.sub(r"\\(?=\s|$)", " ", text)  # of a line that goes on
    remainder = _WORD.sub("", text).replace(",", "").strip()
    if remainder:
        raise ValueError(f"cannot read {remainder[:40]!r} in the QUIP descriptor {text[:200]!r}")
    found: list[tuple[str, str | None]] = []
    for match in _WORD.finditer(text):
        key, equals, *values = match.groups()
        value = next((value for value in values if value is not None), "")
        # Of `{6, 14}` QUIP reads both numbers, of `{6,14}` none.
        listed = " ".join(re.sub(r"[{}\"']|,(?=\s|[}\"'])", " ", value).split())
        found.append((key, listed if equals else None))
    return found


def descriptors(text: str, kinds: frozenset[str]) -> list[str]:
    """The descriptors of a string as gap_fit's ``gap`` takes it: separated by colons.

    A colon within a word, as in ``config_type_n_sparse=liquid:5``, separates only if one of the
    ``kinds`` of descriptor follows.
    """
    text = _unwrapped(text)
    pieces, start, depth = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter not in ":;" or depth:
            continue
        around = text[place - 1 : place] + text[place + 1 : place + 2]
        following = re.match(r"[\s{]*(\w*)", text[place + 1 :])
        inside = len(around) == 2 and not re.search(r"[\s\\{}]", around)
        if inside and following and following[1].lower() not in kinds:
            continue
        pieces.append(text[start:place])
        start = place + 1
    pieces.append(text[start:])
    found = [_unwrapped(piece) for piece in pieces if piece.strip(" \t\r\n\\")]
    return found or [text]


def _unwrapped(text: str) -> str:
    """Without ``gap=`` and braces around the whole."""
    while True:
        match = re.fullmatch(r"[\s\\]*(?:gap\s*=\s*)?\{(.*)\}[\s\\]*", text, re.DOTALL)
        if match is None:
            return text
        depth = 0
        for letter in match[1]:
            depth += (letter == "{") - (letter == "}")
            if depth < 0:  # the braces are those of two
                return text
        text = match[1]
