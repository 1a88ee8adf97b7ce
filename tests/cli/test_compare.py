"""`hwc-onnx compare` from the command line: output, figure, and what is refused with exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import Case, hwc


def arguments(case: Case, folder: Path, *more: object) -> list[object]:
    return [
        "compare", case.model, "--data", case.data, "--max-drop", 20, "--seeds", 1, "--trials", 8, "--start", "cold",
        "--run-dir", folder / "run", "--sampler", "knapsack", "--sampler", "random", *more,
    ]  # fmt: skip


def test_compare_prints_json_then_a_table_of_the_same_run(
    case: Case, tmp_path: Path, schema: Callable[[str, Any], None]
) -> None:
    figure = tmp_path / "curves.html"
    result = hwc(*arguments(case, tmp_path, "--json", "--quiet", "--figure", figure))
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    payload = json.loads(result.stdout)
    schema("compare", payload)
    assert [(row["sampler"], row["start"], row["seed"]) for row in payload["rows"]] == [
        ("knapsack", "cold", 0), ("random", "cold", 0),
    ]  # fmt: skip
    assert figure.read_text().startswith("<!doctype html>")
    again = hwc(*arguments(case, tmp_path))
    assert again.exit_code == 0 and "search:" not in again.stderr  # the rows of the first call
    assert again.stdout.startswith("knapsack ")
    assert max(len(line.rstrip()) for line in again.stdout.splitlines() if "run folder" not in line) <= 80


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sampler", "tpr"], "unknown sampler 'tpr' (did you mean 'tpe'"),
        (["--sampler", "tpe", "--sampler", "tpe"], "named twice"),
        (["--seeds", "0"], "x>=1"),
        (["--jobs", "0"], "x>=1"),
        (["--start", "warm"], "'seeds', 'cold'"),
        (["--trials", "6"], "is used up by the 6 plans that a study begins with"),
        (["--trials", "9", "--sampler", "random"], "preparation takes"),
        (["--figure", "curves.png"], "ends in .html"),
        (["--max-drop", "low"], "points such as 1.0"),
    ],
)
def test_compare_usage_error_exits_with_2_and_says_what_is_allowed(
    case: Case, tmp_path: Path, options: list[str], words: str
) -> None:
    result = hwc("compare", case.model, "--data", case.data, "--run-dir", tmp_path / "run", "--quiet", *options)
    assert result.exit_code == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr and result.stdout == ""


def test_compare_refuses_a_bad_model_with_4(case: Case, tmp_path: Path) -> None:
    result = hwc("compare", tmp_path / "none.onnx", "--run-dir", tmp_path / "run")
    assert result.exit_code == 4 and "none.onnx" in result.stderr


def test_compare_interrupted_says_how_to_go_on(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwc_onnx.search.objective import Objective

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Objective, "evaluate", interrupted)
        result = hwc(*arguments(case, tmp_path))
    assert result.exit_code == 130 and result.stdout == ""
    assert "every finished trial and row is kept" in result.stderr and "to continue: hwc-onnx" in result.stderr
    assert not list(tmp_path.rglob("row.json")) and not list(tmp_path.rglob(".lock"))
    assert hwc(*arguments(case, tmp_path, "--quiet")).exit_code == 0
