"""Text from files, made safe for a terminal, a database and an HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence


def printable(text: str) -> str:
    r"""Replace each character of a text that is not printable by its escape sequence.

    Control characters could move the cursor or retitle a terminal. Surrogates, as in file names
    that are not UTF-8, can be neither printed nor stored. Line breaks and tabs stay.

    Examples
    --------
    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in "\n\t"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def reason(error: BaseException) -> str:
    """An error's message in one line, with the type of the error if the message is one word."""
    text = printable(" ".join(str(error).split()))
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def many(number: int, noun: str) -> str:
    """A number and a noun, in the plural unless the number is one."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def as_html(text: str, table: Sequence[Sequence[str]] = ()) -> str:
    r"""A table and lines of text as notebooks show them, safe whatever they contain.

    Parameters
    ----------
    text
        The lines below the table.
    table
        The headings, and the cells of each row.

    Examples
    --------
    >>> as_html("1 < 2", [["file"], ["<b>"]])
    '<table><tr><th>file</th></tr><tr><td>&lt;b&gt;</td></tr></table><p>1 &lt; 2</p>'
    """
    rows = [
        "".join(f"<{kind}>{_escaped(cell)}</{kind}>" for cell in row)
        for row, kind in zip(table, ["th", *["td"] * len(table)], strict=False)
    ]
    shown = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>{shown}</table>" * bool(rows) + f"<p>{_escaped(text)}</p>"


def _escaped(text: str) -> str:
    return html.escape(printable(text)).replace("\n", "<br>")
