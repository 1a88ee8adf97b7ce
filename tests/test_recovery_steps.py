"""What a run says of its plan: what the recovery is worth, each step as `apply` makes it, and what each decision costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import hwc_onnx
from hwc_onnx.report.page_steps import WORDS
from hwc_onnx.result import Result
from tests.cli.tiny_case import tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("steps")
    onnx.save(MODEL, folder / "m.onnx")
    return hwc_onnx.compress(
        folder / "m.onnx", data=SAMPLES, output=folder / "out.onnx", trials=8, max_drop=60.0, gate="point"
    )


def test_the_last_step_is_the_written_file(result: Result) -> None:
    steps = result.payload["recovery_steps"]
    assert [step["step"] for step in steps] == [name for name in WORDS if name in {step["step"] for step in steps}]
    assert steps[-1]["value"] == result.payload["metric"]["at_enable_all"]
    assert {"rounded", "ranges", "layers"} <= {step["step"] for step in steps}


@pytest.mark.parametrize(("place", "recovery", "ranges"), [(0, "none", "minmax"), (1, "ranges", "mse")])
def test_unrepaired_steps_are_what_apply_makes(
    result: Result, tmp_path: Path, place: int, recovery: str, ranges: str
) -> None:
    model, plan = result.payload["model"]["path"], result.payload["run_dir"] + "/plan.json"
    applied = hwc_onnx.apply_plan(
        model, plan=plan, data=SAMPLES, recovery=recovery, ranges=ranges, output=tmp_path / "plain.onnx"
    )
    step = result.payload["recovery_steps"][place]
    assert step["drop_points"] == pytest.approx(applied.evaluation.drop_points)
    other = hwc_onnx.apply_plan(model, plan=plan, data=SAMPLES, recovery="full", output=tmp_path / "full.onnx")
    assert other.evaluation.damage != applied.evaluation.damage  # the twin: another recovery is another file


def test_damage_of_decisions_is_that_of_the_written_plan_the_worst_first(result: Result) -> None:
    rows = result.payload["damage"]
    assert rows and [row["damage"] for row in rows] == sorted((row["damage"] for row in rows), reverse=True)
    assert result.plan is not None
    for row in rows:
        if row["kind"] == "layer" and result.plan.layers[row["name"]].algorithm == row["algorithm"]:
            assert result.plan.layers[row["name"]].weight_bits == row["bits"]
