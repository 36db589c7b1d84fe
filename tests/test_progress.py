"""How far long work is, where there is no terminal; tests/test_cli_scan.py has one."""

from __future__ import annotations

import sys
import threading

import pytest

from ase_sensitivity import progress


class Teller:
    """A stream that says when it was written to."""

    def __init__(self) -> None:
        self.text = ""
        self.told = threading.Event()

    def write(self, text: str) -> None:
        self.text += text
        if text.endswith("\n"):
            self.told.set()

    def flush(self) -> None:
        pass


@pytest.fixture
def listen(monkeypatch):
    """Called in the test itself: pytest has its own streams before."""

    def stream() -> Teller:
        monkeypatch.setattr(progress, "FIRST", 1e-3)
        monkeypatch.setattr(sys, "stderr", Teller())
        return sys.stderr

    return stream


def test_a_line_while_it_works(listen):
    stream = listen()
    with progress.progress("Scanning", lambda: 8) as move:
        move(3)
        stream.told.clear()
        assert stream.told.wait(20)
    assert stream.text.endswith(" s, 3 of 8 frames\n")


def test_a_line_while_nothing_is_counted(listen):
    """As in the first call, which compiles."""
    stream = listen()
    with progress.progress("Compiling", unit=""):
        assert stream.told.wait(20)
    assert stream.text.startswith("Compiling: ")


def test_nothing_if_it_is_quick_or_not_wanted(capsys):
    for shown in (True, False):
        with progress.progress("Scanning", 8, shown=shown) as move:
            move(8)
    assert capsys.readouterr() == ("", "")


def test_errors_pass(listen):
    listen()
    with pytest.raises(KeyError), progress.progress("Scanning"):
        raise KeyError
    assert not any(thread.name.startswith("Scanning") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("done", "total", "first", "text"),
    [
        (0, 8, None, "Scanning: 20 s, 0 of 8 frames"),
        (5, None, (5, 4.0), "Scanning: 20 s, 5 frames"),
        # Five were there before, and the first one of this run came after 4 s.
        (38, 40, (6, 4.0), "Scanning: 20 s, 38 of 40 frames, 2 frames/s"),
    ],
)
def test_what_a_line_says(done, total, first, text):
    assert progress.line("Scanning", 20.0, "frames", done, total, first) == text
