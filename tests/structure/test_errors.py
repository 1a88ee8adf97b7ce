"""Every error that the source raises says where it is and what to do; found in the source, so that none is forgotten."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwc_onnx import errors

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "hwc_onnx").rglob("*.py")), *sorted((ROOT / "cli").rglob("*.py"))]
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.HwcError)}
ADVICE = re.compile(
    r"\b(add|allow\w*|apply|ask|at least|at most|between|bring|change|check|choose|convert|copy|create|divide|download|enlarge|expected|export"
    r"|feed|flatten|free|give|hold|inspect`|install|join|keep|label|leave|let|loosen|lower|make|measure|mend|mended|move|must|name|needs?|put"
    r"|remove|rename|repeat|replace|report|return|run|save|say|see|set|shorten|spell|split|start|state|supported|swap|switch|take"
    r"|turn|try|unroll|unset|update|use|wait|widen|within|write)\b",
    re.IGNORECASE,
)
HELD = {"_NEXT", "only", "hint", "_CAUSES", "advice"}
"""Names of variables that carry the rest of a message."""


def raised() -> Iterator[tuple[str, str, set[str]]]:
    """(place, the constant words of the message, names that are filled in) of each raise."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", "") in KINDS:
                words, names = parts(node.exc.args[0]) if node.exc.args else ("", set())
                yield f"{path.relative_to(ROOT)}:{node.lineno}", words, names


def parts(message: ast.expr) -> tuple[str, set[str]]:
    inside = list(ast.walk(message))
    words = " ".join(part.value for part in inside if isinstance(part, ast.Constant) and isinstance(part.value, str))
    names = {part.id for part in inside if isinstance(part, ast.Name)}
    return words, names | {getattr(part.func, "id", "") for part in inside if isinstance(part, ast.Call)}


def lacking(words: str, names: set[str]) -> str | None:
    """What a message lacks."""
    if not words.strip(" :;,.\n") or (":" not in words and names == {"error"}):
        return None  # all of it was made elsewhere
    if not (re.search(r"[:'`]|--\w|the model", words) or names):
        return "where"
    if not (ADVICE.search(words) or "`hwc-onnx " in words or names & HELD or any(name.startswith("_") for name in names)):
        return "what to do"
    return None


def test_each_kind_is_raised_and_has_its_exit_code() -> None:
    seen = {
        getattr(node.exc.func, "id", "")
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    }
    assert KINDS - {"HwcError"} <= seen
    assert {getattr(errors, name).exit_code for name in KINDS} == {1, 2, 4, 5}


def test_each_error_says_where_and_what_to_do() -> None:
    found = list(raised())
    assert len(found) > 300
    wrong = [f"{place}: lacks {what}: {words}" for place, words, names in found if (what := lacking(words, names))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", ["f'{path}: is damaged'", "'something is wrong'", "f'{path}: cannot be read'"])
def test_a_message_without_advice_is_noticed(text: str) -> None:
    assert lacking(*parts(ast.parse(text, mode="eval").body)) is not None
