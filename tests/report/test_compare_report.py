"""Tables and figure of `compare`: what they say, within 80 columns, and a page that asks nothing of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwc_onnx.api import Comparison
from hwc_onnx.comparison.contest import Contest
from hwc_onnx.comparison.summary import summarize
from hwc_onnx.errors import UsageError
from hwc_onnx.report.compare_figure import compare_figure, compare_page
from hwc_onnx.report.compare_table import compare_tables
from hwc_onnx.report.console import tables_text
from tests.comparison.made_rows import rows
from tests.report.test_profile_figure import Page

SAVINGS = {"composite": [0.5, 0.6, 0.55], "tpe-univariate": [0.61, 0.62, 0.63], "random": [0.1, 0.2, 0.3]}


def payload(savings: dict[str, list[float]] = SAVINGS) -> dict[str, Any]:
    made = [*rows(savings), *rows(savings, "cold")]
    return {
        "schema": 1, "model": {"path": "models/<tiny>.onnx", "sha256": "0"}, "accelerator": {"name": "edge-flex", "sha256": "1"},
        "data": "real", "metric": "top1", "max_drop": "1.0", "run_dir": "tiny.compare", "rows": made,
        "summary": summarize(made, Contest(tuple(savings), ("seeds", "cold"), 3, 12)), "notes": ["a note"], "versions": {},
    }  # fmt: skip


def test_table_says_first_where_the_agent_loses_and_fits_80_columns() -> None:
    text = tables_text(compare_tables(payload()))
    lines = text.splitlines()
    assert lines[0].startswith("composite loses to tpe-univariate, wins against random")
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "61.0% (" not in text and "62.0% (61.5-62.5)" in text
    assert "…" not in text and "note: a note" in text
    assert "a note" not in tables_text(compare_tables(payload(), notes=False))


def test_table_of_many_evaluations_and_certain_wins_fits_too() -> None:
    whole = payload({"tpe-univariate": [1.0, 1.0, 1.0], "evolution": [0.0, 0.0, 0.0]})
    whole["summary"]["budget"], whole["summary"]["third"] = 2000, 2000 / 3
    lines = tables_text(compare_tables(whole)).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_table_of_one_sampler_has_no_tests() -> None:
    text = tables_text(compare_tables(payload({"random": [0.1, 0.2, 0.3]})))
    assert "nothing to compare" in text and "Holm" not in text


def test_figure_draws_the_median_within_its_band_over_the_whole_budget() -> None:
    drawn = compare_figure(payload())
    assert len(drawn.data) == 3 * 6
    low, high, median = drawn.data[:3]
    assert list(median.x) == list(range(13)) and median.line.shape == "hv"
    assert median.name == "composite, start seeds" and high.fill == "tonexty"
    assert list(median.y) == pytest.approx([0.0] * 6 + [55.0] * 7)
    assert low.y[-1] == pytest.approx(52.5) and high.y[-1] == pytest.approx(57.5)
    assert drawn.data[11].line.dash == "dash" and drawn.data[11].line.color == median.line.color


def test_page_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    text = compare_page(payload())
    page = Page(text)
    assert page.loaded == [] and len(text) > 1_000_000
    assert "&lt;tiny&gt;.onnx" in text and "<tiny>" not in text
    assert "composite loses to tpe-univariate" in text
    found = Comparison(payload())
    assert found.save_figure(tmp_path / "curves.html").read_text().startswith("<!doctype html>")
    with pytest.raises(UsageError, match=r"ends in \.html"):
        found.save_figure(tmp_path / "curves.png")
    assert found.to_table() == tables_text(compare_tables(payload()))
