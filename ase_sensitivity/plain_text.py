"""Text from files, made safe for a terminal, a database and an HTML page."""

from __future__ import annotations


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
