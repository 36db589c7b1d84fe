"""A file that cannot be written whole leaves the one that was there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ase_sensitivity.io.whole_file import whole_file


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with whole_file(path) as file:
        file.write_text("old")

    def fail() -> None:
        with whole_file(path) as file:
            file.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as told:
        fail()
    assert told.value.filename == str(path)
    assert path.read_text() == "old"
    with whole_file(path) as file:
        file.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with whole_file(tmp_path / "link") as file:
        file.write_text("text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"


def test_what_is_no_file_is_written_to_as_it_is() -> None:
    with whole_file("/dev/null") as file:
        assert file == Path("/dev/null")
        file.write_text("text")
