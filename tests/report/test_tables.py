"""Tables fit 80 columns, and no figure in them is cut."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import RenderableType

from hwc_onnx.errors import UsageError
from hwc_onnx.report.console import print_tables
from hwc_onnx.report.evaluation_table import evaluation_tables
from hwc_onnx.report.profile_table import profile_tables, with_nodes
from hwc_onnx.report.result_table import markdown_rows, result_tables
from tests.report.samples import profiled, result_payload


def text(tables: list[RenderableType], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    print_tables(tables, stream)
    return stream.getvalue()


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


def test_result_table_does_not_call_int8_a_goal_that_was_met(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = result_payload()
    payload["output"]["kind"], payload["goal_met"] = "baseline_int8", True
    shown = text(result_tables(payload), monkeypatch)
    assert "limit kept, but nothing gained beyond INT8" in shown and "goal met" not in shown


def test_result_table_asks_for_real_data_when_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--data" in text(result_tables({**result_payload(), "data": "synthetic"}), monkeypatch)


def test_result_table_says_how_far_the_gate_climbed(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(trial: int | None, drop: float, passed: bool, failure: str | None = None) -> dict[str, Any]:
        return {"trial": trial, "evaluation": {"drop_points": drop}, "upper_bound_points": drop + 0.3, "passed": passed, "failure": failure}

    payload = result_payload()
    payload["looks"] = [look(4, 0.1, True), look(17, 0.6, True), look(30, 0.9, False)]
    shown = " ".join(text(result_tables(payload), monkeypatch).split())
    assert "3 plans judged from the safest on, 2 passed, of which trial 17 is written; trial 30 ended it: drop +0.90 points, upper bound +1.20" in shown
    payload["looks"] = [look(4, 0.1, False, "it did not run"), look(None, 0.0, True)]
    payload["output"] |= {"kind": "baseline_int8"}
    shown = " ".join(text(result_tables(payload), monkeypatch).split())
    assert "1 plan judged from the safest on, 0 passed; trial 4 ended it: it did not run" in shown


def test_result_table_says_that_a_limit_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = result_payload()
    assert "hardly anything" not in text(result_tables(payload), monkeypatch)
    payload["reduction_vs_int8"] = 0.003
    assert "hardly anything is saved; where it is the drop that binds, allow more with --max-drop" in " ".join(text(result_tables(payload), monkeypatch).split())
    payload["metric"] |= {"name": "sqnr", "original": 73.0, "baseline_int8": 73.04, "compressed": 72.9}
    assert "(INT8 has 73 dB already)" in " ".join(text(result_tables(payload), monkeypatch).split())


def test_result_table_of_sqnr_has_decibels_and_the_original_is_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = result_payload()
    payload["metric"] |= {"name": "sqnr", "original": 24.0, "baseline_int8": 24.0, "compressed": 21.5}
    shown = text(result_tables(payload), monkeypatch)
    assert "21.5 dB" in shown and "24 dB" in shown and "reference" in shown
    assert "reference" not in text(result_tables(result_payload()), monkeypatch)


def test_markdown_rows_have_as_many_cells_as_their_head() -> None:
    rows = markdown_rows(result_payload())
    assert {row.count("|") for row in rows} == {5}
    assert "61.0%" in "\n".join(rows)


def test_profile_table_shows_nodes_and_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = text(profile_tables([profiled()]), monkeypatch)
    assert all(len(line) <= 80 for line in shown.splitlines())
    for words in (
        "conv1_output", "9.216k", "8 nJ", "-75.0%", "-93.8%", "odd (unknown operator)", "98.0%", "bound by", "50% dram",
        "inferences per joule", "124.2M", "1 nJ 12.4%",
    ):  # fmt: skip
        assert words in shown, words


def test_profile_table_says_which_sums_can_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = " ".join(text(profile_tables([profiled()]), monkeypatch).split())
    assert "24-bit accumulators can overflow in 1 of 1 layers of this model" in shown
    assert "needed by conv1_output: 26 at most, going by its widths." in shown
    payload = profiled()
    payload["accumulators"]["this_model"] = {"checked": 0, "overflow": []}
    assert "1 of 1 layers of INT8" in " ".join(text(profile_tables([payload]), monkeypatch).split())
    payload["accumulators"]["baseline_int8"] = {"checked": 1, "overflow": []}
    assert "overflow" not in text(profile_tables([payload]), monkeypatch)


def test_profile_table_names_a_few_unmodelled_nodes_and_promises_no_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = {**profiled(), "unmodelled": []}
    assert "at most 100.0%" not in text(profile_tables([payload]), monkeypatch)
    payload["unmodelled"] = [{"key": f"node{i}", "reason": "no work is known"} for i in range(5)]
    shown = text(profile_tables([payload]), monkeypatch)
    assert "not modelled: node0, node1, node2 and 2 more (no work is known)" in " ".join(shown.split())
    assert "at most 100.0%" in shown


def test_profile_table_top_keeps_the_costliest(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = text(profile_tables(with_nodes([profiled()], top=1)), monkeypatch)
    assert "conv1_output" in shown and "pool_output" not in shown


NAMES = ("edge-flex", "eyeriss-v2-sparse", "edge-tpu-64x64", "edge-flex-fixed8")


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_profile_table_puts_accelerators_side_by_side(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    payloads = [profiled(NAMES[i % 4], 1.0 + i) for i in range(count)]
    lines = text(profile_tables(payloads), monkeypatch).splitlines()
    assert all(len(line) <= 80 for line in lines)
    line = next(line for line in lines if line.startswith("conv1_output"))
    assert "8 nJ" in line and "16 nJ" in line
    against = next(line for line in lines if "vs INT8" in line)
    assert against.split()[2:4] == ["-75.0%", "-50.0%"]
    assert sum("vs INT8" in line for line in lines) == -(-count // 4)


def test_profile_table_keeps_multiples_of_a_mac_and_joules_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = profiled("eyeriss-v2-sparse") | {"energy_unit": "normalised", "reference_mac_pj": 2.5}
    shown = text(profile_tables([profiled(), normalised]), monkeypatch)
    assert all(len(line) <= 80 for line in shown.splitlines())
    line = next(line for line in shown.splitlines() if line.startswith("conv1_output"))
    assert "8 nJ" in line and "8k MAC" in line
    assert "assuming reference_mac_pj, 2.5 pJ" in shown
    assert "do not compare" in shown
    assert "do not compare" not in text(profile_tables([profiled(), profiled("edge-tpu-64x64")]), monkeypatch)


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
