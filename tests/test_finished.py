"""A finished run is read back, not worked out again, as long as its output is the file it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hwc_onnx
from hwc_onnx.events import TrialDone
from tests.cli.tiny_case import tiny_case

MODEL, SAMPLES = tiny_case(np.random.default_rng(0))


def compress(folder: Path, trials: int = 2):
    heard = []
    result = hwc_onnx.compress(
        MODEL,
        data=SAMPLES,
        output=folder / "out.onnx",
        trials=trials,
        max_drop=60.0,
        gate="point",
        on_event=heard.append,
    )
    return result, sum(isinstance(event, TrialDone) for event in heard)


@pytest.fixture
def first(tmp_path: Path):
    return compress(tmp_path)[0]


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file() and path.suffix != ""}


def test_finished_run_gives_the_same_result_without_a_trial(first, tmp_path: Path) -> None:
    before = written(tmp_path / Path(first.to_json()["run_dir"]).name)
    again, trials = compress(tmp_path)
    assert trials == 0 and again.to_json() == first.to_json()
    assert (again.evaluation, again.plan, again.pareto) == (first.evaluation, first.plan, first.pareto)
    assert again.cost.total == pytest.approx(first.cost.total, rel=1e-12)
    assert again.proto.SerializeToString(deterministic=True) == first.proto.SerializeToString(deterministic=True)
    after = written(tmp_path / Path(first.to_json()["run_dir"]).name)
    assert {name for name in before if before[name] != after[name]} <= {"config.resolved.yaml"}


def test_finished_run_whose_output_was_touched_is_judged_again(first, tmp_path: Path) -> None:
    good = (tmp_path / "out.onnx").read_bytes()
    (tmp_path / "out.onnx").write_bytes(good[:-1] + b"?")
    again, trials = compress(tmp_path)
    assert trials == 0 and (tmp_path / "out.onnx").read_bytes() == good
    assert again.evaluation.drop_points == first.evaluation.drop_points


def test_finished_run_with_more_trials_goes_on(first, tmp_path: Path) -> None:
    longer, trials = compress(tmp_path, trials=4)
    assert trials >= 1 and longer.to_json()["search"]["evaluations"] > first.to_json()["search"]["evaluations"]
