"""The syntax of descriptors in QUIP and gap_fit: words, values, quotes, several in one string."""

from __future__ import annotations

import re

OTHER_KINDS = (
    "A2_dimer", "AB_dimer", "AN_monomer", "alex", "as_distance_2b", "atom_real_space",
    "bond_real_space", "co_angle_3b", "co_distance_2b", "com_dimer", "general_dimer",
    "general_monomer", "general_trimer", "molecule_lo_d", "soap_express", "transfer", "trihis",
    "water_dimer", "water_monomer", "water_trimer",
)  # fmt: skip
"""Descriptors of QUIP that are not supported: quippy lacks them, or they have no center or no
gradients."""

SWITCHES = {
    "R_mix", "Z_mix", "add_species", "average", "central_reference_all_species",
    "compact_clusters", "coupling", "diagonal_radial", "global", "mark_sparse_atoms", "normalise",
    "only_inter", "only_intra", "sym_mix",
}  # fmt: skip
"""Options that are T or F; the name without a value means T."""

_NESTED = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
# There may be blanks between `=` and a value, unless the next word is another option.
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
    """The options of one descriptor with their values; None for an option without ``=``.

    Options are separated by blanks, line ends and commas. Lists are in braces, even doubled, or
    quotes.

    Raises
    ------
    ValueError
        If a part of the string cannot be read.
    """
    text = re.sub(r"\\(?=\s|$)", " ", text)  # the end of a line that is continued
    remainder = _WORD.sub("", text).replace(",", "").strip()
    if remainder:
        raise ValueError(f"cannot read {remainder[:40]!r} in the QUIP descriptor {text[:200]!r}")
    found: list[tuple[str, str | None]] = []
    for match in _WORD.finditer(text):
        key, equals, *values = match.groups()
        value = next((value for value in values if value is not None), "")
        # QUIP reads two numbers in `{6, 14}`, but none in `{6,14}`.
        listed = " ".join(re.sub(r"[{}\"']|,(?=\s|[}\"'])", " ", value).split())
        found.append((key, listed if equals else None))
    return found


def descriptors(text: str, kinds: frozenset[str]) -> list[str]:
    """The descriptors of a string, separated by colons as in gap_fit's ``gap``.

    A colon within a word, as in ``config_type_n_sparse=liquid:5``, is a separator only if one of
    the ``kinds`` of descriptor follows.
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
    """The text without ``gap=`` and braces around all of it."""
    while True:
        match = re.fullmatch(r"[\s\\]*(?:gap\s*=\s*)?\{(.*)\}[\s\\]*", text, re.DOTALL)
        if match is None:
            return text
        depth = 0
        for letter in match[1]:
            depth += (letter == "{") - (letter == "}")
            if depth < 0:  # the first and the last brace are not a pair
                return text
        text = match[1]
