"""What is said of a cause is said in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ase_sensitivity
from ase_sensitivity.causes.cause import CAUSES, EXPECTED, HARMLESS, NULL_CAUSES, SPURIOUS
from ase_sensitivity.md.actions import actions_by_cause

PACKAGE = Path(ase_sensitivity.__file__).parent


def test_the_kinds_of_causes() -> None:
    """A fragment is no fault of the descriptor, but not harmless: its forces are lost."""
    assert {*SPURIOUS} | {*EXPECTED} == {*CAUSES}
    assert not {*SPURIOUS} & {*EXPECTED}
    assert {*EXPECTED} - {*HARMLESS} == {"fragment", "unresolved"}
    assert {*CAUSES} - {*NULL_CAUSES} == {"near-symmetric", "unresolved"}


def test_the_worst_come_first() -> None:
    assert tuple(CAUSES)[: len(SPURIOUS)] == SPURIOUS
    assert tuple(CAUSES)[-len(HARMLESS) :] == HARMLESS


def test_colors_and_markers_tell_causes_apart() -> None:
    found = [CAUSES[name] for name in NULL_CAUSES]
    for looks in (
        [c.color for c in found],
        [c.page_colors for c in found],
        [c.marker for c in found],
    ):
        assert len(set(looks)) == len(found)


def test_every_cause_can_have_an_action() -> None:
    assert {*actions_by_cause(dict.fromkeys(CAUSES, "log"), (), None)} == {*CAUSES}
    with pytest.raises(ValueError, match=r"'bad luck' but knows species, .*, symmetry"):
        actions_by_cause({"bad luck": "log"}, (), None)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_no_other_table_of_causes(path: Path) -> None:
    if path.name == "cause.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = [*ast.iter_child_nodes(node)]
        named = {part.value for part in parts if isinstance(part, ast.Constant)} & {*CAUSES}
        assert len(named) < 3, f"line {node.lineno} lists causes again"
