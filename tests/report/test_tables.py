"""Tables fit 80 columns, and no figure in them is cut."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import RenderableType

from hwc_onnx.errors import UsageError
from hwc_onnx.report.console import print_tables
from hwc_onnx.report.evaluation_table import evaluation_tables
from hwc_onnx.report.payloads import profile_payload
from hwc_onnx.report.profile_table import explain_tables, profile_tables, with_nodes
from hwc_onnx.report.result_table import markdown_rows, result_tables
from tests.report.samples import model_cost, result_payload


def text(tables: list[RenderableType], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    print_tables(tables, stream)
    return stream.getvalue()


def profiled(name: str = "edge-flex", scale: float = 1.0) -> dict[str, Any]:
    return profile_payload(name, model_cost(scale), model_cost(4.0), model_cost(16.0), 0.1)


def test_result_table_shows_each_figure_whole_within_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = text(result_tables(result_payload()), monkeypatch)
    assert all(len(line) <= 80 for line in shown.splitlines() if not line.startswith("goal"))
    for figure in (
        "93.21%",
        "93.18%",
        "92.54%",
        "+0.67",
        "+0.41 .. +0.93",
        "400 uJ",
        "39 uJ",
        "-61.0%",
        "-90.2%",
        "123.5 KB",
    ):
        assert figure in shown, figure
    for words in ("goal met", "95% upper bound", "demo/resnet20.hwc.onnx", "eyeriss-v2-sparse", "200 evaluations"):
        assert words in shown, words


@pytest.mark.parametrize(("kind", "words"), [("baseline_int8", "INT8 baseline"), ("original", "original, unchanged")])
def test_result_table_says_plainly_when_it_fell_back(kind: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = result_payload()
    payload["output"]["kind"], payload["goal_met"] = kind, False
    shown = text(result_tables(payload), monkeypatch)
    assert words in shown and "goal NOT met" in shown


def test_result_table_asks_for_real_data_when_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--data" in text(result_tables({**result_payload(), "data": "synthetic"}), monkeypatch)


def test_markdown_rows_have_as_many_cells_as_their_head() -> None:
    rows = markdown_rows(result_payload())
    assert {row.count("|") for row in rows} == {5}
    assert "61.0%" in "\n".join(rows)


def test_profile_table_shows_nodes_and_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = text(profile_tables([profiled()]), monkeypatch)
    assert all(len(line) <= 80 for line in shown.splitlines() if "unknown operator" not in line)
    for words in ("conv1_output", "9.216k", "8 nJ", "-75.0%", "-93.8%", "odd (unknown operator)", "98.0%"):
        assert words in shown, words


def test_profile_table_top_keeps_the_costliest(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = text(profile_tables(with_nodes([profiled()], top=1)), monkeypatch)
    assert "conv1_output" in shown and "pool_output" not in shown


def test_profile_table_puts_accelerators_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = text(profile_tables([profiled(), profiled("eyeriss-v2-sparse", 2.0)]), monkeypatch)
    line = next(line for line in shown.splitlines() if line.startswith("conv1_output"))
    assert "8 nJ" in line and "16 nJ" in line


def test_explain_shows_parts_that_sum_to_the_total(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = text(explain_tables(with_nodes([profiled()], key="conv1_output")), monkeypatch)
    assert "12.5%" in shown and "100.0%" in shown and "K8 x C8" in shown and "buffer" in shown


def test_explain_unknown_node_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'conv1_output'"):
        with_nodes([profiled()], key="conv1_outptu")


def test_evaluation_table_shows_the_drop_only_when_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    payload: dict[str, Any] = {
        "metric": "top1", "n_samples": 1000, "model": "small.onnx", "against": None, "value": 0.91, "reference": None,
        "drop_points": None, "ci95": [0.89, 0.93],
    }  # fmt: skip
    alone = text(evaluation_tables(payload), monkeypatch)
    assert "91.00%" in alone and "89.00% .. 93.00%" in alone and "drop" not in alone
    payload |= {"against": "big.onnx", "reference": 0.92, "drop_points": 1.0, "ci95": [0.5, 1.5]}
    assert "+0.50 .. +1.50" in text(evaluation_tables(payload), monkeypatch)
